"""llama.cpp through a running server, as a library and as a program: what `.rkllm` models have, `.gguf`
models have too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.common import GUIDE_FILE, MODEL, ask, install, serving_guide
from tests.llama_server import WHEEL, command
from tests.running import Server
from tests.waiting import until

pytestmark = pytest.mark.integration

QUESTION = "How do I pull a model?"


@pytest.fixture(scope="module", params=["the binding", WHEEL])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that may hold three models: two .gguf and one of the virtual NPU."""
    base, env = tmp_path_factory.mktemp("cpu"), {}
    if request.param == WHEEL:
        env = {"RKLLAMA_LLAMA_SERVER": " ".join(command(WHEEL, base) or ())}
    with serving_guide(base, "--max-loaded", "3", env=env) as (running, models):
        shutil.copy(GUIDE_FILE, models / "other.gguf")
        install(models)
        yield running


def chat(server: Server, messages: list[Any], model: str = "guide", **more: Any) -> Any:
    options = {"temperature": 0, "num_predict": 16, **more}
    body = {"model": model, "messages": messages, "options": options, "stream": False}
    answer = server.post("/api/chat", body)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_second_turn_evaluates_only_what_is_new(server: Server) -> None:
    first = chat(server, [ask(QUESTION)])
    history = [ask(QUESTION), first["message"], ask("And how do I delete it?")]
    second = chat(server, history)
    assert second["cached_count"] >= first["prompt_eval_count"]
    assert second["prompt_eval_count"] > second["cached_count"]


def test_an_answer_that_a_stop_string_ends_has_its_figures(server: Server) -> None:
    whole = chat(server, [ask(QUESTION)], num_predict=200)
    end = whole["message"]["content"].split()[2]
    stopped = chat(server, [ask(QUESTION)], num_predict=200, stop=[end])
    assert stopped["stop_string"] == end
    assert stopped["prompt_eval_count"] == whole["prompt_eval_count"] > stopped["cached_count"] > 0
    assert 0 < stopped["eval_count"] <= whole["eval_count"]
    assert stopped["eval_duration"] > 0


def test_min_p_is_applied(server: Server) -> None:
    """With a min_p of 1 only the likeliest token is left, whatever the temperature."""
    greedy = chat(server, [ask(QUESTION)])["message"]["content"]
    hot: Any = {"temperature": 2, "top_k": 0, "top_p": 1, "seed": 7}
    assert chat(server, [ask(QUESTION)], **hot, min_p=1)["message"]["content"] == greedy
    assert chat(server, [ask(QUESTION)], **hot, min_p=0)["message"]["content"] != greedy


def test_models_of_both_backends_are_in_memory_side_by_side(server: Server) -> None:
    told = [
        chat(server, [ask(QUESTION)], model)["message"]["content"] for model in ("guide", "other")
    ]
    assert told[0] == told[1]
    assert chat(server, [ask("hello")], MODEL)["message"]["content"] == "hello"
    loaded = {model["name"] for model in server.get("/api/ps").json["models"]}
    assert loaded == {"guide:latest", "other:latest", f"{MODEL}:latest"}


def test_embeddings_come_in_order_and_fit_their_texts(server: Server) -> None:
    texts = [QUESTION, "Bonjour", QUESTION]
    body = {"model": "guide", "input": texts}
    first, second, third = server.post("/api/embed", body).json["embeddings"]
    (alone,) = server.post("/api/embed", {**body, "input": "Bonjour"}).json["embeddings"]
    assert first == pytest.approx(third, abs=1e-4)
    assert second == pytest.approx(alone, abs=1e-4)
    assert sum(a * b for a, b in zip(first, second, strict=True)) < 0.99


def test_a_text_too_long_for_an_embedding_is_cut_or_refused(server: Server) -> None:
    body = {"model": "guide", "input": "model " * 3000}
    assert server.post("/api/embed", body).status == 200
    refused = server.post("/api/embed", {**body, "truncate": False})
    assert refused.status == 400, refused.body


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_grammar_cannot_hold_an_answer_to_is_not_passed_off_as_valid(
    server: Server, stream: bool
) -> None:
    shape = {"type": "array", "items": {"const": 1}, "maxItems": 2, "contains": {"const": 5}}
    body = {"model": "guide", "messages": [ask("hello")], "format": shape, "stream": stream}
    last = server.post("/api/chat", body).lines[-1]
    assert last["done_reason"] == "format_not_met"
    assert "does not match the requested format" in last["error"]


