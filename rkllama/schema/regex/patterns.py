"""Regular expressions as trees: the part of ECMA-262's syntax that automata can decide.

Understood are characters and their escapes, `.`, classes, `\\d \\w \\s` and their capitals, groups with and
without a name, `|`, the quantifiers (lazy ones match the same texts), `^` and `$`. What looks around, refers
back or depends on flags is not, and neither is what engines read differently.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .characters import ALL, DOT, CharacterClass, Ranges, escaped_class, exactly, union

_MAX_LENGTH = 10_000
_MAX_NESTING = 60
_MAX_RANGES = 20_000
_COUNTS = re.compile(r"\{(\d{1,9})(,?)(\d{0,9})\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)")
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")


class PatternError(ValueError):
    """A pattern that is not compiled; the text says why."""


class Characters(NamedTuple):
    """One character of a set."""

    ranges: Ranges


class Sequence(NamedTuple):
    """One part after the other."""

    parts: tuple[Tree, ...]


class Choice(NamedTuple):
    """Any one of the parts."""

    parts: tuple[Tree, ...]


class Repeat(NamedTuple):
    """A part, at least `least` and at most `most` times; None: without end."""

    part: Tree
    least: int
    most: int | None


class Edge(NamedTuple):
    """The begin or the end of the text."""

    at_end: bool


Tree = Characters | Sequence | Choice | Repeat | Edge


def parse(pattern: str) -> Tree:
    """Return a pattern's tree. Raises PatternError for what is not understood."""
    if len(pattern) > _MAX_LENGTH:
        raise PatternError(f"is longer than {_MAX_LENGTH} characters")
    parser = _Parser(pattern)
    tree = parser.choice(0)
    if parser.rest():
        raise PatternError("has a ) too many")
    return tree


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._ranges = 0

    def rest(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def choice(self, nesting: int) -> Tree:
        if nesting > _MAX_NESTING:
            raise PatternError("is nested too deeply")
        parts = [self._sequence(nesting)]
        while self.rest() == "|":
            self._at += 1
            parts.append(self._sequence(nesting))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, nesting: int) -> Tree:
        parts: list[Tree] = []
        while (char := self.rest()) and char not in "|)":
            atom = self._atom(nesting)
            parts.append(self._repeated(atom))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _take(self) -> str:
        char = self.rest()
        if not char:
            raise PatternError("ends too early")
        self._at += 1
        return char

    def _atom(self, nesting: int) -> Tree:
        char = self._take()
        if char in "^$":
            return Edge(char == "$")
        if char == "(":
            return self._group(nesting)
        if char == "[":
            return self._of_class(self._class())
        if char == ".":
            return Characters(DOT.narrow)
        if char == "\\":
            return self._of_class(self._escape(in_class=False))
        if char in "*+?" or (char == "{" and self._is_count(self._at - 1)):
            raise PatternError(f"has a {char} with nothing to repeat")
        return Characters(((ord(char), ord(char)),))

    def _of_class(self, found: CharacterClass) -> Characters:
        self._ranges += len(found.narrow)
        if self._ranges > _MAX_RANGES:
            raise PatternError("is too large for an automaton")
        return Characters(found.narrow)

    def _is_count(self, at: int) -> bool:
        return bool(re.compile(r"\{\d*(,\d*)?\}").match(self._pattern, at))

    def _group(self, nesting: int) -> Tree:
        if self.rest() == "?":
            match = _GROUP.match(self._pattern, self._at)
            if match is None:
                what = self._pattern[self._at - 1 : self._at + 3]
                raise PatternError(f"uses {what}, which no automaton decides")
            self._at = match.end()
        inner = self.choice(nesting + 1)
        if self._take() != ")":
            raise PatternError("has a ( too many")
        return inner

    def _repeated(self, atom: Tree) -> Tree:
        char = self.rest()
        in_a_group = self._pattern[self._at - 1] == ")"
        if char and char in "*+?":
            self._at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{" and self._is_count(self._at):
            least, most = self._counts()
        else:
            return atom
        if isinstance(atom, Edge) and not in_a_group:
            raise PatternError("repeats ^ or $")
        if self.rest() == "?":
            self._at += 1
        elif self.rest() and self.rest() in "*+":
            raise PatternError("has two quantifiers in a row")
        return Repeat(atom, least, most)

    def _counts(self) -> tuple[int, int | None]:
        match = _COUNTS.match(self._pattern, self._at)
        if match is None:
            raise PatternError("has a count that engines read differently")
        self._at = match.end()
        least = int(match[1])
        most = (int(match[3]) if match[3] else None) if match[2] else least
        if most is not None and most < least:
            raise PatternError(f"has a count from {least} to {most}")
        return least, most

    def _escape(self, *, in_class: bool) -> CharacterClass:
        char = self._take()
        if found := escaped_class(char):
            return found
        if char in _CONTROLS and not (char == "0" and self.rest().isdigit()):
            return exactly((_CONTROLS[char], _CONTROLS[char]))
        if char == "b" and in_class:
            return exactly((8, 8))
        if match := _HEX.match(self._pattern, self._at - 1):
            self._at = match.end()
            code = int(match[1] or match[2] or match[3], 16)
            if code > ALL[0][1] or 0xD800 <= code <= 0xDFFF:
                raise PatternError("names half a surrogate pair, or no character")
            return exactly((code, code))
        if char.isalnum():
            raise PatternError(f"uses \\{char}, which no automaton decides")
        return exactly((ord(char), ord(char)))

    def _class(self) -> CharacterClass:
        negated = self.rest() == "^"
        if negated:
            self._at += 1
        if self.rest() == "]":
            raise PatternError("has an empty class, which engines read differently")
        members: list[CharacterClass] = []
        while (char := self._take()) != "]":
            members.append(self._member(char))
        joined = union(members)
        return joined.negated() if negated else joined

    def _member(self, char: str) -> CharacterClass:
        low = self._single(char)
        dash = self._pattern[self._at : self._at + 2]
        if not (len(dash) == 2 and dash[0] == "-" and dash[1] != "]"):
            return low
        self._at += 1
        high = self._single(self._take())
        first, last = low.narrow, high.narrow
        if any(len(each) != 1 or each[0][0] != each[0][1] for each in (first, last)):
            raise PatternError("has a range between classes")
        if first[0][0] > last[0][0]:
            raise PatternError("has a range that is out of order")
        return exactly((first[0][0], last[0][0]))

    def _single(self, char: str) -> CharacterClass:
        if char == "\\":
            return self._escape(in_class=True)
        return exactly((ord(char), ord(char)))
