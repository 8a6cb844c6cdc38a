"""Ollama's API: decoding, answers, lists, pulls, golden transcripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama import errors
from rkllama.api import ollama, ollama_models
from rkllama.engine.pictures import with_pictures
from rkllama.types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    Finished,
    LoadedModel,
    Message,
    ModelDetails,
    ModelInfo,
    PullProgress,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Timings,
    Tool,
    ToolCall,
    Usage,
)
from tests import dialects
from tests.cases import cases
from tests.cost import calls
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
CRASH = errors.WorkerCrashed("the runtime died of signal 11", exit_status=-11, log="last words")
TIMINGS = Timings(queue=0.0, load=0.25, prompt=0.1, generation=0.5, total=0.9)
DIGEST = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 2026-01-02 03:04:05.678901 UTC."""
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc).timestamp()
    clock = SimpleNamespace(time=lambda: now, time_ns=lambda: round(now * 1e6) * 1000)
    monkeypatch.setattr(ollama, "time", clock)


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "qwen", "messages": HELLO, **fields}
    return with_pictures(dialects.decoded(ollama.decode_chat, body).request, sees=False)


def generate(**fields: Any) -> ChatRequest:
    body = {"model": "qwen", "prompt": "Once", **fields}
    return with_pictures(dialects.decoded(ollama.decode_generate, body).request, sees=False)


def load_call(decode: Callable[[object], object], **body: Any) -> ollama.LoadCall:
    call = decode({"model": "m", **body})
    assert isinstance(call, ollama.LoadCall)
    return call


def timed(events: list[Event]) -> list[Event]:
    """The same answer, with the runtime's times."""
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [*events[:-1], replace(finished, timings=TIMINGS)]


# --- Decoding ----------------------------------------------------------------------------------


def test_chat_defaults() -> None:
    body = {"model": " qwen:latest ", "messages": HELLO}
    generation = dialects.decoded(ollama.decode_chat, body)
    assert generation.stream is True
    assert generation.request == ChatRequest(
        model="qwen:latest", messages=(Message.of("user", "Hello"),), truncate=True
    )
    assert chat(truncate=False).truncate is False


def test_generate_defaults() -> None:
    generation = dialects.decoded(ollama.decode_generate, {"model": "qwen", "prompt": "Once"})
    assert generation.stream is True
    assert generation.request == ChatRequest(model="qwen", prompt="Once")


def test_generate_fields() -> None:
    request = generate(
        system="S",
        template="{{ T }}",
        suffix="end",
        context=[1, 2],
        think=True,
        format={"type": "object"},
        keep_alive=-1,
        truncate=True,
        shift=False,
        nobody="knows this",
    )
    assert (request.system, request.template, request.suffix) == ("S", "{{ T }}", "end")
    assert (request.think, request.format, request.keep_alive) == (True, {"type": "object"}, -1.0)
    assert generate(raw=True).raw is True


def test_raw_excludes_what_it_would_ignore() -> None:
    for field in ({"system": "s"}, {"template": "t"}, {"context": [1]}):
        with pytest.raises(errors.InvalidRequest, match="raw mode does not support"):
            generate(raw=True, **field)


@pytest.mark.parametrize("fields", [{"messages": []}, {"messages": None}, {}])
@pytest.mark.parametrize("stream", [None, True, False])
def test_no_messages_unload(fields: dict[str, Any], stream: bool | None) -> None:
    call = load_call(ollama.decode_chat, keep_alive=0, stream=stream, **fields)
    assert (call.model, call.unloads) == ("m", True)


@pytest.mark.parametrize("prompt", ["", None])
def test_no_prompt_loads(prompt: str | None) -> None:
    options = {"num_ctx": 512, "temperature": 0.5}
    call = load_call(ollama.decode_generate, prompt=prompt, keep_alive="10m", options=options)
    assert (call.model, call.unloads, call.keep_alive) == ("m", False, 600.0)
    assert (call.context_length, call.sampling) == (512, SamplingParams(temperature=0.5))
    assert load_call(ollama.decode_generate, prompt=prompt).keep_alive is None


