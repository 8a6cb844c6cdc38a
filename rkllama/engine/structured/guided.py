"""Answers that are valid by construction, from a model that cannot be constrained.

What a schema makes certain is written here; the model is run for what is open, each character that it writes
is looked at, and at the first that cannot stand it is stopped. What came before that stands, and the next run
goes on from there. So an answer costs a run for each value that it does not give right at once, and the
prompt of each is in the model's memory but for the end.

A value is never made up. Where the model does not give one, the answer ends there, and says where.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ...types import Event, Finished, FinishReason, TextDelta

if TYPE_CHECKING:
    from ...schema.grammar import Grammar, State

TRIES = 3
"""How often a model is run for a value that it does not give."""

_WORTH_WRITING = 8
"""Characters that are certain, from which on the model is stopped and they are written: two or three tokens,
which take it longer than a new run takes to begin."""
_NUMBERS = re.compile(r"-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")
_QUOTED = re.compile(r'"(-?[0-9]*(?:\.[0-9]*)?)("?)')
_SEPARATED = re.compile(r",\d")
_UNIT, _OFTEN = 8, 4
"""Characters of what a text may say again and again, and how often, before it is kept back."""
_CYCLE, _CYCLES = 400, 80
"""Characters of what is said again and again until the model is stopped: three times, and so often that it is
that long in all.
"""
_DRAWS = 8
"""How often a model goes on with a question that has given answers, until it names one."""
_LONGEST_REPLY = 200
"""Characters of a reply to a question with given answers, and of a sentence before an answer."""
_MAYBE_VALUE = re.compile(r'^\s*(?=\S)|(?=[{\["])', re.MULTILINE)
_NUMBER = frozenset("0123456789.eE+-_")
_BLANKS = frozenset(" \n\r\t")
_NO_ITEM = frozenset("]}./#\u2026")
"""What models write behind the last comma of a list, in the place of an item."""
_OTHERS = "{[tfn-0123456789"
"""How values begin that are no strings."""


class Writer(Protocol):
    """Writes one answer in several runs of a model."""

    @property
    def varies(self) -> bool:
        """Whether a run that is made again may write something else."""

    @property
    def ended(self) -> FinishReason | Literal["repeats"]:
        """Why the last run ended; "stop" also where `stop` ended it, "repeats" where it wrote one token again
        and again.
        """

    def think(self) -> Iterator[Event]:
        """The model's thought, before the first run."""

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        """The text that the model writes behind `written`, as it comes; `again` counts the tries before."""

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        """What the model replies to a question about what it has written, behind what is `begun` of its
        reply; that is no part of its answer.
        """

    def stop(self) -> None:
        """End the run: no more text comes of it."""

    def finished(self, reason: FinishReason, error: str | None = None) -> Finished:
        """The end of the answer."""


def guided(
    grammar: Grammar, writer: Writer, *, root: str = "$", begun: bool = False
) -> Iterator[Event]:
    """A completion that is of `grammar`; with a Finished that has an `error` where a value is missing.

    `root` is what errors call the whole value. With `begun` the model writes first, before what is certain.
    """
    yield from writer.think()
    answer = _Answer(grammar.for_writing(), writer, root)
    error: str | None = None
    try:
        while not answer.is_whole:
            if not begun:
                answer.write_certain()
            begun = False
            if text := answer.settled():
                yield TextDelta(text)
            if not answer.is_whole:
                for text in answer.continued():
                    yield TextDelta(text)
    except _NotGiven as missing:
        error = f"the model gave no value that fits at {missing.path}"
    except StopString as stop:
        if not answer.is_whole:
            error = f"the answer is incomplete: it came to the stop string {stop.text!r} at {answer.path}"
    except _Ended:
        if writer.ended == "length":
            error = f"the answer is incomplete: it reached its limit of tokens at {answer.path}"
    if text := answer.settled(whole=True):
        yield TextDelta(text)
    ended = writer.ended
    if answer.is_whole or ended == "tool_calls" or ended == "repeats":
        ended = "stop"
    yield writer.finished(ended, error)


