"""Tool calls that the client demands."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rkllama.engine.structured.schema import check_schema, validate_answer
from rkllama.engine.structured.tool_choice import forced_call, forced_call_schema
from rkllama.errors import InvalidRequest
from rkllama.schema.grammar import compile_schema
from rkllama.types import Tool

ADD = Tool(
    name="add",
    description="",
    parameters={
        "type": "object",
        "properties": {"x": {"type": "number"}},
        "required": ["x"],
    },
)
NOW = Tool(name="now", description="", parameters={})


def test_the_schema_of_any_call_fits_each_tool_s() -> None:
    schema = forced_call_schema((ADD, NOW), "required")
    assert validate_answer('{"name": "add", "arguments": {"x": 1}}', schema) is None
    assert validate_answer('{"name": "now", "arguments": {}}', schema) is None
    assert validate_answer('{"name": "add", "arguments": {}}', schema) is not None
    assert validate_answer('{"name": "sub", "arguments": {}}', schema) is not None


def test_the_schema_of_one_tool_s_call_fits_no_other() -> None:
    schema = forced_call_schema((ADD, NOW), "function:now")
    assert validate_answer('{"name": "now", "arguments": {}}', schema) is None
    assert validate_answer('{"name": "add", "arguments": {"x": 1}}', schema) is not None
    with pytest.raises(InvalidRequest, match="'sub', which is not in tools"):
        forced_call_schema((ADD, NOW), "function:sub")


@pytest.mark.integration
def test_parameters_that_refer_to_their_own_parts_still_find_them() -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    parameters = {"properties": {"at": {"$ref": "#/$defs/point"}}, "$defs": {"point": point}}
    schema = forced_call_schema((Tool(name="go", parameters=parameters), ADD), "required")
    check_schema(schema)
    assert validate_answer('{"name": "go", "arguments": {"at": {"x": 1}}}', schema) is None
    assert validate_answer('{"name": "go", "arguments": {"at": {}}}', schema) is not None


POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
REFERRING: dict[str, dict[str, Any]] = {
    "a part": {"properties": {"a": {"$ref": "#/$defs/p"}}, "$defs": {"p": POINT}},
    "the whole": {"properties": {"a": {"$ref": "#"}, "x": {}}, "required": ["x"]},
    "a property named as a keyword": {
        "properties": {
            "default": {"$ref": "#/properties/const"},
            "const": POINT,
            "a": {"$ref": "#/properties/default"},
        }
    },
    "a definition named as a keyword": {
        "properties": {"a": {"$ref": "#/definitions/enum"}},
        "definitions": {"enum": {"allOf": [{"$ref": "#/definitions/p"}]}, "p": POINT},
    },
    "an anchor": {"properties": {"a": {"$ref": "#p"}}, "$defs": {"p": {"$anchor": "p", **POINT}}},
    "a part of what has an id": {
        "$id": "http://example.com/go",
        "properties": {"a": {"$ref": "#/$defs/p"}},
        "$defs": {"p": POINT},
    },
    "an id": {
        "$id": "http://example.com/go",
        "properties": {"a": {"$ref": "go#/$defs/p"}},
        "$defs": {"p": POINT},
    },
    "a part with an id": {
        "properties": {"a": {"$ref": "#/$defs/p"}},
        "$defs": {"p": {"$id": "p", "allOf": [{"$ref": "#/$defs/q"}], "$defs": {"q": POINT}}},
    },
    "the whole, dynamically": {
        "properties": {"a": {"$dynamicRef": "#"}, "x": {}},
        "required": ["x"],
    },
}
OTHER = Tool(
    name="other",
    parameters={
        "$id": "http://example.com/go",
        "properties": {"p": {"$ref": "#p"}},
        "$defs": {"p": {"$anchor": "p", "type": "string"}},
    },
)


@pytest.mark.integration
@pytest.mark.parametrize("others", [(), (OTHER,)], ids=["alone", "beside another"])
@pytest.mark.parametrize("name", REFERRING)
def test_every_reference_in_parameters_is_found(name: str, others: tuple[Tool, ...]) -> None:
    go = Tool(name="go", parameters={"type": "object", **REFERRING[name]})
    schema = forced_call_schema((*others, go), "required")
    check_schema(schema)
    good = '{"name": "go", "arguments": {"x": 1, "a": {"x": 1}}}'
    assert validate_answer(good, schema) is None
    assert validate_answer(good.replace('"a": {"x": 1}', '"a": {}'), schema) is not None
    if "dynamically" not in name:
        assert compile_schema(schema).accepts(good)


def test_values_in_parameters_are_not_taken_for_references() -> None:
    parameters = {"properties": {"a": {"enum": [{"$ref": "#"}]}, "b": {"$ref": "#/properties/a"}}}
    schema = forced_call_schema((Tool(name="go", parameters=parameters),), "required")
    assert schema["$defs"]["0"]["properties"]["a"] == {"enum": [{"$ref": "#"}]}


def test_a_call_is_read() -> None:
    call = forced_call('{"name": "add", "arguments": {"x": 1.5}}')
    assert call is not None
    assert (call.name, call.arguments) == ("add", {"x": 1.5})
    assert call.id != getattr(forced_call('{"name": "add", "arguments": {}}'), "id", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "add",
        "[]",
        '{"name": 1, "arguments": {}}',
        '{"name": "add", "arguments": [1]}',
        '{"name": "add", "arguments": {"x": 1e999}}',
        '{"name": "add", "arguments": {"x": NaN}}',
        '{"name": "add", "arguments": {"x": "\\ud800"}}',
        '{"name": "add", "arguments": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:45],
)
def test_what_cannot_be_passed_on_as_a_call_is_none(text: str) -> None:
    assert forced_call(text) is None


def test_every_call_can_be_written_as_json() -> None:
    call = forced_call('{"name": "add", "arguments": {"x": 1e308}}')
    assert call is not None
    assert json.dumps(dict(call.arguments), allow_nan=False) == '{"x": 1e+308}'


def test_a_demanded_call_has_an_id_as_every_other() -> None:
    """Templates that want nine letters or digits (Mistral's) take the end of it."""
    call = forced_call('{"name": "f", "arguments": {}}')
    assert call is not None
    assert re.fullmatch(r"call_[a-z0-9]{9}", call.id)