def test_options() -> None:
    request = chat(
        options={
            "num_ctx": 8192,
            "num_predict": 128,
            "seed": 42,
            "temperature": 0,
            "top_k": 40.0,
            "top_p": 0.9,
            "min_p": 0.05,
            "repeat_penalty": 1.1,
            "presence_penalty": -1,
            "frequency_penalty": 1.5,
            "mirostat": 2,
            "mirostat_tau": 5.0,
            "mirostat_eta": 0.1,
            "stop": ["a", "", "b"],
            "num_gpu": "ignored",
            "nobody": {"knows": "this"},
        }
    )
    assert request.sampling == SamplingParams(
        temperature=0,
        top_k=40,
        top_p=0.9,
        min_p=0.05,
        repeat_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=1.5,
        mirostat=2,
        mirostat_tau=5.0,
        mirostat_eta=0.1,
        seed=42,
    )
    assert (request.max_tokens, request.context_length) == (128, 8192)
    assert request.stop == ("a", "b")


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"num_predict": -1}, "max_tokens", -1),
        ({"num_predict": -2}, "max_tokens", -1),
        ({"num_predict": 0}, "max_tokens", -1),
        ({}, "max_tokens", None),
        ({"stop": "one"}, "stop", ("one",)),
        ({"stop": None, "num_ctx": None}, "context_length", None),
        ({"num_ctx": 1}, "context_length", 4),
        ({"num_ctx": 5}, "context_length", 5),
    ],
)
def test_option_values(options: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(chat(options=options), field) == expected


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"top_k": -1}, "top_k", None),
        ({"seed": -1}, "seed", None),
        ({"seed": 0}, "seed", 0),
        ({"seed": (1 << 53) + 5}, "seed", 5),
    ],
)
def test_sampling_values(options: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(chat(options=options).sampling, field) == expected


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [
        (None, None),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("300s", 300.0),
        (-1, -1.0),
        ("-1m", -60.0),
        (0, 0.0),
    ],
)
def test_keep_alive(keep_alive: object, seconds: float | None) -> None:
    assert chat(keep_alive=keep_alive).keep_alive == seconds


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, None),
        (False, False),
        (True, True),
        ("low", "low"),
        ("high", "high"),
        ("max", "high"),
        ("minimal", "low"),
        ("none", False),
    ],
)
def test_think(think: object, expected: object) -> None:
    assert chat(think=think).think == expected
    kwargs = {"enable_thinking": think} if isinstance(think, bool) else {"reasoning_effort": think}
    request = chat(chat_template_kwargs={**kwargs, "style": "dry"})
    assert (request.think, request.template_variables) == (expected, {"style": "dry"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
    ],
)
def test_logprobs(fields: dict[str, Any], expected: int | None) -> None:
    assert chat(**fields).top_logprobs == expected
    assert generate(**fields).top_logprobs == expected


def test_a_conversation_with_tools() -> None:
    request = chat(
        tools=[WEATHER],
        messages=[
            {"role": "SYSTEM", "content": "Be brief."},
            {"role": "user", "content": "Weather?", "images": []},
            {
                "role": "assistant",
                "thinking": "Hm.",
                "tool_calls": [
                    {
                        "id": "call_x",
                        "function": {"name": "weather", "arguments": {"city": "Köln"}},
                    },
                    {"function": {"name": "clock"}},
                ],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "call_x"},
            {"role": "tool", "content": "noon", "tool_name": "clock"},
            {"role": "tool", "content": "noon", "name": "clock"},
        ],
    )
    function: Any = WEATHER["function"]
    assert request.tools == (
        Tool(
            name="weather",
            description="The weather in a city",
            parameters=function["parameters"],
        ),
    )
    calls = (
        ToolCall(id="call_x", name="weather", arguments={"city": "Köln"}),
        ToolCall(id="call_2_1", name="clock", arguments={}),
    )
    assert request.messages == (
        Message.of("system", "Be brief."),
        Message.of("user", "Weather?"),
        Message(role="assistant", reasoning="Hm.", tool_calls=calls),
        Message.of("tool", "rain", tool_call_id="call_x"),
        Message.of("tool", "noon", tool_name="clock"),
        Message.of("tool", "noon", tool_name="clock"),
    )


