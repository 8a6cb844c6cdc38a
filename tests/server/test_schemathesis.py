"""Thousands of requests made from /openapi.json, right and wrong ones, against a running server.

The server answers every one of them in time, never with a fault of its own, refuses what the description
forbids, and answers in the shape that it describes. They are the same ones every time, and a sixth of those
that try the description's corners one by one. RKLLAMA_TEST_EXAMPLES sets how many random requests each
endpoint gets, and has all corners tried.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from rkllama.serve import routes
from rkllama.server.openapi import openapi_document
from tests.conftest import isolate
from tests.running import Server
from tests.virtual_npu import library, write_model

pytestmark = pytest.mark.integration

schemathesis = pytest.importorskip("schemathesis", reason="it needs Python 3.11")
from schemathesis.pytest.lazy import get_all_tests  # noqa: E402 - where it is installed

TEMPLATED, PLAIN = "qwen2.5-tiny", "plain"
NAMES = [TEMPLATED] * 5 + [f"{TEMPLATED}:latest", f"{TEMPLATED}.rkllm", PLAIN, "copy", "missing"]
NAMED_BY = ("model", "model_name", "source", "destination", "from")
EXAMPLES = int(os.environ.get("RKLLAMA_TEST_EXAMPLES", "10"))
SAMPLED = "RKLLAMA_TEST_EXAMPLES" not in os.environ
MOST_SECONDS = 15.0
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=SAMPLED,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ASK_THE_HUB = ("/api/pull", "/api/rkllama/search")
CHECKS = [
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.negative_data_rejection,
    schemathesis.checks.unsupported_method,
]


DOCUMENT = openapi_document(routes())
LEFT_OUT = ("/api/rkllama/drain", "/ready")
"""The one ends the server, the other is 503 as it should be."""
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in DOCUMENT["paths"].items()
    if path not in LEFT_OUT
    for method in methods
]


class Fuzzed:
    """The server, and its models, which requests may remove."""

    def __init__(self, server: Server, models: Path) -> None:
        self.url = server.url
        self._models = models

    def prepare(self) -> None:
        """Put a model back that the last request has removed."""
        for name in (TEMPLATED, PLAIN):
            if not (self._models / f"{name}.rkllm").exists():
                write_model(self._models / f"{name}.rkllm", reply="It is so.")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """One server for all requests, which reaches no network."""
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, tmp_path_factory.mktemp("fuzzed")) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        with Server() as running:
            yield Fuzzed(running, models)
            assert running.get("/health").status == 200


@pytest.fixture(scope="module")
def described() -> Any:
    """All that the description holds."""
    return schemathesis.openapi.from_dict(DOCUMENT)


def is_chosen(case: Any) -> bool:
    """Whether a request is to be made: see above."""
    if not SAMPLED or case.meta.phase.name.name != "COVERAGE":
        return True
    return zlib.crc32(repr((case.method, case.headers, case.query, case.body)).encode()) % 6 == 0


def sensible(body: Any, *, valid: bool) -> Any:
    """The body with names of models that mostly exist, and a valid one without what no schema tells."""
    if not isinstance(body, dict):
        return body
    number = zlib.crc32(repr(body).encode("utf-8", "replace"))
    body = dict(body)
    for turn, key in enumerate(NAMED_BY):
        if isinstance(name := body.get(key), str) and name.strip():
            body[key] = NAMES[(number >> turn) % len(NAMES)]
    return _answerable(body) if valid else body


def _answerable(body: dict[str, Any]) -> dict[str, Any]:
    """The body with a model and the user's turn at the end, with a tool's own name where one is to be
    called, and without log-probabilities, which this runtime does not have.
    """
    body.pop("logprobs", None)
    body.pop("top_logprobs", None)
    if not body.get("tools"):
        body.pop("tool_choice", None)
    elif isinstance(body.get("tool_choice"), dict):
        body["tool_choice"] = _named(body["tool_choice"], body["tools"][0])
    if "model" in body and body["model"] is None:
        body["model"] = TEMPLATED
    if isinstance(messages := body.get("messages"), list):
        body["messages"] = [*messages, {"role": "user", "content": "And now?"}]
    return body


def _named(choice: dict[str, Any], tool: dict[str, Any]) -> dict[str, Any]:
    """The choice of this tool."""
    name = tool.get("function", tool)["name"]
    if "function" in choice:
        return {**choice, "function": {"name": name}}
    return {**choice, "name": name} if "name" in choice else choice


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_request_gets_an_answer_as_described(
    fuzzed: Fuzzed, described: Any, operation: str
) -> None:
    """Its requests are made up here: with its `parametrize`, every worker would first make up all."""

    def ask(case: Any) -> None:
        if not is_chosen(case):
            return
        fuzzed.prepare()
        case.body = sensible(case.body, valid=case.meta.generation.mode.is_positive)
        response = case.call(base_url=fuzzed.url, timeout=MOST_SECONDS)
        # That the Hub cannot be reached is the one fault that is not the server's own.
        if case.operation.path not in ASK_THE_HUB or response.status_code != 502:
            assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)

    [made] = get_all_tests(
        schema=described.include(name=operation), test_func=ask, settings=SETTINGS, given_kwargs={}
    )
    _, run = made.ok()  # type: ignore[union-attr]
    run()
