"""The text of an answer as it is written, what of it has left, and the places in it to go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...schema.grammar import Grammar, State

NUMBERS = frozenset(("number", "integer"))
"""The kinds of values that are bare numbers."""
BLANKS = frozenset(" \n\r\t")
_UNIT, _OFTEN = 8, 4
"""Characters of what a text may say again and again, and how often, before it is kept back."""
_CYCLE, _CYCLES = 400, 80
"""Characters of what is said again and again until the model is stopped: three times, and so often that it is
that long in all.
"""


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
        if self.state.in_open_text and not self.text.endswith('"'):
            return min(self.firm.position, _length_without_repetition(self.text))
        if self.ends_like_a_number():
            return self.before.position
        settled = min(self.start.position, self.firm.position)
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
        if self.state.between_tokens or self.state.kind not in {"string", "any", *NUMBERS}:
            return text
        return text.partition('"')[0] if self.state.in_string else ""

    def take(self, text: str) -> int:
        """Add what of a text can come; return how many characters that is."""
        taken = 0
        for char in text:
            state = self.state.advance(char)
            if state is None or (char == "," and self._goes_round(text[:taken])):
                break
            before, self.state = self.state, state
            taken += 1
            if char == "," and not before.in_string:
                self._comma = before
            if not state.in_escape if state.in_string else char not in BLANKS:
                self.firm = state
            if state.between_tokens:
                if char not in BLANKS or not before.between_tokens:
                    self.before = self.start
                self.start = state
                if state.must_end:
                    break
        self.text += text[:taken]
        return taken

    @property
    def is_cycle(self) -> bool:
        """Whether an open text says the same again and again."""
        return self.state.in_open_text and _is_cycle(self.text[self.start.position :])

    def _goes_round(self, more: str) -> bool:
        """Whether a list that may end says the same again and again."""
        may_end = self.state.advance("]") is not None and not self.state.in_string
        return may_end and _is_cycle(self.text + more)

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
        if self._comma is None or len(self.text) <= self._comma.position:
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


def _is_cycle(text: str) -> bool:
    """Return whether a text ends with the same again and again."""
    for unit in range(1, min(_CYCLE, len(text) // 3) + 1):
        if text[-1 - unit] != text[-1]:
            continue
        if text.endswith(text[-unit:] * max(3, _CYCLES // unit)):
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
