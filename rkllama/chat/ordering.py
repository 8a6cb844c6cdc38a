"""Tools and JSON schemas in one order, so that the same ones always make the same prompt.

Some clients keep them in maps without an order, and send each request in another; others collect their
tools anew at each start.

- Tools stand in the order of their names. Which comes first means nothing to a client, and a sorted list is
  the same after a restart, of the client or of this server, when states on the disk are used again.
- The keywords of a schema stand in a fixed order, the usual one of published schemas first.
- The names below `properties` are another matter: models write arguments and answers in this order, a
  grammar demands it, and a schema that wants `reasoning` before `answer` is meant so. They keep the order in
  which the client sent this schema first; in whatever order it sends the same one later, it is that again.

None of this changes what a schema accepts: objects in JSON have no order, nor has `required`. Lists that have
one (`enum`, `anyOf`, `prefixItems`) stay as they are.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ..types import Tool

_FIRST = ("$ref", "type", "title", "description", "enum", "const", "default", "items")
_LAST = ("properties", "required", "additionalProperties", "$defs", "definitions")
_NAMED = ("patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose names are a schema's own, as those of `properties`, but for their order."""
_DATA = ("enum", "const", "default", "examples")
_DEEPEST = 64
"""Schemas in schemas; what lies deeper stays as it is."""
_MOST_CHARS = 1 << 20
"""Characters of schemas whose order is remembered; one has a quarter of them at most."""
_EACH = 512
"""So many characters a remembered value counts besides its own: what Python needs to keep it."""


def ordered_schema(schema: Mapping[str, Any], *, by_name: bool = False) -> dict[str, Any]:
    """Return a schema with its keywords in the fixed order; `by_name` sorts its properties, too."""
    return _schema(schema, by_name, _DEEPEST)


def _schema(schema: Mapping[str, Any], by_name: bool, depth: int) -> dict[str, Any]:
    if depth <= 0:
        return dict(schema)
    ordered = {}
    for keyword in sorted(schema, key=_place):
        ordered[keyword] = _value(keyword, schema[keyword], by_name, depth - 1)
    names = ordered.get("properties")
    if isinstance(names, dict) and isinstance(ordered.get("required"), list):
        ordered["required"] = _required(ordered["required"], names)
    return ordered


def _place(keyword: str) -> tuple[int, int, str]:
    if keyword in _FIRST:
        return 0, _FIRST.index(keyword), ""
    return (2, _LAST.index(keyword), "") if keyword in _LAST else (1, 0, keyword)


def _value(keyword: str, value: Any, by_name: bool, depth: int) -> Any:
    if keyword in _DATA:
        return _data(value, depth)
    if isinstance(value, list | tuple):
        return [_value("", item, by_name, depth) for item in value]
    if not isinstance(value, Mapping):
        return value
    if keyword != "properties" and keyword not in _NAMED:
        return _schema(value, by_name, depth)
    names = sorted(value) if by_name or keyword in _NAMED else value
    return {name: _value("", value[name], by_name, depth) for name in names}


def _data(value: Any, depth: int) -> Any:
    """Return a value that a schema holds, in which no name is a keyword."""
    if depth <= 0:
        return value
    if isinstance(value, Mapping):
        return {name: _data(value[name], depth - 1) for name in sorted(value)}
    return [_data(item, depth - 1) for item in value] if isinstance(value, list | tuple) else value


def _required(names: list[Any], properties: Mapping[str, Any]) -> list[Any]:
    """Return required names in the order of the properties; what is not a list of names stays as it is."""
    if not all(isinstance(name, str) for name in names):
        return names
    place = {name: n for n, name in enumerate(properties)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


T = TypeVar("T")


class Orders:
    """In which order the properties of each schema came first. It can be used by several threads."""

    def __init__(self, most_chars: int = _MOST_CHARS) -> None:
        self._most = most_chars
        self._lock = threading.Lock()
        self._schemas = _Memory[dict[str, Any]](most_chars)
        """By the schema's text with all names sorted."""
        self._tools = _Memory[tuple[Tool, ...]](most_chars)
        """By their text as they came: ordering dozens of tools takes ten times as long as writing them."""

    @property
    def remembered(self) -> int:
        """Characters of what is remembered."""
        return self._schemas.chars + self._tools.chars

    def tools(self, tools: Sequence[Tool], client: str = "") -> tuple[Tool, ...]:
        """Return tools and their schemas in order; what one `client` sends orders nothing of another's."""
        if not tools:
            return ()
        try:
            text = _text([[tool.name, tool.description, tool.parameters] for tool in tools])
            return self._once(self._tools, client, text, lambda: self._ordered(tools, client))
        except RecursionError:  # it is not in the prompt either: no template can write it
            return tuple(tools)

    def schema(self, schema: Mapping[str, Any], client: str = "") -> Mapping[str, Any]:
        """Return a schema in order, its properties as this client sent it first."""
        try:
            return self._schema(schema, client)
        except RecursionError:
            return schema

    def _ordered(self, tools: Sequence[Tool], client: str) -> tuple[Tool, ...]:
        ordered = (
            replace(tool, parameters=self._schema(tool.parameters, client)) for tool in tools
        )
        return tuple(sorted(ordered, key=_unique))

    def _schema(self, schema: Mapping[str, Any], client: str) -> dict[str, Any]:
        text = _text(ordered_schema(schema, by_name=True))
        return self._once(self._schemas, client, text, lambda: ordered_schema(schema))

    def _once(self, memory: _Memory[T], client: str, text: str, make: Callable[[], T]) -> T:
        """Return what is remembered, else what `make` makes. That may take seconds, in which no other client
        waits for the lock.
        """
        with self._lock:
            known = memory.get(client, text)
        if known is not None:
            return known
        made = make()
        with self._lock:
            known = memory.get(client, text)
            return memory.put(client, text, made) if known is None else known


class _Memory(Generic[T]):
    """Values by client and text, the ones that were used last: so many characters of text at most."""

    def __init__(self, most_chars: int) -> None:
        self._most = most_chars
        self._values: OrderedDict[tuple[str, str], T] = OrderedDict()
        self.chars = 0

    def get(self, client: str, text: str) -> T | None:
        value = self._values.get((client, text))
        if value is not None:
            self._values.move_to_end((client, text))
        return value

    def put(self, client: str, text: str, value: T) -> T:
        if len(text) <= self._most // 4:
            self._values[client, text] = value
            self.chars += len(text) + _EACH
        while self.chars > self._most:
            (_, oldest), _ = self._values.popitem(last=False)
            self.chars -= len(oldest) + _EACH
        return value


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unique(tool: Tool) -> tuple[str, str, str]:
    """Return what orders tools, also those of one name."""
    return tool.name, tool.description, _text(tool.parameters)
