"""The text of an answer as it is written, what of it has left, and the places in it to go back to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...schema.grammar import Grammar, State

NUMBERS = frozenset(("number", "integer"))
"""The kinds of values that are bare numbers."""
BLANKS = frozenset(" \n\r\t")
_FENCE = re.compile(r'\s*"`{1,3}[a-z]{0,10}')
_UNIT, _OFTEN = 8, 4
"""Characters of what a text may say again and again, and how often, before it is kept back."""
_CYCLE, _CYCLES = 400, 80
"""Characters of what is said again and again until the model is stopped: three times, and so often that it is
that long in all.
"""


_WARMEST = 3
_COUNTED = 16
_LONGEST_ITEM = 100
_ITEM = re.compile(r'"([^"]*[0-9][^"]*)"')
_DIGITS = re.compile(r"[0-9]+")
_INDEX = re.compile(r"\[[0-9]+\]")
_NESTED = 8
"""How often a key stands in itself until it does not come again, where nothing requires it."""
_ALL_BUT = 2
"""Letters of a key that may be missing where it is still the one that the model means."""


class _Key(NamedTuple):
    """A key that nothing requires, and behind which there is no value yet."""

    name: str
    before: State
    comma: State | None
    """What stands before the comma before it."""


class Draft:
    """The text so far, and where in it one may go back to."""

    def __init__(self, grammar: Grammar, root: str) -> None:
        self._grammar = grammar
        self._root = root
        self.text = ""
        self.state = self.start = grammar.start()
        self.before: State = self.start
        """Where the last value began, when it has ended; `start` is where the open one did."""
        self.firm = self.start
        """Where the last character ends that is whole and no blank, or the run began."""
        self._comma: State | None = None
        """What stands before the last comma."""
        self._before_key = self.start
        """What stands before the last key."""
        self._optional: _Key | None = None
        self._recursive: set[str] = set()
        """Keys that have stood in themselves again and again."""
        self.counts = False
        """Whether what cannot come is a comma in a list that counts on and on: it could."""
        self.counted = _COUNTED
        """Items alike but for their numbers up to which a list may come."""
        self._sent = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing can come any more."""
        return self.state.must_end

    @property
    def path(self) -> str:
        """Where in the value the text ends."""
        return self._root + self.state.path[1:]

    def settled(self, *, whole: bool = False) -> str:
        """Return what is new of the text and will not be taken back; with `whole` all that is new."""
        end = len(self.text) if whole else self._settled_length()
        text, self._sent = self.text[self._sent : end], max(self._sent, end)
        return text

    def _settled_length(self) -> int:
        if not self._grammar.decided_by_prefix and not self.is_whole:
            return 0
        if self.state.in_open_text and not self.text.endswith('"') and not self.is_fence:
            return min(self.firm.position, _length_without_repetition(self.text))
        if self.ends_like_a_number():
            return self.before.position
        settled = min(self.start.position, self.firm.position)
        if self.may_drop_key:
            return min(settled, self._end_without_key())
        comma = self._comma
        if comma is None or self.text[comma.position + 1 : self.start.position].strip():
            return settled
        return min(settled, comma.position)  # nothing but a begun value is behind it

    def ends_like_a_number(self) -> bool:
        """Whether what is taken for a value's end may be a separator in a number: 1,200 or 1 200."""
        ends = self.text[-1:] in (",", " ") and self.text[-2:-1].isdigit()
        return ends and not self.state.in_string

    def goes_on_as_number(self, refused: str) -> bool:
        """Whether what cannot come are more digits of what was taken for a whole number."""
        return refused[:1].isdigit() and self.ends_like_a_number()

    def for_run(self, again: int) -> str:
        """Return the text as a model is to go on behind it, after so many tries.

        A blank is the begin of the next token to most models: behind one that stands alone they err, and so
        go another way on every second try.
        """
        return self.text if again % 2 else self.text.rstrip(" ")

    def write_certain(self) -> None:
        """Write what has to come."""
        text = self.certain()
        if text.startswith(","):
            self.go_back(self.firm)  # no blank stands before a comma
        self.take(text)

    def certain(self) -> str:
        """Return what has to come, but not the end of a string or a number: where the model would go on, it
        means another value than the one that it has written.
        """
        text = self.state.forced()
        if self.may_drop_comma:  # whether there is another key is for the model to say
            return ""
        if self.state.in_key:
            return text if self._is_meant(text) and not self._in_recursion() else ""
        if self.state.between_tokens or self.state.kind not in {"string", "any", *NUMBERS}:
            return text
        return text.partition('"')[0] if self.state.in_string else ""

    def _is_meant(self, rest: str) -> bool:
        """Whether the open key is the one that ends with this: the object has to have it, or the model has
        written all of it but a letter or two.
        """
        state: State | None = self.state
        for char in rest:
            state = state.advance(char) if state else None
            if state is not None and not state.in_key:
                missing = len(state.key) - len(self.state.key)
                all_but = missing <= min(_ALL_BUT, len(self.state.key) - 1)
                return all_but or self._before_key.needs_key(state.key)
        return False

    def take(self, text: str) -> int:
        """Add what of a text can come, in small letters or capitals where only those can come;
        return how many characters that is.
        """
        added = ""
        for char in text:
            state = self.state.advance(char)
            if state is None and self.state.in_string and not self.state.in_escape:
                char = char.swapcase()
                state = self.state.advance(char) if len(char) == 1 else None
            if state is None or (char == "," and self._goes_round(added)) or self._recurs(state):
                break
            before, self.state = self.state, state
            added += char
            if char == "," and not before.in_string:
                self._comma = before
            self._note_key(before, char)
            if not state.in_escape if state.in_string else char not in BLANKS:
                self.firm = state
            if state.between_tokens:
                if char not in BLANKS or not before.between_tokens:
                    self.before = self.start
                self.start = state
                if state.must_end:
                    break
        self.text += added
        return len(added)

    def _note_key(self, before: State, char: str) -> None:
        """Keep what the last character of the text says of a key."""
        state = self.state
        if state.in_key:
            if not before.in_key:
                self._before_key = before
        elif before.in_key:
            self._note_optional(state.key)
        elif state.between_tokens and (not before.between_tokens or char in "]}"):
            self._optional = None  # a value has ended

    def _note_optional(self, name: str) -> None:
        before = self._before_key
        if not before.needs_key(name):
            self._optional = _Key(name, before, self._comma if before.follows_comma else None)
        elif self._optional and self._optional.before.position >= before.position:
            self._optional = None

    @property
    def may_drop_key(self) -> bool:
        """Whether the open value is the first behind a key that nothing requires, and that has not left."""
        key = self._optional
        if key is None or len(self.text) <= key.before.position:
            return False
        return self._end_without_key() >= self._sent

    def _end_without_key(self) -> int:
        assert self._optional is not None
        return (self._optional.comma or self._optional.before).position

    def drop_key(self) -> None:
        """Take such a key back; it does not come again."""
        key = self._optional
        assert key is not None
        self.go_back(key.before)
        self.state = self.start = self.firm = key.before.without_key(key.name)
        self._comma = key.comma or self._comma

    def _recurs(self, state: State) -> bool:
        """Whether a key ends that nothing requires, and that stands in itself again and again."""
        if not self.state.in_key or state.in_key or self._before_key.needs_key(state.key):
            return False
        times = 2 if state.key in self._recursive else _NESTED
        names = _INDEX.sub("", state.path).split(".")[-times:]
        return len(names) == times and len(set(names)) == 1

    def _in_recursion(self) -> bool:
        after = self.state.advance('"') if self.state.in_key else None
        return after is not None and self._recurs(after)

    def end_recursion(self) -> bool:
        """Take such a key back; return whether there was one."""
        if not self._in_recursion():
            return False
        self._recursive.add(self.state.key)
        self._note_optional(self.state.key)
        self.drop_key()
        return True

    @property
    def is_fence(self) -> bool:
        """Whether an open text is nothing so far but what may begin a code fence around the value."""
        return self.state.in_string and _FENCE.fullmatch(self.text, self.start.position) is not None

    @property
    def is_cycle(self) -> bool:
        """Whether an open text says the same again and again."""
        return self.state.in_open_text and _is_cycle(self.text[self.start.position :])

    def _goes_round(self, more: str) -> bool:
        """Whether a list that may end says the same again and again."""
        if self.state.in_string or self.state.advance("]") is None:
            return False
        text = self.text + more
        self.counts = not _is_cycle(text) and _counts(text, self.counted)
        return self.counts or _is_cycle(text)

    def go_back(self, state: State) -> None:
        """Take back what stands behind a place, unless it has left."""
        if state.position >= self._sent:
            self.text = self.text[: state.position]
            self.state = self.firm = state
            if state.between_tokens:
                self.start = state
            elif self.start.position > state.position:
                self.start = self.before

    @property
    def place(self) -> str:
        """What tells an open value, the next key or item from others; alike however often it is tried."""
        path = self.state.path
        if self.state.kind in ("key", "item", "end"):
            return f"{path} {len(self.text.rstrip())}"
        return path

    @property
    def comma(self) -> State | None:
        """What stands before the comma that the text ends with, but for the quote of a key."""
        if self._comma is None or self.text[self._comma.position :][:1] != ",":
            return None
        behind = self.text[self._comma.position + 1 :].strip()
        ends = not behind or (behind == '"' and self.state.kind == "key")
        return self._comma if ends else None

    @property
    def may_drop_comma(self) -> bool:
        """Whether a list or an object could have ended in the place of the comma that the text ends with."""
        comma = self.comma
        return comma is not None and any(comma.feed(end)[0] for end in "]}")

    def drop_repetition(self) -> None:
        """Take back what the model has written again and again, as far as it has not left."""
        length = max(_length_without_repetition(self.text), self._sent, self.start.position)
        self.go_back(self.start.feed(self.text[self.start.position : length])[1])


def warmth(tries: int) -> int:
    """Return which try a run is to draw its tokens like, after so many: a model gets warmer with each, and
    beyond some it writes nothing that makes sense.
    """
    return tries if tries <= _WARMEST else _WARMEST - tries % 2


def _is_cycle(text: str) -> bool:
    """Return whether a text ends with the same again and again."""
    for unit in range(1, min(_CYCLE, len(text) // 3) + 1):
        if text[-1 - unit] != text[-1]:
            continue
        if text.endswith(text[-unit:] * max(3, _CYCLES // unit)):
            return True
    return False


def _counts(text: str, times: int) -> bool:
    """Return whether a text ends with so many items in quotes that differ in their numbers only."""
    items = _ITEM.findall(text[-_LONGEST_ITEM * times :])[-times:]
    return (
        len(items) == times
        and len({_DIGITS.sub("0", item) for item in items}) == 1
        and text.endswith('"')
    )


def _length_without_repetition(text: str) -> int:
    """Return how long a text is without what it says again and again at its end."""
    for unit in range(1, _UNIT + 1):
        at = len(text)
        while at > unit and text[at - 1] == text[at - 1 - unit]:
            at -= 1
        if len(text) - at >= _OFTEN * unit:
            return at - unit
    return len(text)
