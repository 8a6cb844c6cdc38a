"""Sets of characters as ranges of code points, and the classes that regular expressions name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, in order, apart from each other."""

LAST = 0x10FFFF
ALL: Ranges = ((0, LAST),)
_DIFFERING_BELOW = 0x20000
"""Beyond the first two planes nothing is a digit, and everything counts as a letter."""


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of some ranges."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(pairs):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(these: Ranges) -> Ranges:
    """Return all the characters that are not in some ranges."""
    rest: list[tuple[int, int]] = []
    start = 0
    for low, high in these:
        if low > start:
            rest.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        rest.append((start, LAST))
    return tuple(rest)


class CharacterClass:
    r"""A set of characters on which the usual engines agree only in part.

    `\d` is ten characters to ECMA-262 and hundreds to Python and Rust. `narrow` holds those that belong to
    the class for all of them, `wide` those that do for any: a text that is accepted by `narrow` is valid for
    every client, whatever its engine. `wide` is found only where a class is negated: it takes long.
    """

    __slots__ = ("_find_wide", "narrow")

    def __init__(self, narrow: Ranges, find_wide: Callable[[], Ranges]) -> None:
        self.narrow = narrow
        self._find_wide = find_wide

    @property
    def wide(self) -> Ranges:
        """What belongs to the class for any of the engines."""
        return self._find_wide()

    def negated(self) -> CharacterClass:
        """Return the class of what belongs to this one for none of the engines, or not for all."""
        return CharacterClass(complement(self.wide), lambda: complement(self.narrow))


def exactly(*pairs: tuple[int, int]) -> CharacterClass:
    """Return a class that is the same everywhere."""
    these = ranges(pairs)
    return CharacterClass(these, lambda: these)


def union(classes: Sequence[CharacterClass]) -> CharacterClass:
    """Return the class of what belongs to any of some classes."""
    return CharacterClass(
        ranges(pair for each in classes for pair in each.narrow),
        lambda: ranges(pair for each in classes for pair in each.wide),
    )


def _span(first: str, last: str) -> tuple[int, int]:
    return ord(first), ord(last)


_DIGITS = ranges((_span("0", "9"),))
_WORD = ranges((_span("0", "9"), _span("A", "Z"), _span("_", "_"), _span("a", "z")))
_BLANKS = ranges((_span("\t", "\r"), _span(" ", " ")))
_ALL_BLANKS = ranges(
    [
        *(*_BLANKS, (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
        *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    ]
)
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))

DOT = CharacterClass(complement(ranges(_LINE_ENDS)), lambda: complement(((0x0A, 0x0A),)))


@cache
def escaped_class(letter: str) -> CharacterClass | None:
    r"""Return the class that `\d`, `\w`, `\s` or their capitals name; None for another letter."""
    if letter in "DWS":
        opposite = escaped_class(letter.lower())
        return opposite.negated() if opposite else None
    if letter == "d":
        return CharacterClass(_DIGITS, lambda: _matching(r"\d+"))
    if letter == "w":
        return CharacterClass(_WORD, _all_letters)
    return CharacterClass(_BLANKS, lambda: _ALL_BLANKS) if letter == "s" else None


def _all_letters() -> Ranges:
    return ranges([*_matching(r"\w+"), (_DIFFERING_BELOW, LAST)])


@cache
def _matching(pattern: str) -> Ranges:
    """Return the characters that a class of Python's matches."""
    text = "".join(map(chr, range(_DIFFERING_BELOW)))
    return tuple((match.start(), match.end() - 1) for match in re.finditer(pattern, text))
