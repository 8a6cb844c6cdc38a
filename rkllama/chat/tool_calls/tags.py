"""The parameters of a call that is written in tags: `<parameter=key>` text `</parameter>` `</function>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .json_text import loads
from .outcome import Found, Outcome

_END_OF_VALUE = "</parameter>"
_END_OF_TAGS = "</function>"
_PARAMETER = re.compile(r"<parameter=([^<>\n]{1,64})>")
_BEGINNING_OF_TAG = re.compile(r"(?:<(?:/?[a-z]{0,9}|parameter=[^<>\n]{0,64}))?")


class TagReader:
    """Reads the parameters of a call that is written in tags, from `start` on."""

    __slots__ = ("_arguments", "_key", "_name", "_position", "_schemas", "_value")

    def __init__(self, name: str, start: int, schema: Mapping[str, Any]) -> None:
        self._name = name
        self._position = start
        properties = schema.get("properties")
        self._schemas = properties if isinstance(properties, Mapping) else {}
        self._arguments: dict[str, Any] = {}
        self._key: str | None = None
        self._value = -1
        """Where the value of `_key` begins; it has no end before `_position`."""

    def read(self, text: str) -> Outcome:
        while True:
            if self._key is not None:
                end = text.find(_END_OF_VALUE, self._position)
                if end < 0:
                    self._position = max(self._value, len(text) - len(_END_OF_VALUE) + 1)
                    return "more"
                value = _as_typed(text[self._value : end], self._schemas.get(self._key))
                self._arguments[self._key] = value
                self._key, self._position = None, end + len(_END_OF_VALUE)
            while text[self._position : self._position + 1].isspace():
                self._position += 1
            if text.startswith(_END_OF_TAGS, self._position):
                end = self._position + len(_END_OF_TAGS)
                return Found(((self._name, self._arguments),), end)
            tag = _PARAMETER.match(text, self._position)
            if tag is None:
                rest = text[self._position :]
                return "more" if _BEGINNING_OF_TAG.fullmatch(rest) else "no"
            self._key = tag[1]
            self._value = self._position = tag.end()


def _as_typed(text: str, schema: Any) -> Any:
    """Return a value that is written without quotes, as its JSON schema wants it: text where that is allowed.

    The line breaks next to the tags are not part of it.
    """
    text = text.removeprefix("\n").removesuffix("\n")
    types = _types(schema)
    word = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    if word == "null" and "null" in types:
        return None
    if not types or "string" in types:
        return text
    try:
        return loads(word)
    except (ValueError, RecursionError):
        return text


def _types(schema: Any) -> set[str]:
    """Return the types that a schema allows, as far as it says so in plain words."""
    if not isinstance(schema, Mapping):
        return set()
    parts = [schema]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list):
            parts += [part for part in schema[choice] if isinstance(part, Mapping)]
    types = [part.get("type") for part in parts]
    names = [name for entry in types for name in (entry if isinstance(entry, list) else [entry])]
    return {name for name in names if isinstance(name, str)}
