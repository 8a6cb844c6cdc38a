"""Every way in which models write tool calls, whole and in pieces, and what only looks like one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.chat.parser import AnswerParser
from rkllama.chat.tool_calls.json_text import JsonEnd
from rkllama.chat.tool_calls.outcome import Found
from rkllama.chat.tool_calls.plain import FORMS as PLAIN
from rkllama.chat.tool_calls.reader import CallReader
from rkllama.chat.tool_calls.table import MARKED
from rkllama.types import Tool, ToolCallDelta
from tests.answers import TOOLS, parse
from tests.cases import cases
from tests.cost import assert_linear

PARIS = ("call", 0, "get_weather", {"city": "Paris"})
SUM = ("call", 1, "add", {"a": 1, "b": [2, 3]})
ONE = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
TWO = '{"name": "add", "arguments": {"a": 1, "b": [2, 3]}}'
P_ONE, P_TWO = ONE.replace("arguments", "parameters"), TWO.replace("arguments", "parameters")
DEEPSEEK = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
    '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>\n'
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
    '```json\n{"a": 1, "b": [2, 3]}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
DEEPSEEK_31 = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
    "<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>"
    '{"a": 1, "b": [2, 3]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
T_ONE = "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>"
T_TWO = "<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n[2, 3]\n</parameter>\n</function>"
CALLS = {
    "tags": f"<tool_call>\n{T_ONE}\n</tool_call>\n<tool_call>\n{T_TWO}\n</tool_call>",
    "tags-tight": f"<tool_call>{T_ONE}{T_TWO}</tool_call>".replace("\n", ""),
    "tags-unopened": f"{T_ONE}\n</tool_call>\n<tool_call>\n{T_TWO}",
    "hermes": f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{TWO}\n</tool_call>",
    "hermes-tight": f"<tool_call>{ONE}</tool_call><tool_call>{TWO}</tool_call>",
    "hermes-unclosed": f"<tool_call>\n{ONE}\n<tool_call>\n{TWO}",
    "hermes-fenced": f"<tool_call>\n```json\n{ONE}\n```\n</tool_call>\n<tool_call>{TWO}</tool_call>",
    "hermes-list": f"<tool_call>[{ONE}, {TWO}]</tool_call>",
    "llama-bare": f"{P_ONE}; {P_TWO}",
    "llama-lines": f"{P_ONE}\n{P_TWO}",
    "llama-python-tag": f"<|python_tag|>{P_ONE}; {P_TWO}",
    "llama-typed": f'{{"type": "function", "name": "get_weather", "parameters": {{"city": "Paris"}}}}'
    f'\n{{"type": "function", "function": {P_TWO}}}',
    "llama-function": '<function=get_weather>{"city": "Paris"}</function>\n'
    '<function=add>{"a": 1, "b": [2, 3]}</function>',
    "mistral": f"[TOOL_CALLS] [{ONE}, {TWO}]",
    "mistral-tight": f"[TOOL_CALLS][{ONE},{TWO}]",
    "mistral-args": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}'
    '[TOOL_CALLS]add[ARGS]{"a": 1, "b": [2, 3]}',
    "mistral-ids": '[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Paris"}'
    '[TOOL_CALLS]add[CALL_ID]f5[ARGS]{"a": 1, "b": [2, 3]}',
    "mistral-named": '[TOOL_CALLS]get_weather{"city": "Paris"}[TOOL_CALLS]add {"a": 1, "b": [2, 3]}',
    "deepseek": DEEPSEEK,
    "deepseek-3.1": DEEPSEEK_31,
    "deepseek-unopened": DEEPSEEK.removeprefix("<｜tool▁calls▁begin｜>"),
    "granite": f"<|tool_call|>[{ONE}, {TWO}]",
    "phi-4-mini": f"<|tool_call|>[{ONE}, {TWO}]<|/tool_call|>",
    "json-list": f"[{ONE}, {TWO}]",
    "json-fence": f"```json\n[{ONE}, {TWO}]\n```",
    "json-fences": f"```json\n{ONE}\n```\n```json\n{TWO}\n```",
    "plain-fence": f"```\n{ONE}\n```\n```\n{TWO}\n```",
    "tool-fence": f"```tool_call\n{ONE}\n```\n```tool_call\n{TWO}\n```",
    "code-fence": f"```tool_code\n{ONE}\n```\n```tool_code\n{TWO}\n```",
    "text-arguments": '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}'
    f"</tool_call><tool_call>{TWO}</tool_call>",
}


@cases("name", CALLS)
def test_two_calls_are_read_in_every_form(name: str) -> None:
    assert parse([CALLS[name]], tools=TOOLS) == ([PARIS, SUM], None)
    assert parse(list(CALLS[name]), tools=TOOLS) == ([PARIS, SUM], None)


@cases("name", CALLS)
def test_the_template_s_end_behind_a_call_is_seen(name: str) -> None:
    parts, stopped = parse([CALLS[name], "<|eom_id|>x"], tools=TOOLS, end=("<|eom_id|>",))
    assert parts == [PARIS, SUM]
    assert stopped == "<|eom_id|>"


@given(
    city=st.text(max_size=30).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    name=st.sampled_from(["hermes", "mistral", "llama-bare"]),
)
def test_any_argument_comes_through(city: str, name: str) -> None:
    import json

    text = CALLS[name].replace('"Paris"', json.dumps(city, ensure_ascii=len(city) % 2 == 0))
    assert parse(list(text), tools=TOOLS)[0] == [("call", 0, "get_weather", {"city": city}), SUM]


NO_CALLS = [
    "<tool_call> is how a call begins.",
    '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>',
    "<tool_call>{'name': 'add', 'arguments': {}}</tool_call>",
    '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "add", "arguments": "1, 2"}</tool_call>',
    '<tool_call>{"name": "", "arguments": {}}</tool_call>',
    '<tool_call>{"name": ["add"], "arguments": {}}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
    "<tool_call>[]</tool_call>",
    "<tool_call>[{}]</tool_call>",
    "<tool_call>" + '{"a":' * 100 + "1" + "}" * 100 + "</tool_call>",
    '<tool_call>{"name": "add", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>",
    '<|python_tag|>get_weather.call(city="Paris")',
    "[TOOL_CALLS] is Mistral's marker.",
    "[TOOL_CALLS]add[ARGS] nothing",
    "<function=add>no JSON</function>",
    "<function=add>\n<b>no parameter</b></function>",
    "<function=add>\n<parameter=a>\n1\n</parameter>\n</tool_call>",
    "<tool_call>\n<function=add>\n<parameter=a>\n1\n",
    "<tool_call>\n<func",
    "<｜tool▁calls▁begin｜> and nothing",
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\nno JSON",
    "<|tool_call|>later",
    '{"name": "John", "arguments": {"a": 1}}',
    '{"name": "add"}',
    '{"name": "add", "arguments": {}, "comment": "an example"}',
    '{"result": {"name": "add", "arguments": {}}}',
    '[{"name": "add", "arguments": {}}, {"name": "John", "arguments": {}}]',
    "[1, 2, 3]",
    '```json\n{"name": "John"}\n```',
    "```json\nnot JSON\n```",
    "```\ncode {\n}\n```",
    "{",
    "[",
    "```json",
    '{"name": "add", "arguments": {"a": "never closed',
]


@cases("text", NO_CALLS)
def test_what_is_no_call_is_text_to_the_letter(text: str) -> None:
    assert parse([text], tools=TOOLS) == ([("text", text)], None)
    assert parse(list(text), tools=TOOLS) == ([("text", text)], None)


def test_a_malformed_call_does_not_hide_the_next_one() -> None:
    text = f"<tool_call>oops</tool_call> Sorry: <tool_call>{ONE}</tool_call>"
    parts, _ = parse(list(text), tools=TOOLS)
    assert parts == [("text", "<tool_call>oops</tool_call> Sorry: "), PARIS]


def test_an_unknown_tool_is_a_call_only_where_a_marker_says_so() -> None:
    unknown = ONE.replace("get_weather", "get_time")
    assert parse([f"<tool_call>{unknown}</tool_call>"], tools=TOOLS)[0][0][2] == "get_time"
    assert parse([unknown], tools=TOOLS)[0] == [("text", unknown)]


def test_arguments_may_be_missing_null_or_empty_behind_a_marker() -> None:
    for arguments in ("", ', "arguments": null', ', "arguments": ""', ', "parameters": {}'):
        text = f'<tool_call>{{"name": "add"{arguments}}}</tool_call>'
        assert parse([text], tools=TOOLS)[0] == [("call", 0, "add", {})]


def test_what_stands_between_tags_has_the_type_of_its_parameter() -> None:
    schemas = {
        "text": {"type": "string"},
        "free": {},
        "whole": {"type": "integer"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "words": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "switch": {"type": ["boolean", "null"]},
        "shape": {"type": "object"},
        "odd": {"type": {"type": []}, "anyOf": [1, {"type": 2}]},
    }
    tool = Tool(name="f", parameters={"properties": schemas})
    written = (
        ("text", "\n12\n", "12"),
        ("text", '\n <a href="x">\n</function>\n\n', ' <a href="x">\n</function>\n'),
        ("text", "None", "None"),
        ("free", "12", "12"),
        ("unknown", "{}", "{}"),
        ("whole", "\n-3\n", -3),
        ("whole", "three", "three"),
        ("whole", "NaN", "NaN"),
        ("either", "None", None),
        ("either", "7", 7),
        ("words", "null", None),
        ("words", "7", "7"),
        ("switch", "True", True),
        ("switch", "false", False),
        ("shape", '{"k": [1, "ä"]}', {"k": [1, "ä"]}),
        ("odd", "x", "x"),
    )
    for key, text, value in written:
        call = f"<function=f><parameter={key}>{text}</parameter></function>"
        for pieces in ([call], list(call)):
            assert parse(pieces, tools=(tool,))[0] == [("call", 0, "f", {key: value})]
    assert parse(["<function=f>\n</function>"], tools=(tool,))[0] == [("call", 0, "f", {})]


def test_line_breaks_inside_strings_are_forgiven() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": "one\ntwo"}}</tool_call>'
    assert parse([text], tools=TOOLS)[0] == [("call", 0, "add", {"a": "one\ntwo"})]


def test_a_call_in_the_middle_of_prose() -> None:
    text = f"I look.\n```json\n{ONE}\n```\nThat was it."
    parts, _ = parse(list(text), tools=TOOLS)
    assert parts == [("text", "I look.\n"), PARIS, ("text", "\nThat was it.")]


# --- The parts ---------------------------------------------------------------------------------------


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_the_end_of_json_is_found_in_any_pieces(value: Any) -> None:
    import json

    text = json.dumps({"k": value}) + " and more }"
    expected = len(text) - len(" and more }")
    assert JsonEnd().find(text, 0) == expected
    scanner = JsonEnd()
    found = [scanner.find(text[:n], 0) for n in range(1, expected + 1)]
    assert found == [None] * (expected - 1) + [expected]


@cases("form", [*MARKED, *PLAIN], ids=lambda form: form.opener)
def test_every_beginning_of_a_call_may_become_one(form: Any) -> None:
    examples = [text for text in CALLS.values() if text.startswith(form.opener)]
    if form.opener == "[":
        examples = [text for text in examples if not text.startswith("[TOOL_CALLS]")]
    assert examples
    for text in examples:
        reader = CallReader(form, {"get_weather": {}, "add": {}})
        for end in range(len(form.opener), len(text) + 1):
            outcome = reader.read(text[:end])
            if outcome != "more":
                break
        assert isinstance(outcome, Found)
        assert outcome.calls[0][0] == "get_weather"


@cases("form", MARKED, ids=lambda form: form.opener)
@cases(
    "name",
    ["", "n", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>n", "<function=n><parameter=a>", "n><"],
)
def test_many_line_breaks_take_no_time(form: Any, name: str) -> None:
    """Small models fall into writing nothing else."""

    def read(count: int) -> None:
        for last in ("", "x"):
            CallReader(form, {"n": {}}).read(form.opener + name + "\n" * count + last)

    assert_linear(read, 5_000)


@pytest.mark.parametrize("head", ["", "<function=add>", '[{"name": "add"}'])
def test_line_breaks_in_pieces_take_no_time_either(head: str) -> None:
    def read(count: int) -> None:
        text = f"<tool_call>{head}" + "\n" * count + '{"name": "add", "arguments": {}}'
        pieces = parse([text[n : n + 3] for n in range(0, len(text), 3)], tools=TOOLS)
        assert pieces == parse([text], tools=TOOLS)

    assert_linear(read, 5_000)


@cases("blanks", [999, 1000, 1001, 1500])
@cases("call", [ONE, f"[{ONE}]", T_ONE])
def test_a_head_is_as_long_in_pieces_as_in_one(blanks: int, call: str) -> None:
    text = "<tool_call>" + " " * blanks + call
    found = parse([text], tools=TOOLS)
    assert (found[0] == [PARIS]) is (blanks <= 1000 - 20 * call.startswith("<"))
    assert parse(list(text), tools=TOOLS) == found


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('{"id": 7, "category": {"id": 1}}', '{"id": 7, "c'),
        ('{"type": "Point", "coordinates": [1, 2]}', '{"type": "Point", "c'),
        ('{"id": "x", "name": "Joe"}', '{"id": "x", "name": "J'),
        ('[{"type": null, "size": 1}]', '[{"type": null, "s'),
        ('{"id": 7, 8}', '{"id": 7, 8'),
    ],
)
def test_json_leaves_as_soon_as_it_can_be_no_call(text: str, at: str) -> None:
    parser = AnswerParser(tools=TOOLS)
    held = [char for char in at[:-1] if parser.feed(char)]
    assert held == []
    assert parser.feed(at[-1])
    assert parser.feed(text[len(at) :])


def test_a_call_may_have_an_id_and_a_type_before_its_name() -> None:
    text = '{"id": 7, "type": "function", "name": "get_weather", "arguments": {"city": "Paris"}}'
    parser = AnswerParser(tools=TOOLS)
    (event,) = [event for char in text for event in parser.feed(char)]
    assert isinstance(event, ToolCallDelta)
    assert event.call.arguments == {"city": "Paris"}
