"""JSON in a text that is still arriving: where it ends, and what it says."""

from __future__ import annotations

import json
import re
from typing import Any

_MAX_DEPTH = 64
_STRING_BREAK = re.compile(r'["\\]')
_PLAIN_JSON = frozenset(" \t\r\n:,+-.0123456789eEtruefalsn")


class JsonEnd:
    """Finds where a JSON object or array ends, going on where the last call stopped."""

    __slots__ = ("_depth", "_in_string", "_position")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._position = -1

    def find(self, text: str, start: int) -> int | None:
        """Return the index after the end; None: not there yet; -1: this is not JSON."""
        position = max(self._position, start)
        while position < len(text):
            if self._in_string:
                position = self._skip_string(text, position)
                if self._in_string:
                    break
                continue
            char = text[position]
            position += 1
            if char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return position
            elif char not in _PLAIN_JSON:
                return -1
            if self._depth > _MAX_DEPTH:
                return -1
        self._position = position
        return None

    def _skip_string(self, text: str, position: int) -> int:
        """Return where to go on: after the string, or where to look for its end later."""
        while mark := _STRING_BREAK.search(text, position):
            if mark[0] == '"':
                self._in_string = False
                return mark.end()
            if mark.end() == len(text):  # what is escaped has not come yet
                return mark.start()
            position = mark.end() + 1
        return len(text)


def loads(source: str) -> Any:
    """JSON that can be written out again: no NaN, no 1e999, no half of a surrogate pair."""
    value = json.loads(source, strict=False)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value
