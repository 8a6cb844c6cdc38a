"""OpenAI's Responses API: items in, items and events out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from rkllama.api import responses
from rkllama.api.common import Generation
from rkllama.engine.pictures import with_pictures
from rkllama.errors import (
    Cancelled,
    InvalidRequest,
    NotStored,
    PromptTooLong,
    Unsupported,
    WorkerCrashed,
)
from rkllama.types import (
    ChatRequest,
    Event,
    Message,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from tests import dialects as scripts
from tests.cases import cases
from tests.dialects import assert_golden, assert_survives, bodies, sse_events, streamed, transcript
from tests.fuzzing import examples

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
NAMED = {"type": "function", "name": "weather"}
CRASH = WorkerCrashed("the model's process ended with signal 11", exit_status=-11)


def body_with(**fields: Any) -> dict[str, Any]:
    return {"model": "qwen", "input": "Hello", **fields}


def decode(body: Any) -> Generation:
    return responses.decode_response(body, answer_id="resp_1", created=1700000000)


def request_of(**fields: Any) -> ChatRequest:
    """The request, as a model without eyes takes it."""
    return with_pictures(decode(body_with(**fields)).request, sees=False)


def messages_of(*items: Any) -> tuple[Message, ...]:
    return request_of(input=list(items)).messages


def events_of(events: list[Event], **fields: Any) -> list[tuple[str | None, Any]]:
    return sse_events(streamed(decode(body_with(**fields)), events))


def whole(events: list[Event], **fields: Any) -> dict[str, Any]:
    return decode(body_with(**fields)).encoder.whole(iter(events))


# --- Transcripts -------------------------------------------------------------------------------

TRANSCRIPTS: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "text": ({"instructions": "Be brief."}, scripts.TEXT),
    "thinking": ({"reasoning": {"effort": "low"}}, scripts.THINKING),
    "summary": ({"reasoning": {"summary": "auto"}}, scripts.THINKING),
    "tools": ({"tools": [WEATHER]}, scripts.TOOLS),
    "length": ({"max_output_tokens": 2}, scripts.CUT),
    "format_not_met": ({"text": {"format": {"type": "json_object"}}}, scripts.NOT_MET),
    "silent": ({}, scripts.SILENT),
    "logprobs": ({"include": ["message.output_text.logprobs"]}, scripts.SCORED),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts(name: str) -> None:
    fields, events = TRANSCRIPTS[name]
    body = body_with(stream=True, **fields)
    assert_golden(f"responses/{name}.txt", transcript("POST /v1/responses", body, decode, events))


def test_error_inside_a_stream() -> None:
    body = body_with(stream=True)
    text = transcript("POST /v1/responses", body, decode, scripts.TEXT[:1], CRASH)
    assert_golden("responses/error_inside.txt", text)


# --- Answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("events", scripts.ALL.values(), ids=scripts.ALL)
def test_sequence_numbers_count_every_event(events: list[Event]) -> None:
    frames = events_of(events)
    assert [data["sequence_number"] for _, data in frames] == list(range(len(frames)))
    assert all(name == data["type"] for name, data in frames)
    assert [name for name, _ in frames[:2]] == ["response.created", "response.in_progress"]


@pytest.mark.parametrize("events", scripts.ALL.values(), ids=scripts.ALL)
def test_streamed_and_whole_answers_are_the_same(events: list[Event]) -> None:
    *_, (name, last) = events_of(events)
    assert name in ("response.completed", "response.incomplete")
    assert last["response"] == whole(events)


def test_each_item_is_added_and_done_once_in_its_place() -> None:
    mixed: list[Event] = [
        ReasoningDelta("a"),
        TextDelta("b"),
        scripts.call(0, "f", {}),
        ReasoningDelta("c"),
        TextDelta("d"),
        TextDelta("e"),
        scripts.finished(),
    ]
    frames = events_of(mixed)
    for what in ("added", "done"):
        items = [data for name, data in frames if name == f"response.output_item.{what}"]
        assert [data["output_index"] for data in items] == [0, 1, 2, 3, 4]
    response = whole(mixed)
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["reasoning", "message", "function_call", "reasoning", "message"]
    assert len({item["id"] for item in response["output"]}) == 5
    assert response["output"][4]["content"][0]["text"] == "de"


def test_one_call_where_parallel_calls_are_unwanted() -> None:
    response = whole(scripts.TOOLS, tools=[WEATHER], parallel_tool_calls=False)
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert response["parallel_tool_calls"] is False


def test_an_answer_that_was_cut_off_is_not_passed_off_as_whole() -> None:
    *_, (error, _), (name, data) = events_of(scripts.CUT_OFF)
    assert (error, name, data["response"]["status"]) == ("error", "response.failed", "failed")
    assert data["response"]["error"]["code"] == "server_error"
    with pytest.raises(Cancelled, match="unloaded"):
        whole(scripts.CUT_OFF)


def test_an_error_before_any_event_is_a_failed_response() -> None:
    frames = sse_events(decode(body_with()).encoder.error(PromptTooLong("too long")))
    assert [name for name, _ in frames] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert frames[2][1]["error"]["message"] == "prompt is too long: too long"
    assert frames[2][1]["error"]["code"] == "context_length_exceeded"
    assert frames[3][1]["response"]["error"]["code"] == "invalid_prompt"


def test_events_without_an_end_are_a_fault() -> None:
    with pytest.raises(RuntimeError):
        whole([TextDelta("a")])


# --- Requests ----------------------------------------------------------------------------------


def test_plain_request() -> None:
    assert request_of() == ChatRequest(model="qwen", messages=(Message.of("user", "Hello"),))


def test_options() -> None:
    request = request_of(
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "none", "summary": "auto"},
        tools=[WEATHER],
        tool_choice=NAMED,
        top_logprobs=2,
    )
    assert request.messages[0] == Message.of("system", "Be brief.")
    assert request.max_tokens == 9
    assert (request.sampling.temperature, request.sampling.top_p) == (0.5, 0.9)
    assert request.think is False
    assert request.tool_choice == "function:weather"
    assert request.top_logprobs == 2
    parameters: Any = WEATHER["parameters"]
    assert request.tools == (
        Tool(name="weather", description="The weather in a city", parameters=parameters),
    )


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
    ],
)
def test_logprobs_only_where_they_are_asked_for(fields: dict[str, Any], top: int | None) -> None:
    assert request_of(**fields).top_logprobs == top


SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "name": "x", "schema": SCHEMA}, SCHEMA),
    ],
)
def test_text_format(form: Any, expected: object) -> None:
    assert request_of(text={"format": form}).format == expected


def test_items_of_one_turn_become_one_message() -> None:
    messages = messages_of(
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [reasoning("Hm.")]},
        {"type": "message", "role": "assistant", "content": [output_text("I look.")]},
        function_call("call_1", '{"city":"Köln"}'),
        function_call("call_2", "{}"),
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        {"type": "function_call_output", "call_id": "call_2", "output": [input_text("sun")]},
        {"role": "developer", "content": "Be brief."},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So."}]},
        function_call("call_3", "{}"),
    )
    assert messages == (
        Message.of("user", "Weather?"),
        Message.of(
            "assistant",
            "I look.",
            reasoning="Hm.",
            tool_calls=(
                ToolCall(id="call_1", name="weather", arguments={"city": "Köln"}),
                ToolCall(id="call_2", name="weather", arguments={}),
            ),
        ),
        Message.of("tool", "rain", tool_call_id="call_1"),
        Message.of("tool", "sun", tool_call_id="call_2"),
        Message.of("system", "Be brief."),
        Message(
            role="assistant",
            reasoning="So.",
            tool_calls=(ToolCall(id="call_3", name="weather", arguments={}),),
        ),
    )


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    output = whole([*scripts.THINKING[:3], *scripts.TOOLS[1:]])["output"]
    (message,) = messages_of(*output)
    assert (message.reasoning, message.text) == ("Two and two.", "Four.")
    assert [call.name for call in message.tool_calls] == ["weather", "clock"]
    assert message.tool_calls[0].arguments == {"city": "Zürich", "days": 2}


def test_thinking_that_led_to_nothing_is_left_out() -> None:
    messages = messages_of(
        {"type": "reasoning", "summary": []},
        {"type": "reasoning", "summary": [], "content": [reasoning("Hm.")]},
        {"role": "user", "content": "Hello"},
    )
    assert messages == (Message.of("user", "Hello"),)


def reasoning(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def input_text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def function_call(call_id: str, arguments: str) -> dict[str, Any]:
    called = {"type": "function_call", "call_id": call_id, "name": "weather"}
    return {**called, "arguments": arguments}


def test_what_is_harmless_is_ignored() -> None:
    assert (
        request_of(
            store=True,
            user="me",
            metadata={"a": "b"},
            service_tier="auto",
            include=["reasoning.encrypted_content"],
            truncation="disabled",
            background=False,
            previous_response_id=None,
            prompt_cache_key="k",
        )
        == request_of()
    )


def test_the_answer_repeats_the_request() -> None:
    response = whole(scripts.TEXT, store=True, metadata={"a": "b"}, tools=[WEATHER])
    assert response["store"] is False
    assert response["metadata"] == {"a": "b"}
    assert response["tools"][0]["name"] == "weather"


@cases(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a"]}, None),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": ""}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": 5}]}, "input[0].summary"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": "low"}, None),
        ({"text": []}, "text"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "required"}, "tools"),
        ({"metadata": "x"}, "metadata"),
        ({"include": "x"}, "include"),
        ({"stream": 1}, "stream"),
        ({"truncation": "never"}, "truncation"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request_of(**fields)
    assert not isinstance(raised.value, Unsupported)
    if param is not None and raised.value.param is not None:
        assert raised.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}, WEATHER], "tool_choice": "required"}, "tools[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
    ],
)
def test_what_cannot_be_honoured_says_so(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as raised:
        request_of(**fields)
    assert raised.value.param == param


FULL = body_with(
    instructions="a",
    input=[
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "c"}]},
        {"type": "message", "role": "assistant", "content": "d"},
        function_call("e", "{}"),
        {"type": "function_call_output", "call_id": "e", "output": "f"},
    ],
    tools=[WEATHER],
    tool_choice=NAMED,
    text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    reasoning={"effort": "low"},
    include=["message.output_text.logprobs"],
    metadata={"a": "b"},
    user="g",
    top_logprobs=1,
    max_output_tokens=5,
    temperature=1.0,
    parallel_tool_calls=False,
    stream=True,
)


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(bodies(FULL, ("message", "reasoning", "function_call", "assistant", "text", "{}")))
def test_any_body_is_taken_or_refused(body: Any) -> None:
    assert_survives(responses.decode_response, body)


def test_tools_of_a_namespace_are_called_by_name_and_namespace() -> None:
    space = {"type": "namespace", "name": "mcp__demo", "tools": [WEATHER]}
    assert [tool.name for tool in request_of(tools=[space]).tools] == ["mcp__demo__weather"]
    call = ToolCall(id="call_1", name="mcp__demo__weather", arguments={})
    item = whole([ToolCallDelta(0, call), scripts.TOOLS[-1]], tools=[space])["output"][0]
    assert (item["name"], item["namespace"]) == ("weather", "mcp__demo")
    (message,) = messages_of(item)
    assert message.tool_calls == (call,)


def test_hosted_tools_are_an_offer_that_is_left_out() -> None:
    tools = request_of(tools=[{"type": "web_search"}, WEATHER]).tools
    assert [tool.name for tool in tools] == ["weather"]


PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin"'},
}


def test_a_tool_that_takes_free_text_is_a_function_with_one_text() -> None:
    (tool,) = request_of(tools=[PATCH], tool_choice={"type": "custom", "name": "apply_patch"}).tools
    assert tool.name == "apply_patch"
    assert tool.parameters["required"] == ["input"]
    assert 'start: "*** Begin"' in tool.description


def test_a_call_with_free_text_comes_as_such_and_goes_back() -> None:
    made = scripts.call(0, "apply_patch", {"input": "*** Begin\n"})
    events = events_of([made, scripts.finished("tool_calls")], tools=[PATCH])
    kind = "response.custom_tool_call_input"
    assert [name for name, _ in events[2:6]] == [
        "response.output_item.added",
        f"{kind}.delta",
        f"{kind}.done",
        "response.output_item.done",
    ]
    assert events[2][1]["item"]["input"] == ""
    assert events[3][1]["delta"] == events[4][1]["input"] == "*** Begin\n"
    (item,) = events[-1][1]["response"]["output"]
    assert (item["type"], item["name"]) == ("custom_tool_call", "apply_patch")
    output = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "done"}
    call, result = messages_of(item, output)
    assert call.tool_calls == (made.call,)
    assert result == Message.of("tool", "done", tool_call_id=made.call.id)


def test_a_call_with_other_arguments_than_the_text_is_not_lost() -> None:
    made = scripts.call(0, "apply_patch", {"patch": "x"})
    (item,) = whole([made, scripts.finished("tool_calls")], tools=[PATCH])["output"]
    assert item["input"] == '{"patch":"x"}'


@pytest.mark.parametrize(
    "named",
    [
        {"name": "mcp__demo__weather"},
        {"name": "weather", "namespace": "mcp__demo"},
        {"name": "weather"},
    ],
)
def test_a_forced_tool_in_a_namespace_is_named_either_way(named: dict[str, str]) -> None:
    space = {"type": "namespace", "name": "mcp__demo", "tools": [WEATHER]}
    request = request_of(tools=[space], tool_choice={"type": "function", **named})
    assert request.tool_choice == "function:mcp__demo__weather"


def test_what_a_server_did_itself_is_told_to_the_model() -> None:
    messages = messages_of(
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "a"}, "status": "completed"},
        {"type": "local_shell_call", "call_id": "c_1", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c_1", "output": "b"},
        {"type": "mcp_call", "id": "m_1", "name": "add", "arguments": "{}", "output": "3"},
        {"type": "shell_call_output", "call_id": "s_1", "output": [{"stdout": "c"}]},
        {"type": "mcp_list_tools", "tools": []},
        {"type": "compaction", "encrypted_content": "gAAAA"},
    )
    assert [(call.name, call.arguments) for m in messages for call in m.tool_calls] == [
        ("web_search", {"action": {"query": "a"}}),
        ("local_shell", {"action": {"command": ["ls"]}}),
        ("add", {"arguments": "{}"}),
    ]
    results = [(m.tool_call_id, m.text) for m in messages if m.role == "tool"]
    assert results == [
        ("ws_1", "completed"),
        ("c_1", "b"),
        ("m_1", "3"),
        ("s_1", '[{"stdout":"c"}]'),
    ]


def test_an_unknown_item_is_refused_by_its_type() -> None:
    with pytest.raises(Unsupported, match="telepathy"):
        messages_of({"type": "telepathy"})


# --- What is kept ------------------------------------------------------------------------------


class Notebook:
    """A memory of one response, resp_0, whose only item is msg_0_0."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, Any]] = []

    def conversation(self, response_id: str) -> list[Any]:
        return [{"role": "user", "content": "before"}, self.item("msg_0_0")]

    def item(self, item_id: str) -> Any:
        told = {"type": "message", "role": "assistant", "content": [output_text("told")]}
        return told if item_id == "msg_0_0" else None

    def keep(self, response: Any, inputs: Any) -> None:
        self.kept.append((response, inputs))