@cases(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "images": ["aGk="]}]}, "messages[0].images"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].function",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": 3}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"stream": "no"}, "stream"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"format": "yaml"}, "format"),
        ({"format": ["json"]}, "format"),
        ({"think": "deeply"}, "think"),
        ({"think": 1}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": True}, "keep_alive"),
        ({"keep_alive": []}, "keep_alive"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"options": {"temperature": "0.5"}}, "options.temperature"),
        ({"options": {"temperature": -0.1}}, "options.temperature"),
        ({"options": {"top_k": 1.5}}, "options.top_k"),
        ({"options": {"top_p": 2}}, "options.top_p"),
        ({"options": {"num_ctx": 0}}, "options.num_ctx"),
        ({"options": {"num_predict": -3}}, "options.num_predict"),
        ({"options": {"stop": [1]}}, "options.stop"),
        ({"options": {"mirostat": 3}}, "options.mirostat"),
    ],
)
def test_wrong_bodies_name_what_is_wrong(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_errors_in_ollamas_words() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^missing request body$"):
        ollama.decode_chat(None)
    with pytest.raises(errors.InvalidRequest, match=r"^model is required$"):
        ollama.decode_generate({"prompt": "x"})
    with pytest.raises(errors.Unsupported):
        generate(images=["aGk="])


def test_embedding_requests() -> None:
    assert ollama.decode_embed({"model": "m", "input": "a"}) == EmbeddingRequest(
        model="m", inputs=("a",)
    )
    assert ollama.decode_embed(
        {
            "model": "m",
            "input": ["a", "b"],
            "truncate": False,
            "dimensions": 8,
            "keep_alive": "1m",
            "options": {"num_ctx": 512},
        }
    ) == EmbeddingRequest(
        model="m",
        inputs=("a", "b"),
        truncate=False,
        dimensions=8,
        keep_alive=60.0,
        context_length=512,
    )
    for nothing in (None, ""):
        assert ollama.decode_embed({"model": "m", "input": nothing}).inputs == ()
    assert ollama.decode_embed({"model": "m", "input": []}).inputs == ()
    assert ollama.decode_embeddings({"model": "m", "prompt": "a"}).inputs == ("a",)
    assert ollama.decode_embeddings({"model": "m", "prompt": ""}).inputs == ()
    with pytest.raises(errors.InvalidRequest):
        ollama.decode_embed({"model": "m", "input": [1]})


def test_requests_about_models() -> None:
    assert ollama_models.decode_name({"name": "old"}) == "old"
    assert ollama_models.decode_name({"model": "new", "name": "old"}) == "new"
    assert ollama_models.decode_copy({"source": "a", "destination": "b"}) == ("a", "b")
    assert ollama_models.decode_pull({"name": "u/r/f.rkllm", "stream": False}) == (
        ollama_models.PullCall(reference="u/r/f.rkllm", stream=False)
    )
    assert ollama_models.decode_pull({"model": "x"}).stream is True
    assert ollama_models.digest_hex(f"sha256:{DIGEST}") == DIGEST


@pytest.mark.parametrize(
    "digest", ["", DIGEST, f"md5:{DIGEST}", "sha256:12", f"sha256:../{DIGEST[3:]}"]
)
def test_digests_that_are_none(digest: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        ollama_models.digest_hex(digest)


def test_create() -> None:
    call = ollama_models.decode_create(
        {
            "model": "mario",
            "from": "qwen",
            "system": "You are Mario.",
            "template": "{{ prompt }}",
            "license": ["MIT", "Apache"],
            "parameters": {"temperature": 0.5, "stop": ["a", "b"], "num_ctx": 10, "raw": True},
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
        }
    )
    assert call == ollama_models.CreateCall(
        name="mario",
        stream=False,
        source="qwen",
        system="You are Mario.",
        template="{{ prompt }}",
        licenses=("MIT", "Apache"),
        parameters=(
            ("temperature", "0.5"),
            ("stop", "a"),
            ("stop", "b"),
            ("num_ctx", "10"),
            ("raw", "true"),
        ),
        messages=(("user", "Hi"),),
    )
    files = ollama_models.decode_create({"model": "m", "files": {"a.gguf": f"sha256:{DIGEST}"}})
    assert files.files == (("a.gguf", DIGEST),)
    assert ollama_models.decode_create({"name": "m", "modelfile": "FROM q"}).modelfile == "FROM q"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"from": 3},
        {"from": "q", "parameters": {"stop": [{}]}},
        {"from": "q", "parameters": {"stop": None}},
        {"from": "q", "parameters": []},
        {"from": "q", "messages": [{"role": "robot", "content": "x"}]},
        {"from": "q", "quantize": "q4"},
        {"from": "q", "adapters": {"a": "b"}},
        {"from": "q", "adapters": ["a"]},
        {"files": {"a": "sha256:no"}},
    ],
)
def test_create_refuses(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest):
        ollama_models.decode_create({"model": "m", **fields})


