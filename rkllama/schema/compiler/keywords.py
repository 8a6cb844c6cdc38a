"""The keywords of one plain schema, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..errors import InvalidSchema
from ..numbers import as_fraction
from .branches import Part

TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
ALL_TYPES = TYPES - {"integer"}


def wrong(part: Part, keyword: str, reason: str) -> InvalidSchema:
    """Return the error for a keyword whose value it cannot have."""
    return InvalidSchema(part.place.pointer, keyword, reason)


def types_of(part: Part) -> frozenset[str]:
    """Return the types that a schema allows."""
    found = part.schema.get("type")
    if found is None:
        return ALL_TYPES
    names = found if isinstance(found, list) else [found]
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        raise wrong(part, "type", "is not a type of JSON, or a list of them")
    types = set(names)
    if part.schema.get("nullable") is True:
        types.add("null")
    if "number" in types:
        types.discard("integer")
    return frozenset(types)


def both_types(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the types that two sets have in common: integers are numbers."""
    common = set(one & other)
    if "integer" in one | other and {"integer", "number"} & one and {"integer", "number"} & other:
        common.add("integer")
    return frozenset(common)


def count_of(part: Part, keyword: str) -> int | None:
    """Return a keyword's value as a count; None where it is not there."""
    value = part.schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong(part, keyword, "is not a count")
    return value


def number_of(part: Part, keyword: str) -> Fraction | None:
    """Return a keyword's value as a number; None where it is not there."""
    value = part.schema.get(keyword)
    if value is None:
        return None
    exact = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        exact = as_fraction(value)
    if exact is None:
        raise wrong(part, keyword, "is not a number")
    return exact


def bound_of(part: Part, keyword: str, exclusive: str) -> tuple[Fraction, bool] | None:
    """Return a bound of numbers, and whether it is excluded itself; None where there is none.

    In the drafts up to 4 `exclusiveMinimum` was a boolean beside `minimum`, as it still is in OpenAPI 3.0.
    """
    inclusive = number_of(part, keyword)
    if isinstance(part.schema.get(exclusive), bool):
        return None if inclusive is None else (inclusive, part.schema[exclusive])
    excluded = number_of(part, exclusive)
    if excluded is None:
        return None if inclusive is None else (inclusive, False)
    sign = 1 if keyword == "minimum" else -1
    if inclusive is None or excluded * sign >= inclusive * sign:
        return excluded, True
    return inclusive, False


def names_of(part: Part, keyword: str) -> list[str]:
    """Return a keyword's list of names."""
    names = part.schema.get(keyword, [])
    if isinstance(names, bool):  # draft 3, and many a tool: `required` in the property itself
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise wrong(part, keyword, "is not a list of names")
    return names


def mapping_of(part: Part, keyword: str) -> Mapping[str, Any]:
    """Return a keyword's object."""
    found = part.schema.get(keyword, {})
    if not isinstance(found, Mapping):
        raise wrong(part, keyword, "is not an object")
    return found


def text_of(part: Part, keyword: str) -> str | None:
    """Return a keyword's text; None where it is not there."""
    found = part.schema.get(keyword)
    if found is not None and not isinstance(found, str):
        raise wrong(part, keyword, "is not a string")
    return found


def constants_of(part: Part) -> list[Any] | None:
    """Return the values that `enum` and `const` leave; None where neither is there."""
    if "enum" in part.schema and not isinstance(part.schema["enum"], list):
        raise wrong(part, "enum", "is not a list")
    if "const" in part.schema:
        return [part.schema["const"]]
    found: list[Any] | None = part.schema.get("enum")
    return found


def inner(part: Part, *names: str | int) -> Part:
    """Return a part of a schema, `names` further down."""
    schema = part.schema
    for name in names:
        schema = schema[name]
    return Part(schema, part.place.inner(*names))


def items_of(part: Part) -> tuple[list[Part], Part | None]:
    """Return the schemas of an array's first items, and of all others; None: they may be anything."""
    schema = part.schema
    prefix, rest = "prefixItems", "items"
    if isinstance(schema.get("items"), list):  # as it was before draft 2020-12
        prefix, rest = "items", "additionalItems"
    first = schema.get(prefix, [])
    if not isinstance(first, list):
        raise wrong(part, prefix, "is not a list of schemas")
    parts = [inner(part, prefix, index) for index in range(len(first))]
    return parts, inner(part, rest) if rest in schema else None
