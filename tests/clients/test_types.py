"""What the dialects answer, against the types of the official packages, which their clients trust."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import anthropic.types
import openai.types.chat
import openai.types.responses
import pytest
from pydantic import TypeAdapter

from rkllama.api import anthropic as anthropic_api
from rkllama.api import openai as openai_api
from rkllama.api import responses as responses_api
from rkllama.api.common import Generation
from rkllama.errors import RKLLamaError, WorkerCrashed
from rkllama.types import Event, ModelInfo
from tests import dialects as scripts
from tests.dialects import sse_events, streamed

pytestmark = pytest.mark.integration

CHAT: dict[str, Any] = {"model": "qwen", "messages": [{"role": "user", "content": "Hello"}]}
CRASH = WorkerCrashed("the model's process ended with signal 11", exit_status=-11)


def check(adapter: TypeAdapter[Any], *values: object) -> None:
    for value in values:
        adapter.validate_json(json.dumps(value), strict=True)


def frames(
    generation: Generation, events: list[Event], error: RKLLamaError | None = None
) -> list[Any]:
    """The data of each frame, without [DONE]."""
    found = [data for _, data in sse_events(streamed(generation, events, error))]
    return [data for data in found if data != "[DONE]"]


def test_chat_completions() -> None:
    wholes = TypeAdapter(openai.types.chat.ChatCompletion)
    chunks = TypeAdapter(openai.types.chat.ChatCompletionChunk)
    for fields in ({}, {"stream_options": {"include_usage": True}, "logprobs": True}):
        for events in scripts.ALL.values():
            check(wholes, openai_api.decode_chat(CHAT | fields).encoder.whole(events))
            check(chunks, *frames(openai_api.decode_chat(CHAT | fields), events))


def test_completions() -> None:
    """Whole ones: the package's type has no null for the finish_reason of a chunk, as OpenAI sends it."""
    wholes = TypeAdapter(openai.types.Completion)
    body = {"model": "qwen", "prompt": "Once", "logprobs": 1}
    for name in scripts.ALL.keys() - {"tools"}:
        check(wholes, openai_api.decode_completion(body).encoder.whole(scripts.ALL[name]))


def test_responses() -> None:
    wholes: TypeAdapter[Any] = TypeAdapter(openai.types.responses.Response)
    events_of: TypeAdapter[Any] = TypeAdapter(openai.types.responses.ResponseStreamEvent)
    body: dict[str, Any] = {"model": "qwen", "input": "Hello"}
    weather = {"type": "custom", "name": "weather"}
    clock = {"type": "namespace", "name": "my", "tools": [{"type": "function", "name": "clock"}]}
    asked: tuple[dict[str, Any], ...] = (
        {},
        {"include": ["message.output_text.logprobs"], "reasoning": {}},
        {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}},
        {"tools": [weather, clock]},
    )
    for fields in asked:
        for events in scripts.ALL.values():
            check(wholes, responses_api.decode_response(body | fields).encoder.whole(events))
            check(events_of, *frames(responses_api.decode_response(body | fields), events))
    check(events_of, *frames(responses_api.decode_response(body), scripts.TEXT[:1], CRASH))


def test_messages() -> None:
    wholes = TypeAdapter(anthropic.types.Message)
    events_of: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
    body = CHAT | {"max_tokens": 9}
    for events in scripts.ALL.values():
        check(wholes, anthropic_api.decode_messages(body).encoder.whole(events))
        check(events_of, *frames(anthropic_api.decode_messages(body), events))


def test_models() -> None:
    info = ModelInfo(
        name="qwen", file="qwen.rkllm", path="/m/qwen.rkllm", format="rkllm", size=5, modified=1.7e9
    )
    check(TypeAdapter(openai.types.Model), openai_api.model_body(info))
    check(TypeAdapter(anthropic.types.ModelInfo), anthropic_api.model_body(info))
    known = replace(info, context_length=4096)
    check(TypeAdapter(anthropic.types.ModelInfo), anthropic_api.model_body(known))