def remembered(notebook: Notebook, **fields: Any) -> Generation:
    body = body_with(**fields)
    return responses.decode_response(body, memory=notebook, answer_id="resp_1", created=1)


def test_a_response_goes_on_from_another() -> None:
    generation = remembered(Notebook(), previous_response_id="resp_0")
    assert [message.text for message in generation.request.messages] == ["before", "told", "Hello"]
    answer = generation.encoder.whole(iter(scripts.TEXT))
    assert (answer["previous_response_id"], answer["store"]) == ("resp_0", True)


@pytest.mark.parametrize(
    "reference", [{"type": "item_reference", "id": "msg_0_0"}, {"id": "msg_0_0"}]
)
def test_a_reference_is_the_item(reference: Any) -> None:
    (message,) = remembered(Notebook(), input=[reference]).request.messages
    assert message == Message.of("assistant", "told")


def test_a_reference_to_nothing_is_named() -> None:
    with pytest.raises(NotStored) as raised:
        remembered(Notebook(), input=[{"type": "item_reference", "id": "msg_9_9"}])
    assert (raised.value.param, raised.value.status) == ("input[0].id", 404)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_complete_is_kept_unless_refused(stream: bool) -> None:
    notebook = Notebook()
    for store in (None, False):
        encoder = remembered(notebook, store=store).encoder
        answer = (
            sse_events(b"".join(map(encoder.encode, scripts.TEXT)))[-1][1]["response"]
            if stream
            else encoder.whole(iter(scripts.TEXT))
        )
        assert answer["store"] is (store is None)
    ((response, inputs),) = notebook.kept
    assert response["id"] == "resp_1"
    assert inputs == [
        {"type": "message", "role": "user", "content": "Hello", "id": "item_1_i0"},
    ]


