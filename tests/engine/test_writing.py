"""Answers that are written in several runs of a model on the virtual NPU: thoughts, figures, ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import RKLLamaError
from rkllama.types import ChatRequest, TextDelta, Tool
from tests.engine.test_engine import SHAPE, Outcome, ask, user
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration

TEXTS = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
THOUGHT = "<think>\nHm, one.\n</think>\n\n"


@pytest.fixture
def service(models: Path, npu: str) -> Iterator[LocalService]:
    made = LocalService(load_settings({}), "test")
    yield made
    made.close()


def test_a_thought_comes_first_and_is_no_part_of_the_answer(
    service: LocalService, models: Path
) -> None:
    write_model(models / "Qwen3-0.6B.rkllm")

    def asked(reply: str, **wants: Any) -> Outcome:
        return ask(service, "qwen3", user("Go.", reply=reply), format=SHAPE, **wants)

    for wants in ({}, {"think": True}):
        answer = asked(THOUGHT + '{"a": 1}', **wants)
        assert (answer.thought, answer.text, answer.error) == ("Hm, one.\n", '{"a": 1}', None)
    for reply, wants in (('{"a": 1}', {}), (THOUGHT + '{"a": 1}', {"think": False})):
        answer = asked(reply, **wants)
        assert (answer.thought, answer.text, answer.error) == ("", '{"a": 1}', None)


def test_a_thought_comes_before_an_answer_and_before_a_call(
    service: LocalService, models: Path
) -> None:
    write_model(models / "Qwen3-0.6B.rkllm")
    tools = (Tool(name="note_down", parameters=TEXTS),)
    call = json.dumps({"name": "note_down", "arguments": {"a": "one two", "b": "three"}})
    for reply, text, calls in (
        ('{"a": 1}', '{"a": 1}', []),
        (f"Well:\n<tool_call>{call}</tool_call>", "Well:\n", ["note_down"]),
    ):
        for thought in ("", THOUGHT):
            messages = user("Go.", reply=thought + reply)
            answer = ask(service, "qwen3", messages, format=SHAPE, tools=tools)
            assert (answer.text, answer.calls, answer.error) == (text, calls, None)
            assert answer.thought == ("Hm, one.\n" if thought else "")


def test_the_figures_are_those_of_one_answer(service: LocalService, models: Path) -> None:
    write_model(models / "qwen2.5.rkllm")
    reply = json.dumps({"a": "one two three", "b": "four five six"})
    plain = ask(service, "qwen2.5", user("Go.", reply=reply))
    answer = ask(service, "qwen2.5", user("Go.", reply=reply), format=TEXTS)
    assert answer.text == reply
    assert plain.usage.completion_tokens is not None
    assert answer.usage.completion_tokens == pytest.approx(plain.usage.completion_tokens, abs=4)
    assert answer.usage.prompt_tokens is not None
    assert answer.usage.prompt_tokens > (plain.usage.prompt_tokens or 0), "the schema is asked for"


def test_the_pace_of_an_answer_is_known_however_it_was_written(
    service: LocalService, models: Path
) -> None:
    write_model(models / "qwen2.5.rkllm", token_us=1000)
    reply = json.dumps({"a": "one two three", "b": "four five six"})
    paces = []
    for format in (TEXTS, None):
        answer = ask(service, "qwen2.5", user("Go.", reply=reply), format=format)
        (loaded,) = service.loaded()
        assert answer.usage.completion_tokens is not None
        assert answer.timings.generation is not None
        pace = answer.usage.completion_tokens / answer.timings.generation
        assert loaded.tokens_per_second == pytest.approx(pace)
        paces.append(loaded.tokens_per_second)
    assert paces[0] != paces[1]


def test_what_is_certain_as_a_whole_asks_no_model(service: LocalService, models: Path) -> None:
    write_model(models / "qwen2.5.rkllm")
    only = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    schema = {**only, "additionalProperties": False}
    answer = ask(service, "qwen2.5", user("Go."), format=schema, max_tokens=1)
    assert (answer.text, answer.reason, answer.error) == ('{"a": 1}', "stop", None)


@pytest.mark.parametrize("limit", [1, 3, 6])
def test_a_limit_of_tokens_counts_over_all_runs(
    service: LocalService, models: Path, limit: int
) -> None:
    write_model(models / "qwen2.5.rkllm")
    messages = user("Go.", reply=json.dumps({"a": "one two", "b": "three four five six seven"}))
    answer = ask(service, "qwen2.5", messages, format=TEXTS, max_tokens=limit)
    assert answer.reason == "length"
    assert "incomplete: it reached its limit of tokens at $." in (answer.error or "")
    assert len(answer.text.split()) <= limit + 2, "the keys are written for the model"


def test_a_stop_string_ends_an_answer_that_is_not_whole(
    service: LocalService, models: Path
) -> None:
    write_model(models / "qwen2.5.rkllm")
    messages = user("Go.", reply=json.dumps({"a": "one END two", "b": "three"}))
    answer = ask(service, "qwen2.5", messages, format=TEXTS, stop=("END",))
    assert (answer.text, answer.reason, answer.stop) == ('{"a": "one ', "stop", "END")
    assert answer.error == "the answer is incomplete: it came to the stop string 'END' at $.a"


def test_a_crash_in_a_later_run_is_told_as_any_crash(
    service: LocalService, models: Path, npu: str
) -> None:
    write_model(models / "qwen2.5.rkllm")
    reply = json.dumps({"a": "one", "b": "two three four five six seven eight nine ten"})
    messages = user("Go.", reply=reply, segv_at=6)
    with pytest.raises(RKLLamaError, match="killed by SIGSEGV"):
        ask(service, "qwen2.5", messages, format=TEXTS)
    again = ask(service, "qwen2.5", user("Go.", reply=reply), format=TEXTS)
    assert again.text == reply


def test_an_answer_comes_while_it_is_written(service: LocalService, models: Path) -> None:
    write_model(models / "qwen2.5.rkllm", token_us=30_000)  # what queues up is sent together
    reply = json.dumps({"a": "one two three four five", "b": "six seven eight nine ten"})
    request = ChatRequest(model="qwen2.5", messages=user("Go.", reply=reply), format=TEXTS)
    texts = [event.text for event in service.stream(request) if isinstance(event, TextDelta)]
    assert texts[0].rstrip() == '{"a":'
    assert len(texts) > 8
    assert "".join(texts) == reply


def test_a_call_that_is_mended_has_the_figures_of_one_answer(
    service: LocalService, models: Path
) -> None:
    write_model(models / "qwen2.5.rkllm")
    tools = (Tool(name="note_down", parameters=TEXTS),)
    call = json.dumps({"name": "note_down", "arguments": {"a": "one two", "b": "three"}})
    reply = f"<tool_call>{call}</tool_call>"

    def asked(faults: int) -> Outcome:
        messages = user("Go.", reply=reply, faults=faults, fault_tries=1, seed=3)
        return ask(service, "qwen2.5", messages, tools=tools)

    plain, mended = asked(0), asked(30)
    for answer in (plain, mended):
        assert (answer.calls, answer.reason, answer.error) == (["note_down"], "tool_calls", None)
    assert mended.usage.prompt_tokens == pytest.approx(plain.usage.prompt_tokens, abs=1)
    assert plain.usage.completion_tokens is not None
    assert (mended.usage.completion_tokens or 0) > plain.usage.completion_tokens, "all runs count"