FULL = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "a", "images": []},
        {
            "role": "assistant",
            "thinking": "b",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "d", "tool_call_id": "c", "tool_name": "f"},
    ],
    "tools": [WEATHER],
    "tool_choice": "auto",
    "format": {"type": "object"},
    "think": "low",
    "stream": True,
    "logprobs": True,
    "top_logprobs": 2,
    "keep_alive": "5m",
    "options": {"temperature": 1.0, "seed": 1, "top_k": 2, "num_ctx": 9, "stop": ["x"]},
}
PROMPT = {"prompt": "a", "raw": True, "context": [1], "system": "", "template": "", "suffix": "s"}
WORDS = ("json", "user", "function", "5m", "-1", "high", "sha256:", "{}")


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(dialects.bodies(FULL, WORDS))
def test_any_chat_body_is_taken_or_refused(body: Any) -> None:
    dialects.assert_survives(ollama.decode_chat, body)


@pytest.mark.integration
@settings(max_examples=examples(1))
@given(dialects.bodies({**FULL, **PROMPT}, WORDS))
def test_any_generate_body_is_taken_or_refused(body: Any) -> None:
    dialects.assert_survives(ollama.decode_generate, body)


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(
    st.sampled_from(
        [
            ollama.decode_embed,
            ollama.decode_embeddings,
            ollama_models.decode_name,
            ollama_models.decode_pull,
            ollama_models.decode_copy,
            ollama_models.decode_create,
        ]
    ),
    dialects.bodies(
        {
            "model": "m",
            "name": "n",
            "input": ["a"],
            "prompt": "p",
            "dimensions": 3,
            "source": "s",
            "destination": "d",
            "from": "f",
            "parameters": {"stop": ["a"], "top_k": 1},
            "messages": [{"role": "user", "content": "a"}],
            "license": "MIT",
            "files": {"a": f"sha256:{DIGEST}"},
            "options": {"num_ctx": 5},
        },
        WORDS,
    ),
)
def test_any_other_body_is_taken_or_refused(decode: Any, body: Any) -> None:
    dialects.assert_survives(decode, body)


# --- Answers -----------------------------------------------------------------------------------

TRANSCRIPTS: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "text": ({}, timed(dialects.TEXT)),
    "thinking": ({"think": True}, timed(dialects.THINKING)),
    "tools": ({"tools": [WEATHER]}, timed(dialects.TOOLS)),
    "length": ({"options": {"num_predict": 2}}, timed(dialects.CUT)),
    "logprobs": ({"logprobs": True, "top_logprobs": 1}, timed(dialects.SCORED)),
    "format_not_met": ({"format": "json"}, timed(dialects.NOT_MET)),
    "uncounted": ({}, dialects.UNCOUNTED),
    "stopped": ({"options": {"stop": ["###"]}}, timed(dialects.STOPPED)),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_chat_transcripts(name: str) -> None:
    fields, events = TRANSCRIPTS[name]
    body = {"model": "qwen", "messages": HELLO, **fields}
    text = dialects.transcript("POST /api/chat", body, ollama.decode_chat, events)
    dialects.assert_golden(f"ollama/chat_{name}.txt", text)


