"""Anthropic's messages and token count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from rkllama.api import anthropic
from rkllama.api.common import Generation
from rkllama.engine.pictures import with_pictures
from rkllama.errors import (
    Cancelled,
    InvalidRequest,
    ModelNotFound,
    PromptTooLong,
    QueueFull,
    RKLLamaError,
    Unsupported,
    WorkerCrashed,
    WorkerHung,
)
from rkllama.types import (
    ChatRequest,
    Event,
    Message,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Tool,
    ToolCall,
    Usage,
)
from tests import dialects as scripts
from tests.cases import cases
from tests.dialects import (
    assert_golden,
    assert_survives,
    bodies,
    pretty,
    sse_events,
    streamed,
    transcript,
)
from tests.fuzzing import examples

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "The weather in a city", "input_schema": SCHEMA}
CRASH = WorkerCrashed("the model's process ended with signal 11", exit_status=-11)


def body_with(**fields: Any) -> dict[str, Any]:
    return {"model": "qwen", "max_tokens": 64, "messages": HELLO, **fields}


def decode(body: Any) -> Generation:
    return anthropic.decode_messages(body, answer_id="msg_1")


def request_of(**fields: Any) -> ChatRequest:
    """The request, as a model without eyes takes it."""
    return with_pictures(decode(body_with(**fields)).request, sees=False)


def messages_of(*messages: Any) -> tuple[Message, ...]:
    return request_of(messages=list(messages)).messages


def events_of(events: list[Event], **fields: Any) -> list[tuple[str | None, Any]]:
    return sse_events(streamed(decode(body_with(**fields)), events))


def whole(events: list[Event], **fields: Any) -> dict[str, Any]:
    return decode(body_with(**fields)).encoder.whole(iter(events))


# --- Transcripts -------------------------------------------------------------------------------

TRANSCRIPTS: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "text": ({"system": "Be brief."}, scripts.TEXT),
    "thinking": ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, scripts.THINKING),
    "tools": ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, scripts.TOOLS),
    "length": ({}, scripts.CUT),
    "stop_sequence": ({"stop_sequences": ["###"]}, scripts.STOPPED),
    "uncounted": ({}, scripts.UNCOUNTED),
    "format_not_met": (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        scripts.NOT_MET,
    ),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts(name: str) -> None:
    fields, events = TRANSCRIPTS[name]
    body = body_with(stream=True, **fields)
    assert_golden(f"anthropic/{name}.txt", transcript("POST /v1/messages", body, decode, events))


def test_error_inside_a_stream() -> None:
    body = body_with(stream=True)
    text = transcript("POST /v1/messages", body, decode, scripts.TEXT[:1], CRASH)
    assert_golden("anthropic/error_inside.txt", text)


def test_errors_before_the_stream() -> None:
    errors: list[RKLLamaError] = [
        InvalidRequest("'max_tokens' is required", param="max_tokens"),
        PromptTooLong("5000 tokens do not fit 4096"),
        ModelNotFound("qwin", candidates=("qwen",)),
        QueueFull(8),
        CRASH,
        WorkerHung("the runtime sent nothing for 60 s", seconds=60),
    ]
    answers = [f"{error.status} {pretty(anthropic.error_body(error))}" for error in errors]
    assert_golden("anthropic/errors.txt", "\n".join(answers))


# --- Answers -----------------------------------------------------------------------------------

MIXED: list[Event] = [
    ReasoningDelta("a"),
    TextDelta("b"),
    scripts.call(0, "f", {"x": 1}),
    ReasoningDelta("c"),
    TextDelta("d"),
    TextDelta("e"),
    scripts.finished("tool_calls"),
]


@pytest.mark.parametrize("events", [*scripts.ALL.values(), MIXED])
def test_event_order(events: list[Event]) -> None:
    """message_start, blocks one after the other with contiguous indexes, message_delta, message_stop."""
    frames = events_of(events)
    assert all(name == data["type"] for name, data in frames)
    names = [name for name, _ in frames]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    opened: int | None = None
    count = 0
    for name, data in frames[1:-2]:
        if name == "content_block_start":
            assert opened is None
            assert data["index"] == count
            opened = count
            count += 1
        else:
            assert data["index"] == opened
            opened = None if name == "content_block_stop" else opened
    assert opened is None


@pytest.mark.parametrize("events", [*scripts.ALL.values(), MIXED])
def test_streamed_and_whole_answers_are_the_same(events: list[Event]) -> None:
    frames = [data for _, data in events_of(events)]
    message = frames[0]["message"]
    for data in frames[1:]:
        if data["type"] == "content_block_start":
            message["content"].append(data["content_block"])
        elif data["type"] == "content_block_delta":
            _add_delta(message["content"][data["index"]], data["delta"])
        elif data["type"] == "message_delta":
            message |= data["delta"]
            message["usage"] |= data["usage"]
    assert message == whole(events)


def _add_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta["type"] == "input_json_delta":
        block["input"] = json.loads(delta["partial_json"])
    else:
        kind = delta["type"].removesuffix("_delta")
        block[kind] += delta[kind]


@pytest.mark.parametrize(
    ("event", "stops", "reason", "sequence"),
    [
        (scripts.finished("stop"), [], "end_turn", None),
        (scripts.finished("length"), [], "max_tokens", None),
        (scripts.finished("tool_calls"), [], "tool_use", None),
        (scripts.finished("stop", stop="###"), ["###"], "stop_sequence", "###"),
        (scripts.finished("stop", stop="<|end|>"), ["###"], "end_turn", None),
    ],
)
def test_stop_reason(event: Event, stops: list[str], reason: str, sequence: str | None) -> None:
    message = whole([event], stop_sequences=stops)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_an_answer_that_was_cut_off_is_not_passed_off_as_whole() -> None:
    name, data = events_of(scripts.CUT_OFF)[-1]
    assert (name, data["error"]["type"]) == ("error", "api_error")
    with pytest.raises(Cancelled, match="unloaded"):
        whole(scripts.CUT_OFF)


def test_tokens_from_the_cache_are_counted_apart() -> None:
    usage = Usage(prompt_tokens=24, completion_tokens=7, cached_tokens=16)
    assert whole([scripts.finished(usage=usage)])["usage"] == {
        "input_tokens": 8,
        "cache_read_input_tokens": 16,
        "output_tokens": 7,
    }


def test_one_call_where_parallel_calls_are_unwanted() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    fields: dict[str, Any] = {"tools": [WEATHER], "tool_choice": choice}
    assert [block["type"] for block in whole(scripts.TOOLS, **fields)["content"]] == [
        "text",
        "tool_use",
    ]
    starts = [name for name, _ in events_of(scripts.TOOLS, **fields) if name and "start" in name]
    assert starts == ["message_start", "content_block_start", "content_block_start"]


def test_events_without_an_end_are_a_fault() -> None:
    with pytest.raises(RuntimeError):
        whole([TextDelta("a")])


# --- Requests ----------------------------------------------------------------------------------


def test_plain_request() -> None:
    assert request_of() == ChatRequest(
        model="qwen", max_tokens=64, messages=(Message.of("user", "Hello"),)
    )


def test_options() -> None:
    request = request_of(
        system=[{"type": "text", "text": text} for text in ("Be brief.", "Be kind.")],
        stop_sequences=["a", ""],
        temperature=0.5,
        top_k=5,
        top_p=0.9,
        tools=[WEATHER],
        metadata={"user_id": "me"},
        service_tier="auto",
    )
    assert request.messages[0] == Message.of("system", "Be brief.\n\nBe kind.")
    assert request.stop == ("a",)
    assert request.sampling == SamplingParams(temperature=0.5, top_k=5, top_p=0.9)
    assert request.tools == (
        Tool(name="weather", description="The weather in a city", parameters=SCHEMA),
    )


@pytest.mark.parametrize(
    ("thinking", "think"),
    [
        (None, None),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, None),
    ],
)
def test_thinking(thinking: Any, think: bool | None) -> None:
    assert request_of(thinking=thinking).think is think


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "weather"}, "function:weather"),
    ],
)
def test_tool_choice(choice: Any, expected: str) -> None:
    assert request_of(tools=[WEATHER], tool_choice=choice).tool_choice == expected


def test_output_format() -> None:
    config = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}
    assert request_of(output_config=config).format == SCHEMA
    assert request_of(output_format=config["format"]).format == SCHEMA
    assert request_of(output_config={"effort": "low"}, output_format=None).format is None


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def result(**fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", **fields}


def test_conversation_with_tools() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    redacted = {"type": "redacted_thinking", "data": "x"}
    messages = messages_of(
        {"role": "user", "content": [text("Weather?"), text("Now.")]},
        {"role": "assistant", "content": [redacted, thought, text("I "), text("look."), use]},
        {
            "role": "user",
            "content": [
                result(content="rain"),
                result(content=[text("a"), text("b")]),
                result(content="no such city", is_error=True),
                result(),
                text("Well?"),
            ],
        },
        {"role": "system", "content": "Be brief."},
    )
    assert messages == (
        Message.of("user", "Weather?\n\nNow."),
        Message.of(
            "assistant",
            "I look.",
            reasoning="Hm.",
            tool_calls=(ToolCall(id="toolu_1", name="weather", arguments={"city": "Köln"}),),
        ),
        Message.of("tool", "rain", tool_call_id="toolu_1"),
        Message.of("tool", "a\n\nb", tool_call_id="toolu_1"),
        Message.of("tool", "Error: no such city", tool_call_id="toolu_1"),
        Message.of("tool", "", tool_call_id="toolu_1"),
        Message.of("user", "Well?"),
        Message.of("system", "Be brief."),
    )


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    answer = whole(MIXED)
    sent = {"role": "assistant", "content": answer["content"]}
    message, _ = messages_of(sent, *HELLO)
    assert (message.reasoning, message.text) == ("ac", "bde")
    assert [call.arguments for call in message.tool_calls] == [{"x": 1}]


def test_count() -> None:
    request = anthropic.decode_count({"model": "qwen", "messages": HELLO, "system": "Be brief."})
    assert [message.role for message in request.messages] == ["system", "user"]
    assert anthropic.count_body(12) == {"input_tokens": 12}
    with pytest.raises(Unsupported):
        anthropic.count_body(None)


def test_a_conversation_up_to_an_answer_is_counted() -> None:
    answered = [*HELLO, {"role": "assistant", "content": "Good day."}]
    request = anthropic.decode_count({"model": "qwen", "messages": answered})
    assert [message.role for message in request.messages] == ["user", "assistant"]


@cases(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [result(content=5)]}]}, None),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, None),
        ({"system": 5}, "system"),
        ({"system": False}, "system"),
        ({"temperature": 9}, "temperature"),
        ({"stop_sequences": 5}, "stop_sequences"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "thinking.budget_tokens"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "any"}}, "tools"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_format": {"type": "xml"}}, "output_format.type"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request_of(**fields)
    assert not isinstance(raised.value, Unsupported)
    if param is not None:
        assert raised.value.param == param


def document(source: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **fields}


IMAGE = {"type": "image", "source": {"type": "base64", "data": ""}}
PREFILL = [*HELLO, {"role": "assistant", "content": "The answer is ("}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [document({"type": "url", "url": "u"})]}]},
            "messages[0].content[0].source",
        ),
        ({"messages": PREFILL}, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
        ({"tools": [{"type": "computer_20250124", "name": "computer"}]}, "tools[0].type"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
    ],
)
def test_what_cannot_be_honoured_says_so(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as raised:
        request_of(**fields)
    assert raised.value.param == param


FULL = body_with(
    system=[text("a")],
    messages=[
        {"role": "user", "content": [text("b")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "c"},
                {"type": "tool_use", "id": "d", "name": "weather", "input": {}},
            ],
        },
        {"role": "user", "content": [result(content=[text("e")], is_error=True), text("f")]},
    ],
    tools=[WEATHER],
    tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    thinking={"type": "enabled", "budget_tokens": 5},
    output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    stop_sequences=["g"],
    temperature=1.0,
    top_k=1,
    stream=True,
)
WORDS = ("text", "tool_result", "tool_use", "thinking", "image", "assistant", "any")


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(bodies(FULL, WORDS))
def test_any_body_is_taken_or_refused(body: Any) -> None:
    assert_survives(anthropic.decode_messages, body)
    assert_survives(anthropic.decode_count, body)


# --- Documents, pictures, tools that clients run -----------------------------------------------

PDF = {"type": "base64", "media_type": "application/pdf", "data": ""}


def asked(*content: Any, after: Any = ()) -> tuple[Message, ...]:
    return request_of(messages=[*after, {"role": "user", "content": list(content)}]).messages


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (document({"type": "text", "media_type": "text/plain", "data": "Words"}), "Words"),
        (
            document({"type": "text", "data": "Words"}, title="Notes", context="Of May"),
            "Notes\nOf May\n\nWords",
        ),
        (document({"type": "content", "content": [text("One"), text("Two")]}), "One\n\nTwo"),
        (document({"type": "content", "content": "One"}), "One"),
        (document({"type": "base64", "media_type": "text/csv", "data": "YSxi"}), "a,b"),
        (
            {"type": "search_result", "source": "http://x", "title": "X", "content": [text("y")]},
            "X\nhttp://x\n\ny",
        ),
    ],
)
def test_documents_of_text_are_text(block: Any, expected: str) -> None:
    assert asked(block, text("What?")) == (Message.of("user", f"{expected}\n\nWhat?"),)


def test_pictures_in_results_and_older_turns_are_told() -> None:
    messages = asked(
        result(content=[IMAGE, text("a chart"), document(PDF, title="Q1")]),
        IMAGE,
        after=[
            {"role": "user", "content": [IMAGE, text("Look")]},
            {"role": "assistant", "content": "I look."},
        ],
    )
    told = "left out: this model reads only text]"
    assert [message.text for message in messages] == [
        f"[image {told}\n\nLook",
        "I look.",
        f'[image {told}\n\na chart\n\n[document "Q1" {told}',
        f"[image {told}",
    ]


def test_what_servers_did_for_another_model_is_told() -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    (_, message, _) = asked(
        text("x"), after=[*HELLO, {"role": "assistant", "content": [used, text("So.")]}]
    )
    assert "web_search" in message.text
    assert message.text.endswith("So.")


@pytest.mark.parametrize(
    ("kind", "name", "argument"),
    [
        ("bash_20250124", "bash", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "insert_text"),
        ("text_editor_20250124", "str_replace_editor", "new_str"),
        ("memory_20250818", "memory", "old_path"),
    ],
)
def test_tools_that_clients_run_have_their_known_schema(
    kind: str, name: str, argument: str
) -> None:
    (tool,) = request_of(tools=[{"type": kind, "name": name}]).tools
    assert tool.name == name
    assert argument in tool.parameters["properties"]


def test_a_thread_is_refused_in_the_words_from_which_sdks_go_on() -> None:
    with pytest.raises(Unsupported) as raised:
        request_of(thread={"type": "new"})
    assert anthropic.error_body(raised.value)["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }
    assert "details" not in anthropic.error_body(InvalidRequest("x", param="thread"))["error"]


def test_a_prompt_that_is_too_long_has_both_figures_where_they_are_known() -> None:
    known = PromptTooLong("the prompt has …", prompt_tokens=5000, context_length=4096, hint="Cut.")
    message = anthropic.error_body(known)["error"]["message"]
    assert message == "prompt is too long: 5000 tokens > 4096 maximum. Cut."
    unknown = PromptTooLong("the prompt has more tokens", context_length=4096)
    message = anthropic.error_body(unknown)["error"]["message"]
    assert message == "prompt is too long: the prompt has more tokens"
