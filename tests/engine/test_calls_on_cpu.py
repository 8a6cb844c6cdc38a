"""Calls that a model on llama.cpp makes by itself: their arguments are what the tool takes, there, too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.types import (
    ChatRequest,
    Finished,
    Message,
    SamplingParams,
    TextDelta,
    Tool,
    ToolCallDelta,
)
from tests.calling_gguf import write_caller
from tests.llama_server import WHEEL, command

pytestmark = pytest.mark.integration

NAME = "qwen2.5-caller"
WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)


@pytest.fixture(params=["the binding", WHEEL])
def service(
    request: pytest.FixtureRequest, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalService]:
    write_caller(models / f"{NAME}.gguf")
    if request.param == WHEEL:
        words = command(WHEEL, tmp_path) or ()
        monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", shlex.join(words))
    made = LocalService(load_settings(), "test")
    yield made
    made.close()


def test_arguments_are_written_again_where_they_are_wrong(service: LocalService) -> None:
    messages = (Message.of("user", "The weather in Paris?"),)
    for format in (None, "json"):
        request = ChatRequest(
            model=NAME,
            messages=messages,
            tools=(WEATHER,),
            format=format,
            sampling=SamplingParams(seed=1),
        )
        *events, end = service.stream(request)
        assert isinstance(end, Finished)
        calls = [event.call for event in events if isinstance(event, ToolCallDelta)]
        assert [(call.name, call.arguments) for call in calls] == [
            ("get_weather", {"city": "Paris", "days": 3})
        ]
        assert (end.reason, end.error) == ("tool_calls", None)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == "I look.\n"
        (loaded,) = service.loaded()
        assert loaded.tokens_per_second is not None
