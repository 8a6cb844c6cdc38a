"""Documents and their schemas, made by chance: what a structured answer may be."""

from __future__ import annotations

import random
from typing import Any

_KEYS = ("name", "age", "price", "city", "active", "unit", "tags", "note", "measured_at", "parts")
_WORDS = ("amber", "basil", "Zoë", "copper wire", "left side", "no. 4", "15 km", "a \\ b", 'an "x"')


def document(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a schema of an object, and a value of it; both differ with the seed."""
    chance = random.Random(seed)
    return _object(chance, 2)


def _object(chance: random.Random, depth: int) -> tuple[dict[str, Any], dict[str, Any]]:
    properties: dict[str, Any] = {}
    value: dict[str, Any] = {}
    for key in chance.sample(_KEYS, chance.randint(2, 5)):
        properties[key], value[key] = _value(chance, depth)
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }, value


def _value(chance: random.Random, depth: int) -> tuple[dict[str, Any], Any]:
    kind = chance.choice(
        ("text", "word", "whole", "number", "enum", "bool", "date", "list", "object")
    )
    if kind in ("list", "object") and not depth:
        kind = "text"
    if kind == "object":
        return _object(chance, depth - 1)
    if kind == "list":
        schema, _ = _value(chance, 0)
        values = [_of(schema, chance) for _ in range(chance.randint(1, 4))]
        return {"type": "array", "items": schema, "minItems": 1}, values
    schema = _SCALARS[kind]
    return schema, _of(schema, chance)


_SCALARS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "word": {"type": "string", "pattern": "^[a-z]+-[0-9]{2}$"},
    "whole": {"type": "integer", "minimum": 0, "maximum": 130},
    "number": {"type": "number", "minimum": -50},
    "enum": {"enum": ["celsius", "fahrenheit", "kelvin"]},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
}


def _of(schema: dict[str, Any], chance: random.Random) -> Any:
    """Return a value of a scalar's schema."""
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "pattern" in schema:
        return f"{chance.choice(('bolt', 'nut', 'gear'))}-{chance.randint(10, 99)}"
    if "format" in schema:
        return f"20{chance.randint(10, 29)}-0{chance.randint(1, 9)}-{chance.randint(10, 28)}"
    if schema["type"] == "integer":
        return chance.randint(0, 130)
    if schema["type"] == "number":
        return round(chance.uniform(-50, 1000), 2)
    if schema["type"] == "boolean":
        return chance.random() < 0.5
    return " ".join(chance.sample(_WORDS, chance.randint(1, 3)))
