"""Schemas and values at random, from a source of random numbers that hypothesis may be."""

from __future__ import annotations

import json
import random
from typing import Any

NAMES = ("a", "b", "ab", "name", "a b", 'q"', "é")
TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "abc",
    "Zoë",
    "日本",
    "😀",
    'say "hi"',
    "back\\slash",
    "tab\t",
    "x y",
    "7",
    "A-1",
)
PATTERNS: dict[str, tuple[str, ...]] = {
    "^a": ("a", "abc"),
    "b$": ("b", "ab"),
    "^[a-c]*$": ("", "abc"),
    "^[A-Z]-[0-9]+$": ("A-1", "Z-42"),
    "[0-9]": ("7", "a7b"),
    "^(?:foo|ba[rz])?$": ("", "foo", "baz"),
    r"^\S+$": ("x", "日本"),
    "^[^a]{2,3}$": ("xy", "日本語"),
    "^.+\\.(png|jpg)$": ("a.png", "b.c.jpg"),
}
FORMATS: dict[str, tuple[str, ...]] = {
    "date": ("2024-02-29", "1999-12-31"),
    "time": ("12:00:00Z", "23:59:59.5+02:00"),
    "date-time": ("2024-02-29T12:00:00Z", "1999-12-31T23:59:59.25-05:00"),
    "email": ("joe@example.com", "a.b+c@d.example.org"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000",),
    "uri": ("https://example.com/a?b=c#d", "urn:isbn:1"),
    "ipv4": ("127.0.0.1", "255.255.255.0"),
}
NUMBERS = (0, 1, -1, 2, 3, 7, 10, 12, 100, -5, 99, 0.5, 1.5, -2.25, 0.1, 3.75, 19.99)
_INDENTS: tuple[int | str, ...] = (1, 2, 4, "\t")
SCALARS: tuple[Any, ...] = (None, True, False, *NUMBERS[:8], 0.5, *TEXTS[:6])


def random_schema(rng: random.Random, depth: int = 3, *, refs: bool = False) -> Any:
    """Return a schema inside of what is compiled."""
    kinds = ["string", "integer", "number", "boolean", "null", "constant"]
    if depth > 0:
        kinds += [
            "object",
            "object",
            "object",
            "array",
            "array",
            "any_of",
            "one_of",
            "all_of",
            "types",
        ]
        kinds += ["not", "if", "anything"] + (["ref"] if refs else [])
    kind = rng.choice(kinds)
    return _MAKERS[kind](rng, depth - 1, refs)


def _string(rng: random.Random, depth: int, refs: bool) -> Any:
    schema: dict[str, Any] = {"type": "string"}
    what = rng.randrange(5)
    if what == 0:
        schema["pattern"] = rng.choice(list(PATTERNS))
    elif what == 1:
        schema["format"] = rng.choice(list(FORMATS))
    elif what == 2:
        schema["minLength"] = rng.randrange(4)
        schema["maxLength"] = schema["minLength"] + rng.randrange(4)
    elif what == 3:
        schema["maxLength"] = rng.randrange(5)
        schema["pattern"] = rng.choice(list(PATTERNS))
    return schema


def _number(rng: random.Random, depth: int, refs: bool) -> Any:
    schema: dict[str, Any] = {"type": rng.choice(["integer", "number"])}
    if rng.random() < 0.5:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = rng.choice(
            [-10, -1, 0, 1, 0.5, 3, 12]
        )
    if rng.random() < 0.5:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = rng.choice(
            [-1, 0, 1, 2.5, 10, 99, 123]
        )
    if rng.random() < 0.3:
        schema["multipleOf"] = rng.choice([1, 2, 3, 5, 0.5, 0.25, 0.01, 7])
    return schema


def _constant(rng: random.Random, depth: int, refs: bool) -> Any:
    if rng.random() < 0.4:
        return {"const": random_value(rng, max(0, depth))}
    values = [random_value(rng, max(0, depth)) for _ in range(rng.randrange(1, 6))]
    kept: list[Any] = []
    for value in values:
        if json.dumps(value) not in map(json.dumps, kept):
            kept.append(value)
    schema: dict[str, Any] = {"enum": kept}
    if rng.random() < 0.3:
        schema["type"] = rng.choice(["string", "integer", "number", ["string", "null"]])
    return schema


def _object(rng: random.Random, depth: int, refs: bool) -> Any:
    names = rng.sample(NAMES, rng.randrange(4))
    schema: dict[str, Any] = {"type": "object"}
    if names:
        schema["properties"] = {name: random_schema(rng, depth, refs=refs) for name in names}
    required = [name for name in names if rng.random() < 0.5]
    if rng.random() < 0.1:
        required.append(rng.choice(NAMES))
    if required:
        schema["required"] = list(dict.fromkeys(required))
    additional = rng.randrange(4)
    if additional == 0:
        schema["additionalProperties"] = False
    elif additional == 1:
        schema["additionalProperties"] = random_schema(rng, depth, refs=refs)
    if rng.random() < 0.15:
        schema["minProperties"] = rng.randrange(3)
    if rng.random() < 0.15:
        schema["maxProperties"] = rng.randrange(4)
    if rng.random() < 0.1:
        schema["propertyNames"] = _string(rng, depth, refs)
    if rng.random() < 0.1:
        schema["dependentRequired"] = {rng.choice(NAMES): rng.sample(NAMES, 1)}
    return schema


def _array(rng: random.Random, depth: int, refs: bool) -> Any:
    schema: dict[str, Any] = {"type": "array"}
    if rng.random() < 0.7:
        schema["items"] = random_schema(rng, depth, refs=refs)
    if rng.random() < 0.3:
        schema["prefixItems"] = [
            random_schema(rng, depth, refs=refs) for _ in range(rng.randrange(1, 3))
        ]
    if rng.random() < 0.3:
        schema["minItems"] = rng.randrange(3)
    if rng.random() < 0.3:
        schema["maxItems"] = rng.randrange(4)
    if rng.random() < 0.2:
        schema["uniqueItems"] = True
    return schema


def _combined(keyword: str) -> Any:
    def make(rng: random.Random, depth: int, refs: bool) -> Any:
        count = rng.randrange(1, 4)
        schema = {keyword: [random_schema(rng, depth, refs=refs) for _ in range(count)]}
        if rng.random() < 0.2:
            beside = random_schema(rng, 0)
            if isinstance(beside, dict):
                schema.update(beside)
        return schema

    return make


def _not(rng: random.Random, depth: int, refs: bool) -> Any:
    base = random_schema(rng, depth, refs=refs)
    excluded = random_schema(rng, min(depth, 1))
    return {"allOf": [base], "not": excluded}


def _if(rng: random.Random, depth: int, refs: bool) -> Any:
    keys = ("if", "then", "else")
    return {key: random_schema(rng, depth) for key in keys if key == "if" or rng.random() < 0.7}


def _types(rng: random.Random, depth: int, refs: bool) -> Any:
    types = rng.sample(["string", "integer", "number", "boolean", "null", "object", "array"], 2)
    schema: dict[str, Any] = {"type": types}
    if rng.random() < 0.3:
        schema = {"type": types[0], "nullable": True}
    if rng.random() < 0.3:
        schema["maxLength"], schema["minimum"] = 3, 1
    return schema


_MAKERS: dict[str, Any] = {
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda rng, depth, refs: {"type": "boolean"},
    "null": lambda rng, depth, refs: {"type": "null"},
    "constant": _constant,
    "object": _object,
    "array": _array,
    "any_of": _combined("anyOf"),
    "one_of": _combined("oneOf"),
    "all_of": _combined("allOf"),
    "types": _types,
    "not": _not,
    "if": _if,
    "anything": lambda rng, depth, refs: rng.choice([True, {}]),
    "ref": lambda rng, depth, refs: {"$ref": rng.choice(["#/$defs/x", "#/$defs/y"])},
}


def with_definitions(rng: random.Random) -> Any:
    """Return a schema whose parts refer to each other."""
    schema = random_schema(rng, 3, refs=True)
    if not isinstance(schema, dict):
        schema = {}
    schema["$defs"] = {name: _object(rng, 1, True) for name in "xy"}
    return schema


def random_value(rng: random.Random, depth: int = 2) -> Any:
    """Return any value of JSON."""
    kind = rng.randrange(4 if depth > 0 else 2)
    if kind == 2:
        return {rng.choice(NAMES): random_value(rng, depth - 1) for _ in range(rng.randrange(3))}
    if kind == 3:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    return rng.choice(SCALARS)


def value_for(rng: random.Random, schema: Any, root: Any = None, depth: int = 5) -> Any:
    """Return a value that is likely to meet a schema, though not sure to."""
    root = schema if root is None else root
    if depth <= 0 or not isinstance(schema, dict) or rng.random() < 0.03:
        return random_value(rng, 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    if "$ref" in schema:
        return value_for(rng, root["$defs"][schema["$ref"].rpartition("/")[2]], root, depth - 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return value_for(rng, rng.choice(schema[keyword]), root, depth - 1)
    if "if" in schema:
        key = rng.choice([key for key in ("if", "then", "else") if key in schema])
        return value_for(rng, schema[key], root, depth - 1)
    types = schema.get("type", ["object", "array", "string", "number"])
    kind = rng.choice(types) if isinstance(types, list) else types
    return _value_of_type(rng, kind, schema, root, depth - 1)


def _value_of_type(rng: random.Random, kind: str, schema: Any, root: Any, depth: int) -> Any:
    if kind == "object":
        return _value_of_object(rng, schema, root, depth)
    if kind == "array":
        prefix = schema.get("prefixItems", [])
        count = rng.randrange(schema.get("minItems", 0), max(schema.get("minItems", 0), 3) + 1)
        parts = (prefix + [schema.get("items", {})] * count)[:count]
        return [value_for(rng, part, root, depth) for part in parts]
    if kind == "string":
        if "pattern" in schema:
            return rng.choice(PATTERNS[schema["pattern"]])
        if "format" in schema:
            return rng.choice(FORMATS[schema["format"]])
        return rng.choice(TEXTS)
    if kind in ("integer", "number"):
        step = schema.get("multipleOf", 1)
        return rng.choice([rng.choice(NUMBERS), rng.randrange(-20, 130) * step])
    return None if kind == "null" else rng.random() < 0.5


def _value_of_object(rng: random.Random, schema: Any, root: Any, depth: int) -> Any:
    value: dict[str, Any] = {}
    for name, each in schema.get("properties", {}).items():
        if name in schema.get("required", ()) or rng.random() < 0.5:
            value[name] = value_for(rng, each, root, depth)
    for name in schema.get("required", ()):
        value.setdefault(name, random_value(rng, 1))
    if schema.get("additionalProperties") is not False and rng.random() < 0.4:
        value.setdefault(
            rng.choice(NAMES), value_for(rng, schema.get("additionalProperties", {}), root, depth)
        )
    items = list(value.items())
    rng.shuffle(items)
    return dict(items)


def layouts(rng: random.Random, value: Any) -> str:
    """Return a value as text, in one of the usual layouts."""
    how = rng.randrange(4)
    if how == 0:
        return json.dumps(value)
    if how == 1:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if how == 2:
        return json.dumps(value, ensure_ascii=False, indent=rng.choice(_INDENTS)) + "\n"
    return " " + json.dumps(value, separators=(" , ", " : "))