@pytest.mark.parametrize("name", ["text", "thinking", "logprobs"])
def test_generate_transcripts(name: str) -> None:
    fields, events = TRANSCRIPTS[name]
    body = {"model": "qwen", "prompt": "Hello", **fields}
    text = dialects.transcript("POST /api/generate", body, ollama.decode_generate, events)
    dialects.assert_golden(f"ollama/generate_{name}.txt", text)


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_load_and_unload_transcripts(reason: Any) -> None:
    keep_alive = 0 if reason == "unload" else "10m"
    timings = Timings(load=2.0, total=2.0)
    parts = []
    for path, decode in (("chat", ollama.decode_chat), ("generate", ollama.decode_generate)):
        body = {"model": "qwen", "keep_alive": keep_alive}
        encoder = load_call(decode, **body).encoder
        answer = dialects.pretty(encoder.without_words(reason, timings))
        parts.append(f"> POST /api/{path}\n{dialects.pretty(body)}\n< 200\n{answer}")
    dialects.assert_golden(f"ollama/{reason}.txt", "\n".join(parts))


def test_error_inside_a_stream() -> None:
    body = {"model": "qwen", "messages": HELLO}
    text = dialects.transcript("POST /api/chat", body, ollama.decode_chat, dialects.TEXT[:1], CRASH)
    dialects.assert_golden("ollama/chat_error_inside.txt", text)
    prompt = {"model": "qwen", "prompt": "Hello"}
    text = dialects.transcript(
        "POST /api/generate", prompt, ollama.decode_generate, dialects.TEXT[:1], CRASH
    )
    dialects.assert_golden("ollama/generate_error_inside.txt", text)
    assert "last words" not in text


def test_errors_before_the_stream() -> None:
    answers = [
        errors.InvalidRequest("missing request body"),
        errors.Unsupported("'think' is not supported", param="think"),
        errors.ModelNotFound("qwin", candidates=("qwen",)),
        errors.QueueFull(64),
        errors.LoadFailed("the runtime refused the model", hint="Convert it again.", log="x"),
        errors.ModelsDirMissing("/m"),
    ]
    text = "\n".join(f"{e.status} {dialects.pretty(ollama.error_body(e))}" for e in answers)
    dialects.assert_golden("ollama/errors.txt", text)


def test_the_documented_errors() -> None:
    assert ollama.error_body(errors.ModelNotFound("X", candidates=("Y",)))["error"] == (
        "model 'X' not found"
    )
    assert ollama.error_body(errors.QueueFull(1))["error"] == (
        "server busy, please try again.  maximum pending requests exceeded"
    )


@pytest.mark.parametrize("encoder", [ollama.ChatEncoder("qwen"), ollama.GenerateEncoder("qwen")])
@given(text=st.text(min_size=1))
def test_the_fast_path_writes_the_same_as_the_slow_one(
    encoder: ollama.ChatEncoder | ollama.GenerateEncoder, text: str
) -> None:
    line = encoder.encode(TextDelta(text))
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    parsed = json.loads(line)
    content = parsed["message"]["content"] if "message" in parsed else parsed["response"]
    assert content == text
    assert parsed["done"] is False


def test_every_line_is_stamped() -> None:
    encoder = ollama.ChatEncoder("qwen")
    for event in (TextDelta("a"), ReasoningDelta("b"), Finished(reason="stop", model="qwen")):
        stamp = json.loads(encoder.encode(event))["created_at"]
        assert stamp == "2026-01-02T03:04:05.678901+00:00"
        assert datetime.fromisoformat(stamp).year == 2026


def test_the_clock_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_999_999_999, 2_000_000_000, 2_000_001_999])
    monkeypatch.setattr(ollama, "time", SimpleNamespace(time_ns=lambda: next(times)))
    encoder = ollama.GenerateEncoder("m")
    stamps = [json.loads(encoder.encode(TextDelta("x")))["created_at"] for _ in range(3)]
    assert stamps == [
        "1970-01-01T00:00:01.999999+00:00",
        "1970-01-01T00:00:02.000000+00:00",
        "1970-01-01T00:00:02.000001+00:00",
    ]


def test_tool_calls_end_as_a_stop() -> None:
    whole = ollama.ChatEncoder("qwen").whole(dialects.TOOLS)
    assert whole["done_reason"] == "stop"
    calls = whole["message"]["tool_calls"]
    assert [call["function"]["index"] for call in calls] == [0, 1]
    assert calls[0]["function"]["arguments"] == {"city": "Zürich", "days": 2}


def test_unknown_figures_are_left_out() -> None:
    """Clients take a missing figure for zero, and stumble over null."""
    last = ollama.ChatEncoder("m").whole([Finished(reason="stop", model="m")])
    assert set(last) == {"model", "created_at", "message", "done", "done_reason"}


