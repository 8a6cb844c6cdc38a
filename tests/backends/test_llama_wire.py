"""What both backends for llama.cpp share: which schema constrains an answer, and when an answer is ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rkllama.backends.base import Emit, GenerateSpec
from rkllama.backends.grammar import Constraints
from rkllama.backends.llama_wire import Completion, completion_request
from rkllama.errors import InvalidRequest, RuntimeFailed
from rkllama.types import SamplingParams

pytestmark = pytest.mark.unit

CODE = {"type": "string", "pattern": "[a-z]+"}

Run = Callable[[dict[str, Any], Emit], Completion]


def find(
    schema: Any, answer: Callable[[Any], dict[str, Any]], constraints: Constraints | None = None
) -> tuple[Any, list[Any]]:
    """The schema or the grammar that constrains, and those that were tried; `answer` is llama.cpp's chunk to
    one.
    """
    tried: list[Any] = []

    def run(request: dict[str, Any], emit: Emit) -> Completion:
        tried.append(request.get("json_schema") or request["grammar"])
        completion = Completion(emit)
        completion.take(answer(tried[-1]))
        return completion

    found, _ = (constraints or Constraints()).find(
        {"prompt": "", "json_schema": schema},
        run,
        aborted=lambda: False,
        log_tells=lambda: "its log tells",
    )
    (constraint,) = found.values()
    return constraint, tried


def text(said: str) -> dict[str, Any]:
    return {"choices": [{"text": said, "finish_reason": "length"}]}


def error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}


def test_a_schema_is_tried_once() -> None:
    constraints = Constraints()
    found, tried = find(CODE, lambda _: text('"'), constraints)
    assert tried == [found]
    assert found["pattern"] == "[a-z]+"
    assert find(CODE, lambda _: text("X"), constraints) == (found, [])


def test_a_schema_that_is_refused_is_put_in_a_grammar() -> None:
    def answer(constraint: Any) -> dict[str, Any]:
        refused = not isinstance(constraint, str)
        return error("invalid_request_error", "no ^") if refused else text('"')

    found, tried = find(CODE, answer)
    assert found.startswith("root ::= ")
    assert tried[-1] == found
    assert all("pattern" in schema for schema in tried[:-1])


def test_what_no_grammar_holds_is_tried_without_its_patterns() -> None:
    def answer(schema: Any) -> dict[str, Any]:
        return error("invalid_request_error", "no ^") if "pattern" in schema else text('"')

    found, tried = find({**CODE, "pattern": "(?=a)"}, answer)
    assert found["type"] == "string"
    assert "pattern" not in found
    assert all("pattern" in schema for schema in tried[:-1])


def test_a_schema_that_is_passed_over_is_never_no_constraint() -> None:
    with pytest.raises(InvalidRequest, match="cannot be used: its log tells"):
        find(CODE, lambda _: text("X"))


def test_a_schema_that_is_refused_in_every_form_is_the_client_s_fault() -> None:
    with pytest.raises(InvalidRequest, match="cannot be used: what is that"):
        find(CODE, lambda _: error("invalid_request_error", "what is that"))


def test_what_is_no_fault_of_the_schema_is_told_as_it_is() -> None:
    with pytest.raises(RuntimeFailed, match=r"llama\.cpp: broken"):
        find(CODE, lambda _: error("server_error", "broken"))


@pytest.mark.parametrize(("token", "repeats"), [("a", True), (" \n", False), ("", False)])
def test_a_token_that_comes_more_than_thirty_times_in_a_row_ends_an_answer(
    token: str, repeats: bool
) -> None:
    completion = Completion(lambda _: None)
    for _ in range(30):
        completion.take({"choices": [{"text": token}]})
    assert not completion.repeats
    completion.take({"choices": [{"text": token}]})
    result = completion.result(aborted=False)
    assert (result.repeats, result.reason) == (repeats, "length" if repeats else "stop")
    assert result.prompt_tokens is None
    assert result.completion_tokens is None


@pytest.mark.parametrize(
    ("sampling", "goes_on", "reuses"),
    [
        (SamplingParams(), False, True),
        (SamplingParams(seed=1), False, False),
        (SamplingParams(seed=1), True, True),
        (SamplingParams(seed=1, temperature=0), False, True),
    ],
)
def test_a_run_that_goes_on_with_an_answer_reuses_it_also_with_a_seed(
    sampling: SamplingParams, goes_on: bool, reuses: bool
) -> None:
    spec = GenerateSpec(prompt="x", sampling=sampling, goes_on=goes_on)
    assert completion_request(spec, None, 512)["cache_prompt"] is reuses
