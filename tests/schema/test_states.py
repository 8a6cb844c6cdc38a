"""States of a grammar: what has to come, what may, where, and whether the text may end."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rkllama.schema.grammar import Grammar, State, compile_schema
from rkllama.schema.limits import Limits
from tests.cases import cases
from tests.schema.tools import CLASSES, HOME_ASSISTANT, LARGEST, MCP

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["cat", "cow", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}


def after(schema: Any, text: str) -> State:
    count, state = compile_schema(schema).start().feed(text)
    assert count == len(text), f"{text[count:]!r} is refused"
    return state


@cases(
    ("text", "forced"),
    [
        ("", '{"name": '),
        ("{", '"name": '),
        ('{"na', 'me": '),
        ('{"name"', ": "),
        ('{"name":', ""),
        ('{"name": "Z', ""),
        ('{"name": "Zoë"', ', "kind": '),
        ('{"name": "Zoë",', ' "kind": '),
        ('{"name": "Zoë", "kind": "d', 'og"'),
        ('{"name": "Zoë", "kind": "c', ""),
        ('{"kind": "dog"', ', "name": '),
        ('{"kind": "dog", "name": "x", "age": 12', ""),
        ('{"kind": "dog", "name": "x", "tags": []', "}"),
        ('{"kind": "dog", "name": "x", "tags": []}', ""),
    ],
)
def test_what_has_to_come(text: str, forced: str) -> None:
    assert after(PERSON, text).forced() == forced


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ('{"name": "Zoë", "kind": ', ('"cat"', '"cow"', '"dog"')),
        ('{"name": "Zoë", "kind":', (' "cat"', ' "cow"', ' "dog"')),
        ('{"name": "Zoë", "kind": "c', ('at"', 'ow"')),
        ('{"name": "Zoë", "kind": "dog"', (', "age": ', ', "tags": ', "}")),
        ('{"name": "Zoë", "kind": "dog", ', ('"age": ', '"tags": ')),
        ('{"name": "Zoë", "kind": "dog", "tags": ["a"', (", ", "]")),
        ('{"name": ', ()),
        ('{"name": "Zoë", "kind": "dog", "age": 1', ()),
    ],
)
def test_what_may_come(text: str, choices: tuple[str, ...]) -> None:
    state = after(PERSON, text)
    assert state.choices() == choices
    assert state.choices(limit=1) == ()
    for choice in choices:
        assert state.feed(choice)[0] == len(choice)


@cases(
    ("text", "path", "kind"),
    [
        ("", "$", "object"),
        ("{", "$", "key"),
        ('{"na', "$", "key"),
        ('{"name": ', "$.name", "string"),
        ('{"name": "Z\\u00', "$.name", "string"),
        ('{"name": "Z"', "$", "key"),
        ('{"kind": "c', "$.kind", "enum"),
        ('{"age": 1', "$.age", "integer"),
        ('{"tags": [', "$.tags", "item"),
        ('{"tags": ["a", "b"', "$.tags", "item"),
        ('{"tags": ["a", ', "$.tags[1]", "string"),
        ('{"tags": ["a", "b', "$.tags[1]", "string"),
        ('{"name": "x", "kind": "dog"}', "$", "end"),
    ],
)
def test_where_it_is_and_what_is_open(text: str, path: str, kind: str) -> None:
    state = after(PERSON, text)
    assert (state.path, state.kind) == (path, kind)
    assert state.position == len(text)


def test_a_path_quotes_what_is_not_a_name() -> None:
    schema = {"properties": {"a b": {"type": "array", "items": {"properties": {"price": {}}}}}}
    assert after(schema, '{"a b": [{}, {}, {"price": 1').path == "$['a b'][2].price"


def test_a_value_of_several_kinds_is_open_to_any() -> None:
    assert after({"type": ["string", "integer"]}, "").kind == "any"
    assert after({"type": ["string", "null"]}, '"').kind == "string"
    assert after({}, "").kind == "any"


@pytest.mark.parametrize(
    ("schema", "text", "may", "must"),
    [
        ({"type": "integer"}, "12", True, False),
        ({"type": "integer", "maximum": 99}, "12", True, True),
        ({"type": "integer"}, "-", False, False),
        ({"enum": [1, 10]}, "1", True, False),
        ({"enum": [1, 10]}, "10", True, False),
        ({"type": "null"}, "null", True, True),
        ({"type": "null"}, "nul", False, False),
        ({"type": "string"}, '"a"', True, True),
        (PERSON, '{"name": "x", "kind": "dog"', False, False),
        (PERSON, '{"name": "x", "kind": "dog"}\n', True, True),
    ],
)
def test_when_it_may_end(schema: Any, text: str, may: bool, must: bool) -> None:
    state = after(schema, text)
    assert (state.may_end, state.must_end) == (may, must)


def test_states_can_be_gone_back_to() -> None:
    start = compile_schema(PERSON).start()
    _, before = start.feed('{"name": ')
    first = before.feed('"a", "kind": "dog"}')[1]
    second = before.feed('"b", "kind": "cat"}')[1]
    assert first.may_end
    assert second.may_end
    assert before.path == "$.name"
    assert before.advance("1") is None
    assert start.advance("[") is None


def test_an_only_constant_is_written_whole() -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"const": 'a "b"'},
            "null": {"type": "null"},
            "list": {"const": [1, {"x": True}]},
        },
        "required": ["type", "null", "list"],
        "additionalProperties": False,
    }
    text = compile_schema(schema).start().forced()
    assert json.loads(text) == {"type": 'a "b"', "null": None, "list": [1, {"x": True}]}
    assert text == '{"type": "a \\"b\\"", "null": null, "list": [1, {"x": true}]}'


def test_characters_of_a_pattern_that_have_to_come_are_forced_inside_the_string() -> None:
    schema = {"type": "string", "pattern": "^ID-\\d{2}-X$"}
    assert after(schema, "").forced() == ""
    assert after(schema, '"').forced() == "ID-"
    assert after(schema, '"ID-12').forced() == '-X"'
    assert after({"type": "string", "maxLength": 1}, '"a').forced() == '"'
    assert after({"type": "string", "format": "date"}, '"2024').forced() == "-"


def test_keys_that_the_schema_does_not_name_are_tolerated_and_not_written() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    start = compile_schema(schema).start()
    assert start.forced() == '{"a": null}'
    assert compile_schema(schema).accepts('{"b": 1, "a": null}')
    asked = {**schema, "additionalProperties": {"type": "integer"}}
    assert compile_schema(asked).start().forced() == '{"a": null'


def test_json_mode_begins_with_an_object() -> None:
    start = compile_schema("json").start()
    assert start.forced() == "{"
    assert start.feed('{"a": [1, true')[1].kind == "item" or start.feed("{")[1].kind == "key"


def test_a_demanded_call_is_written_up_to_its_first_value() -> None:
    schema = LARGEST["a call of any of Home Assistant's tools"]
    state = compile_schema(schema).start()
    assert state.forced() == '{"name": '
    state = state.feed('{"name": ')[1]
    assert '"HassTurnOn"' in state.choices()
    assert len(state.choices()) == len(HOME_ASSISTANT)
    state = state.feed('"HassLightC')[1]
    assert state.forced() == 'olor", "arguments": {'


def test_blanks_have_an_end() -> None:
    grammar = compile_schema(PERSON, limits=Limits(whitespace=3))
    assert grammar.accepts(' \n\t{   "name" : "a     b" ,"kind":"dog"}   ')
    assert not grammar.accepts('    {"name": "a", "kind": "dog"}')


def test_depth_strings_and_digits_have_an_end() -> None:
    grammar = compile_schema({}, limits=Limits(depth=3, string=4, digits=3, fraction=2))
    assert grammar.accepts('[[["abcd", 123, 1.25]]]')
    for text in ("[[[[]]]]", '"abcde"', "1234", "1.125", '{"abcde": 1}'):
        assert not grammar.accepts(text)
    tree = compile_schema(CLASSES["tree"], limits=Limits(depth=2))
    assert tree.accepts('{"value": 1, "left": {"value": 2, "left": null}}')
    assert not tree.accepts('{"value": 1, "left": {"value": 2, "left": {"value": 3}}}')


def test_an_error_is_told_in_words() -> None:
    grammar = compile_schema(PERSON)
    assert grammar.find_error('{"name": "x", "kind": "dog"}') is None
    error = grammar.find_error('{"name": "x", "kind": "horse"}')
    assert error is not None
    assert error.startswith("at $.kind, 'h' cannot come after")
    early = grammar.find_error('{"name": "x"')
    assert early is not None
    assert "ends too early" in early


def test_a_grammar_says_whether_it_leads_into_dead_ends() -> None:
    assert compile_schema(PERSON).decided_by_prefix
    assert compile_schema({"oneOf": [{"type": "string"}, {"type": "integer"}]}).decided_by_prefix
    assert not compile_schema(
        {"oneOf": [{"type": "number"}, {"type": "integer"}]}
    ).decided_by_prefix
    assert not compile_schema({"type": "array", "uniqueItems": True}).decided_by_prefix
    assert not compile_schema({"type": "string", "not": {"const": "x"}}).decided_by_prefix


def test_readings_that_go_on_alike_are_one() -> None:
    """Each level could double them."""
    leaf: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    schema = {"anyOf": [{**leaf, "properties": {**leaf["properties"], name: {}}} for name in "xyz"]}
    state: State | None = compile_schema(schema).start()
    most = 0
    for char in '{"a": ' * 60 + "{}" + ' , "x": 1}' * 60:
        assert state is not None
        state = state.advance(char)
        most = max(most, len(getattr(state, "_tops", ())))
    assert state is not None
    assert state.may_end
    assert most <= 9


def test_a_state_is_small() -> None:
    grammar: Grammar = compile_schema(MCP["create_entities"])
    _, state = grammar.start().feed('{"entities": [{"name": "x", "observations": ["a", "b"')
    size = sys.getsizeof(state) + sum(map(sys.getsizeof, state._tops))
    assert size < 400


def test_a_long_string_costs_nothing_to_keep() -> None:
    """States of a grammar that is decided by prefix do not hold the text."""
    _, state = compile_schema({"type": "string"}).start().feed('"' + "x" * 10_000)
    assert state._tail is None


@pytest.mark.parametrize(
    ("schema", "text", "needs"),
    [
        (PERSON, "{", {"name", "kind"}),
        (PERSON, '{"name": "x",', {"kind"}),
        (PERSON, '{"age": 1, "name": "x", "kind": "cat"', set()),
        ({**PERSON, "required": [], "minProperties": 1}, "{", set(PERSON["properties"])),
        ({"anyOf": [PERSON, {"type": "object", "required": ["kind", "age"]}]}, "{", {"kind"}),
        (PERSON, "", set()),
    ],
)
def test_keys_that_have_to_come(schema: Any, text: str, needs: set[str]) -> None:
    state = after(schema, text)
    assert {name for name in PERSON["properties"] if state.needs_key(name)} == needs


def test_an_object_goes_on_without_a_key() -> None:
    state = after(PERSON, '{"name": "x", "kind": "cat", ').without_key("age")
    assert state.forced() == '"tags": ['
    assert state.feed('"age": 1')[0] == len('"')
    other = after(PERSON, '{"name": "x", "kind": "cat"').without_key("age").without_key("tags")
    assert other.forced() == "}"
    left_open = after({"type": "object", "required": ["b"]}, "{").without_key("a")
    assert left_open.feed('"a": 1')[0] == len('"a')
    assert left_open.feed('"ab": 1, "b": 2}')[1].may_end


def test_what_is_written_with_a_model_is_not_endless() -> None:
    """Where the schema leaves that open; what a schema asks for may be as deep as ever."""
    grammar = compile_schema({"type": "array", "items": {"$ref": "#"}})
    assert grammar.start().feed("[" * 60)[0] == 60
    assert grammar.for_writing().start().feed("[" * 60)[0] == 32
    deep: Any = {"type": "integer"}
    for _ in range(50):
        deep = {"type": "array", "items": deep, "minItems": 1}
    assert compile_schema(deep).for_writing().accepts("[" * 50 + "1" + "]" * 50)
