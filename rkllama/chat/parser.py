"""The streaming state machine between a model's text and the events of an answer.

Pieces of text go in as they come; text, thinking and tool calls come out. Only what may turn out to be
part of a marker is held back, and the events, joined, are the same however the text was cut.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..types import Event, ReasoningDelta, TextDelta, Tool, ToolCall, ToolCallDelta
from .tool_calls.arguments import Grammars
from .tool_calls.forms import Form
from .tool_calls.outcome import Found, Stray
from .tool_calls.plain import FORMS as PLAIN
from .tool_calls.reader import CallReader
from .tool_calls.table import FORMATS, MARKED

_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_call_id() -> str:
    """Return an id of "call_" and nine letters or digits; templates with short ids take the last nine."""
    return "call_" + "".join(_ID_LETTERS[byte % 36] for byte in os.urandom(9))


class _Match(NamedTuple):
    """A marker in a text, and where it stands."""

    start: int
    end: int
    marker: str


class _Markers:
    """Texts to look for in a stream: found as soon as one is complete, held back while one may be."""

    __slots__ = ("_longest", "_sorted", "_texts", "may_begin")

    def __init__(self, texts: Iterable[str], also: str = "") -> None:
        self._texts = tuple(dict.fromkeys(texts))
        self._sorted = sorted(self._texts)
        self._longest = max(map(len, self._texts), default=1) - 1
        first = "".join({text[0] for text in self._texts} | set(also))
        pattern = f"[{re.escape(first)}]" if first else r"(?!)"
        self.may_begin = re.compile(pattern).search
        """Whether a piece of text has a character with which a marker, or one of `also`, begins."""

    def find(self, text: str) -> _Match | None:
        """The marker that is complete first; of several, the longest."""
        best: _Match | None = None
        for marker in self._texts:
            start = text.find(marker)
            if start >= 0:
                match = _Match(start, start + len(marker), marker)
                if best is None or (match.end, match.start) < (best.end, best.start):
                    best = match
        return best

    def safe(self, text: str, final: bool) -> int:
        """Return how much of a text without a whole marker cannot be part of one."""
        if not final:
            for size in range(min(self._longest, len(text)), 0, -1):
                if self._begins_with(text[-size:]):
                    return len(text) - size
        return len(text)

    def _begins_with(self, text: str) -> bool:
        """Return whether a marker goes on after `text`: the next one in their order then begins with it."""
        place = bisect_right(self._sorted, text)
        return place < len(self._sorted) and self._sorted[place].startswith(text)


class StrayArguments(NamedTuple):
    """The end of the text so far: arguments of a call that cannot go on as they do. See Stray."""

    tool: str
    text: str
    closers: str
    whole: bool
    begun: str
    """The text as JSON."""


class AnswerParser:
    """Splits one answer. `stop` ends its text (never inside the thinking), `end` ends it anywhere.

    `thinking` are the markers of the model's thinking, which counts at the beginning of the answer
    only; `thinking_open`: the prompt ended inside it. Tool calls are looked for where `tools` are
    given; with a `tool_format` that has markers of its own, bare JSON counts at the beginning only.
    With `grammars` the arguments of calls are looked at: see `stray`.
    """

    __slots__ = (
        "_bare_anywhere",
        "_beginning",
        "_blank_line",
        "_calls",
        "_closers",
        "_ends",
        "_events",
        "_final",
        "_forms",
        "_grammars",
        "_in_text",
        "_in_thought",
        "_new_id",
        "_pending",
        "_reader",
        "_step",
        "_stop",
        "_thinking",
        "_tools",
        "stopped",
        "stray",
    )

    def __init__(
        self,
        *,
        stop: Sequence[str] = (),
        end: Sequence[str] = (),
        thinking: tuple[str, str] | None = ("<think>", "</think>"),
        thinking_open: bool = False,
        tools: Sequence[Tool] = (),
        tool_format: str | None = None,
        grammars: Grammars | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self.stopped: str | None = None
        """The text that ended the answer, None while it goes on; nothing comes after it."""
        self.stray: StrayArguments | None = None
        """Arguments that are not as their tool takes them; what comes after them is not looked at, until
        others are put in their place.
        """
        self._stop, self._ends = [*filter(None, stop)], [*filter(None, end)]
        self._thinking = thinking
        self._tools = {tool.name: tool.parameters for tool in tools}
        self._forms = {form.opener: form for form in MARKED} if tools else {}
        format = FORMATS.get(tool_format or "")
        self._bare_anywhere = format is None or format.bare_anywhere
        self._grammars = grammars
        self._new_id = new_id
        self._in_text = _Markers(
            [*self._stop, *self._ends, *self._forms], also="{[`" if tools else ""
        )
        self._in_thought = _Markers([*self._ends, *(thinking[1:] if thinking else ())])
        self._pending = ""
        self._events: list[Event] = []
        self._final = False
        self._blank_line = self._beginning = True
        self._calls = 0
        self._reader: CallReader | None = None
        self._closers: tuple[str, ...] = ()
        self._step = AnswerParser._at_start if thinking else AnswerParser._text
        if thinking and thinking_open:
            self._step = AnswerParser._before_thought

    @property
    def ended(self) -> bool:
        """Whether one of `end` ended the answer, rather than one of `stop`."""
        return self.stopped in self._ends

    def feed(self, text: str) -> list[Event]:
        """Return the events that `text` completes."""
        if (
            self._step is AnswerParser._text
            and not self._pending
            and not self._in_text.may_begin(text)
        ):
            if not text or self.stopped is not None:
                return []
            if self._tools:
                self._watch(text)
            return [TextDelta(text)]
        return self._run(text, final=False)

    def finish(self) -> list[Event]:
        """Return the events of what was still held back, at the end of the answer."""
        return self._run("", final=True)

    def check_end(self) -> None:
        """See whether the text may end here: not in the midst of arguments, which are `stray` then."""
        if self._step is AnswerParser._call and self._reader is not None:
            self._note_stray(self._reader.unfinished(self._pending))

    def expect_no_calls(self) -> None:
        """Take what comes for text, also what has begun like a call."""
        self._tools, self._forms = {}, {}
        self._in_text = _Markers([*self._stop, *self._ends])
        if self._step in (AnswerParser._call, AnswerParser._after_call):
            self._step = AnswerParser._text

    def put(self, arguments: str) -> list[Event]:
        """Have arguments in the place of the stray ones, as far as they go; return what is complete then."""
        assert self.stray is not None
        assert self._reader is not None
        start = len(self._pending) - len(self.stray.text)
        self._reader.go_on(start + len(arguments), whole=self.stray.whole)
        self._pending, self.stray = self._pending[:start], None
        return self._run(arguments, final=False)

    def _run(self, text: str, final: bool) -> list[Event]:
        self._events, self._final = [], final
        self._pending += text
        while self._pending and self.stopped is None and self._step(self):
            pass
        if self.stopped is not None:
            self._pending = ""
        return self._events

    # Each step takes what it can from the beginning of `_pending`, which is not empty, and may set the
    # next one. It returns whether to go on: False where more text is needed first.

    def _at_start(self) -> bool:
        """Handle the text before the first word, which may open the thinking."""
        opener = self._thinking[0] if self._thinking else ""
        begun = self._pending.lstrip()
        if begun.startswith(opener):
            self._pending = begun[len(opener) :]
            self._step = AnswerParser._in_thinking
        elif self._final or not opener.startswith(begun):
            self._step = AnswerParser._text
        else:
            return False
        return True

    def _before_thought(self) -> bool:
        """Handle thinking that the prompt opened; some models open it once more."""
        begun = self._pending.lstrip()
        opener = self._thinking[0] if self._thinking else ""
        if not self._final and len(begun) < len(opener) and opener.startswith(begun):
            return False
        self._pending = begun.removeprefix(opener)
        self._step = AnswerParser._in_thinking
        return True

    def _in_thinking(self) -> bool:
        """Handle the text between the opener and the first word of a thought."""
        self._pending = self._pending.lstrip()
        if self._pending:
            self._step = AnswerParser._thought
        return True

    def _thought(self) -> bool:
        match = self._in_thought.find(self._pending)
        cut = match.start if match else self._in_thought.safe(self._pending, self._final)
        if cut:
            self._events.append(ReasoningDelta(self._pending[:cut]))
        self._pending = self._pending[match.end if match else cut :]
        if match is None:
            return False
        if match.marker in self._ends:
            self.stopped = match.marker
        self._step = AnswerParser._after_thought
        return True

    def _after_thought(self) -> bool:
        self._pending = self._pending.lstrip()
        if self._pending:
            self._step = AnswerParser._text
        return True

    def _text(self) -> bool:
        match = self._in_text.find(self._pending)
        limit = match.start if match else self._in_text.safe(self._pending, self._final)
        if self._tools and (candidate := self._find_plain(limit)):
            self._emit(candidate[0])
            return self._begin_call(candidate[1])
        self._emit(limit)
        if match is None:
            return False
        if match.marker in self._forms:
            return self._begin_call(self._forms[match.marker])
        self.stopped = match.marker
        return True

    def _find_plain(self, limit: int) -> tuple[int, Form | None] | None:
        """Return where before `limit` a line begins as a call without markers does, or (None) as it may
        yet.
        """
        for line in _LINE_START.finditer(self._pending, 0, limit):
            if line.start() == 0 and not self._blank_line:
                continue
            before, rest = self._pending[: line.end()], self._pending[line.end() :]
            if not self._bare_anywhere and (before.strip() or not self._beginning):
                return None
            for form in PLAIN:
                if rest.startswith(form.opener):
                    return line.end(), form
                if not self._final and form.opener.startswith(rest):
                    return line.end(), None
        return None

    def _begin_call(self, form: Form | None) -> bool:
        if form is None:
            return False
        self._reader = CallReader(form, self._tools, self._grammars)
        self._step = AnswerParser._call
        return True

    def _call(self) -> bool:
        assert self._reader is not None
        outcome = self._reader.read(self._pending)
        if isinstance(outcome, Found):
            for name, arguments in outcome.calls:
                call = ToolCall(id=self._new_id(), name=name, arguments=arguments)
                self._events.append(ToolCallDelta(self._calls, call))
                self._calls += 1
            self._pending = self._pending[outcome.end :]
            self._closers = self._reader.form.closers
            self._step = AnswerParser._after_call
        elif isinstance(outcome, Stray) and not self._final:
            self._note_stray(outcome)
            return False
        elif self._final or outcome == "no":
            self._step = AnswerParser._text
            self._emit(len(self._reader.form.opener))
        else:
            return False
        return True

    def _note_stray(self, stray: Stray | None) -> None:
        if stray is not None:
            text = self._pending[stray.start :]
            begun = text if stray.begun is None else stray.begun
            self.stray = StrayArguments(stray.tool, text, stray.closers, stray.whole, begun)

    def _after_call(self) -> bool:
        """Drop the closers, in their order, and the space before another call."""
        rest = self._pending.lstrip()
        for number, closer in enumerate(self._closers):
            if rest.startswith(closer):
                self._pending = rest[len(closer) :]
                self._closers = self._closers[number + 1 :]
                return True
        openers = (*self._forms, *(form.opener for form in PLAIN))
        if not self._final and any(
            marker.startswith(rest) for marker in (*self._closers, *openers)
        ):
            return False
        if not rest or any(rest.startswith(opener) for opener in openers):
            self._pending = rest
        self._blank_line = self._beginning = True
        self._step = AnswerParser._text
        return True

    def _emit(self, end: int) -> None:
        if end:
            text, self._pending = self._pending[:end], self._pending[end:]
            self._watch(text)
            self._events.append(TextDelta(text))

    def _watch(self, text: str) -> None:
        """Keep track of where a call without markers may begin."""
        _, newline, line = text.rpartition("\n")
        self._blank_line = bool(newline or self._blank_line) and not line.strip()
        self._beginning = self._beginning and not text.strip()


_LINE_START = re.compile(r"^[ \t\r]*(?=[{\[`])", re.MULTILINE)
