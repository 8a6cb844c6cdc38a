"""A choice between given texts, narrowed down character by character."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple


class WordCursor(NamedTuple):
    """A place in some of the texts: all from `low` to `high` begin with the `depth` characters so far."""

    words: tuple[str, ...]
    """Sorted, each once."""
    low: int
    high: int
    depth: int = 0

    @property
    def complete(self) -> bool:
        """Whether what was read so far is one of the texts."""
        return len(self.words[self.low]) == self.depth

    @property
    def open(self) -> bool:
        """Whether a text goes on from here."""
        return self.high - self.low > self.complete

    def step(self, char: str) -> WordCursor | None:
        """Return the place after one more character; None where no text goes on with it."""
        words, low, high, depth = self
        if len(words[low]) == depth:
            low += 1
        low = bisect_left(words, char, low, high, key=lambda word: word[depth])
        if low == high or words[low][depth] != char:
            return None
        if words[high - 1][depth] != char:
            high = bisect_left(words, chr(ord(char) + 1), low, high, key=lambda word: word[depth])
        return WordCursor(words, low, high, depth + 1)

    def has_any(self, first: int, last: int) -> bool:
        """Return whether a text goes on with a code point from `first` to `last`."""
        words, low, high, depth = self
        if len(words[low]) == depth:
            low += 1
        low = bisect_left(words, chr(first), low, high, key=lambda word: word[depth])
        return low < high and ord(words[low][depth]) <= last

    def rests(self) -> list[str]:
        """Return what is left of each text."""
        return [word[self.depth :] for word in self.words[self.low : self.high]]


def begin(words: tuple[str, ...]) -> WordCursor | None:
    """Return the place before the first character; None where there are no texts."""
    return WordCursor(words, 0, len(words)) if words else None


def sorted_words(words: set[str] | frozenset[str]) -> tuple[str, ...]:
    """Return texts in the order that cursors need."""
    return tuple(sorted(words))
