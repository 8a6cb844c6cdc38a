"""Schemas in llama.cpp's notation for grammars: what such a grammar makes is valid."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from rkllama.schema.grammar import compile_schema
from rkllama.schema.values import DuplicateKey, parse
from tests.cases import cases
from tests.schema.corners import CORNERS
from tests.schema.gbnf import Gbnf
from tests.schema.reference import Reference
from tests.schema.tools import ALL, LARGEST, OUTSIDE

pytestmark = pytest.mark.unit

TOO_LARGE = "a call of any tool of the MCP servers"
SCHEMAS: dict[str, Any] = {
    **{name: corner.schema for name, corner in CORNERS.items()},
    **{name: schema for name, schema in ALL.items() if name not in OUTSIDE},
    **{name: schema for name, schema in LARGEST.items() if name != TOO_LARGE},
}


def gbnf_of(schema: Any) -> Gbnf:
    text = compile_schema(schema).gbnf()
    assert text is not None
    return Gbnf(text)


def names_a_key_twice(text: str) -> bool:
    """Whether it does, which such a grammar holds off only for keys that its schema names."""
    try:
        parse(text)
    except DuplicateKey:
        return True
    return False


@cases("name", SCHEMAS)
def test_what_a_grammar_makes_is_valid(name: str) -> None:
    """But for what is known at a value's end only, which whoever asks for the text has to look at."""
    grammar, reference = compile_schema(SCHEMAS[name]), Reference(SCHEMAS[name])
    gbnf, rng = gbnf_of(SCHEMAS[name]), random.Random(name)
    for _ in range(3):
        text = gbnf.sample(rng)
        if grammar.decided_by_prefix and not names_a_key_twice(text):
            assert grammar.accepts(text), f"{text}: {grammar.find_error(text)}"
            assert reference.is_valid(text), text
        else:
            json.loads(text)


def samples(schema: Any) -> set[str]:
    gbnf, rng = gbnf_of(schema), random.Random(1)
    return {gbnf.sample(rng) for _ in range(400)}


def test_all_that_is_short_is_found() -> None:
    assert samples({"type": "integer", "minimum": 8, "maximum": 12}) == {"8", "9", "10", "11", "12"}
    assert samples({"type": "number", "minimum": -0.1, "maximum": 0.1, "multipleOf": 0.1}) >= {
        *("-0.1", "0", "0.0", "0.1")
    }
    assert samples({"type": "integer", "multipleOf": 5, "minimum": -7, "maximum": 12}) == {
        *("-5", "0", "5", "10")
    }
    assert samples({"enum": ["a", 1, None]}) == {'"a"', "1", "null"}


def test_keys_come_in_order_and_the_optional_ones_may_be_left_out() -> None:
    schema = {
        "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}},
        "required": ["b"],
        "type": "object",
    }
    found = {text.replace(" ", "") for text in samples(schema)}
    assert found == {'{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}', '{"a":1,"b":2,"c":3}'}


def test_other_keys_come_where_they_are_asked_for_and_are_none_of_the_named() -> None:
    schema = {
        "type": "object",
        "properties": {"ab": {"const": 1}},
        "additionalProperties": {"const": 2},
    }
    others = [json.loads(text) for text in samples(schema)]
    assert {value.get("ab", 1) for value in others} == {1}
    assert any(len(value) > 1 for value in others)


def test_counts_that_are_high_take_few_rules_and_hold() -> None:
    for least, most in ((300, 300), (0, 4000), (70, 700)):
        text = compile_schema({"type": "string", "minLength": least, "maxLength": most}).gbnf()
        assert text is not None
        assert len(text) < 1000
        sizes = {len(json.loads(Gbnf(text).sample(random.Random(n), 5000))) for n in range(20)}
        assert least <= min(sizes)
        assert max(sizes) <= most


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "minItems": 100_000_000},
        {"type": "string", "pattern": "^([a-z]{1,15}[0-9]){50}$", "minLength": 200},
        {"type": "integer", "multipleOf": 7919, "maximum": 10**15},
    ],
)
def test_what_would_be_too_large_is_none(schema: Any) -> None:
    assert compile_schema(schema).gbnf() is None
