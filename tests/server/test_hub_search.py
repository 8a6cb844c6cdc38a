"""The search of the Hub over HTTP: what `rkllama search` lists, as JSON, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.boards import build_board
from tests.conftest import isolate
from tests.hub.loopback import LoopbackHub
from tests.hub.names import REPOSITORIES
from tests.running import Reply, Server
from tests.test_cli import rkllama
from tests.test_documents import blocks

pytestmark = pytest.mark.integration

ENGLISH = {"Accept-Language": "en"}


@pytest.fixture(scope="module")
def remote() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        for repo, (downloads, files) in REPOSITORIES.items():
            contents = dict.fromkeys(files, b"x")
            hub.add(repo, contents, downloads=downloads, tags=("rkllm",))
        many = {f"Qwen3-4B-w8a8-rk3588-v{n}.rkllm": b"x" for n in range(120)}
        hub.add("somebody/Qwen3-4B-RKLLM", many, tags=("rkllm",))
        yield hub


@pytest.fixture(scope="module")
def server(remote: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on an RK3588 that asks the Hub on the loopback, and wants a key."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        patch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3588", folder)))
        patch.setenv("HF_ENDPOINT", remote.endpoint)
        with Server("--api-key", "sesame") as running:
            yield running


def ask(server: Server, **query: object) -> Reply:
    headers = {"Authorization": "Bearer sesame", **ENGLISH}
    return server.request("GET", f"/api/rkllama/search?{urlencode(query)}", headers=headers)


def every_page(server: Server, **query: object) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = []
    for page in range(1, 20):
        body = ask(server, page=page, **query).json
        models += body["models"]
        if not body["more"]:
            assert len(models) == body["total"]
            return models
    raise AssertionError("pages without end")


def test_the_models_are_those_of_the_command_in_its_order(
    server: Server, remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = every_page(server, query="qwen3")
    asked = len(remote.seen)
    assert len(found) > 150
    assert len(remote.seen) == asked, "further pages come from what was answered already"
    monkeypatch.setenv("RKLLAMA_SYSROOT", server.environment["RKLLAMA_SYSROOT"])
    monkeypatch.setenv("HF_ENDPOINT", remote.endpoint)
    listed = json.loads(rkllama("search", "qwen3", "--json").stdout)
    assert [(m["reference"], m["repository"], m["file"]) for m in found] == [
        (row["name"], row["repo"], row["file"]) for row in listed
    ]
    for model, row in zip(found, listed, strict=True):
        if row["kind"] == "speech":
            continue
        assert row["fits"] == (model["fits"] and "doubt" not in model)
        assert row["remark"] == model.get("problem", model.get("doubt"))
    best = {model["reference"] for model in found if model["best"]}
    assert "qwen3:4b" in best
    assert all("-w8a8" not in name for name in best)


def test_what_is_known_of_a_model(server: Server) -> None:
    models = every_page(server, query="qwen3")
    [model] = [m for m in models if m["reference"] == "qwen3:4b"]
    assert model["fits"] is model["best"] is True
    assert model["here"] is model["gated"] is False
    assert model["platform"] == "rk3588"
    assert model["quantization"] == "w8a8"
    assert model["capabilities"] == ["completion"]
    assert model["updated"] == "2026-01-01T00:00:00.000Z"
    assert model["likes"] == 0
    assert 4e9 < model["estimated_size"] < 6e9
    assert None not in model.values()
    assert "size" not in model
    [example] = [
        json.loads(text) for text in blocks("api.md", "json") if '"estimated_size"' in text
    ]
    assert example.keys() == {"models", "total", "more"}
    assert example["models"][0].keys() == model.keys()
    others = [m for m in models if m.get("platform") == "rk3576"]
    assert others
    assert {m["problem"] for m in others} == {"it is for RK3576"}
    kinds = {tuple(m["capabilities"]) for m in models if m["fits"]}
    assert kinds >= {("completion",), ("completion", "vision"), ("embedding",), ("rerank",)}


def test_models_for_the_cpu_have_references_that_lead_to_them_on_a_board_with_an_npu(
    server: Server,
) -> None:
    models = every_page(server, query="qwen3", format="gguf")
    assert models
    for model in models:
        assert model["file"].endswith(".gguf")
        assert model["reference"] == f"{model['repository']}/{model['file']}"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": "a" * 201}, "query"),
        ({"query": "qwen3", "format": "onnx"}, "format"),
        ({"query": "qwen3", "page": "0"}, "page"),
        ({"query": "qwen3", "page": "٣"}, "page"),
        ({"query": "; rm -rf /"}, "rm"),
    ],
)
def test_what_cannot_be_searched_for(server: Server, query: dict[str, str], named: str) -> None:
    reply = ask(server, **query)
    assert reply.status == 400
    assert named in reply.json["error"]


def test_a_part_that_is_not_answered_is_told_and_nothing_at_all_is_an_error(
    server: Server, remote: LoopbackHub
) -> None:
    remote.search_faults["gemma-3[rkllm]"] = (503, b"busy")
    body = ask(server, query="gemma3").json
    assert body["warning"].startswith("Not answered: gemma-3 [rkllm]: ")
    remote.api_fault = (503, {})
    try:
        reply = ask(server, query="internvl3")
    finally:
        remote.api_fault = None
    assert reply.status == 502
    assert "out of order" in reply.json["error"]


def test_it_needs_the_key(server: Server) -> None:
    assert server.get("/api/rkllama/search?query=qwen3").status == 401


def test_offline_is_told(models: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with Server() as server:
        reply = server.get("/api/rkllama/search?query=qwen3", **ENGLISH)
    assert reply.status == 502
    assert "HF_HUB_OFFLINE" in reply.json["error"]
