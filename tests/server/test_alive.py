"""Signs of life of a real server: while a request waits, while its model loads, while its prompt is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.client.discover import ServerAddress
from rkllama.client.remote import RemoteService
from rkllama.config import load_settings
from rkllama.errors import LoadFailed
from rkllama.service import Caller, Signs
from rkllama.types import ChatRequest, TextDelta
from tests.conftest import isolate
from tests.running import Server, Stream
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.waiting import Task, until

pytestmark = pytest.mark.integration

BUSY = {"model": "m", "stream": True, "messages": "hi " + directive(tokens=3000, token_us=10_000)}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that gives signs each tenth of a second, and its models directory."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("alive")
        models = isolate(patch, base) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        write_model(models / "m.rkllm", trace=base / "trace", trace_prompt=1)
        write_model(models / "slow.rkllm", load_ms=300)
        write_model(models / "broken.rkllm", load_ms=300, init_error=1)
        write_model(models / "qwen2.5-1.5b-rk3588-w8a8.rkllm")
        with Server(env={"RKLLAMA_ALIVE_INTERVAL": "0.1"}) as server:
            yield server, models


@pytest.fixture
def server(house: tuple[Server, Path]) -> Server:
    """A server that gives signs each tenth of a second."""
    return house[0]


@pytest.fixture
def trace(house: tuple[Server, Path]) -> Path:
    """What the model "m" has done."""
    return house[1].parents[2] / "trace"


def texts(lines: list[Any]) -> list[str]:
    return [line["choices"][0]["content"] for line in lines]


def generate(server: Server, model: str, text: str = "hi") -> list[Any]:
    """The lines of a streamed answer."""
    body = {"model": model, "messages": text, "stream": True}
    reply = server.post("/generate", body)
    assert reply.status == 200
    return reply.lines


def first(stream: Stream) -> Any:
    """The first line of an answer that goes on."""
    assert stream.status() == 200
    return next(iter(stream))


def wait_for_queue(server: Server, length: int) -> None:
    until(lambda: server.get("/health").json["queue"] == length)


def test_a_load_gives_signs(server: Server) -> None:
    found = texts(generate(server, "slow"))
    assert found[:2] == ["", ""]
    assert found[-2:] == ["hi", ""]


def test_a_load_that_fails_after_a_sign_ends_the_stream_with_its_error(server: Server) -> None:
    *signs, last = generate(server, "broken")
    assert texts(signs)[:2] == ["", ""]
    assert list(last) == ["error"]


def test_what_is_known_at_once_keeps_its_status(server: Server) -> None:
    body = {"model": "nothing", "messages": "hi", "stream": True}
    assert server.post("/generate", body).status == 404
    assert server.post("/generate", {**body, "messages": ""}).status == 400


def test_a_client_that_leaves_in_the_queue_after_a_sign_is_noticed_there(
    server: Server, trace: Path
) -> None:
    with server.stream("/generate", BUSY) as running:
        first(running)
        with server.stream("/generate", {**BUSY, "messages": "never"}) as second:
            assert texts([first(second)]) == [""]
            wait_for_queue(server, 1)
        wait_for_queue(server, 0)
    generate(server, "m")
    assert "never" not in str(read_trace(trace))


def test_a_client_that_leaves_in_prefill_after_a_sign_ends_it(server: Server, trace: Path) -> None:
    text = "a b c d e f g h i j " + directive(prefill_us=30_000, tokens=3000, token_us=10_000)
    with server.stream("/generate", {**BUSY, "messages": text}) as stream:
        assert texts([first(stream)]) == [""]
    generate(server, "m")
    finish = [event for event in read_trace(trace) if event["event"] == "finish"][-2]
    assert (finish["reason"], finish["generated"]) == ("abort", 0)


TOOL = {"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}


def chat(server: Server, text: str, **fields: object) -> list[Any]:
    messages = [{"role": "user", "content": text}]
    return server.post("/api/chat", {"model": "qwen2.5-1.5b", "messages": messages, **fields}).lines


def test_a_long_call_of_a_tool_gives_signs_behind_the_text_before_it(server: Server) -> None:
    arguments = {"text": " ".join(["word"] * 15)}
    call = f"<tool_call>\n{json.dumps({'name': 'write', 'arguments': arguments})}\n</tool_call>"
    text = "Write. " + directive(reply=f"I write.\n{call}", token_us=15_000)
    lines = chat(server, text, tools=[TOOL])
    spoken = [line["message"]["content"] for line in lines]
    kinds = [
        "call" if line["message"].get("tool_calls") else "sign" if "queue_position" in line else ""
        for line in lines
    ]
    assert "".join(spoken).strip() == "I write."
    assert kinds[spoken.index("I") : kinds.index("call")].count("sign") >= 2
    (answer,) = (line for line in lines if line["message"].get("tool_calls"))
    assert answer["message"]["tool_calls"][0]["function"]["arguments"] == arguments


def test_an_answer_that_is_checked_before_it_is_shown_gives_signs(server: Server) -> None:
    reply = json.dumps({"words": ["one"] * 20})
    unknown = {"properties": {"more": {"type": "string", "pattern": "^(?=a)"}}}
    lines = chat(server, "List. " + directive(reply=reply, token_us=10_000), format=unknown)
    *signs, answer, end = lines
    assert len(signs) >= 2
    assert all(line["queue_position"] == 0 for line in signs)
    assert json.loads(answer["message"]["content"]) == json.loads(reply)
    assert end["done"]


# --- Our own client ----------------------------------------------------------------------------


@pytest.fixture
def remote(server: Server) -> RemoteService:
    return RemoteService(ServerAddress(load_settings(), server.url))


def watch(remote: RemoteService, told: list[int], text: str = "hi", model: str = "m") -> str:
    """The answer for a client that watches the queue."""
    caller = Caller(signs=Signs(told.append, watching=True))
    events = remote.stream(ChatRequest(model=model, prompt=text), caller)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_our_client_is_told_its_place_at_once_and_each_change(
    server: Server, remote: RemoteService
) -> None:
    told: list[int] = []
    with server.stream("/generate", BUSY) as running:
        first(running)
        with server.stream("/generate", BUSY):
            wait_for_queue(server, 1)
            task = Task(lambda: watch(remote, told))
            until(lambda: told)
            assert told[0] == 2
        until(lambda: told[-1] == 1)
    assert task.result() == "hi"
    assert told[-1] == 0
    assert sorted(told, reverse=True) == told


def test_our_client_is_told_of_a_load_in_the_queue_too(
    server: Server, remote: RemoteService
) -> None:
    told: list[int] = []
    caller = Caller(signs=Signs(told.append, watching=True))
    with server.stream("/generate", BUSY) as running:
        first(running)
        task = Task(lambda: remote.load("m", caller=caller))
        until(lambda: told == [1])
    assert task.result().info.name == "m"
    assert told[-1] == 0


def test_an_error_after_a_sign_is_the_same_error_for_our_client(remote: RemoteService) -> None:
    told: list[int] = []
    with pytest.raises(LoadFailed):
        watch(remote, told, model="broken")
    assert told[-1] == 0


def test_a_value_that_is_long_in_coming_gives_signs(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"enum": ["some of these words", "none"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    value = {"a": "one two three four", "b": "some of these words"}
    text = "Go. " + directive(reply=json.dumps(value), token_us=60_000)
    lines = chat(server, text, format=schema)
    assert json.loads("".join(line["message"]["content"] for line in lines)) == value
    assert lines[-1]["done_reason"] == "stop"