@pytest.mark.parametrize(
    "shape",
    [
        {"properties": {"\ud800": {}}},
        {"enum": ["\ud800"]},
        {"type": "string", "pattern": "^(?=.*x)"},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
    ],
)
def test_a_schema_of_what_llama_cpp_does_not_take_is_the_client_s_fault(
    server: Server, shape: object
) -> None:
    body = {"model": "guide", "messages": [ask("hello")], "format": shape, "stream": False}
    refused = server.post("/api/chat", body)
    assert refused.status == 400, refused.body
    assert "JSON schema" in refused.json["error"]


def test_a_bound_that_llama_cpp_does_not_take_is_in_a_grammar_of_the_house(server: Server) -> None:
    shape = {"type": "integer", "minimum": 10**30}
    body = {"model": "guide", "messages": [ask("hello")], "format": shape, "stream": False}
    answer = server.post("/api/chat", body)
    assert answer.status == 200, answer.body
    assert json.loads(answer.json["message"]["content"]) >= 10**30


def test_the_reason_why_a_schema_cannot_be_used_is_told(server: Server) -> None:
    shape = {"type": "string", "pattern": "^(?=.*x)"}
    body = {"model": "guide", "messages": [ask("hello")], "format": shape, "stream": False}
    refused = server.post("/api/chat", body)
    assert refused.status == 400
    assert "look-ahead" in refused.json["error"]


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_a_number_has_few_digits(server: Server, kind: str) -> None:
    shape = {"type": "array", "items": {"type": kind}, "minItems": 3, "maxItems": 3}
    hot = {"temperature": 2, "top_k": 0, "seed": 1, "num_predict": 300}
    body = {"model": "guide", "messages": [ask("Numbers")], "format": shape, "options": hot}
    answer = server.post("/api/chat", {**body, "stream": False}).json
    assert answer["done_reason"] == "stop", answer
    for number in answer["message"]["content"].strip("[]").split(","):
        whole, _, rest = number.strip().lstrip("-").partition(".")
        assert len(whole) <= 16
        assert len(rest) <= 10


def test_an_array_may_be_as_long_as_it_likes(server: Server) -> None:
    shape = {"type": "array", "items": {"type": "integer"}, "maxItems": 10**18}
    body = {"model": "guide", "messages": [ask("hello")], "format": shape, "stream": False}
    assert server.post("/api/chat", {**body, "options": {"num_predict": 5}}).status == 200


def test_a_client_that_leaves_ends_its_answer(server: Server) -> None:
    # Left to itself, a model this small soon ends; a shape holds it to a long answer.
    shape = {"type": "array", "items": {"const": "again"}, "minItems": 150, "maxItems": 150}
    body = {"model": "guide", "messages": [ask("Go on")], "format": shape, "stream": False}
    whole: int = server.post("/api/chat", body).json["eval_count"]
    assert whole > 300
    before = tokens_generated(server)
    with server.stream("/api/chat", {**body, "stream": True}) as stream:
        assert stream.status() == 200
        assert next(iter(stream))["message"]["content"]
    chat(server, [ask("hello")], num_predict=1)  # waits until the other has ended
    assert tokens_generated(server) - before < whole / 2


def tokens_generated(server: Server) -> int:
    found = re.search(
        r"^rkllama_completion_tokens_total\{.*\} (\d+)", server.get("/metrics").body.decode(), re.M
    )
    assert found is not None
    return int(found[1])


def test_a_batch_that_takes_too_long_does_not_keep_the_next_request_waiting(tmp_path: Path) -> None:
    """llama.cpp sees no abort within a batch; a stopped process is one whose batch never ends."""
    (tmp_path / "apart").mkdir()
    with serving_guide(tmp_path / "apart") as (apart, _):
        assert apart.post("/api/generate", {"model": "guide"}).status == 200  # loads it
        (pid,) = apart.children()
        os.kill(pid, signal.SIGSTOP)
        with apart.stream("/api/generate", {"model": "guide", "prompt": QUESTION}):
            until(lambda: state_of_model(apart) == "busy")
        until(lambda: state_of_model(apart) == "ready")  # until then, another would run beside it
        assert chat(apart, [ask(QUESTION)])["message"]["content"]
        assert apart.children() != [pid]


def state_of_model(server: Server) -> str:
    return str(server.get("/health").json["models"][0]["state"])
