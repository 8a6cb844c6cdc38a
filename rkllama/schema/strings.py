"""Strings of JSON: their escapes, and where in its choice of texts a string is."""

from __future__ import annotations

from typing import NamedTuple

from .regex.automata import Spot
from .shapes import Object, String
from .words import WordCursor

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_LONG = 65_536
_HEX = frozenset("0123456789abcdefABCDEF")


class FreeCursor(NamedTuple):
    """A place in a string of any text, or of an automaton's."""

    shape: String
    length: int = 0
    spot: Spot | None = None

    @property
    def complete(self) -> bool:
        """Whether the string may end here."""
        if self.length < self.shape.least:
            return False
        return self.spot is None or self.spot.accepting

    @property
    def open(self) -> bool:
        """Whether the string may go on."""
        return self.has_any(0, 0x10FFFF)

    def step(self, char: str) -> FreeCursor | None:
        """Return the place after one more character; None where it cannot come."""
        shape, length, spot = self
        length += 1
        if spot is not None:
            spot = spot.step(char)
            if spot is None or length + spot.shortest > shape.most:
                return None
            if length + spot.longest < shape.least:
                return None
        elif length > shape.most:
            return None
        return FreeCursor(shape, length, spot)

    def has_any(self, first: int, last: int) -> bool:
        """Return whether a code point from `first` to `last` can come."""
        room = self.shape.most - self.length - 1
        missing = self.shape.least - self.length - 1
        if self.spot is None or room < 0:
            return room >= 0
        return any(
            spot.shortest <= room and spot.longest >= missing
            for spot in self.spot.targets(first, last)
        )

    def forced(self) -> str:
        """Return the text that has to come, up to the end of the string where that is certain."""
        text = ""
        cursor: FreeCursor | None = self
        while cursor is not None and len(text) < 100 and cursor.spot is not None:
            char = cursor.spot.only_character()
            if char is None or char in '"\\' or char < " ":
                break
            text += char
            cursor = cursor.step(char)
        if cursor is not None and cursor.complete and not cursor.open:
            text += '"'
        return text


def free(shape: String) -> FreeCursor:
    """Return the place before the first character of a string."""
    return FreeCursor(shape, 0, shape.spot)


def is_free(cursor: FreeCursor | WordCursor) -> bool:
    """Return whether a string may hold any text, and may be as long as any string here."""
    if not isinstance(cursor, FreeCursor):
        return False
    return cursor.spot is None and cursor.shape.least == 0 and cursor.shape.most >= _LONG


class KeyCursor(NamedTuple):
    """A place in a key of an object: one that the schema names, or another one."""

    shape: Object
    seen: frozenset[str]
    text: str
    words: WordCursor | None
    others: FreeCursor | None

    @property
    def complete(self) -> bool:
        """Whether the key may end here."""
        if self.text in self.seen:
            return False
        if self.words is not None and self.words.complete:
            return True
        return self.is_other

    @property
    def is_other(self) -> bool:
        """Whether this is a key that the schema does not name."""
        return (
            self.others is not None
            and self.others.complete
            and self.text not in self.shape.properties
            and self.text not in self.seen
        )

    @property
    def open(self) -> bool:
        """Whether the key may go on."""
        return self.has_any(0, 0x10FFFF)

    def step(self, char: str) -> KeyCursor | None:
        """Return the place after one more character; None where it cannot come."""
        text = self.text + char
        words = self.words.step(char) if self.words is not None else None
        if words is not None and not self._has_unseen(words, text):
            words = None
        others = self.others.step(char) if self.others is not None else None
        if words is None and others is None:
            return None
        return KeyCursor(self.shape, self.seen, text, words, others)

    def has_any(self, first: int, last: int) -> bool:
        """Return whether a code point from `first` to `last` can come."""
        if self.others is not None and self.others.has_any(first, last):
            return True
        words = self.words
        if words is None or not words.has_any(first, last):
            return False
        depth = len(self.text)
        return any(
            len(word) > depth and first <= ord(word[depth]) <= last and word not in self.seen
            for word in words.words[words.low : words.high]
        )

    def _has_unseen(self, words: WordCursor, text: str) -> bool:
        count = words.high - words.low
        if count > len(self.seen):
            return True
        if count > 8:
            return count > sum(name.startswith(text) for name in self.seen)
        return any(word not in self.seen for word in words.words[words.low : words.high])

    def rests(self) -> list[str]:
        """Return what is left of each key that the schema names and that may still come."""
        if self.words is None:
            return []
        words = self.words.words[self.words.low : self.words.high]
        return [word[self.words.depth :] for word in words if word not in self.seen]


Cursor = FreeCursor | WordCursor | KeyCursor


def unescape(escape: str, char: str, cursor: Cursor) -> tuple[str, str] | None:
    """Read one more character of an escape, which begins with its backslash.

    Return the escape so far and "", or "" and the character that it stands for; None where no character
    that the cursor admits is written like this.
    """
    escape += char
    if len(escape) == 2 and char != "u":
        found = _ESCAPES.get(char)
        return ("", found) if found is not None else None
    if len(escape) == 7:
        return (escape, "") if char == "\\" else None
    if len(escape) == 8:
        return (escape, "") if char == "u" else None
    if len(escape) > 2 and char not in _HEX:
        return None
    if not any(cursor.has_any(low, high) for low, high in _meant(escape)):
        return None
    if len(escape) == 6:
        code = int(escape[2:], 16)
        return (escape, "") if 0xD800 <= code <= 0xDBFF else ("", chr(code))
    return ("", chr(_meant(escape)[0][0])) if len(escape) == 12 else (escape, "")


def _meant(escape: str) -> list[tuple[int, int]]:
    """The code points that an escape with its `u` may still stand for; no half of a surrogate pair does."""
    if len(escape) <= 6:
        low, high = _digits(escape[2:])
        meant = [(low, min(high, 0xD7FF)), (max(low, 0xE000), high)]
        first, last = max(low, 0xD800), min(high, 0xDBFF)
        if first <= last:
            meant.append((_pair(first, 0xDC00), _pair(last, 0xDFFF)))
    else:
        low, high = _digits(escape[8:])
        half = int(escape[2:6], 16)
        low, high = max(low, 0xDC00), min(high, 0xDFFF)
        meant = [(_pair(half, low), _pair(half, high))] if low <= high else []
    return [(low, high) for low, high in meant if low <= high]


def _digits(digits: str) -> tuple[int, int]:
    return int(digits.ljust(4, "0"), 16), int(digits.ljust(4, "f"), 16)


def _pair(high: int, low: int) -> int:
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