def test_what_broke_off_is_not_kept() -> None:
    notebook = Notebook()
    encoder = remembered(notebook).encoder
    encoder.encode(scripts.TEXT[0])
    encoder.error(CRASH)
    for event in scripts.CUT_OFF:
        encoder.encode(event)
    assert notebook.kept == []


ITEMS = [{"id": f"item_1_i{number}"} for number in range(3)]


@pytest.mark.parametrize(
    ("query", "numbers", "more"),
    [
        ({}, [2, 1, 0], False),
        ({"order": "asc", "limit": "2"}, [0, 1], True),
        ({"order": "asc", "after": "item_1_i1"}, [2], False),
        ({"after": "item_1_i0"}, [], False),
    ],
)
def test_items_are_listed_in_pages(query: dict[str, str], numbers: list[int], more: bool) -> None:
    body = responses.items_body(ITEMS, query)
    assert body["data"] == [ITEMS[number] for number in numbers]
    assert body["has_more"] is more
    assert body["first_id"] == (ITEMS[numbers[0]]["id"] if numbers else None)


@pytest.mark.parametrize(
    "query", [{"order": "up"}, {"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"after": "y"}]
)
def test_a_page_that_cannot_be_listed_is_named(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        responses.items_body(ITEMS, query)
    assert raised.value.param in query


def test_allowed_tools() -> None:
    tools = [{"type": "function", "name": name} for name in "abc"]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [tools[1]]}
    request = request_of(tools=tools, tool_choice=choice)
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["b"], "required")


# --- Thinking ----------------------------------------------------------------------------------


def test_thinking_is_a_summary_where_one_is_asked_for_and_never_both() -> None:
    item = whole(scripts.THINKING, reasoning={"summary": "auto"})["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "Two and two."}]
    assert "content" not in item
    (message,) = messages_of(item, {"role": "assistant", "content": "Four."})
    assert (message.reasoning, message.text) == ("Two and two.", "Four.")
    item = whole(scripts.THINKING)["output"][0]
    assert item["summary"] == []
    assert "encrypted_content" not in item


def test_thinking_is_sealed_for_clients_that_send_back_no_other() -> None:
    thought, told = whole(scripts.THINKING, include=["reasoning.encrypted_content"])["output"]
    assert thought["encrypted_content"]
    assert "encrypted_content" not in told
    assert messages_of(thought, told)[0].reasoning == "Two and two."


# --- Pictures and files ------------------------------------------------------------------------

PICTURE = {"type": "input_image", "image_url": "data:,"}
TOLD = "left out: this model reads only text]"


def test_pictures_in_results_and_older_turns_are_told() -> None:
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,"}
    messages = messages_of(
        {"role": "user", "content": [PICTURE, input_text("Look")]},
        function_call("call_1", "{}"),
        {"type": "function_call_output", "call_id": "call_1", "output": [PICTURE, file]},
        {"role": "user", "content": "And?"},
    )
    assert messages[0].text == f"[image {TOLD}Look"
    assert messages[2].text == f'[image {TOLD}[file "a.pdf" {TOLD}'


def test_a_file_of_text_is_text() -> None:
    data = "data:text/plain;base64,SGk="
    file = {"type": "input_file", "filename": "a.txt", "file_data": data}
    (message,) = messages_of({"role": "user", "content": [file, input_text("What?")]})
    assert message.text == "a.txt:\n\nHi\n\nWhat?"
