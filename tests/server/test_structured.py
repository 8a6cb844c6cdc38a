"""Structured answers on their real way: from a model that misbehaves in the library to the client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.running import Server, models_of
from tests.structured.chance import document
from tests.virtual_npu import directive, write_model

pytestmark = pytest.mark.integration

ANSWERS = 15
MODEL = "erring-qwen2.5"


@pytest.fixture(scope="module")
def erring(shared: Server) -> Server:
    folder = models_of(shared)
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / f"{MODEL}.rkllm")
    return shared


def _ask(server: Server, seed: int, **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    schema, value = document(seed)
    script = directive(reply=json.dumps(value, ensure_ascii=False), seed=seed, **config)
    messages = [{"role": "user", "content": f"? {script}"}]
    body = {"model": MODEL, "messages": messages, "format": schema, "stream": False}
    return schema, _chat(server, body)


def _chat(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    reply = server.post("/api/chat", body)
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json
    return answer


def assert_valid(text: str, schema: dict[str, Any]) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))


def test_values_that_come_at_the_third_try_make_valid_answers(erring: Server) -> None:
    valid = 0
    for seed in range(ANSWERS):
        schema, answer = _ask(erring, seed, faults=30, fault_tries=2)
        if answer["done_reason"] == "stop":
            assert_valid(answer["message"]["content"], schema)
            valid += 1
        else:
            assert "$." in answer.get("error", answer.get("incomplete", ""))
    assert valid >= 0.97 * ANSWERS


def test_a_model_that_is_always_wrong_gives_nothing_invalid(erring: Server) -> None:
    for seed in range(5, 9):
        schema, answer = _ask(erring, seed, faults=100)
        if answer["done_reason"] == "stop":
            assert_valid(answer["message"]["content"], schema)
        else:
            assert "$." in answer.get("error", answer.get("incomplete", ""))


def test_what_a_model_never_gives_is_said(erring: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    script = directive(reply='{"a": "very many"}')
    messages = [{"role": "user", "content": f"? {script}"}]
    body = {"model": MODEL, "messages": messages, "format": schema, "stream": False}
    answer = _chat(erring, body)
    assert answer["done_reason"] == "format_not_met"
    assert "$.a" in answer["error"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_header_says_how_an_answer_gets_its_format(erring: Server, stream: bool) -> None:
    def header(reply: str, **wants: Any) -> str | None:
        messages = [{"role": "user", "content": f"? {directive(reply=reply)}"}]
        answer = erring.post(
            "/api/chat", {"model": MODEL, "messages": messages, "stream": stream, **wants}
        )
        assert answer.status == 200, answer.body
        return answer.headers.get("x-rkllama-format")

    assert header('{"a": 1}', format="json") == "guided"
    assert header('"b"', format={"type": "string", "pattern": "^(?=b)"}) == "checked"
    assert header("Yes.") is None


def test_arguments_of_a_free_call_are_what_the_tool_takes(erring: Server) -> None:
    """The model misspells keys and values, and where it names the tool right it gets the arguments right."""
    called = 0
    for seed in range(8):
        schema, value = document(seed)
        text = json.dumps({"name": "note_down", "arguments": value}, ensure_ascii=False)
        reply = f"<tool_call>{text}</tool_call>"
        script = directive(reply=reply, faults=30, fault_tries=2, seed=seed)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"? {script}"}],
            "tools": [
                {"type": "function", "function": {"name": "note_down", "parameters": schema}}
            ],
            "stream": False,
        }
        message = _chat(erring, body)["message"]
        for call in message.get("tool_calls", ()):
            assert_valid(json.dumps(call["function"]["arguments"]), schema)
            called += 1
    assert called > 4


_WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": _WEATHER}}
_SUNNY = {"city": "Paris", "days": 3}


@pytest.mark.parametrize("faults", [0, 30])
def test_an_answer_beside_tools_is_written_by_its_schema_or_is_a_call(
    erring: Server, faults: int
) -> None:
    call = json.dumps({"name": "get_weather", "arguments": _SUNNY})
    for reply in (json.dumps(_SUNNY), f"Well:\n<tool_call>{call}</tool_call>"):
        script = directive(reply=reply, faults=faults, fault_tries=1, seed=5)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"? {script}"}],
            "format": _WEATHER,
            "tools": [_TOOL],
        }
        answer = erring.post("/api/chat", body)
        assert answer.headers.get("x-rkllama-format") == "guided"
        messages = [line["message"] for line in answer.lines]
        text = "".join(message.get("content", "") for message in messages)
        calls = [each for message in messages for each in message.get("tool_calls", ())]
        assert answer.lines[-1]["done_reason"] == "stop", answer.lines
        if reply.startswith("{"):
            assert (json.loads(text), calls) == (_SUNNY, [])
        else:
            assert [each["function"]["arguments"] for each in calls] == [_SUNNY]
