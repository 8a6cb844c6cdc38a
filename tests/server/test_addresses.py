"""Paths as clients write them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rkllama.serve import routes
from rkllama.server.addresses import Addresses
from tests.cases import cases
from tests.running import Server
from tests.virtual_npu import write_model

ADDRESSES = Addresses([route.path for route in routes()])


@cases(
    ("written", "meant"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/models", "/models"),
        ("/models/", "/models"),
        ("//models", "/models"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1//chat///completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("//chat/completions/", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/rerank", "/v1/rerank"),
        ("/reranking", "/v1/reranking"),
        ("/responses", "/v1/responses"),
        ("/messages", "/v1/messages"),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/models/some/name", "/v1/models/some/name"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/api/chat/completions", "/v1/chat/completions"),
        ("/api/api/chat", "/api/chat"),
        ("/v1/api/chat", "/api/chat"),
        ("/api//tags", "/api/tags"),
        ("/api/blobs/sha256:0", "/api/blobs/sha256:0"),
        ("/health/", "/health"),
    ],
)
def test_what_a_path_means(written: str, meant: str) -> None:
    assert ADDRESSES.canonical(written) == meant


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/nothing/",
        "/v1",
        "/api/",
        "/v1/generate",
        "/v1/rm",
        "/v1/x/chat/completions",
    ],
)
def test_what_means_nothing_stays_as_it_is(path: str) -> None:
    assert ADDRESSES.canonical(path) == path


def test_a_long_path_takes_no_time() -> None:
    began = time.thread_time()
    for part in ("/", "/v1", "/api", "/x"):
        ADDRESSES.canonical(part * 16_000)
    assert time.thread_time() - began < 0.5


@pytest.mark.integration
def test_such_paths_are_served_and_errors_are_worded_as_the_path_means(
    server: Server, models: Path
) -> None:
    write_model(models / "m.rkllm")
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for path in ("/chat/completions", "/v1/v1/chat/completions", "//v1/chat/completions/"):
        answer = server.post(path, chat)
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert server.get("//models/").json == {"models": ["m.rkllm"]}
    assert server.get("/models/m").json["object"] == "model"
    assert server.post("/messages", {}).json["type"] == "error"
    for path in ("/v1", "/v1/", "/v1/chat"):
        assert "there is no endpoint" in server.get(path).json["error"]["message"]
    assert server.request("GET", "/chat/completions").status == 405
    long = server.request("POST", "/chat/completions", b"x" * (33 << 20))
    assert long.status == 413
    assert "RKLLAMA_MAX_BODY" in long.json["error"]["message"]


@pytest.mark.integration
def test_no_spelling_of_a_path_passes_the_key(models: Path, npu: str) -> None:
    with Server("--api-key", "secret") as server:
        for path in ("/v1/chat/completions", "//chat/completions", "/api/api/tags/", "//health/x"):
            assert server.post(path, {}).status in (401, 404, 405)
        assert server.get("/health/").status == 200
