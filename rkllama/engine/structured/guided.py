"""Answers that are valid by construction, from a model that cannot be constrained.

What a schema makes certain is written here; the model is run for what is open, each character that it writes
is looked at, and at the first that cannot stand it is stopped. What came before that stands, and the next run
goes on from there. So an answer costs a run for each value that it does not give right at once, and the
prompt of each is in the model's memory but for the end.

A value is never made up. Where the model does not give one, the answer ends there, and says where.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from ...types import Event, Finished, FinishReason, TextDelta
from .draft import NUMBERS, Draft, warmth
from .questions import asked_for, is_last, is_value, key_for, list_ends

if TYPE_CHECKING:
    from ...schema.grammar import Grammar, State

TRIES = 3
"""How often a model is run for a value that it does not give."""
_TRIES_IN_FORMAT = 8
"""For a text of a pattern or a format, of which a part stands already."""

_WORTH_WRITING = 8
"""Characters that are certain, from which on the model is stopped and they are written: two or three tokens,
which take it longer than a new run takes to begin."""
_SEPARATED = re.compile(r",\d")
_QUOTED = re.compile(r'"([a-z]{1,5}|-?[0-9]*(?:\.[0-9]*)?)("?)')
"""A number or a literal in quotes."""
_DATE = re.compile(r'"[0-9]{4}-[0-9]{2}-[0-9]{2}$')
_LONGEST_PROSE = 200
"""Characters of a sentence before an answer."""
_MAYBE_VALUE = re.compile(r'^\s*(?=\S)|(?=[{\["])', re.MULTILINE)
_NUMBER = frozenset("0123456789.eE+-_")
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
        """What the model replies to a question about what it has written, or to one by itself (`written` is
        ""), behind what is `begun` of its reply; that is no part of its answer.
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
    draft = Draft(grammar.for_writing(), root)
    answer = _Answer(draft, writer)
    error: str | None = None
    try:
        while not draft.is_whole:
            if not begun:
                draft.write_certain()
            begun = False
            if text := draft.settled():
                yield TextDelta(text)
            if not draft.is_whole:
                for text in answer.continued():
                    yield TextDelta(text)
    except _NotGiven as missing:
        error = f"the model gave no value that fits at {missing.path}"
    except StopString as stop:
        if not draft.is_whole:
            error = f"the answer is incomplete: it came to the stop string {stop.text!r} at {draft.path}"
    except _Ended:
        if writer.ended == "length":
            error = f"the answer is incomplete: it reached its limit of tokens at {draft.path}"
    if text := draft.settled(whole=True):
        yield TextDelta(text)
    ended = writer.ended
    if draft.is_whole or ended == "tool_calls" or ended == "repeats":
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
    """What is made of the model's runs."""

    def __init__(self, draft: Draft, writer: Writer) -> None:
        self._draft = draft
        self._writer = writer
        self._opened: State | None = None
        """Behind a quote that the model has left out."""
        self._failures: Counter[str] = Counter()
        """How often the model gave nothing that can stand, by the place where that was."""

    def continued(self) -> Iterator[str]:
        """Run the model once for what is open, and yield what is settled by that.

        Raises _NotGiven, _Ended.
        """
        draft = self._draft
        length = len(draft.text)
        refused = yield from self._run()
        if self._writer.ended in ("length", "cancelled"):
            draft.write_certain()
            if not draft.is_whole:
                raise _Ended
        elif draft.is_cycle or self._writer.ended == "repeats":
            draft.drop_repetition()
            self._settle("")
        elif self._is_clear(refused):
            return
        elif refused or len(draft.text) == length or draft.state.may_end:
            self._settle(refused)
        elif draft.state.in_string:  # it has more of it to write, though not for ever
            self._fail()

    def _run(self) -> Generator[str, None, str]:
        """Take what can stand of one run, yield what is settled, and return the text that cannot come."""
        draft = self._draft
        length = len(draft.text)
        draft.firm = draft.state
        refused = said = ""
        again = self._failures[draft.place]
        for piece in self._writer.run(draft.for_run(again), again=warmth(again)):
            if len(draft.text) == length and draft.text[-1:] == " ":
                piece = piece.lstrip(" ")
            if not draft.text:
                said, piece = said + piece, self._beginning(said + piece)
                if len(said) > _LONGEST_PROSE:
                    self._writer.stop()
            if refused:
                refused += piece
                if not self._may_separate(refused):
                    self._writer.stop()
                continue
            taken = 0 if self._is_left_empty(piece) else draft.take(piece)
            refused = piece[taken:]
            if draft.is_cycle or self._is_run_over(refused):
                self._writer.stop()
            if text := draft.settled():
                yield text
        return refused

    def _is_clear(self, refused: str) -> bool:
        """Whether what comes behind a run is certain, or nothing, and what it wrote is what it meant."""
        draft = self._draft
        if draft.is_whole:
            return not (refused[:1] in _NUMBER and draft.state.kind in NUMBERS)
        means_another = refused and (self._in_choice or draft.goes_on_as_number(refused))
        return bool(draft.certain()) and not means_another

    def _is_run_over(self, refused: str) -> bool:
        """Whether no more of the model's text is wanted."""
        if refused:
            return not self._may_separate(refused)
        if self._draft.is_whole:  # digits that cannot stand would make it another number
            return self._draft.state.kind not in NUMBERS
        return len(self._draft.certain()) >= _WORTH_WRITING and not self._draft.ends_like_a_number()

    def _may_separate(self, refused: str) -> bool:
        """Whether what cannot come may be a comma inside a number, or the quote before one or before a
        literal, which what comes next tells.
        """
        if refused == ",":
            return self._draft.state.kind in NUMBERS
        return self._awaits_bare and _QUOTED.fullmatch(refused) is not None

    @property
    def _awaits_bare(self) -> bool:
        """Whether a value comes next that has no quotes."""
        state = self._draft.state
        return state.awaits_value and state.kind in (*NUMBERS, "enum") and not state.advance('"')

    def _is_left_empty(self, piece: str) -> bool:
        """Whether the model closes a text at once that it has not opened: it gives none."""
        return self._draft.state is self._opened and piece.startswith('"')

    def _beginning(self, said: str) -> str:
        """Return from where on a text is the answer, which a sentence or a fence may come before; "" where it
        has not begun.
        """
        places = (match.end() for match in _MAYBE_VALUE.finditer(said))
        return next((said[at:] for at in places if self._draft.state.advance(said[at])), "")

    @property
    def _in_choice(self) -> bool:
        """Whether one of few given values is begun."""
        return self._draft.state.kind == "enum" and not self._draft.state.between_tokens

    def _settle(self, refused: str) -> None:
        """Decide how to go on where the model's text cannot, or where it has ended (`refused` is "")."""
        draft = self._draft
        draft.go_back(draft.firm)
        if draft.end_recursion():
            return
        if self._drop_comma(refused) or self._take_quoted(refused):
            return
        if refused[:1] == " " and _DATE.search(draft.text) and draft.take("T"):
            return  # between a date and a time
        if not refused and self._is_whole_text:
            draft.take('"')
            return
        if draft.goes_on_as_number(refused):
            draft.go_back(draft.before)
        elif self._means_another(refused) or (draft.is_fence and refused[:1] == "\n"):
            draft.go_back(draft.start)
        elif self._end_value(refused) or self._open_string(refused):
            return
        if self._fail() == 1:
            draft.go_back(draft.start)

    @property
    def _is_whole_text(self) -> bool:
        """Whether the model has ended twice in an open text, so that it has no more of it."""
        draft = self._draft
        begun = draft.state.in_open_text and draft.text[-1:] != '"'
        return begun and self._failures[draft.place] > 0

    def _means_another(self, refused: str) -> bool:
        """Whether the open key, number or choice only begins like the one that is meant."""
        if self._draft.state.in_key:
            return bool(refused)
        if self._draft.state.kind in NUMBERS:
            return refused[:1] in _NUMBER or _SEPARATED.match(refused) is not None
        return bool(refused) and self._in_choice and not self._ends_value(refused)

    def _fail(self) -> int:
        """Count a run that has not come to a value's end; return how many tries are left, after which it is
        given up.
        """
        place = self._draft.place
        self._failures[place] += 1
        left = self._tries - self._failures[place] if self._writer.varies else 0
        if left <= 0:
            self._give_up()
        return left

    @property
    def _tries(self) -> int:
        state = self._draft.state
        in_format = state.kind == "string" and state.in_string and not state.in_open_text
        return _TRIES_IN_FORMAT if in_format else TRIES

    @property
    def _is_last_try(self) -> bool:
        """Whether the model has had the tries that any value gets, or would write the same again."""
        return self._failures[self._draft.place] >= TRIES - 1 or not self._writer.varies

    def _drop_comma(self, refused: str) -> bool:
        """End at a comma behind which nothing comes but a bracket, an ellipsis or a comment."""
        if not self._draft.may_drop_comma or not self._gives_no_item(refused):
            return False
        return self._end_at_comma()

    def _gives_no_item(self, refused: str) -> bool:
        if refused[:1] == '"' and self._is_last_try:  # of a key, where only an object can come
            return self._draft.state.forced().lstrip().startswith("{")
        if refused:
            return refused[0] in _NO_ITEM and not refused[1:2].isdigit()
        return self._is_last_try

    def _ends_value(self, refused: str) -> bool:
        """Whether a value that is not in quotes ends before what cannot stand."""
        return not self._draft.state.in_string and not refused[0].isalnum()

    def _take_quoted(self, refused: str) -> bool:
        """Take a number or a literal that the model has put in quotes."""
        match = _QUOTED.match(refused)
        if match is None or not match[2] or not self._awaits_bare:
            return False
        return is_value(self._draft.state, match[1]) and self._draft.take(f"{match[1]} ") > 0

    def _end_value(self, refused: str) -> bool:
        """End a number or a list where the model goes on with something else, or not at all."""
        if refused[:1] == "," and self._draft.state.advance(","):  # the list goes round
            return self._end_list()
        if self._draft.state.may_end:  # a bare number, or a literal
            self._draft.take(" ")
            return self._draft.state.must_end
        text = self._draft.text
        if self._draft.state.in_string or text[-1:] in "[{":
            return False
        if refused[:1] in _NUMBER and text[-1:].isdigit():
            return False
        ways = [text for text in (", ", "}", "]") if self._draft.state.feed(text)[0] == len(text)]
        if len(ways) > 1:  # whether there is more is for the model to say, once more
            asked = self._failures[self._draft.place] or not self._writer.varies
            ways = ways[1:] if asked else []
        return bool(ways) and self._draft.take(ways[0]) > 0

    def _end_list(self) -> bool:
        """End a list that goes round, or that counts on and on where the model says so when it is asked."""
        draft = self._draft
        if draft.counts and not list_ends(self._writer, draft):
            draft.counted *= 2
            return draft.take(",") > 0
        return draft.take("]") > 0

    def _open_string(self, refused: str) -> bool:
        """Write the quote that the model has left out, where only a string can come, or, at last, where it
        writes what cannot.
        """
        state = self._draft.state
        if refused[:1] in ("", "]", "}") or not state.advance('"'):
            return False
        if (
            refused.startswith("```") and not self._is_last_try
        ):  # the value comes in it, if not next time
            return False
        text_only = not any(state.advance(char) for char in _OTHERS)
        if not text_only and not (self._is_last_try and refused[0] in "{["):
            return False
        if state.in_string or not (state.awaits_value or state.kind == "item"):
            return False
        taken = self._draft.take('"' if self._draft.text[-1:] in " \n[" else ' "') > 0
        self._opened = self._draft.state
        return taken

    def _give_up(self) -> None:
        """Close a string that the model leaves open, write a key in the place of one that the schema does not
        have, or ask for a value that is no free text. Raises _NotGiven.
        """
        draft = self._draft
        begun = len(draft.text) > draft.start.position + 1
        if draft.state.in_string and begun and not self._in_choice and draft.take('"'):
            return
        draft.go_back(draft.start)
        if draft.state.kind == "key" and self._take_next_key():
            return
        if draft.state.kind == "item" and ", " in draft.state.choices() and draft.take("]"):
            return
        asked = f"{draft.path} asked"
        self._failures[asked] += 1
        value = asked_for(self._writer, draft) if self._failures[asked] < TRIES else None
        if value is not None:
            draft.take(value)
            if not draft.state.between_tokens:  # no digit belongs to it any more
                draft.take("\n")
        elif draft.may_drop_comma and is_last(self._writer, draft):
            self._end_at_comma()
        elif draft.may_drop_key:
            draft.drop_key()
        else:
            raise _NotGiven(draft.path)

    def _end_at_comma(self) -> bool:
        """End a list or an object in the place of the comma that the text ends with."""
        assert self._draft.comma is not None
        self._draft.go_back(self._draft.comma)
        return any(self._draft.take(end) for end in "]}")

    def _take_next_key(self) -> bool:
        """Write the key that comes next, or end the object at its last comma, where it may end there."""
        draft = self._draft
        if draft.may_drop_comma:
            return self._end_at_comma()
        choices = draft.state.choices()
        if "}" in choices and (key := key_for(self._writer, draft)):
            return draft.take(key) > 0
        if draft.take("}"):
            return True
        # What the object has to have is the last of them.
        return bool(choices) and draft.take(choices[-1]) > 0
