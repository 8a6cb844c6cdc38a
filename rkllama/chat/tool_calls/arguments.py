"""The arguments of calls, looked at while they are written: whether they can still be what a tool takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .outcome import Stray

_HEAD = re.compile(
    r'(?:(?:\s*\})*\s*,)?[\[\s]*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"function"\s*:\s*\{\s*)?'
    r'"name"\s*:\s*"([^"\\]+)"\s*,\s*"(?:arguments|parameters|args|input)"\s*:\s*(?=\{)'
)
"""What stands before a call's arguments, and between those of two calls in a list."""


class Place(Protocol):
    """A place in a text that has to be of a grammar."""

    @property
    def must_end(self) -> bool:
        """Whether nothing but blanks can come."""

    def feed(self, text: str) -> tuple[int, Place]:
        """Return how many characters of a text can come, and the place behind them."""


Grammars = Callable[[str], Place | None]
"""Where a tool's arguments begin, by its name; None for those that are not looked at."""


def are_right(arguments: Mapping[str, Any], place: Place | None) -> bool:
    """Return whether a tool takes arguments, which begin at `place`."""
    if place is None:
        return True
    text = json.dumps(arguments, ensure_ascii=False)
    count, end = place.feed(text)
    return count == len(text) and end.must_end


class ArgumentsReader:
    """Follows the arguments in one text that only grows; each character is looked at once."""

    __slots__ = ("_at", "_closers", "_grammars", "_name", "_place", "_start", "_tool", "count")

    def __init__(self, grammars: Grammars, start: int, name: str | None) -> None:
        """The JSON begins at `start`. Where what stands before it has told the tool's `name`, it is the
        arguments themselves.
        """
        self._grammars: Grammars | None = grammars
        self._name = name
        self._at = self._start = start
        self._place: Place | None = None
        self._tool = self._closers = ""
        self.count = 0
        """The calls so far whose arguments are right."""

    def read(self, text: str) -> Stray | None:
        """Return the arguments that cannot go on as they do; None where nothing is wrong."""
        while self._place is not None or self._begins(text):
            assert self._place is not None
            count, self._place = self._place.feed(text[self._at :])
            self._at += count
            if not self._place.must_end:
                return self.open() if self._at < len(text) else None
            self._place = None
            self.count += 1
        return None

    def open(self) -> Stray | None:
        """Return the arguments that have begun and not ended."""
        return None if self._place is None else Stray(self._tool, self._start, self._closers)

    def go_on(self, end: int) -> None:
        """Go on behind arguments that have come in the place of those that were wrong."""
        self._at, self._place = end, None
        self.count += 1

    def _begins(self, text: str) -> bool:
        """Whether a tool's arguments begin here, which are looked at then."""
        if self._grammars is None or not self._find_tool(text):
            return False
        self._place = self._grammars(self._tool)
        if self._place is None:
            self._grammars = None  # where they end is not known
        return self._place is not None

    def _find_tool(self, text: str) -> bool:
        if self._name is not None:
            first, self._tool = not self._tool, self._name
            return first and text[self._start] == "{"
        head = _HEAD.match(text, self._at)
        if head is None:
            return False
        self._tool, self._closers = head[1], "}" * head[0].count("{")
        self._at = self._start = head.end()
        return True
