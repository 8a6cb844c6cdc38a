"""The JSON schema that llama.cpp gets: objects are closed where the client's schema left them open."""

from __future__ import annotations

from typing import Any

import pytest

from rkllama.backends.grammar import (
    grammar_schemas,
    with_closed_objects,
    with_few_digits,
    without_high_limits,
    without_patterns,
)

pytestmark = pytest.mark.integration

TEXT = {"type": "string"}


def test_objects_are_closed_at_every_depth() -> None:
    pet = {"type": "object", "properties": {"name": TEXT}}
    schema = {
        "type": "object",
        "properties": {"pets": {"type": "array", "items": pet}, "first": {"$ref": "#/$defs/pet"}},
        "required": ["pets"],
        "$defs": {"pet": pet, "other": {"anyOf": [pet, {"type": "null"}]}},
    }
    closed = with_closed_objects(schema)
    shut = {**pet, "additionalProperties": False}
    assert closed["additionalProperties"] is False
    assert closed["properties"]["pets"]["items"] == shut
    assert closed["$defs"] == {"pet": shut, "other": {"anyOf": [shut, {"type": "null"}]}}
    assert "additionalProperties" not in schema, "the client's own schema was changed"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": TEXT}, "required": ["b"]},
        {"properties": {"a": TEXT}, "allOf": [{"properties": {"b": TEXT}}]},
        {"properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}},
        {"properties": {}},
        {"properties": {"a": TEXT}, "required": "a"},
        {"items": True, "enum": [{"properties": {"a": 1}}]},
    ],
)
def test_what_would_not_fit_any_more_stays_open(schema: Any) -> None:
    assert with_closed_objects(schema) == schema


def test_limits_that_no_grammar_counts_up_to_are_left_to_the_check() -> None:
    many = {"type": "array", "minItems": 10**7, "maxItems": 10**18, "items": {"maxLength": 10**9}}
    schema = {"properties": {"a": many, "maxItems": TEXT}, "enum": [{"maxItems": 10**18}]}
    lowered = {"type": "array", "minItems": 10_000, "items": {}}
    assert without_high_limits(schema) == {**schema, "properties": {"a": lowered, "maxItems": TEXT}}
    assert many["maxItems"] == 10**18, "the client's own schema was changed"
    few = {"type": "string", "minLength": 2, "maxLength": 10_000, "maximum": 10**9}
    assert without_high_limits(few) == few


BOUNDED = {"minimum": -9007199254740991, "maximum": 9007199254740991}


def test_numbers_get_a_limit_of_digits() -> None:
    schema: dict[str, Any] = {
        "properties": {
            "count": {"type": "integer", "minimum": 1},
            "price": {"type": ["number", "null"], "multipleOf": 0.01, "exclusiveMaximum": 1e300},
            "far": {"type": "number", "minimum": 1e17},
        },
        "enum": [{"type": "number"}],
    }
    assert with_few_digits(schema) == {
        "properties": {
            "count": {"type": "integer", **BOUNDED, "minimum": 1},
            "price": {"type": ["number", "null"], "multipleOf": 0.01, **BOUNDED},
            "far": {"type": "number", "minimum": 1e17},
        },
        "enum": [{"type": "number"}],
    }
    assert "minimum" not in schema["properties"]["price"], "the client's own schema was changed"
    first, second = grammar_schemas({"type": "integer"})
    assert first["maximum"] == BOUNDED["maximum"]
    assert second.keys() == {"type", "x-guidance"}


def test_patterns_go_and_properties_of_that_name_stay() -> None:
    schema = {
        "properties": {
            "pattern": {"type": "string", "pattern": "x"},
            "n": {"anyOf": [{"pattern": "y"}]},
        },
        "const": {"pattern": "z"},
    }
    assert without_patterns(schema) == {
        "properties": {"pattern": {"type": "string"}, "n": {"anyOf": [{}]}},
        "const": {"pattern": "z"},
    }
