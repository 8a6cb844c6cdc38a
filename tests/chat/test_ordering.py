"""Tools and schemas in one order."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.chat.ordering import Orders, ordered_schema
from rkllama.types import Tool
from tests.home_assistant import recorded_prompt

SCHEMA = {
    "required": ["b", "a"],
    "properties": {
        "reasoning": {"description": "why", "type": "string"},
        "b": {"enum": ["z", "a"], "type": "string", "x-note": {"d": 1, "c": 2}},
        "a": {"items": {"minimum": 1, "type": "integer"}, "type": "array"},
    },
    "additionalProperties": False,
    "type": "object",
    "$defs": {"q": {"type": "null"}, "p": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
}


def shuffled(value: Any, chance: random.Random) -> Any:
    """The value with the names of each object in another order."""
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if isinstance(value, dict):
        return {n: shuffled(value[n], chance) for n in chance.sample(sorted(value), len(value))}
    return value


def text(value: object) -> str:
    return json.dumps(value)


def test_keywords_have_an_order_and_properties_theirs() -> None:
    ordered = ordered_schema(SCHEMA)
    assert [*ordered] == ["type", "properties", "required", "additionalProperties", "$defs"]
    assert [*ordered["properties"]] == ["reasoning", "b", "a"]
    assert [*ordered["properties"]["b"]] == ["type", "enum", "x-note"]
    assert ordered["properties"]["b"]["enum"] == ["z", "a"]
    assert [*ordered["$defs"]] == ["p", "q"]


def test_the_same_schema_in_another_order_is_the_first_one() -> None:
    orders = Orders()
    first = text(orders.schema(SCHEMA))
    for seed in range(20):
        assert text(orders.schema(shuffled(SCHEMA, random.Random(seed)))) == first
    assert [*json.loads(first)["properties"]] == ["reasoning", "b", "a"]


def test_what_one_client_sends_first_orders_nothing_of_another_s() -> None:
    orders = Orders()
    other: dict[str, Any] = {"properties": {"b": {}, "a": {}}}
    orders.schema({"properties": {"a": {}, "b": {}}}, "one")
    assert text(orders.schema(other, "two")) == text(other)


def test_nothing_but_the_order_changes() -> None:
    ordered = ordered_schema(SCHEMA)
    assert ordered.pop("required") == ["b", "a"]  # in the order of the properties
    assert ordered == {name: value for name, value in SCHEMA.items() if name != "required"}


def test_names_that_are_keywords_are_names_where_they_are_names() -> None:
    schema = {"properties": {"required": {"type": "string"}, "enum": {"title": "x", "type": "a"}}}
    ordered = ordered_schema(schema)
    assert [*ordered["properties"]] == ["required", "enum"]
    assert [*ordered["properties"]["enum"]] == ["type", "title"]


_NAMES = st.sampled_from(
    ["type", "properties", "required", "enum", "default", "items", "$defs", "anyOf", "a", "b"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


def _as_sets(value: Any) -> Any:
    """A value in which `required` has no order, as in a schema."""
    if isinstance(value, list):
        return [_as_sets(item) for item in value]
    if isinstance(value, dict):
        return {
            name: sorted(json.dumps(_as_sets(one), sort_keys=True) for one in item)
            if name == "required" and isinstance(item, list)
            else _as_sets(item)
            for name, item in value.items()
        }
    return value


@given(st.dictionaries(_NAMES, _JSON, max_size=5), st.integers())
def test_whatever_is_sent_keeps_its_content_and_gets_one_order(
    schema: dict[str, Any], seed: int
) -> None:
    orders = Orders()
    first = orders.schema(schema)
    assert _as_sets(first) == _as_sets(schema)
    assert text(orders.schema(shuffled(schema, random.Random(seed)))) == text(first)


def tools() -> list[Tool]:
    _, body = recorded_prompt("assist kitchen", "m")
    functions = [tool["function"] for tool in body["tools"]]
    return [
        Tool(name=f["name"], description=f["description"], parameters=f["parameters"])
        for f in functions
    ]


def test_tools_stand_in_the_order_of_their_names() -> None:
    orders, sent = Orders(), tools()
    first = orders.tools(sent)
    assert [tool.name for tool in first] == sorted(tool.name for tool in sent)
    assert {tool.name: tool for tool in first} == {tool.name: tool for tool in sent}
    for seed in range(5):
        again = orders.tools(random.Random(seed).sample(sent, len(sent)))
        assert text([tool.parameters for tool in again]) == text([t.parameters for t in first])
        assert again == first


def test_tools_of_one_name_have_an_order_too() -> None:
    pair = [Tool(name="a", description=word) for word in ("x", "y")]
    assert Orders().tools(pair) == Orders().tools(pair[::-1])
    assert Orders().tools(()) == ()


def test_what_is_remembered_is_bounded() -> None:
    orders = Orders(most_chars=20_000)
    for number in range(1000):
        orders.schema({"properties": {f"b{number}": {}, f"a{number}": {}}})
        orders.tools([Tool(name=f"t{number}")])
    assert orders.remembered <= 40_000
    large: dict[str, Any] = {"properties": {f"p{n}": {} for n in range(10_000)}}
    assert text(orders.schema(large)) == text(large)
    assert orders.remembered <= 40_000


def test_small_schemas_count_with_what_python_needs_for_each() -> None:
    orders = Orders(most_chars=100_000)
    for number in range(2000):
        orders.schema({"type": str(number)})
    assert len(orders._schemas._values) < 200


def test_a_client_does_not_wait_for_another_s_large_schema() -> None:
    class Slow(dict[str, Any]):
        """A schema that another client's comes into the midst of."""

        def __iter__(self) -> Iterator[str]:
            if not others:
                others.append({})  # only once
                others.append(orders.schema({"type": "string"}, "two"))
            return super().__iter__()

    orders = Orders()
    others: list[object] = []
    slow = threading.Thread(target=orders.schema, args=(Slow({"title": "x"}), "one"), daemon=True)
    slow.start()
    slow.join(10)
    assert others[1:] == [{"type": "string"}]


@pytest.mark.parametrize("depth", [100, 5000])
def test_no_depth_is_too_deep(depth: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema, "type": "array"}
    assert [*Orders().schema(schema)] in (["type", "items"], ["items", "type"])
    assert Orders().tools([Tool(name="a", parameters=schema)])[0].name == "a"
