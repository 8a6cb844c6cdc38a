"""The parameters of a call that is written in tags: `<parameter=key>` text `</parameter>` `</function>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .arguments import Place
from .json_text import loads
from .outcome import Found, Outcome, Stray

_END_OF_VALUE = "</parameter>"
_END_OF_TAGS = "</function>"
_PARAMETER = re.compile(r"<parameter=([^<>\n]{1,64})>")
_BEGINNING_OF_TAG = re.compile(r"(?:<(?:/?[a-z]{0,9}|parameter=[^<>\n]{0,64}))?")
_BEGUN_END = re.compile(r"\n?<(?:/[a-z]{0,9})?$")


class TagReader:
    """Reads the parameters of a call that is written in tags, from `start` on."""

    __slots__ = (
        "_arguments",
        "_json",
        "_key",
        "_name",
        "_position",
        "_schemas",
        "_start",
        "_value",
    )

    def __init__(
        self, name: str, start: int, schema: Mapping[str, Any], place: Place | None = None
    ) -> None:
        """`schema` is that of all parameters, which as JSON begin at `place`; None where they are taken as
        they are.
        """
        self._name = name
        self._start = self._position = start
        properties = schema.get("properties")
        self._schemas = properties if isinstance(properties, Mapping) else {}
        self._arguments: dict[str, Any] = {}
        self._json = None if place is None else _AsJSON(place)
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
                if not self._take(self._key, text[self._value : end]):
                    return self._stray()
                self._key, self._position = None, end + len(_END_OF_VALUE)
            while text[self._position : self._position + 1].isspace():
                self._position += 1
            if text.startswith(_END_OF_TAGS, self._position):
                return self._ended(self._position + len(_END_OF_TAGS))
            tag = _PARAMETER.match(text, self._position)
            if tag is None:
                if _BEGINNING_OF_TAG.fullmatch(text[self._position :]):
                    return "more"
                return self._stray() if self._arguments and self._json is not None else "no"
            self._key = tag[1]
            self._value = self._position = tag.end()

    def unfinished(self, text: str) -> Stray | None:
        """Return the parameters so far, where the text ends before they do."""
        if self._json is None:
            return None
        if self._key is not None:
            self._json.begin(self._key, _BEGUN_END.sub("", text[self._value :]).removeprefix("\n"))
        return self._stray()

    def _take(self, key: str, text: str) -> bool:
        """Note a parameter; return whether the tool takes it, as far as that is looked at.

        The line breaks next to the tags are not part of it.
        """
        text = text.removeprefix("\n").removesuffix("\n")
        typed = _as_typed(text, self._schemas.get(key))
        self._arguments[key] = typed
        if self._json is None:
            return True
        for value in (typed, *_readings(text)):
            if self._json.take(key, value):
                self._arguments[key] = value
                return True
        self._json.begin(key, text, whole=True)
        return False

    def _ended(self, end: int) -> Outcome:
        if self._json is None or self._json.may_end:
            return Found(((self._name, self._arguments),), end)
        return self._stray()

    def _stray(self) -> Stray:
        assert self._json is not None
        closers = f"\n{_END_OF_TAGS}"
        return Stray(self._name, self._start, closers, begun=self._json.text)


class _AsJSON:
    """Parameters as the beginning of a JSON object, which has to be of a grammar."""

    def __init__(self, place: Place) -> None:
        self.text = "{"
        self._place = place.feed("{")[1]

    def take(self, key: str, value: Any) -> bool:
        """Add a member where it can come."""
        text = f"{self._before(key)}{json.dumps(value, ensure_ascii=False)}"
        count, place = self._place.feed(f"{text} ")  # a number ends with the blank
        if count <= len(text):
            return False
        self.text, self._place = self.text + text, place
        return True

    def begin(self, key: str, source: str, *, whole: bool = False) -> None:
        """Add a member that cannot come, or not yet: as it is written, or as the string that it has to be."""
        before = self._before(key)
        string = json.dumps(source, ensure_ascii=False)
        if self._place.feed(f'{before}"')[0] > len(before):
            source = string if whole else string[:-1]
        self.text += before + source

    @property
    def may_end(self) -> bool:
        """Whether the object may be closed here."""
        count, end = self._place.feed("}")
        return count > 0 and end.must_end

    def _before(self, key: str) -> str:
        comma = ", " if len(self.text) > 1 else ""
        return f"{comma}{json.dumps(key, ensure_ascii=False)}: "


def _readings(text: str) -> Iterator[Any]:
    """What a value may be where its schema does not say so in plain words."""
    yield text
    try:
        yield loads(_word(text))
    except (ValueError, RecursionError):
        return


def _word(text: str) -> str:
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)


def _as_typed(text: str, schema: Any) -> Any:
    """Return a value that is written without quotes, as its JSON schema wants it: text where that is
    allowed.
    """
    types = _types(schema)
    word = _word(text)
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
