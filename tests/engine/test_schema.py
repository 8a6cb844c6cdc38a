"""Structured answers where the backend cannot be constrained."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from rkllama.engine.structured import schema as schemas
from rkllama.engine.structured.schema import (
    check_schema,
    embedded_json,
    grammar_of,
    retry_message,
    schema_prompt,
    strip_fence,
    validate_answer,
)
from rkllama.errors import InvalidRequest
from tests.cost import assert_linear

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "pets": {"type": "array", "items": {"$ref": "#/$defs/pet"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"pet": {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}}},
}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.integration
def test_a_valid_answer_has_no_error() -> None:
    assert validate_answer('{"name": "Zoë", "age": 3, "pets": [{"kind": "cat"}]}', PERSON) is None
    assert validate_answer(' {"a": [1]}\n', "json") is None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Sure! {}", "not JSON"),
        ("", "not JSON"),
        ('{"name": "A"', "not JSON"),
        ('{"name": "A", "age": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"name": "A"}', "'age' is a required property"),
        ('{"name": "A", "age": "3"}', "at age: '3' is not of type 'integer'"),
        ('{"name": "A", "age": -1}', "at age: -1 is less than the minimum"),
        ('{"name": "A", "age": 1, "pets": [{"kind": "cow"}]}', "at pets[0].kind: 'cow'"),
        ('{"name": "A", "age": 1, "x": 1}', "'x' was unexpected"),
        ("[1]", "is not of type 'object'"),
    ],
)
def test_an_error_names_the_place_and_what_is_wrong(answer: str, said: str) -> None:
    error = validate_answer(answer, PERSON)
    assert error is not None
    assert said in error
    assert error in retry_message(error)


@pytest.mark.parametrize("schema", ["json", PERSON, {}])
def test_a_key_that_comes_twice_is_an_error(schema: Any) -> None:
    error = validate_answer('{"name": "A", "age": 1, "\\u0061ge": 2}', schema)
    assert error == "it has the key 'age' twice in one object"


@pytest.mark.parametrize(
    ("format", "value", "fits"),
    [
        ("date", "2024-02-29", True),
        ("date", "2023-02-29", False),
        ("time", "12:00:00Z", True),
        ("time", "noon", False),
        ("date-time", "2024-02-29T12:00:00+01:00", True),
        ("date-time", "tomorrow", False),
        ("email", "joe@example.com", True),
        ("email", "joe", False),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", True),
        ("uuid", "123e4567", False),
        ("uri", "https://example.com/a?b#c", True),
        ("uri", "example", False),
        ("ipv4", "127.0.0.1", True),
        ("ipv4", "127.0.0.256", False),
        ("date", 20240229, True),
        ("colour", "any", True),
    ],
)
def test_formats_are_asserted(format: str, value: Any, fits: bool) -> None:
    error = validate_answer(json.dumps({"at": value}), {"properties": {"at": {"format": format}}})
    assert (error is None) is fits
    assert fits or error == f"at at: {value!r} is not a {format!r}"


def test_any_json_object_means_an_object() -> None:
    assert validate_answer("[1]", "json") == "it is JSON, but not an object"
    assert validate_answer('"x"', "json") is not None


@pytest.mark.integration
def test_a_long_value_does_not_make_a_long_error() -> None:
    error = validate_answer(json.dumps({"name": ["x" * 10_000], "age": 1}), PERSON)
    assert error is not None
    assert len(error) < 500


@pytest.mark.integration
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"properties": []},
        {"minimum": "low"},
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#"},
        {"$schema": 5},
        {"$schema": []},
        {"$schema": "http://["},
        {"pattern": "a{99999999999999999999}"},
        {"pattern": "(" * 9999},
        _nested(300),
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_an_unusable_schema_is_the_client_s_error(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="schema") as caught:
        validate_answer('"a"', schema)
    assert caught.value.param == "format"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nowhere"},
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}},
        {"items": {"allOf": [{"$ref": "#/$defs/x"}]}},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#missing"}}}},
        {"$ref": "#"},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": {"$ref": "#/definitions/x"},
        },
        {"$dynamicRef": "#nowhere"},
        {"$ref": "http://["},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_a_reference_that_leads_nowhere_is_refused_beforehand(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="refers to"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$id": "http://[", "$ref": "x"}}},
        {"$ref": "#/x", "x": {"allOf": 3}},
        {"$ref": "#/x", "x": {"properties": [1]}},
        {"$ref": "#/x", "x": {"$ref": 5}},
        {"$ref": "#/x/0", "x": [{"not": {"$ref": "#/x/0"}}]},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_a_reference_to_what_is_no_schema_is_the_client_s_error(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="schema is not valid"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {"$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"},
        {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
        {"$defs": {"x": {"$anchor": "here"}}, "$ref": "#here"},
        {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "#/nowhere"}]},
        {"$id": "http://a/b", "$defs": {"x": {"$id": "c"}}, "$ref": "http://a/c"},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_a_reference_that_leads_somewhere_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)


CODE = {"properties": {"code": {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}}}


@pytest.mark.integration
def test_patterns_are_checked() -> None:
    assert validate_answer('{"code": "AB-12"}', CODE) is None
    assert validate_answer('{"code": "Zürich"}', CODE) == (
        "at code: 'Zürich' does not match '^[A-Z]{2}-\\\\d+$'"
    )
    names = {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False}
    assert validate_answer('{"n_1": 1}', names) is None
    assert validate_answer('{"m_1": 1}', names) is not None
    assert validate_answer('{"n_1": "1"}', names) is not None


ENDLESS: dict[str, tuple[dict[str, Any], Any]] = {
    "a pattern": ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 40 + "!"}),
    "a name's pattern": ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 40 + "!": 1}),
    "references": (
        {
            "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)}
            | {"60": {"type": "string"}},
            "$ref": "#/$defs/0",
        },
        1,
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_whose_check_does_not_end_is_not_valid(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "_MAX_SECONDS", 1.0)
    schema, answer = ENDLESS[name]
    assert validate_answer(json.dumps(answer), schema) == "it could not be checked within 1 s"


@pytest.mark.integration
def test_an_answer_that_breaks_its_checker_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    error = validate_answer('{"code": "Zürich"}', CODE)
    assert error is not None
    assert "could not be checked" in error
    assert validate_answer('{"code": "AB-12"}', CODE) is None, "its grammar knows"


@pytest.mark.integration
def test_a_pattern_that_takes_for_ever_to_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_MAX_SECONDS", 1.0)
    with pytest.raises(InvalidRequest, match="could not be checked within 1 s"):
        check_schema({"pattern": "(?i)" + "[\0-\U0010ffff]" * 1000})


@pytest.mark.integration
def test_a_schema_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_MAX_SECONDS", 1.0)
    with pytest.raises(InvalidRequest, match="could not be checked within 1 s"):
        check_schema({"anyOf": [{"const": number} for number in range(100_000)]})


def test_a_number_that_cannot_be_computed_with_is_not_valid() -> None:
    assert validate_answer("1e999", {"multipleOf": 0.1}) is not None
    assert validate_answer("1e999", {"type": "integer"}) is not None


@pytest.mark.parametrize(
    ("answer", "factor", "fits"),
    [
        ("19.99", 0.01, True),
        ("0.3", 0.1, True),
        ("19.995", 0.01, False),
        ("1e300", 0.01, True),
        ("1" * 4000, 0.1, True),
        ("7", 2, False),
        ("4.5", 1.5, True),
        ('"x"', 2, True),
    ],
)
def test_multiples_are_counted_in_decimals(answer: str, factor: float, fits: bool) -> None:
    assert (validate_answer(answer, {"multipleOf": factor}) is None) is fits


def test_a_schema_is_checked_beforehand() -> None:
    check_schema(PERSON)
    check_schema("json")
    with pytest.raises(InvalidRequest):
        check_schema({"type": 3})


def test_a_draft_is_named_by_its_uri() -> None:
    with pytest.raises(InvalidRequest, match=r"its \$schema is not the URI of a draft"):
        check_schema({"$schema": 5})


def test_older_drafts_are_understood() -> None:
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1}
    assert validate_answer("0", {**schema, "exclusiveMinimum": True}) is not None
    assert validate_answer("2", schema) is None


@pytest.mark.parametrize(
    ("answer", "schema", "fits"),
    [
        ("null", {"type": "string", "nullable": True}, True),
        ('"a"', {"type": "string", "nullable": True}, True),
        ("1", {"type": "string", "nullable": True}, False),
        ("null", {"type": "string", "nullable": False}, False),
        ("null", {"type": "string", "nullable": "yes"}, False),
        ("null", {"type": ["string", "integer"], "nullable": True}, True),
        ("null", {"type": "string", "enum": ["a"], "nullable": True}, False),
        ("null", {"type": "string", "enum": ["a", None], "nullable": True}, True),
        ("1", {"nullable": False}, True),
        ("null", {"nullable": False}, True),
        ("null", {"allOf": [{"type": "string"}], "nullable": True}, False),
        ('{"a": null}', {"properties": {"a": {"type": "integer", "nullable": True}}}, True),
        ('{"a": null}', {"properties": {"a": {"type": "integer"}}, "nullable": True}, False),
    ],
)
def test_null_is_admitted_as_a_grammar_admits_it(answer: str, schema: Any, fits: bool) -> None:
    """OpenAPI 3.0 says `nullable` beside a type."""
    assert (validate_answer(answer, schema) is None) is fits
    grammar = grammar_of(schema)
    assert grammar is not None
    assert grammar.accepts(answer) is fits


def test_the_prompt_holds_the_schema_as_json() -> None:
    prompt = schema_prompt(PERSON)
    assert json.loads(prompt[prompt.index("{") :]) == PERSON
    assert "JSON" in schema_prompt("json")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('\n```\n{"a": 1}\n```\n', '{"a": 1}'),
        ('{"a": "```"}', '{"a": "```"}'),
        ('Here:\n```json\n{"a": 1}\n```', 'Here:\n```json\n{"a": 1}\n```'),
    ],
)
def test_a_fence_around_the_whole_answer_goes(text: str, inside: str) -> None:
    assert strip_fence(text) == inside


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('Here you are: {"a": [1]}. Good luck!', ['{"a": [1]}']),
        ('Sure!\n```json\n{"a": 1}\n```\nDone.', ['{"a": 1}']),
        ('As {it} says in [1]: {"a": 1}', ["[1]", '{"a": 1}']),
        ('Cut off: {"a": {"b": 1}, "c', []),
        ('Broken: {"a": {"b": 1}, c: 2}', []),
        ("none", []),
        ("[" * 100_000, []),
    ],
    ids=lambda value: str(value)[:30],
)
def test_json_in_a_text_is_found(text: str, inside: list[str]) -> None:
    assert list(embedded_json(text)) == inside


def test_a_fence_that_stays_open_takes_no_time() -> None:
    def strip(size: int) -> None:
        text = "```json\n" + "\n" * size + "x"
        assert strip_fence(text) == text

    assert_linear(strip, 2_500)


@pytest.mark.integration
def test_the_validator_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, rkllama.engine.structured.schema; assert 'jsonschema' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
