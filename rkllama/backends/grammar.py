"""The JSON schema that llama.cpp's grammar engine (llguidance) gets in place of a client's.

Text that meets it meets the client's schema too, but for what a grammar cannot express: the engine checks
the whole completion afterwards. The client's schema is never changed, always copied.
"""

from __future__ import annotations

from typing import Any

_ANY_OBJECT = {"type": "object"}
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


def grammar_schema(schema: Any) -> Any:
    """The schema to constrain with: of "json" any object, None of None."""
    if schema == "json":
        schema = _ANY_OBJECT
    schema = without_high_limits(with_closed_objects(schema))
    return {**schema, "x-guidance": _GUIDANCE} if isinstance(schema, dict) else schema


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
