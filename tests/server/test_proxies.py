"""Answers that are long in coming, through nginx and HAProxy: longer than those wait for a silent server."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests.conftest import isolate
from tests.proxies import PROXIES, program, proxy
from tests.running import LIMIT, Reply, Server
from tests.virtual_npu import directive, library, write_model
from tests.waiting import Task

pytestmark = pytest.mark.integration

MODEL = "qwen2.5-rk3588-w8a8"
PATIENCE = 2
"""Seconds that the proxies have."""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Where the proxies listen, before a server whose model takes longer to load than they wait."""
    missing = [name for name in PROXIES if program(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    base = tmp_path_factory.mktemp("proxies")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        models = isolate(patch, base) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        write_model(models / f"{MODEL}.rkllm", load_ms=2500)
        server = stack.enter_context(Server(env={"RKLLAMA_ALIVE_INTERVAL": "0.2"}))
        yield {name: stack.enter_context(proxy(name, server, base, PATIENCE)) for name in PROXIES}


def post(port: int, path: str, number: int, stream: bool) -> tuple[Reply, float]:
    """A question whose prompt takes a moment longer than the proxies wait; with the reply come the seconds
    after which the first of it was here.
    """
    text = f"{number}a {number}b {number}c " + directive(reply="one two three", prefill_us=70_000)
    messages = [{"role": "user", "content": text}]
    body = {"model": MODEL, "messages": messages, "stream": stream, "max_tokens": 9}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        began = time.monotonic()
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        first = time.monotonic() - began
        return Reply(response.status, {}, response.read()), first
    finally:
        connection.close()


QUESTIONS = (
    ("nginx", "/api/chat", b'"done":true'),
    ("haproxy", "/v1/chat/completions", b"[DONE]"),
    ("nginx", "/v1/messages", b"event: message_stop"),
)


def test_a_load_a_queue_and_a_prefill_arrive_whole(ports: dict[str, int]) -> None:
    began = time.monotonic()
    tasks = [
        Task(lambda name=name, path=path, n=n: post(ports[name], path, n, True))  # type: ignore[misc]
        for n, (name, path, _) in enumerate(QUESTIONS)
    ]
    for task, (*_, end) in zip(tasks, QUESTIONS, strict=True):
        reply, first = task.result()
        assert reply.status == 200
        assert all(part in reply.body for part in (b"one", b"two", b"three", end))
        assert first < PATIENCE
    assert time.monotonic() - began > 4 * PATIENCE


@pytest.mark.parametrize("name", PROXIES)
def test_without_signs_the_proxy_gives_up(ports: dict[str, int], name: str) -> None:
    number = 10 + list(PROXIES).index(name)  # of its own, so that nothing of it is in the cache
    reply, _ = post(ports[name], "/api/chat", number, False)
    assert reply.status == 504