def test_a_token_costs_little() -> None:
    encode, event = ollama.ChatEncoder("qwen").encode, TextDelta(" token")
    assert calls(lambda: encode(event)).total() <= 20


def test_embeddings() -> None:
    result = EmbeddingResult(
        model="m",
        vectors=((0.6, 0.8), (1.0, 0.0)),
        usage=Usage(prompt_tokens=5),
        timings=Timings(load=0.001, total=0.002),
    )
    assert ollama.embed_body("m:latest", result) == {
        "model": "m:latest",
        "embeddings": [[0.6, 0.8], [1.0, 0.0]],
        "total_duration": 2_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": 5,
    }
    assert ollama.embeddings_body(result) == {"embedding": [0.6, 0.8]}
    assert ollama.embeddings_body(EmbeddingResult(model="m", vectors=())) == {"embedding": []}


# --- Models ------------------------------------------------------------------------------------

QWEN = ModelInfo(
    name="qwen2.5",
    file="Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm",
    path="/m/Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm",
    format="rkllm",
    size=1_700_000_000,
    modified=1.75e9,
    quantization="w8a8",
    platform="rk3588",
    parameter_size="1.5B",
    family="qwen2.5",
    context_length=4096,
)
BARE = ModelInfo(name="a:1b", file="a.gguf", path="/m/a.gguf", format="gguf", size=1, modified=-5.0)


def digest(info: ModelInfo) -> str:
    return DIGEST


def test_lists() -> None:
    loaded = [
        LoadedModel(
            info=QWEN,
            state="busy",
            context_length=4096,
            expires=1.75e9,
            memory=2 << 30,
            uses_npu=True,
        ),
        LoadedModel(
            info=BARE, state="loading", runtime="llama.cpp", pid=7, backend="cpu", threads=2
        ),
    ]
    text = f"> GET /api/tags\n{dialects.pretty(ollama_models.tags_body([QWEN, BARE], digest))}"
    text += f"\n> GET /api/ps\n{dialects.pretty(ollama_models.ps_body(loaded, digest))}"
    version = ollama_models.version_body("1.0.0", "/models", "/home")
    text += f"\n> GET /api/version\n{dialects.pretty(version)}"
    dialects.assert_golden("ollama/lists.txt", text)


def test_what_clients_rely_on_in_lists() -> None:
    entries = ollama_models.tags_body([QWEN, BARE], digest)["models"]
    assert [entry["name"] for entry in entries] == ["qwen2.5:latest", "a:1b"]
    for entry in entries:
        assert entry["model"] == entry["name"]
        assert re.fullmatch("[0-9a-f]{64}", entry["digest"])
        assert datetime.fromisoformat(entry["modified_at"]).tzinfo is not None
    version = [int(part) for part in ollama.API_VERSION.split(".")]
    assert len(version) == 3
    assert version >= [0, 13, 4]
    (stays,) = ollama_models.ps_body([LoadedModel(info=QWEN, state="ready")], digest)["models"]
    assert datetime.fromisoformat(stays["expires_at"]) > datetime(2200, 1, 1, tzinfo=timezone.utc)


DETAILS = ModelDetails(
    info=QWEN,
    system="Be brief.",
    template="{{ messages }}",
    parameters=(("num_ctx", "4096"), ("stop", "<|im_end|>"), ("stop", 'a "b"\n'), ("x", "true")),
    messages=(Message.of("user", "Hi"), Message.of("assistant", "Yes?")),
    license="MIT",
    modelfile="FROM qwen2.5\n",
    parent="base",
    capabilities=("completion", "tools"),
    metadata={"general.name": "q", "bad": float("nan"), "list": [1, (2.5,)], "raw": b"x"},
)


def test_show() -> None:
    dialects.assert_golden(
        "ollama/show.txt", dialects.pretty(ollama_models.show_body(DETAILS, digest))
    )


