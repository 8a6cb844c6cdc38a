"""Frozen dataclasses to JSON and back, checked, and the JSON schema of what they make.

It knows the types that `results` uses: dataclasses, tuples of one type, literals, str, bool, int, float
and None.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_LARGEST = 1 << 64
"""What a whole number may be at most: longer ones can be neither calculated with nor printed."""
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Mismatch(ValueError):
    """What does not fit, and where."""


def to_json(value: Any) -> Any:
    """Return a value as JSON has it; every field of a dataclass is a key."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any) -> T:
    """Return the dataclass that JSON stands for; keys that it does not know are left out.

    Raises Mismatch for what does not fit.
    """
    result: T = _read(kind, value, "")
    return result


def _read(kind: Any, value: Any, place: str) -> Any:
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_optional(kind, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise Mismatch(f"{place} is not a list")
        item = get_args(kind)[0]
        return tuple(_read(item, one, f"{place}[{number}]") for number, one in enumerate(value))
    if origin is Literal:
        if value not in get_args(kind):
            raise Mismatch(f"{place} is none of {', '.join(map(str, get_args(kind)))}")
        return value
    return _read_plain(kind, value, place)


def _read_object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise Mismatch(f"{place or 'it'} is not an object")
    hints = get_type_hints(kind)
    inside = f"{place}." if place else ""
    for field in fields(kind):
        if field.name not in value:
            raise Mismatch(f"{inside}{field.name} is missing")
    return kind(
        **{
            field.name: _read(hints[field.name], value[field.name], inside + field.name)
            for field in fields(kind)
        }
    )


def _read_optional(kind: Any, value: Any, place: str) -> Any:
    if value is None:
        return None
    (inner,) = (one for one in get_args(kind) if one is not type(None))
    return _read(inner, value, place)


def _read_plain(kind: Any, value: Any, place: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= _LARGEST else math.inf
    if type(value) is not kind:
        raise Mismatch(f"{place} is not of type {_NAMES[kind]}")
    if kind is float and not math.isfinite(value):
        raise Mismatch(f"{place} is not a finite number")
    if kind is int and abs(value) > _LARGEST:
        raise Mismatch(f"{place} is too large")
    return value


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a dataclass, or of a union of some."""
    parts: dict[str, Any] = {}
    reference = _schema(kind, parts)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **reference, "$defs": parts}


def _schema(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    if is_dataclass(kind):
        return _schema_of_object(kind, parts)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, parts) for one in get_args(kind)]}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0], parts)}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    return {"type": _NAMES[kind]}


def _schema_of_object(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in parts:
        parts[kind.__name__] = {}  # its place in the order
        hints = get_type_hints(kind)
        parts[kind.__name__] = {
            "type": "object",
            "description": (kind.__doc__ or "").splitlines()[0],
            "properties": {field.name: _schema(hints[field.name], parts) for field in fields(kind)},
            "required": [field.name for field in fields(kind)],
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}
