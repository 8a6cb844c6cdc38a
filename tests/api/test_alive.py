"""Signs of life, in each dialect: they are what its clients skip, and change nothing of what follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rkllama.api import anthropic, native, ollama, openai, responses
from rkllama.api.common import Generation
from rkllama.errors import WorkerCrashed
from rkllama.types import TextDelta
from tests.dialects import ALL, decoded, streamed

SAYS = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "m", "messages": SAYS, "stream": True}


def _responses(body: Any) -> Generation:
    return responses.decode_response(body, answer_id="resp_1", created=1)


def _anthropic(body: Any) -> Generation:
    return anthropic.decode_messages(body, answer_id="msg_1")


def _openai(body: Any) -> Generation:
    return openai.decode_chat(body, answer_id="chatcmpl-1", created=1)


def _completion(body: Any) -> Generation:
    return openai.decode_completion(body, answer_id="cmpl-1", created=1)


DIALECTS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "native": (native.decode_generate, {"messages": "Hi"}),
    "ollama chat": (ollama.decode_chat, CHAT),
    "ollama generate": (ollama.decode_generate, {"model": "m", "prompt": "Hi"}),
    "openai chat": (_openai, CHAT),
    "openai completion": (_completion, {"model": "m", "prompt": "Hi"}),
    "responses": (_responses, {"model": "m", "input": "Hi"}),
    "anthropic": (_anthropic, {**CHAT, "max_tokens": 9}),
}


@pytest.fixture(params=DIALECTS)
def fresh(request: pytest.FixtureRequest) -> Callable[[], Generation]:
    """Makes the same request, with the same names in its answer."""
    decode, body = DIALECTS[request.param]
    return lambda: decoded(decode, body)


def seen(generation: Generation, stream: bytes) -> list[Any]:
    """What a client of the dialect sees of a stream: no comments, pings or texts without a letter, and no
    time of day.
    """
    if generation.encoder.content_type.startswith("text/event-stream"):
        frames = stream.decode().split("\n\n")
        return [f for f in frames if not f.startswith((":", "event: ping\n"))]
    lines = [json.loads(line) for line in stream.splitlines()]
    for line in lines:
        line.pop("created_at", None)
    return [line for line in lines if not is_empty(line)]


def is_empty(line: Any) -> bool:
    """Whether a line of NDJSON adds nothing to an answer, and does not end it."""
    if "error" in line:
        return False
    choice = (line.get("choices") or [line])[0]
    part = choice.get("message") or choice
    over = line.get("done") or choice.get("finish_reason")
    adds = any(part.get(k) for k in ("content", "response", "thinking", "reasoning", "tool_calls"))
    return not (over or adds)


@pytest.mark.parametrize("events", ALL.values(), ids=ALL)
def test_signs_before_and_within_an_answer_change_nothing_of_it(
    fresh: Callable[[], Generation], events: list[Any]
) -> None:
    plain, living = fresh(), fresh()
    alive = living.encoder.alive
    stream = alive(2) + alive(0)
    for event in events[:-1]:
        stream += living.encoder.encode(event) + alive(0)
    stream += living.encoder.encode(events[-1])
    assert seen(living, stream) == seen(plain, streamed(plain, events))
    assert len(stream) > len(streamed(fresh(), events))


def test_an_error_after_a_sign_is_the_same_frame(fresh: Callable[[], Generation]) -> None:
    error = WorkerCrashed("the model's process was killed", exit_status=-9)
    generation = fresh()
    alone = seen(generation, fresh().encoder.error(error))
    assert "process was killed" in str(alone)
    stream = generation.encoder.alive(0) + generation.encoder.error(error)
    assert seen(generation, stream)[-len(alone) :] == alone


def test_the_shapes() -> None:
    chat, generate = (decoded(*DIALECTS[name]) for name in ("ollama chat", "ollama generate"))
    line = json.loads(chat.encoder.alive(2))
    assert line.pop("created_at")
    assert line == {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": False,
        "queue_position": 2,
    }
    assert json.loads(generate.encoder.alive(0))["response"] == ""
    plain = decoded(*DIALECTS["native"]).encoder
    assert plain.alive(2) == plain.encode(TextDelta("\0")).replace(b"\\u0000", b"")
    assert decoded(*DIALECTS["responses"]).encoder.alive(2) == b": queue position 2\n\n"


def test_anthropics_stream_begins_with_the_message_and_has_real_pings() -> None:
    encoder = decoded(*DIALECTS["anthropic"]).encoder
    first, second = encoder.alive(1), encoder.alive(0)
    assert first.startswith(b"event: message_start\n")
    assert first.endswith(second)
    assert second == b'event: ping\ndata: {"type":"ping"}\n\n'
