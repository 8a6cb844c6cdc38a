"""The JSON schema that llama.cpp's grammar engine (llguidance) gets in place of a client's.

Text that meets it meets the client's schema too, but for what a grammar cannot express: the engine checks
the whole completion afterwards. The client's schema is never changed, always copied.
"""

from __future__ import annotations

from typing import Any

_LARGEST = 9_007_199_254_740_991
"""Digits of a number before its point: 16, as many as a JSON number holds exactly."""
_SMALLEST = 1e-10
"""Digits after the point: llguidance counts no further. Small models can go on with them for ever."""
_ANY = {
    "type": ["object", "array", "string", "number", "boolean", "null"],
    "additionalProperties": {"$ref": "#/$defs/any"},
    "items": {"$ref": "#/$defs/any"},
}
_ANY_OBJECT = {
    "type": "object",
    "additionalProperties": {"$ref": "#/$defs/any"},
    "$defs": {"any": _ANY},
}
"""The schema of JSON mode."""
_GUIDANCE = {"whitespace_flexible": False, "coerce_one_of": True, "lenient": True}
"""llguidance's own options. Blanks between JSON's tokens have an end: a small model can fill its whole
completion with them. Keywords that a grammar cannot express are passed over, else there is no grammar."""
_HIGHEST_COUNT = 10_000
"""Items or characters that a grammar counts: with a thousand times more it takes minutes for a token."""
_COUNTED = ("Items", "Length", "Properties", "Contains")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "prefixItems")
_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions")
_COMPOSING = {"allOf", "anyOf", "oneOf", "$ref", "patternProperties"}


def grammar_schemas(schema: Any) -> list[dict[str, Any]]:
    """The schemas to constrain with, best first, for an engine that may not take the first one.

    They are made of a JSON schema, or of "json" for any object.
    """
    plain = without_high_limits(with_closed_objects(_ANY_OBJECT if schema == "json" else schema))
    return [{**each, "x-guidance": _GUIDANCE} for each in (with_few_digits(plain), plain)]


def with_few_digits(schema: Any) -> Any:
    """Return the schema with limits for numbers that have none: 16 digits before the point, ten after it."""
    if isinstance(schema, list):
        return [with_few_digits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    limited = {
        name: value if name in ("const", "enum", "default") else with_few_digits(value)
        for name, value in schema.items()
    }
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "number" not in kinds and "integer" not in kinds:
        return limited
    bounds = ("minimum", "exclusiveMinimum", -_LARGEST), ("maximum", "exclusiveMaximum", _LARGEST)
    if any(_is_beyond(schema.get(name), -limit) for *names, limit in bounds for name in names):
        return limited  # all these numbers have more digits
    for name, exclusive, limit in bounds:
        if all(each not in schema or _is_beyond(schema[each], limit) for each in (name, exclusive)):
            limited.pop(exclusive, None)
            limited[name] = limit
    if "number" in kinds and not _COMPOSING & schema.keys():
        limited.setdefault("multipleOf", _SMALLEST)
    return limited


def _is_beyond(bound: Any, limit: int) -> bool:
    """Return whether a bound lies further from zero than `limit`, on the same side."""
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        return False
    return bound > limit if limit > 0 else bound < limit


def without_high_limits(schema: Any) -> Any:
    """The schema without limits that are too high for a grammar to count up to."""
    if isinstance(schema, list):
        return [without_high_limits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = dict(schema)
    for name, value in schema.items():
        if name in ("const", "enum", "default"):
            continue
        if isinstance(value, dict | list):
            lowered[name] = without_high_limits(value)
        elif isinstance(value, int | float) and value > _HIGHEST_COUNT and name[3:] in _COUNTED:
            if name.startswith("max"):
                del lowered[name]
            elif name.startswith("min"):
                lowered[name] = _HIGHEST_COUNT
    return lowered


def without_patterns(schema: Any) -> Any:
    """The schema without its texts' patterns: llama.cpp's own grammars, in builds without llguidance, refuse
    those with no ^ and $ around them, and what such expressions cannot say at all.
    """
    if isinstance(schema, list):
        return [without_patterns(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    literal = ("const", "enum", "default")
    return {
        name: value if name in literal else without_patterns(value)
        for name, value in schema.items()
        if name != "pattern" or not isinstance(value, str)
    }


def with_closed_objects(schema: Any) -> Any:
    """Return the schema with each object limited to the properties that it names, where it leaves that open.

    Small models would else go on inventing properties until there are no tokens left.
    """
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    if "items" in schema:
        closed["items"] = with_closed_objects(schema["items"])
    for name in _LISTS_OF_SCHEMAS:
        if isinstance(schema.get(name), list):
            closed[name] = [with_closed_objects(each) for each in schema[name]]
    for name in _SCHEMAS_BY_NAME:
        if isinstance(schema.get(name), dict):
            closed[name] = {key: with_closed_objects(each) for key, each in schema[name].items()}
    if _names_all_properties(schema):
        closed.setdefault("additionalProperties", False)
    return closed


def _names_all_properties(schema: dict[str, Any]) -> bool:
    """Whether an object with no other properties than those named can meet the schema."""
    properties, required = schema.get("properties"), schema.get("required") or []
    if not isinstance(properties, dict) or not properties or not isinstance(required, list):
        return False
    if _COMPOSING & schema.keys():
        return False
    return all(isinstance(name, str) and name in properties for name in required)
