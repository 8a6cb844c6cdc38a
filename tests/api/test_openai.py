"""OpenAI's chat completions, completions, models and embeddings."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings

from rkllama.api import openai
from rkllama.api.common import Generation
from rkllama.engine.pictures import with_pictures
from rkllama.errors import (
    Cancelled,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    PromptTooLong,
    QueueFull,
    RKLLamaError,
    Unsupported,
    WorkerCrashed,
)
from rkllama.types import (
    Alias,
    ChatRequest,
    EmbeddingResult,
    Event,
    Message,
    ModelInfo,
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
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CRASH = WorkerCrashed("the model's process ended with signal 11", exit_status=-11)


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "qwen", "messages": HELLO, **fields}


def completion_body(**fields: Any) -> dict[str, Any]:
    return {"model": "qwen", "prompt": "Once", **fields}


def decode_chat(body: Any) -> Generation:
    return openai.decode_chat(body, answer_id="chatcmpl-1", created=1700000000)


def decode_completion(body: Any) -> Generation:
    return openai.decode_completion(body, answer_id="cmpl-1", created=1700000000)


def chat(**fields: Any) -> ChatRequest:
    """The request, as a model without eyes takes it."""
    return with_pictures(decode_chat(chat_body(**fields)).request, sees=False)


def completion(**fields: Any) -> ChatRequest:
    return decode_completion(completion_body(**fields)).request


def chunks(events: list[Event], **fields: Any) -> list[Any]:
    stream = streamed(decode_chat(chat_body(**fields)), events)
    return [data for _, data in sse_events(stream)]


# --- Transcripts -------------------------------------------------------------------------------

USAGE = {"stream_options": {"include_usage": True}}
CHATS: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "chat": ({}, scripts.TEXT),
    "chat_usage": (USAGE, scripts.TEXT),
    "chat_uncounted": (USAGE, scripts.UNCOUNTED),
    "chat_thinking": ({"reasoning_effort": "high"}, scripts.THINKING),
    "chat_tools": ({"tools": [WEATHER]}, scripts.TOOLS),
    "chat_length": ({"max_tokens": 2}, scripts.CUT),
    "chat_logprobs": ({"logprobs": True, "top_logprobs": 1}, scripts.SCORED),
    "chat_format_not_met": ({"response_format": {"type": "json_object"}}, scripts.NOT_MET),
}


@pytest.mark.parametrize("name", CHATS)
def test_chat_transcripts(name: str) -> None:
    fields, events = CHATS[name]
    body = chat_body(stream=True, **fields)
    line = "POST /v1/chat/completions"
    assert_golden(f"openai/{name}.txt", transcript(line, body, decode_chat, events))


def test_error_inside_a_chat_stream() -> None:
    line = "POST /v1/chat/completions"
    body = chat_body(stream=True)
    text = transcript(line, body, decode_chat, scripts.TEXT[:1], CRASH)
    assert_golden("openai/chat_error_inside.txt", text)


@pytest.mark.parametrize(
    ("name", "fields", "events"),
    [
        ("completion", USAGE, scripts.TEXT),
        ("completion_logprobs", {"logprobs": 1}, scripts.SCORED),
    ],
)
def test_completion_transcripts(name: str, fields: dict[str, Any], events: list[Event]) -> None:
    body = completion_body(stream=True, **fields)
    text = transcript("POST /v1/completions", body, decode_completion, events)
    assert_golden(f"openai/{name}.txt", text)


ERRORS: dict[str, RKLLamaError] = {
    "invalid": InvalidRequest("'n' must be an integer", param="n"),
    "unsupported": Unsupported("'n' must be 1", param="n"),
    "too_long": PromptTooLong("5000 tokens do not fit 4096", prompt_tokens=5000),
    "not_found": ModelNotFound("qwin", candidates=("qwen",)),
    "queue_full": QueueFull(8),
    "load_failed": LoadFailed("the runtime refused the model"),
}


def test_errors_before_the_stream() -> None:
    answers = [f"{error.status} {pretty(openai.error_body(error))}" for error in ERRORS.values()]
    assert_golden("openai/errors.txt", "\n".join(answers))


def test_error_type_of_other_statuses() -> None:
    class Unauthorized(RKLLamaError):
        status = 401
        code = "invalid_api_key"

    body = openai.error_body(Unauthorized("no key"))
    assert body["error"]["type"] == "authentication_error"
    assert body["error"]["code"] == "invalid_api_key"


# --- Requests ----------------------------------------------------------------------------------


def test_plain_request() -> None:
    generation = decode_chat(chat_body())
    assert generation.request == ChatRequest(model="qwen", messages=(Message.of("user", "Hello"),))
    assert not generation.stream


def test_sampling() -> None:
    request = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repeat_penalty=1.1,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=42,
    )
    assert request.sampling == SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repeat_penalty=1.1,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=42,
    )


@pytest.mark.parametrize("seed", [-1, (1 << 63) - 1, -(1 << 63)])
def test_seed_of_any_size_fits_the_backends(seed: int) -> None:
    drawn = chat(seed=seed).sampling.seed
    assert drawn is not None
    assert 0 <= drawn < 1 << 31
    assert drawn == chat(seed=seed).sampling.seed


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": -1}, -1),
    ],
)
def test_max_tokens(fields: dict[str, Any], limit: int | None) -> None:
    assert chat(**fields).max_tokens == limit


@pytest.mark.parametrize(
    ("stop", "stops"), [(None, ()), ("a", ("a",)), (["a", "", "b"], ("a", "b")), ("", ())]
)
def test_stop(stop: Any, stops: tuple[str, ...]) -> None:
    assert chat(stop=stop).stop == stops


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        (None, None),
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("Ultra", "high"),
        ("off", False),
    ],
)
def test_reasoning_effort(effort: str | None, think: object) -> None:
    assert chat(reasoning_effort=effort).think == think
    assert chat(reasoning={"effort": effort}).think == think
    assert chat(chat_template_kwargs={"reasoning_effort": effort}).think == think


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"enable_thinking": False}, False),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": True, "reasoning_effort": "low"}, "low"),
        ({"enable_thinking": False, "reasoning_effort": "high"}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"max_tokens": 100}}, None),
        ({"thinking": {"type": "disabled"}}, False),
        ({"think": False}, False),
        ({"thinking": {"type": "auto"}}, None),
    ],
)
def test_thinking_is_switched_by_each_of_its_names(fields: dict[str, Any], think: object) -> None:
    request = chat(**fields)
    assert request.think == think
    assert request.template_variables == {}


def test_other_template_variables_are_passed_on() -> None:
    given = {"enable_thinking": True, "preserve_thinking": True, "role": {"name": "x"}}
    request = chat(chat_template_kwargs=given)
    assert request.template_variables == {"preserve_thinking": True, "role": {"name": "x"}}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{", {"arguments": "{"}),
        ("[]", {"arguments": []}),
        ("[" * 9999, {"arguments": "[" * 9999}),
        ("1" * 9999, {"arguments": "1" * 9999}),
        ('{"a": NaN}', {"arguments": '{"a": NaN}'}),
        ('{"a": 1e999}', {"arguments": '{"a": 1e999}'}),
        ({"a": 1}, {"a": 1}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_arguments_of_a_call_that_went_wrong_do_not_end_a_conversation(
    text: Any, arguments: Any
) -> None:
    (message,) = chat(messages=with_call(text)).messages
    assert message.tool_calls[0].arguments == arguments


@pytest.mark.parametrize(
    ("mode", "names", "told", "choice"),
    [
        ("auto", ["b"], ["b"], "auto"),
        ("required", ["a", "b"], ["a", "b"], "required"),
        ("auto", [], [], "auto"),
    ],
)
def test_allowed_tools(mode: str, names: list[str], told: list[str], choice: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    allowed = {"mode": mode, "tools": [t for t in tools if t["function"]["name"] in names]}  # type: ignore[index]
    request = chat(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in request.tools] == told
    assert request.tool_choice == choice


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"type": "allowed_tools"}, "tool_choice.tools"),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [{"function": {"name": "x"}}]}},
            "tool_choice",
        ),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [], "mode": "required"}}, "tools"),
    ],
)
def test_allowed_tools_have_to_be_there(choice: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(tools=[WEATHER], tool_choice=choice)
    assert refused.value.param == param


SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "json"),
    ],
)
def test_response_format(response_format: Any, expected: object) -> None:
    assert chat(response_format=response_format).format == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
    ],
)
def test_logprobs(fields: dict[str, Any], expected: int | None) -> None:
    assert chat(**fields).top_logprobs == expected


def test_tools() -> None:
    request = chat(tools=[WEATHER], parallel_tool_calls=True)
    function: Any = WEATHER["function"]
    assert request.tools == (
        Tool(
            name="weather",
            description="The weather in a city",
            parameters=function["parameters"],
        ),
    )
    assert request.tool_choice == "auto"


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", "none"),
        ("auto", "auto"),
        ("required", "required"),
        (NAMED, "function:weather"),
    ],
)
def test_tool_choice(choice: Any, expected: str) -> None:
    assert chat(tools=[WEATHER], tool_choice=choice).tool_choice == expected


def test_conversation_with_tools() -> None:
    request = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("Wea", "ther?")]},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
                    },
                    {"id": "call_2", "function": {"name": "clock", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "9"}]},
            {"role": "assistant", "refusal": "No.", "reasoning": "Never."},
        ]
    )
    assert request.messages == (
        Message.of("system", "Be brief."),
        Message.of("user", "Weather?"),
        Message(
            role="assistant",
            reasoning="Hm.",
            tool_calls=(
                ToolCall(id="call_1", name="weather", arguments={"city": "Köln"}),
                ToolCall(id="call_2", name="clock", arguments={}),
            ),
        ),
        Message.of("tool", "rain", tool_call_id="call_1"),
        Message.of("tool", "9", tool_call_id="call_2"),
        Message.of("assistant", "No.", reasoning="Never."),
    )


def test_deprecated_function_messages() -> None:
    called = {"name": "weather", "arguments": "{}"}
    request = chat(
        messages=[
            {"role": "assistant", "content": None, "function_call": called},
            {"role": "function", "name": "weather", "content": "rain"},
        ]
    )
    assert request.messages == (
        Message(role="assistant", tool_calls=(ToolCall(id="", name="weather", arguments={}),)),
        Message.of("tool", "rain", tool_name="weather"),
    )


def test_what_is_harmless_is_ignored() -> None:
    assert (
        chat(
            user="me",
            metadata={"a": "b"},
            store=True,
            service_tier="auto",
            n=1,
            modalities=["text"],
            logit_bias={},
            audio=None,
            verbosity="low",
            unheard_of=1,
        )
        == chat()
    )


def with_content(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def with_call(arguments: Any) -> list[Any]:
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "assistant", "tool_calls": [called]}]


@cases(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, None),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": with_content("a")}, None),
        ({"messages": with_content({"text": "a"})}, "messages[0].content[0].type"),
        ({"messages": with_call(None)}, "messages[0].tool_calls[0].function.arguments"),
        ({"messages": with_call(3)}, "messages[0].tool_calls[0].function.arguments"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": 3}},
            None,
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"tools": [], "mode": "any"},
                }
            },
            "tool_choice.allowed_tools.mode",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, None),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"enable_thinking": 0}}, "chat_template_kwargs.enable_thinking"),
        ({"response_format": "json"}, None),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"n": "two"}, "n"),
        ({"n": 0}, "n"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields)
    assert raised.value.param == param
    assert not isinstance(raised.value, Unsupported)


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"messages": with_content(IMAGE)}, "messages[0].content[0].type"),
        ({"messages": with_content({"type": "input_audio"})}, "messages[0].content[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ],
)
def test_what_cannot_be_honoured_says_so(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as raised:
        chat(**fields)
    assert raised.value.param == param


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_bodies_that_are_no_objects(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        decode_chat(body)


# --- Answers -----------------------------------------------------------------------------------


def test_chunks_share_what_identifies_the_answer() -> None:
    *answer, done = chunks(scripts.TOOLS)
    assert done == "[DONE]"
    shared = {(c["id"], c["object"], c["created"], c["model"]) for c in answer}
    assert shared == {("chatcmpl-1", "chat.completion.chunk", 1700000000, "qwen")}


@pytest.mark.parametrize("events", scripts.ALL.values(), ids=scripts.ALL)
def test_role_comes_first_and_once(events: list[Event]) -> None:
    *answer, _ = chunks(events)
    roles = [chunk["choices"][0]["delta"].get("role") for chunk in answer]
    assert roles == ["assistant"] + [None] * (len(answer) - 1)


def test_made_up_ids_differ() -> None:
    ids = {openai.decode_chat(chat_body()).encoder.whole(scripts.TEXT)["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(made.startswith("chatcmpl-") for made in ids)


def test_one_call_where_parallel_calls_are_unwanted() -> None:
    fields: dict[str, Any] = {"tools": [WEATHER], "parallel_tool_calls": False}
    calls = [
        call["function"]["name"]
        for chunk in chunks(scripts.TOOLS, **fields)[:-1]
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert calls == ["weather"]
    whole = decode_chat(chat_body(**fields)).encoder.whole(scripts.TOOLS)
    assert len(whole["choices"][0]["message"]["tool_calls"]) == 1


@pytest.mark.parametrize(
    ("decode", "body"), [(decode_chat, chat_body()), (decode_completion, completion_body())]
)
def test_an_answer_that_was_cut_off_is_not_passed_off_as_whole(decode: Any, body: Any) -> None:
    last = sse_events(streamed(decode(body), scripts.CUT_OFF))[-1][1]
    assert (last["error"]["code"], last["error"]["type"]) == ("cancelled", "api_error")
    with pytest.raises(Cancelled, match="unloaded"):
        decode(body).encoder.whole(scripts.CUT_OFF)


def test_text_is_one_line_of_utf8_whatever_it_holds() -> None:
    text = '\u2028\u2029\x85\n\r"\\\x00\ud800 é中\U0001f600'
    stream = streamed(decode_chat(chat_body()), [TextDelta(text), ReasoningDelta(text)])
    lines = [line for line in stream.decode().splitlines() if line]
    assert len(lines) == 3
    delta = json.loads(lines[1].removeprefix("data: "))["choices"][0]["delta"]
    assert delta["content"] == text.replace("\ud800", "\ufffd")


def test_completion_prompt() -> None:
    request = completion(prompt=["Once"], max_tokens=3, logprobs=2)
    assert request == ChatRequest(
        model="qwen", prompt="Once", raw=True, max_tokens=3, top_logprobs=2
    )
    assert completion(suffix="end") == ChatRequest(
        model="qwen", prompt="Once", suffix="end", raw=False
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"n": 2}, "n"),
        ({"logprobs": -1}, "logprobs"),
    ],
)
def test_completion_refusals(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        completion(**fields)
    assert raised.value.param == param


def test_completion_keeps_thinking_in_the_text() -> None:
    generation = decode_completion(completion_body())
    whole = generation.encoder.whole(scripts.THINKING)
    texts = [
        data["choices"][0]["text"]
        for _, data in sse_events(streamed(generation, scripts.THINKING))[:-1]
    ]
    assert "".join(texts) == whole["choices"][0]["text"] == "Two and two.Four."


# --- Models and embeddings ---------------------------------------------------------------------


def test_models() -> None:
    info = ModelInfo(
        name="qwen", file="q.rkllm", path="/q.rkllm", format="rkllm", size=1, modified=1700000000.9
    )
    entry = {"id": "qwen", "object": "model", "created": 1700000000, "owned_by": "rkllama"}
    assert openai.models_body([info]) == {
        "object": "list",
        "data": [{**entry, "state": "unloaded"}],
    }
    aliases = [Alias(name="chat", target="q", info=info), Alias(name="gone", target="x")]
    assert openai.models_body([info], aliases, {"/q.rkllm": "ready"})["data"] == [
        {**entry, "state": "ready"},
        {**entry, "id": "chat", "root": "qwen", "state": "ready"},
    ]


RESULT = EmbeddingResult(
    model="qwen.rkllm",
    vectors=((0.6, -0.8), (1.0, 0.0)),
    usage=Usage(prompt_tokens=5),
)


def embeddings(**fields: Any) -> openai.EmbeddingCall:
    return openai.decode_embeddings({"model": "qwen", "input": ["a", "b"], **fields})


def test_embeddings_as_numbers() -> None:
    call = embeddings(dimensions=2)
    assert call.request.inputs == ("a", "b")
    assert call.request.dimensions == 2
    assert not call.request.truncate
    assert call.body(RESULT) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.6, -0.8]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
        ],
        "model": "qwen",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_embeddings_as_base64_are_little_endian_float32() -> None:
    body = embeddings(encoding_format="base64", input="a").body(RESULT)
    packed = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == pytest.approx((0.6, -0.8))


def test_usage_that_is_unknown_is_left_out_rather_than_nought() -> None:
    assert "usage" not in embeddings().body(EmbeddingResult(model="m", vectors=((1.0,),)))
    for half in (Usage(completion_tokens=7), Usage(prompt_tokens=7)):
        events: list[Event] = [TextDelta("Hi"), scripts.finished(usage=half)]
        assert openai.ChatEncoder("m").whole(events)["usage"] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_embedding_refusals(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        embeddings(**fields)
    assert raised.value.param == param


# --- Anything at all ---------------------------------------------------------------------------

FULL = chat_body(
    messages=[
        {"role": "system", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "c",
            "tool_calls": [
                {
                    "id": "d",
                    "type": "function",
                    "function": {"name": "weather", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "d", "content": "e"},
        {"role": "function", "name": "f", "content": "g"},
    ],
    tools=[WEATHER],
    tool_choice=NAMED,
    response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    stream_options={"include_usage": True},
    stream=True,
    n=1,
    seed=1,
    stop=["a"],
    max_tokens=5,
    logprobs=True,
    top_logprobs=2,
    reasoning_effort="low",
    temperature=1.0,
    modalities=["text"],
    parallel_tool_calls=False,
)
WORDS = ("assistant", "function", "text", "json_object", "required", "image_url", "{}", "[")


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(bodies(FULL, WORDS))
def test_any_chat_body_is_taken_or_refused(body: Any) -> None:
    assert_survives(openai.decode_chat, body)


@pytest.mark.integration
@settings(max_examples=examples(1))
@given(bodies(completion_body(stop="a", suffix="b", logprobs=1, stream_options={}, n=1)))
def test_any_completion_body_is_taken_or_refused(body: Any) -> None:
    assert_survives(openai.decode_completion, body)


@pytest.mark.integration
@settings(max_examples=examples(1))
@given(bodies({"model": "m", "input": ["a"], "dimensions": 1, "encoding_format": "float"}))
def test_any_embedding_body_is_taken_or_refused(body: Any) -> None:
    assert_survives(openai.decode_embeddings, body)


def test_pictures_in_results_and_older_turns_are_told() -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/x;base64,SGk="}}
    told = "[image left out: this model reads only text]"
    request = chat(
        messages=[
            {"role": "user", "content": [IMAGE]},
            {"role": "assistant", "content": "I look."},
            {"role": "tool", "tool_call_id": "c", "content": [IMAGE]},
            {"role": "user", "content": [file]},
        ]
    )
    assert [message.text for message in request.messages] == [
        told,
        "I look.",
        told,
        "a.txt:\n\nHi\n\n",
    ]
