"""What Home Assistant, Open WebUI and VS Code ask again and again, while the server is busy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.clients.common import MODEL, install
from tests.running import Server
from tests.virtual_npu import directive, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

POLLS = 20
MOST_SECONDS = 0.5
"""The generation takes a thousand seconds, the load sixty."""


def slowest(server: Server, path: str) -> float:
    """Seconds of the slowest of many requests but one: a busy machine may stop anybody once."""
    taken = []
    for _ in range(POLLS):
        started = time.perf_counter()
        assert server.get(path).status == 200
        taken.append(time.perf_counter() - started)
    return sorted(taken)[-2]


@pytest.mark.serial
@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/api/version", "/v1/models", "/health"])
def test_polling_waits_for_no_generation_and_no_load(
    server: Server, models: Path, path: str
) -> None:
    install(models)
    for number in range(20):
        write_model(models / f"model{number}.rkllm")
    write_model(models / "slow.rkllm", load_ms=60_000)
    loads: list[int] = []

    def load() -> None:
        loads.append(server.post("/api/generate", {"model": "slow"}).status)

    question = "hi " + directive(tokens=100_000, token_us=10_000)
    body = {"model": MODEL, "prompt": question, "options": {"num_ctx": 16384}}
    with server.stream("/api/generate", body) as answer:
        assert answer.status() == 200
        assert next(iter(answer))["done"] is False
        generating = slowest(server, path)
    loader = threading.Thread(target=load)
    loader.start()
    try:
        until(
            lambda: any(
                model["state"] == "loading" for model in server.get("/health").json["models"]
            )
        )
        loading = slowest(server, path)
        assert loads == []
    finally:
        server.stop()
        loader.join()
    assert generating < MOST_SECONDS
    assert loading < MOST_SECONDS


def test_vs_code_learns_of_every_model_how_long_its_context_is(
    server: Server, models: Path
) -> None:
    install(models)

    def context_length(name: str) -> int:
        info = server.post("/api/show", {"model": name}).json["model_info"]
        return int(info[f"{info['general.architecture']}.context_length"])

    assert context_length(MODEL) == 4096, "the server's own setting, since the file tells no limit"
    server.post("/api/create", {"model": "long", "from": MODEL, "parameters": {"num_ctx": 8192}})
    assert context_length("long") == 8192
    server.post("/api/generate", {"model": MODEL, "options": {"num_ctx": 1024}})
    assert context_length(MODEL) == 1024, "what it was loaded with"
