"""The answer's state machine: stop strings, thinking, nothing lost and nothing held back needlessly."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama.chat.parser import AnswerParser, new_call_id
from rkllama.types import ReasoningDelta, TextDelta, ToolCallDelta
from tests import cost
from tests.answers import TOOLS, joined, parse
from tests.cost import assert_linear
from tests.fuzzing import examples

# Pieces of what matters to the parser, so that random texts are full of whole and half markers.
FRAGMENTS = [
    *("<think>", "</think>", "<thi", "</", "\n", " ", "a", "word ", "<", "{", "}", "[", "]", "`"),
    *("<tool_call>", "</tool_call>", "<|tool_call|>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"),
    *("<function=add>", "</function>", "add", "get_weather", "```json\n", "```", "```tool_call"),
    *(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "function<｜tool▁sep｜>",
        "<｜tool▁sep｜>",
    ),
    *("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", '"name"', ": ", ", ", '"add"', '"arguments"'),
    *('{"name": "add", "arguments": {}}', '{"name": "add", "parameters": {"a": [1]}}', "{}", "\\"),
    *(
        '"',
        "STOP",
        "ST",
        "OP",
        "<|im_end|>",
        "<|im",
        ";",
        '{"name": "x"}',
        '[{"name": "add"',
        "é😀",
    ),
]
ANSWERS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=14).map("".join)
OPTIONS = st.fixed_dictionaries(
    {
        "stop": st.sampled_from(
            [(), ("STOP",), ("OP", "STOP"), ("\n",), ("}",), ("[",), ("a", "ab")]
        ),
        "end": st.sampled_from([(), ("<|im_end|>",), ("<|im_end|>", "</s>")]),
        "thinking": st.sampled_from([None, ("<think>", "</think>"), ("[THINK]", "[/THINK]")]),
        "thinking_open": st.booleans(),
        "tools": st.sampled_from([(), TOOLS]),
        "tool_format": st.sampled_from([None, "hermes", "llama3"]),
    }
)


@pytest.mark.integration
@given(answer=ANSWERS, options=OPTIONS, data=st.data())
@settings(max_examples=examples(4))
def test_the_cuts_make_no_difference(answer: str, options: dict[str, Any], data: Any) -> None:
    whole = parse([answer], **options)
    assert parse(list(answer), **options) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert parse(pieces, **options) == whole


@given(answer=ANSWERS)
@settings(max_examples=examples(2))
def test_without_markers_to_look_for_the_text_comes_through(answer: str) -> None:
    parts, stopped = parse(list(answer), thinking=None)
    assert "".join(part[1] for part in parts) == answer
    assert stopped is None


@given(answer=ANSWERS, tool_format=st.sampled_from([None, "hermes"]))
@settings(max_examples=examples(3))
def test_text_without_a_valid_call_comes_through_with_tools(answer: str, tool_format: str) -> None:
    parts, _ = parse(list(answer), thinking=None, tools=TOOLS, tool_format=tool_format)
    if all(part[0] == "text" for part in parts):
        assert "".join(part[1] for part in parts) == answer


@given(answer=ANSWERS, stop=st.sampled_from(["STOP", "\n", "a", "<think>"]))
@settings(max_examples=examples(2))
def test_a_stop_string_cuts_where_it_first_stands(answer: str, stop: str) -> None:
    parts, stopped = parse(list(answer), thinking=None, stop=(stop,))
    before, found, _ = answer.partition(stop)
    assert "".join(part[1] for part in parts) == before
    assert stopped == (found or None)


# --- Text and stop strings -------------------------------------------------------------------------


def test_plain_text_is_passed_on_at_once_and_as_it_came() -> None:
    parser = AnswerParser(stop=("User:",), end=("<|im_end|>",), tools=TOOLS)
    assert parser.feed("Hello") == [TextDelta("Hello")]
    assert parser.feed(" wörld 😀") == [TextDelta(" wörld 😀")]
    assert parser.feed("") == []
    assert parser.finish() == []
    assert parser.stopped is None


def test_a_stop_string_is_found_across_pieces_and_nothing_comes_after_it() -> None:
    parser = AnswerParser(stop=("User:",))
    assert parser.feed("Hi Us") == [TextDelta("Hi ")]
    assert parser.feed("er: more") == []
    assert parser.stopped == "User:"
    assert not parser.ended
    assert parser.feed("and more") == []
    assert parser.finish() == []


def test_only_what_may_be_a_marker_is_held_back() -> None:
    parser = AnswerParser(stop=("STOP",), thinking=None)
    assert parser.feed("a ST") == [TextDelta("a ")]
    assert parser.feed("ST") == [TextDelta("ST")]
    assert parser.feed("x") == [TextDelta("STx")]
    assert parser.feed("S") == []
    assert parser.finish() == [TextDelta("S")]


def test_the_stop_string_that_is_complete_first_wins_and_of_those_the_longest() -> None:
    assert parse(["abcd"], stop=("bcd", "c"), thinking=None) == ([("text", "ab")], "c")
    assert parse(["abcd"], stop=("cd", "bcd"), thinking=None) == ([("text", "a")], "bcd")


def test_the_template_s_end_is_told_from_the_client_s_stop() -> None:
    parser = AnswerParser(stop=("END",), end=("<|im_end|>",))
    assert parser.feed("Bye<|im_end|>\n<|im_start|>") == [TextDelta("Bye")]
    assert parser.stopped == "<|im_end|>"
    assert parser.ended


def test_empty_stop_strings_are_ignored() -> None:
    assert parse(["abc"], stop=("", "c"), thinking=None) == ([("text", "ab")], "c")


# --- Thinking --------------------------------------------------------------------------------------


def test_thinking_is_split_off_with_the_space_around_its_markers() -> None:
    answer = "\n<think>\nFirst,\n\nthen.\n</think>\n\nIt is 4."
    assert parse([answer]) == ([("reasoning", "First,\n\nthen.\n"), ("text", "It is 4.")], None)


def test_an_empty_thought_leaves_nothing() -> None:
    assert parse(list("<think>\n\n</think>\n\nYes.")) == ([("text", "Yes.")], None)


def test_thinking_that_the_prompt_opened_needs_no_opener() -> None:
    parts, _ = parse(["Hm", "m.</thi", "nk>\nYes."], thinking_open=True)
    assert parts == [("reasoning", "Hmm."), ("text", "Yes.")]
    again, _ = parse(["<think>\nHmm.</think>Yes."], thinking_open=True)
    assert again == parts


def test_thinking_streams_as_it_comes() -> None:
    parser = AnswerParser()
    assert parser.feed("<think>") == []
    assert parser.feed("One ") == [ReasoningDelta("One ")]
    assert parser.feed("two</") == [ReasoningDelta("two")]
    assert parser.feed("b>") == [ReasoningDelta("</b>")]


def test_thinking_that_never_ends_is_all_thinking() -> None:
    assert parse(["<think>on and on"]) == ([("reasoning", "on and on")], None)


def test_a_tag_in_the_middle_of_an_answer_is_text() -> None:
    answer = "Use <think>x</think> tags."
    assert parse([answer]) == ([("text", answer)], None)
    twice = "<think>a</think>b<think>c</think>"
    assert parse([twice])[0] == [("reasoning", "a"), ("text", "b<think>c</think>")]


def test_a_stop_string_does_not_end_the_thinking_but_the_template_s_end_does() -> None:
    parts, stopped = parse(["<think>a\nb</think>c\nd"], stop=("\n",))
    assert parts == [("reasoning", "a\nb"), ("text", "c")]
    assert stopped == "\n"
    assert parse(["<think>a<|im_end|>b"], end=("<|im_end|>",)) == (
        [("reasoning", "a")],
        "<|im_end|>",
    )


def test_other_markers_and_none() -> None:
    parts, _ = parse(list("[THINK]a[/THINK]b"), thinking=("[THINK]", "[/THINK]"))
    assert parts == [("reasoning", "a"), ("text", "b")]
    assert parse(["<think>a</think>b"], thinking=None)[0] == [("text", "<think>a</think>b")]


def test_an_answer_of_space_alone_is_kept() -> None:
    assert parse([" ", "\n"]) == ([("text", " \n")], None)


# --- Tool calls in the stream ------------------------------------------------------------------------

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def test_calls_are_looked_for_only_where_there_are_tools() -> None:
    assert parse([CALL])[0] == [("text", CALL)]
    assert parse([CALL], tools=TOOLS)[0] == [("call", 0, "add", {"a": 1})]


def test_text_before_and_after_calls_is_kept_and_the_space_between_them_is_not() -> None:
    parts, _ = parse(list(f"Sure.\n{CALL}\n{CALL}\n\nDone."), tools=TOOLS)
    assert parts == [
        ("text", "Sure.\n"),
        ("call", 0, "add", {"a": 1}),
        ("call", 1, "add", {"a": 1}),
        ("text", "\n\nDone."),
    ]


def test_a_call_comes_as_soon_as_its_json_is_whole() -> None:
    parser = AnswerParser(tools=TOOLS, new_id=lambda: "call_1")
    assert parser.feed('<tool_call>{"name": "add", "arguments": {"a": 1}') == []
    (event,) = parser.feed("}")
    assert isinstance(event, ToolCallDelta)
    assert (event.call.id, event.call.name, event.call.arguments) == ("call_1", "add", {"a": 1})
    assert parser.feed("</tool_call>") == []


def test_a_call_cut_off_by_the_token_limit_is_text() -> None:
    cut = 'Well: <tool_call>\n{"name": "add", "arguments": {"a'
    assert parse(list(cut), tools=TOOLS) == ([("text", cut)], None)


def test_stop_strings_inside_a_call_are_part_of_it() -> None:
    parts, stopped = parse(list(CALL + "x}y"), tools=TOOLS, stop=("}",))
    assert parts == [("call", 0, "add", {"a": 1}), ("text", "x")]
    assert stopped == "}"


def test_thinking_about_calls_is_no_call() -> None:
    parts, _ = parse([f"<think>{CALL}</think>{CALL}"], tools=TOOLS)
    assert parts == [("reasoning", CALL), ("call", 0, "add", {"a": 1})]


def test_bare_json_counts_at_a_line_s_beginning_or_the_answer_s() -> None:
    bare = '{"name": "add", "arguments": {"a": 1}}'
    for before, tool_format, calls in (
        ("", "hermes", 1),
        ("\n ", "hermes", 1),
        ("So:\n", "hermes", 0),
        ("So:\n", "llama3", 1),
        ("So:\n  ", None, 1),
        ("So: ", "llama3", 0),
    ):
        parts, _ = parse(list(before + bare), tools=TOOLS, tool_format=tool_format)
        assert len([part for part in parts if part[0] == "call"]) == calls, before


def test_json_that_is_an_answer_streams_on() -> None:
    parser = AnswerParser(tools=TOOLS)
    assert joined(parser.feed('{"na') + parser.feed('me": "J')) == [("text", '{"name": "J')]
    assert joined(parser.feed('ohn"}')) == [("text", 'ohn"}')]
    code = AnswerParser(tools=TOOLS)
    assert joined(code.feed("```py") + code.feed("thon\n")) == [("text", "```python\n")]


def test_ids_are_distinct_and_their_end_is_a_short_id() -> None:
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(id.startswith("call_") and len(id[5:]) == 9 and id[5:].isalnum() for id in ids)


# --- Cost --------------------------------------------------------------------------------------------


def test_the_usual_token_is_cheap() -> None:
    parser = AnswerParser(stop=("</s>", "User:"), end=("<|im_end|>",), tools=TOOLS)
    parser.feed("Hello")
    first = cost.calls(lambda: parser.feed(" token"))
    assert first.total() <= 10
    for _ in range(2_000):
        parser.feed(" token")
    assert cost.calls(lambda: parser.feed(" token")) == first


@pytest.mark.parametrize("piece", ["x", "{", "\\n", "<", "[", "`", "a b"])
def test_a_long_argument_is_read_in_linear_time(piece: str) -> None:
    def read(count: int) -> None:
        parser = AnswerParser(tools=TOOLS)
        parser.feed('<tool_call>{"name": "add", "arguments": {"a": "')
        for _ in range(count):
            assert parser.feed(piece) == []
        (event,) = parser.feed('"}}')
        assert isinstance(event, ToolCallDelta)

    assert_linear(read, 2_000)


def test_long_stop_strings_take_their_own_room_only() -> None:
    stop = ["ab" * 10_000 + str(number) for number in range(10)]
    tracemalloc.start()
    try:
        events, _ = parse(["ab" * 1000, "abc"], stop=stop)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert events == [("text", "ab" * 1000 + "abc")]
    assert peak < 10 * sum(map(len, stop))
