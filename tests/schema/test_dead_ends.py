"""Corners in which a text was accepted that nothing completes."""

from __future__ import annotations

from typing import Any

from rkllama.schema.grammar import compile_schema
from tests.cases import cases


@cases(
    ("schema", "accepted", "refused"),
    [
        ({"type": "string", "maxLength": 1, "pattern": "^(?:foo)?$"}, '"', "\\"),
        ({"type": "string", "maxLength": 1, "pattern": "^(?:foo)?$"}, '"', "f"),
        ({"type": "string", "minLength": 2, "pattern": "^(?:a|bc)$"}, '"', "a"),
        ({"type": "string", "pattern": "^[a-z]$"}, '"\\u00', "4"),
        ({"type": "string"}, '"\\u', "\\"),
        ({"type": "string"}, '"\\ud', "c"),
        ({"type": "string", "maxLength": 0}, '"', "\\"),
        ({"type": "number", "exclusiveMaximum": 0, "multipleOf": 3}, "-99999999999999999", "."),
        ({"type": "integer", "minimum": 0}, "", "-"),
        ({"type": "number", "minimum": -0.5}, "-", "1"),
        ({"type": "integer", "minimum": 20, "maximum": 29}, "", "3"),
        ({"type": "integer", "minimum": 20, "maximum": 29}, "2", "}"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, '{"', "b"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, '{"a": 1', ","),
        ({"type": "object", "required": ["a"], "maxProperties": 1}, '{"', "b"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {}}}, '{"a":' * 63 + '{"a', '"'),
        ({"type": "array", "items": {"const": 1}, "maxItems": 1}, "[1", ","),
        ({"type": "array", "items": {"enum": ["a"]}, "uniqueItems": True}, '["a"', ","),
    ],
)  # fmt: skip
def test_no_step_leads_into_one(schema: Any, accepted: str, refused: str) -> None:
    count, state = compile_schema(schema).start().feed(accepted)
    assert count == len(accepted)
    assert state.advance(refused) is None