def test_what_clients_rely_on_in_show() -> None:
    body = ollama_models.show_body(DETAILS, digest)
    info = body["model_info"]
    architecture = info["general.architecture"]
    assert info[f"{architecture}.context_length"] == 4096
    assert info["general.parameter_count"] == 1_500_000_000
    # Continue reads the parameters by this pattern, and fails on a line that does not match.
    lines = [re.match(r'^(\S+)\s+((?:".*")|\S+)$', line) for line in body["parameters"].split("\n")]
    assert [line and line[1] for line in lines] == ["num_ctx", "stop", "stop", "x"]
    stops = [json.loads(line[2]) for line in lines if line and line[1] == "stop"]
    assert stops == ["<|im_end|>", 'a "b"\n']


def test_show_of_a_model_of_which_little_is_known() -> None:
    body = ollama_models.show_body(ModelDetails(info=BARE), digest)
    assert body["model_info"] == {"general.architecture": "gguf", "general.basename": "a:1b"}
    assert body["parameters"] == body["license"] == body["template"] == ""
    assert "messages" not in body
    body = ollama_models.show_body(ModelDetails(info=BARE), digest, 4096)
    assert body["model_info"]["gguf.context_length"] == 4096
    body = ollama_models.show_body(
        ModelDetails(info=replace(BARE, context_length=99)), digest, 4096
    )
    assert body["model_info"]["gguf.context_length"] == 99, "the model's own limit counts"


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("1.5B", 1_500_000_000),
        ("596.05M", 596_050_000),
        ("3M", 3_000_000),
        ("E2B", None),
        ("B", None),
        ("infB", None),
        ("7", None),
        (None, None),
    ],
)
def test_parameter_counts(size: str | None, count: int | None) -> None:
    body = ollama_models.show_body(ModelDetails(info=replace(QWEN, parameter_size=size)), digest)
    assert body["model_info"].get("general.parameter_count") == count


def pull_steps() -> Iterator[PullProgress]:
    step = PullProgress(status="resolving", file="q.rkllm")
    yield step
    step = replace(step, status="downloading", total=1000, digest=DIGEST, resumed=100)
    for completed in (100, 500, 1000):
        yield replace(step, completed=completed)
    yield replace(step, status="verifying", completed=1000)
    yield replace(step, status="done", completed=1000, name="q")


def test_pull() -> None:
    encoder = ollama_models.PullEncoder()
    good = b"".join(map(encoder.encode, pull_steps())).decode()
    broken = b"".join(map(encoder.encode, list(pull_steps())[:2]))
    broken += encoder.error(errors.HubUnreachable("the connection broke"))
    plain = encoder.encode(PullProgress(status="downloading", file="q.rkllm")).decode()
    text = f"{good}\n< broken off\n{broken.decode()}\n< size and digest unknown\n{plain}"
    dialects.assert_golden("ollama/pull.txt", text)
    statuses = [json.loads(line)["status"] for line in good.splitlines()]
    assert list(dict.fromkeys(statuses)) == [
        "pulling manifest",
        "pulling 0123456789ab",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    last = json.loads(good.splitlines()[-1])
    assert "digest" not in last, (
        "Open WebUI's page takes the line for progress, the pull for broken off"
    )


def test_create_answers() -> None:
    lines = [json.loads(line) for line in ollama_models.create_lines().splitlines()]
    assert lines[-1] == ollama_models.SUCCESS == {"status": "success"}


def test_what_openai_s_clients_send_is_taken() -> None:
    """Content in parts, and arguments as a text, which may not even be JSON."""
    parts = [{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}]
    calls = [{"function": {"name": "f", "arguments": text}} for text in ('{"x": 1}', "", "{x")]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "tool_calls": calls},
    ]
    request = chat(messages=messages, options={"repeat_penalty": 0})
    assert request.messages[0].text == "Good day"
    arguments = [call.arguments for call in request.messages[1].tool_calls]
    assert arguments == [{"x": 1}, {}, {"arguments": "{x"}]
    assert request.sampling.repeat_penalty == 0


def test_images_in_results_and_older_turns_are_told() -> None:
    request = chat(
        messages=[
            {"role": "user", "content": "Look", "images": ["aGk="]},
            {"role": "tool", "images": ["aGk="]},
            {"role": "user", "content": "And?"},
        ],
    )
    told = "[image left out: this model reads only text]"
    assert [message.text for message in request.messages] == [f"{told}\nLook", told, "And?"]
