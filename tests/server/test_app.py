"""The WSGI application in this process, without a transport."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.serve import create_app
from rkllama.types import ModelInfo, RerankResult
from tests.virtual_npu import write_model


@pytest.fixture
def service(models: Path, npu: str) -> Iterator[LocalService]:
    made = LocalService(load_settings(), "test")
    yield made
    made.close()


def call(
    service: LocalService,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> tuple[str, bytes]:
    """Status and body of a request's answer, which keeps the rules of WSGI."""
    app: Any = validator(create_app(service))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        **(headers or {}),
    }
    setup_testing_defaults(environ)
    environ["HTTP_HOST"] = "localhost"
    seen: list[str] = []

    def start(line: str, _headers: Any, _: Any = None) -> Any:
        seen.append(line)
        return seen.append

    answer = app(environ, start)
    try:
        data = b"".join(answer)
    finally:
        answer.close()
    (status,) = seen
    return status, data


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models", "200 OK"),
        ("HEAD", "/models", "200 OK"),
        ("OPTIONS", "/models", "204 No Content"),
        ("POST", "/rm", "404 Not Found"),
        ("GET", "/nothing", "404 Not Found"),
        ("PUT", "/rm", "405 Method Not Allowed"),
        ("POST", "/v1/chat/completions", "400 Bad Request"),
    ],
)
def test_the_application_keeps_the_rules_of_wsgi(
    service: LocalService, method: str, path: str, status: str
) -> None:
    body = b'{"model": "m"}' if method == "POST" else b""
    assert call(service, method, path, body)[0] == status


@pytest.mark.integration
def test_an_unload_by_two_at_once_is_one(
    service: LocalService, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models / "m.rkllm")
    service.load("m")
    unload = service.pool.unload

    def somebody_else_first(info: ModelInfo) -> None:
        unload(info)
        unload(info)

    monkeypatch.setattr(service.pool, "unload", somebody_else_first)
    status, answer = call(service, "POST", "/api/chat", b'{"model": "m", "keep_alive": 0}')
    assert (status, json.loads(answer)["done_reason"]) == ("200 OK", "unload")
    assert service.loaded() == []


def test_a_load_with_a_schema_that_is_none_is_refused(service: LocalService, models: Path) -> None:
    write_model(models / "m.rkllm")
    for keep_alive in (0, 60):
        body = {"model": "m", "keep_alive": keep_alive, "format": {"type": "nonsense"}}
        status, _ = call(service, "POST", "/api/generate", json.dumps(body).encode())
        assert status == "400 Bad Request"
    assert service.loaded() == []


def test_a_websocket_is_refused_so_that_the_client_goes_on_without(service: LocalService) -> None:
    headers = {"HTTP_UPGRADE": "websocket"}
    status, body = call(service, "GET", "/v1/responses", headers=headers)
    assert status == "426 Upgrade Required"
    assert json.loads(body)["error"]["code"] == "no_websocket"


@pytest.mark.parametrize(
    "path", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", "/v2/rerank", "/api/rerank"]
)
def test_documents_are_ranked_at_every_address(
    service: LocalService, models: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models / "m.rkllm")
    body = {"model": "m", "query": "Paris", "documents": ["London", "in Paris"], "top_n": 1}
    status, answer = call(service, "POST", path, json.dumps(body).encode())
    assert status == "400 Bad Request"
    assert b"m is not a reranker" in answer
    result = RerankResult(model="m", scores=(0.1, 0.9))
    monkeypatch.setattr(service, "rerank", lambda _request, _caller: result)
    status, answer = call(service, "POST", path, json.dumps(body).encode())
    assert status == "200 OK"
    best = {"index": 1, "relevance_score": 0.9, "document": {"text": "in Paris"}}
    assert json.loads(answer)["results"] == [best]
    status, answer = call(service, "POST", path, b'{"model": "m", "query": "q"}')
    assert (status, b"'documents' is required" in answer) == ("400 Bad Request", True)


def test_a_model_that_only_embeds_is_a_client_s_mistake_in_every_dialect(
    service: LocalService, models: Path
) -> None:
    write_model(models / "bge-m3.rkllm")
    messages = [{"role": "user", "content": "hi"}]
    for path, more in (
        ("/api/chat", {"messages": messages}),
        ("/api/generate", {"prompt": "hi"}),
        ("/generate", {"messages": messages}),
        ("/v1/chat/completions", {"messages": messages}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": messages, "max_tokens": 5}),
    ):
        for stream in (False, True):
            body = {"model": "bge-m3", "stream": stream, **more}
            status, answer = call(service, "POST", path, json.dumps(body).encode())
            assert status == "400 Bad Request", path
            assert b"makes embeddings" in answer, path
    status, answer = call(service, "POST", "/api/show", b'{"model": "bge-m3"}')
    assert json.loads(answer)["capabilities"] == ["embedding"]
