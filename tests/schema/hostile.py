"""Schemas that are there to keep a server busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _nested(keyword: str, levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        inner = [schema] if keyword.endswith("Of") else schema
        if keyword == "properties":
            inner = {"a": schema}
        schema = {keyword: inner}
        if keyword == "properties":
            schema["required"] = ["a"]
    return schema


def _doubling(keyword: str, levels: int) -> Any:
    definitions: dict[str, Any] = {
        str(n): {keyword: [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]}
        for n in range(levels)
    }
    definitions[str(levels)] = {"type": "string"}
    return {"$defs": definitions, "$ref": "#/$defs/0"}


def _product(parts: int, width: int) -> Any:
    return {
        "allOf": [
            {"anyOf": [{"minLength": n + m, "maxLength": 90 + m} for n in range(width)]}
            for m in range(parts)
        ]
    }


def _ambiguous() -> Any:
    either = [
        {
            "type": "object",
            "properties": {"a": {"$ref": "#"}, name: {}},
            "additionalProperties": False,
        }
        for name in "xyz"
    ]
    return {"anyOf": [*either, {"type": "integer"}]}


def _dense(width: int) -> Any:
    return {
        "$defs": {
            str(n): {
                "type": "object",
                "properties": {str(m): {"$ref": f"#/$defs/{m}"} for m in range(width)},
            }
            for n in range(width)
        },
        "$ref": "#/$defs/0",
    }


def _mixed(width: int) -> Any:
    """Each value has to meet another choice of the definitions: there are 2 to the power of `width`."""
    return {
        "$defs": {
            str(n): {
                "type": "object",
                "properties": {
                    "l": {"$ref": f"#/$defs/{(n + 1) % width}"},
                    "r": {
                        "allOf": [
                            {"$ref": f"#/$defs/{(n * 2) % width}"},
                            {"$ref": f"#/$defs/{(n * 3 + 1) % width}"},
                        ]
                    },
                },
            }
            for n in range(width)
        },
        "$ref": "#/$defs/0",
    }


HOSTILE: dict[str, Callable[[], Any]] = {
    "10 000 values": lambda: {"enum": [f"value number {n}" for n in range(10_000)]},
    "10 000 objects": lambda: {"enum": [{"n": n} for n in range(10_000)]},
    "10 000 constants": lambda: {"anyOf": [{"const": n} for n in range(10_000)]},
    "10 000 properties": lambda: {
        "properties": {f"p{n}": {"type": "string"} for n in range(10_000)},
        "type": "object",
    },
    "50 000 properties": lambda: {
        "properties": {f"p{n}": {"type": "string"} for n in range(50_000)}
    },
    "deep properties": lambda: _nested("properties", 400),
    "deep items": lambda: _nested("items", 400),
    "deep allOf": lambda: _nested("allOf", 400),
    "deep not": lambda: _nested("not", 400),
    "deep oneOf": lambda: _nested("oneOf", 300),
    "doubling anyOf": lambda: _doubling("anyOf", 60),
    "doubling allOf": lambda: _doubling("allOf", 60),
    "doubling oneOf": lambda: _doubling("oneOf", 60),
    "a product": lambda: _product(8, 8),
    "a small product": lambda: _product(3, 8),
    "ambiguous recursion": _ambiguous,
    "everything everywhere": lambda: _dense(150),
    "all choices": lambda: _mixed(40),
    "a count in a pattern": lambda: {"type": "string", "pattern": "^a{1,100000}$"},
    "counts in counts": lambda: {"type": "string", "pattern": "^(((a{99}){99}){99}){99}$"},
    "many counts": lambda: {"type": "string", "pattern": "^(a?){1000}a{1000}$"},
    "an unanchored count": lambda: {"type": "string", "pattern": "[a-z]{1,1000}x"},
    "endless repeats": lambda: {"type": "string", "pattern": "^((a*)*)*$"},
    "an exponential automaton": lambda: {"type": "string", "pattern": "(a|b)*a(a|b){40}$"},
    "twice exponential": lambda: {
        "type": "string",
        "allOf": [{"pattern": "(a|b)*a(a|b){40}$"}, {"pattern": "(a|b)*b(a|b){40}$"}],
    },
    "wide classes": lambda: {"type": "string", "pattern": "[\\W\\D]" * 500},
    "a nested pattern": lambda: {"type": "string", "pattern": "(" * 9_999},
    "a long pattern": lambda: {"type": "string", "pattern": "a" * 100_000},
    "many patterns": lambda: {
        "type": "string",
        "allOf": [{"pattern": f"^.*{n}.*$"} for n in range(200)],
    },
    "huge lengths": lambda: {"type": "string", "maxLength": 10**9, "minLength": 10**4},
    "a huge minimum": lambda: {"type": "string", "minLength": 10**9},
    "huge counts": lambda: {
        "type": "array",
        "maxItems": 10**9,
        "minItems": 10**8,
        "items": {"type": "integer"},
    },
    "huge numbers": lambda: {"type": "integer", "minimum": 10**4000, "multipleOf": 3},
    "tiny steps": lambda: {
        "type": "number",
        "multipleOf": 1e-300,
        "maximum": 1e-200,
        "exclusiveMinimum": 0,
    },
    "many steps": lambda: {
        "allOf": [{"multipleOf": prime} for prime in range(1, 400)],
        "type": "integer",
    },
    "endless recursion": lambda: {
        "type": "object",
        "properties": {"a": {"$ref": "#"}},
        "required": ["a"],
    },
    "endless reference": lambda: {"$ref": "#"},
    "a circle": lambda: {
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "many branches apart": lambda: {
        "oneOf": [
            {
                "type": "object",
                "properties": {"k": {"const": n}, "v": {"type": "integer"}},
                "required": ["k"],
            }
            for n in range(400)
        ]
    },
    "many branches": lambda: {"oneOf": [{"type": "string", "pattern": f"{n}"} for n in range(60)]},
    "many negations": lambda: {"allOf": [{"not": {"const": n}} for n in range(2_000)]},
    "many conditions": lambda: {
        "allOf": [{"if": {"const": n}, "then": {"type": "integer"}} for n in range(40)]
    },
}