class StopString(Exception):
    """What a Writer's run raises at its end where the caller wants the answer to end there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _NotGiven(Exception):
    """The model does not give a value."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Ended(Exception):
    """No more tokens may come, or the caller wants none."""


class _Answer:
    """The text so far, and where in it one may go back to."""

    def __init__(self, grammar: Grammar, writer: Writer, root: str) -> None:
        self._grammar = grammar
        self._root = root
        self._writer = writer
        self._text = ""
        self._state = self._start = grammar.start()
        self._before: State = self._start
        """Where the last value began, when it has ended; `_start` is where the open one did."""
        self._firm = self._start
        """Where the last character ends that is whole and no blank, or the run began."""
        self._comma: State | None = None
        """What stands before the comma that the text ends with."""
        self._opened: State | None = None
        """Behind a quote that the model has left out."""
        self._sent = 0
        self._failures: Counter[str] = Counter()
        """How often the model gave nothing that can stand, by the place where that was."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing can come any more."""
        return self._state.must_end

    @property
    def path(self) -> str:
        """Where in the value the text ends."""
        return self._root + self._state.path[1:]

    def settled(self, *, whole: bool = False) -> str:
        """Return what is new of the text and will not be taken back; with `whole` all that is new."""
        end = len(self._text) if whole else self._settled_length()
        text, self._sent = self._text[self._sent : end], max(self._sent, end)
        return text

    def _settled_length(self) -> int:
        if not self._grammar.decided_by_prefix and not self.is_whole:
            return 0
        if self._state.in_open_text and not self._text.endswith('"'):
            return min(self._firm.position, _length_without_repetition(self._text))
        if self._ends_like_a_number():
            return self._before.position
        settled = min(self._start.position, self._firm.position)
        return settled if self._comma is None else min(settled, self._comma.position)

    def _ends_like_a_number(self) -> bool:
        """Whether what is taken for a value's end may be a separator in a number: 1,200 or 1 200."""
        ends = self._text[-1:] in (",", " ") and self._text[-2:-1].isdigit()
        return ends and not self._state.in_string

    def _goes_on_as_number(self, refused: str) -> bool:
        return refused[:1].isdigit() and self._ends_like_a_number()

    def write_certain(self) -> None:
        """Write what has to come."""
        text = self._certain()
        if text.startswith(","):
            self._go_back(self._firm)  # no blank stands before a comma
        self._take(text)

    def _certain(self) -> str:
        """Return what has to come, but not the end of a string or a number: where the model would go on, it
        means another value than the one that it has written.
        """
        text = self._state.forced()
        if self._may_drop_comma:  # whether there is another key is for the model to say
            return ""
        if self._state.between_tokens or self._state.kind not in (
            "string",
            "number",
            "integer",
            "any",
        ):
            return text
        return text.partition('"')[0] if self._state.in_string else ""

    def _take(self, text: str) -> int:
        """Add what of a text can come; return how many characters that is."""
        taken = 0
        for char in text:
            state = self._state.advance(char)
            if state is None or (char == "," and self._goes_round(text[:taken])):
                break
            before, self._state = self._state, state
            taken += 1
            if char == "," and not before.in_string:
                self._comma = before
            elif char not in _BLANKS and not _opens_key(before, state):
                self._comma = None
            if not state.in_escape if state.in_string else char not in _BLANKS:
                self._firm = state
            if state.between_tokens:
                if char not in _BLANKS or not before.between_tokens:
                    self._before = self._start
                self._start = state
                if state.must_end:
                    break
        self._text += text[:taken]
        return taken

    def _goes_round(self, more: str) -> bool:
        """Whether a list that may end says the same again and again."""
        state = self._state
        may_end = state.advance("]") is not None and not state.in_string
        return may_end and _is_cycle(self._text + more)

    def _go_back(self, state: State) -> None:
        """Take back what stands behind a place, unless it has left."""
        if state.position >= self._sent:
            self._text = self._text[: state.position]
            self._state = self._firm = state
            if self._comma is not None and state.position <= self._comma.position:
                self._comma = None
            if state.between_tokens:
                self._start = state
            elif self._start.position > state.position:
                self._start = self._before

    @property
    def _place(self) -> str:
        """What tells an open value, the next key or item from others; alike however often it is tried."""
        path = self._state.path
        if self._state.kind in ("key", "item", "end"):
            return f"{path} {len(self._text.rstrip())}"
        return path

    # --- A run ---------------------------------------------------------------------------------------

    def continued(self) -> Iterator[str]:
        """Run the model once for what is open, and yield what is settled by that.

        Raises _NotGiven, _Ended.
        """
        refused = before = ""
        cyclic = False
        length = len(self._text)
        self._firm = self._state
        again = self._failures[self._place]
        # A blank is the begin of the next token to most models: behind one that stands alone they err,
        # and so go another way.
        written = self._text if again % 2 else self._text.rstrip(" ")
        for piece in self._writer.run(written, again=again):
            if len(self._text) == length and self._text[-1:] == " ":
                piece = piece.lstrip(" ")
            if not self._text:
                before, piece = before + piece, self._beginning(before + piece)
                if len(before) > _LONGEST_REPLY:
                    self._writer.stop()
            if refused:
                refused += piece
                if not self._may_separate(refused):
                    self._writer.stop()
                continue
            taken = 0 if self._is_left_empty(piece) else self._take(piece)
            refused = piece[taken:]
            cyclic = cyclic or (self._state.in_open_text and _is_cycle(self._text))
            if cyclic or self._is_run_over(refused):
                self._writer.stop()
            if text := self.settled():
                yield text
        if self._writer.ended in ("length", "cancelled"):
            self.write_certain()
            if not self.is_whole:
                raise _Ended
            return
        if cyclic or self._writer.ended == "repeats":
            self._drop_repetition()
            self._settle("")
            return
        goes_on = refused[:1] in _NUMBER and self._state.kind in ("number", "integer")
        if self.is_whole and not goes_on:
            return
        means_another = refused and (self._in_choice or self._goes_on_as_number(refused))
        if self._certain() and not means_another:
            return
        if refused or len(self._text) == length or self._state.may_end:
            self._settle(refused)

    def _drop_repetition(self) -> None:
        """Take back what the model has written again and again, as far as it has not left."""
        length = max(_length_without_repetition(self._text), self._sent, self._start.position)
        self._go_back(self._start.feed(self._text[self._start.position : length])[1])

    def _is_run_over(self, refused: str) -> bool:
        """Whether no more of the model's text is wanted."""
        if refused:
            return not self._may_separate(refused)
        if (
            self.is_whole
        ):  # a number may have more digits than can stand, which makes it another one
            return self._state.kind not in ("number", "integer")
        return len(self._certain()) >= _WORTH_WRITING and not self._ends_like_a_number()

    def _may_separate(self, refused: str) -> bool:
        """Whether what cannot come may be a comma inside a number, or the quote before one, which what comes
        next tells.
        """
        if self._state.kind not in ("number", "integer"):
            return False
        return refused == "," or (self._state.awaits_value and bool(_QUOTED.fullmatch(refused)))

    def _is_left_empty(self, piece: str) -> bool:
        """Whether the model closes a text at once that it has not opened: it gives none."""
        return self._state is self._opened and piece.startswith('"')

    def _beginning(self, said: str) -> str:
        """Return from where on a text is the answer, which a sentence or a fence may come before; "" where it
        has not begun.
        """
        places = (match.end() for match in _MAYBE_VALUE.finditer(said))
        return next((said[at:] for at in places if self._state.advance(said[at])), "")

    @property
    def _in_choice(self) -> bool:
        """Whether one of few given values is begun."""
        return self._state.kind == "enum" and not self._state.between_tokens

    def _settle(self, refused: str) -> None:
        """Decide how to go on where the model's text cannot, or where it has ended (`refused` is "")."""
        self._go_back(self._firm)
        if self._drop_comma(refused):
            return
        if self._take_quoted(refused):
            return
        if self._goes_on_as_number(refused):
            self._go_back(self._before)
        elif (refused[:1] in _NUMBER or _SEPARATED.match(refused)) and self._state.kind in (
            "number",
            "integer",
        ):
            self._go_back(self._start)  # it means another number
        elif refused and self._in_choice and not self._ends_value(refused):
            self._go_back(self._start)  # it means another value, which begins alike
        elif (
            (refused[:1] == "," and self._end_list())
            or self._end_value(refused)
            or (refused[:1] not in ("", "]", "}") and self._open_string())
        ):
            return
        place = self._place
        self._failures[place] += 1
        if self._failures[place] < TRIES and self._writer.varies:
            if self._failures[place] == TRIES - 1:
                self._go_back(self._start)
            return
        self._give_up()

    @property
    def _may_drop_comma(self) -> bool:
        """Whether a list or an object could have ended in the place of the comma that the text ends with."""
        comma = self._comma
        return comma is not None and any(comma.feed(end)[0] for end in "]}")

    def _drop_comma(self, refused: str) -> bool:
        """End at a comma behind which nothing comes but a bracket, an ellipsis or a comment."""
        if not self._may_drop_comma or not self._gives_no_item(refused):
            return False
        assert self._comma is not None
        self._go_back(self._comma)
        return any(self._take(end) for end in "]}")

    def _gives_no_item(self, refused: str) -> bool:
        if refused:
            return refused[0] in _NO_ITEM and not refused[1:2].isdigit()
        return self._failures[self._place] >= TRIES - 1 or not self._writer.varies

    def _ends_value(self, refused: str) -> bool:
        """Whether a value that is not in quotes ends before what cannot stand."""
        return not self._state.in_string and not refused[0].isalnum()

    def _take_quoted(self, refused: str) -> bool:
        """Take a number that the model has put in quotes."""
        if not (self._state.awaits_value and self._state.kind in ("number", "integer")):
            return False
        match = _QUOTED.match(refused)
        number = match[1] if match and match[2] else ""
        return self._is_value(number) and self._take(f"{number} ") > 0

    def _end_list(self) -> bool:
        """End a list that goes round: its comma could have come."""
        return self._state.advance(",") is not None and self._take("]") > 0

    def _end_value(self, refused: str) -> bool:
        """End a number or a list where the model goes on with something else, or not at all."""
        if self._state.may_end:  # a bare number, or a literal
            self._take(" ")
            return self._state.must_end
        if self._state.in_string or refused[:1] in _NUMBER or self._text[-1:] in "[{":
            return False
        ways = [text for text in (", ", "}", "]") if self._state.feed(text)[0] == len(text)]
        if len(ways) > 1:  # whether there is more is for the model to say, once more
            asked = self._failures[self._place] or not self._writer.varies
            ways = ways[1:] if asked else []
        return bool(ways) and self._take(ways[0]) > 0

    def _open_string(self) -> bool:
        """Write the quote that the model has left out, where only a string can come."""
        state = self._state
        if state.in_string or any(state.advance(char) for char in _OTHERS):
            return False
        if not state.awaits_value and state.kind != "item":
            return False
        taken = self._take('"' if self._text[-1:] in " \n[" else ' "') > 0
        self._opened = self._state
        return taken

    def _give_up(self) -> None:
        """Close a string that the model leaves open, write a key in the place of one that the schema does not
        have, or ask for a value that is no free text. Raises _NotGiven.
        """
        begun = len(self._text) > self._start.position + 1
        if self._state.in_string and begun and not self._in_choice and self._take('"'):
            return
        self._go_back(self._start)
        if self._state.kind == "key" and self._take_next_key():
            return
        choices = [text for text in self._state.choices() if text != "]"]
        if choices and self._state.kind in ("enum", "item"):
            self._take(self._chosen(choices))
        elif self._state.kind in ("number", "integer", "string", "any"):
            self._take(self._told())
        else:
            raise _NotGiven(self.path)

    def _take_next_key(self) -> bool:
        """Write the key that comes next, or end the object at its last comma, where it may end there."""
        if self._may_drop_comma:
            assert self._comma is not None
            self._go_back(self._comma)
            return self._take("}") > 0
        choices = self._state.choices()
        return bool(choices) and self._take(_next_key(choices)) > 0

    def _chosen(self, choices: Sequence[str]) -> str:
        """Return the one of the choices that the model names when it is asked. Raises _NotGiven."""
        values = {_value_of(choice): choice for choice in choices}
        question = (
            f"For {self.path} choose one of these and answer with nothing else: {', '.join(values)}"
        )
        said = _value_of(self._reply(question)).casefold()
        named = [value for value in values if value.casefold() == said]
        named = named or [value for value in values if value.casefold() in said]
        for again in range(_DRAWS if self._writer.varies else 1):
            if len(named) != 1:
                named = self._drawn(question, values, again)
        if len(named) != 1:
            raise _NotGiven(self.path)
        return values[named[0]]

    def _drawn(self, question: str, values: dict[str, str], again: int) -> list[str]:
        """Return those of the values with which the model goes on behind the question."""
        quote = '"' if all(choice.startswith('"') for choice in values.values()) else ""
        named, said = list(values), ""
        for piece in self._writer.ask(self._text, question, begun=self._text + quote, again=again):
            said += piece
            begin = said.strip().casefold()
            named = [v for v in values if v.casefold().startswith(begin[: len(v)])]
            if len(named) < 2 or len(said) > _LONGEST_REPLY:
                self._writer.stop()
        return named if said.strip() else []

    def _told(self) -> str:
        """Return the value that the model tells when it is asked. Raises _NotGiven."""
        what = "a number" if self._state.kind in ("number", "integer") else "the value"
        reply = self._reply(f"For {self.path} answer with {what} and nothing else.")
        for texts in _readings(reply):
            fitting = set(filter(self._is_value, texts))
            if len(fitting) == 1:
                return fitting.pop()
        raise _NotGiven(self.path)

    def _is_value(self, text: str) -> bool:
        """Whether a text is a whole value here, and not just any text in quotes."""
        if text.startswith('"') and self._state.feed('"')[1].in_open_text:
            return False
        count, state = self._state.feed(text)
        return 0 < count == len(text) and any(state.advance(char) for char in " ,}]")

    def _reply(self, question: str) -> str:
        """Return what the model says to a question."""
        reply = ""
        for piece in self._writer.ask(self._text, question):
            reply += piece
            if len(reply) > _LONGEST_REPLY:
                self._writer.stop()
        return reply


