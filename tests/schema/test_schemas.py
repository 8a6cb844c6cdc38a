"""What grammars accept, beside what others call valid: corners by hand, and schemas as programs send them."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama.schema.errors import InvalidSchema, SchemaError, UnsupportedSchema
from rkllama.schema.grammar import Grammar, compile_schema
from tests.cases import cases
from tests.fuzzing import examples
from tests.schema.corners import CORNERS, NARROWER
from tests.schema.generating import layouts, random_schema, value_for, with_definitions
from tests.schema.reference import Reference, is_plainly_written
from tests.schema.tools import ALL, LARGEST, OUTSIDE
from tests.schema.walking import DeadEnd, random_text

REAL = {**{name: schema for name, schema in ALL.items() if name not in OUTSIDE}, **LARGEST}
_SEEDS = st.integers(0, 2**32)
_WALKS = 2
_MUTATIONS = 8
_INSERTED = '{}[]":, 0123456789-.atfnul\\é'


@cache
def grammar(name: str) -> Grammar:
    return compile_schema(REAL[name])


def test_there_are_schemas_enough() -> None:
    assert len(CORNERS) + len(REAL) >= 200


@cases("name", CORNERS)
def test_a_corner_is_read_as_others_read_it(name: str) -> None:
    schema, valid, invalid = CORNERS[name]
    made, reference = compile_schema(schema), Reference(schema)
    for text in valid:
        assert made.accepts(text), f"{text}: {made.find_error(text)}"
        assert reference.is_valid(text)
    for text in invalid:
        assert not made.accepts(text), text
        assert made.find_error(text)
        assert text in NARROWER or not reference.is_valid(text)


@pytest.mark.integration
@pytest.mark.parametrize("name", REAL)
def test_what_a_grammar_makes_is_valid(name: str) -> None:
    """And what is changed in it by one character is accepted where it is still valid, and only there."""
    rng = random.Random(name)
    reference = Reference(REAL[name])
    for _ in range(_WALKS):
        _check_walk(grammar(name), reference, rng)


@cases("name", REAL)
def test_what_is_forced_and_chosen_is_in_the_canonical_layout(name: str) -> None:
    try:
        text = random_text(grammar(name), random.Random(name), 0)
    except DeadEnd:
        assert not grammar(name).decided_by_prefix
        return
    text = re.sub(
        r",(?=[\d-])", ", ", text
    )  # behind a number that could go on, the walk chose the comma
    assert text == json.dumps(json.loads(text), ensure_ascii=False)


def _check_walk(made: Grammar, reference: Reference, rng: random.Random) -> None:
    try:
        text = random_text(made, rng)
    except DeadEnd:
        if made.decided_by_prefix:
            raise
        return
    assert reference.is_valid(text), text
    for _ in range(_MUTATIONS):
        _check_text(made, reference, _mutated(text, rng))


def _check_text(made: Grammar, reference: Reference, text: str) -> None:
    valid, accepted = reference.is_valid(text), made.accepts(text)
    assert valid or not accepted, f"it is not valid: {text}"
    if valid and is_plainly_written(text):
        assert accepted, f"{made.find_error(text)}: {text}"


def _mutated(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    inserted: str = rng.choice([*_INSERTED, ""])
    return text[:at] + inserted + text[at + rng.randrange(2) :]


@settings(max_examples=examples(1))
@given(_SEEDS)
def test_a_random_schema_is_read_as_others_read_it(seed: int) -> None:
    rng = random.Random(seed)
    schema = with_definitions(rng) if rng.random() < 0.25 else random_schema(rng)
    try:
        made = compile_schema(schema)
    except InvalidSchema:  # nothing meets it
        _assert_nothing_meets(schema, rng)
        return
    reference = Reference(schema)
    for _ in range(10):
        _check_text(made, reference, layouts(rng, value_for(rng, schema)))
    _check_walk(made, reference, rng)


def _assert_nothing_meets(schema: Any, rng: random.Random) -> None:
    reference = Reference(schema)
    for _ in range(10):
        value = value_for(rng, schema)
        if is_plainly_written(json.dumps(value)):
            assert not _met(reference, value), value


def _met(reference: Reference, value: Any) -> bool:
    try:
        return reference.admits(value)
    except RecursionError:
        return False


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_is_named(name: str) -> None:
    with pytest.raises(UnsupportedSchema) as caught:
        compile_schema(ALL[name])
    assert caught.value.path == "#/properties/price/anyOf/1"
    assert caught.value.keyword == "pattern"


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        ({"properties": {"a/b": {"patternProperties": {"x": {}}}}}, "#/properties/a~1b", "patternProperties"),
        ({"items": {"contains": {}}}, "#/items", "contains"),
        ({"unevaluatedProperties": False}, "#", "unevaluatedProperties"),
        ({"$defs": {"x": {"pattern": "(?=a)"}}, "$ref": "#/$defs/x"}, "#/$defs/x", "pattern"),
        ({"pattern": "(a)\\1"}, "#", "pattern"),
        ({"pattern": "\\bword\\b"}, "#", "pattern"),
        ({"pattern": "\\p{Lu}"}, "#", "pattern"),
        ({"minLength": 10**6}, "#", "minLength"),
        ({"propertyNames": {"anyOf": [{"pattern": "^a"}, {"pattern": "b$"}]}}, "#/propertyNames", "schema"),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_the_place_of_what_lies_outside_is_told(schema: Any, path: str, keyword: str) -> None:
    with pytest.raises(UnsupportedSchema) as caught:
        compile_schema(schema)
    assert (caught.value.path, caught.value.keyword) == (path, keyword)
    assert path in str(caught.value)


@cases(
    "schema",
    [
        5,
        None,
        [],
        "text",
        {"type": "objekt"},
        {"type": []},
        {"properties": []},
        {"properties": {"a": 1}},
        {"items": [1]},
        {"items": 5},
        {"required": "a"},
        {"minimum": "low"},
        {"minLength": -1},
        {"minLength": True},
        {"maxItems": 1.5},
        {"multipleOf": 0},
        {"enum": "a"},
        {"enum": []},
        {"anyOf": []},
        {"allOf": {}},
        {"pattern": 5},
        {"dependentRequired": {"a": "b"}},
        {"$ref": 5},
        {"$ref": "#/nowhere"},
        {"$ref": "#nowhere"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "http://["},
        {"$ref": "#/allOf/7", "allOf": [{}]},
        {"minimum": 2, "maximum": 1, "type": "number"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "string", "minLength": 3, "pattern": "^a?$"},
        {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 10},
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "required": ["a", "b"], "maxProperties": 1},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False, "minProperties": 2},
        {"not": {}},
        False,
    ],
    ids=lambda schema: str(schema)[:50],
)  # fmt: skip
def test_what_is_not_a_schema_or_has_no_value_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidSchema):
        compile_schema(schema)


def test_references_are_looked_up_in_the_document_that_is_given() -> None:
    document = {
        "components": {"x": {"type": "integer"}},
        "part": {"items": {"$ref": "#/components/x"}},
    }
    part = {"type": "array", "items": {"$ref": "#/components/x"}}
    assert compile_schema(part, document).accepts("[1]")
    assert not compile_schema(part, document).accepts('["1"]')
    with pytest.raises(InvalidSchema, match="refers to nothing"):
        compile_schema(part)


def test_every_error_is_of_one_kind() -> None:
    with pytest.raises(SchemaError, match="minimum at #/items is not a number"):
        compile_schema({"items": {"minimum": "x"}})