def _numbers(text: str) -> set[str]:
    """Return the numbers in a text, without their separators."""
    return {match[0].replace(",", "") for match in _NUMBERS.finditer(text)}


def _readings(reply: str) -> Iterator[set[str]]:
    """Yield what the value in a reply may be: all of it, the numbers in it, its words."""
    yield {reply.strip().rstrip(".")}
    yield _numbers(reply)
    yield {json.dumps(_value_of(reply), ensure_ascii=False)}
    yield {json.dumps(word.strip(".,;:'\"()"), ensure_ascii=False) for word in reply.split()}


def _opens_key(before: State, state: State) -> bool:
    """Whether the character between two places is the quote before a key."""
    return state.kind == "key" and state.in_string and not before.in_string


def _next_key(choices: Sequence[str]) -> str:
    """Return the key that comes next: what the object has to have, which is the last of the choices, else the
    first one.
    """
    return choices[0] if "}" in choices else choices[-1]


def _value_of(text: str) -> str:
    """Return a text without blanks, quotes and full stop."""
    stripped = text.strip().rstrip(".")
    try:
        value = json.loads(stripped)
    except ValueError:
        return stripped.strip('"')
    return value if isinstance(value, str) else stripped


def _is_cycle(text: str) -> bool:
    """Return whether a text ends with the same again and again."""
    for unit in range(1, min(_CYCLE, len(text) // 3) + 1):
        if text[-1 - unit] != text[-1]:
            continue
        times = max(3, _CYCLES // unit)
        if text.endswith(text[-unit:] * times):
            return True
    return False


def _length_without_repetition(text: str) -> int:
    """Return how long a text is without what it says again and again at its end."""
    for unit in range(1, _UNIT + 1):
        at = len(text)
        while at > unit and text[at - 1] == text[at - 1 - unit]:
            at -= 1
        if len(text) - at >= _OFTEN * unit:
            return at - unit
    return len(text)
