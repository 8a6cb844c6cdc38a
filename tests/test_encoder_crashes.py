"""Image encoders that crash or hang, again and again: each costs one answer and nothing else.

RKLLAMA_TEST_CRASHES=300 injects as many; four is what each run of the tests does.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.backends.vision.pictures import encoded
from tests.conftest import isolate
from tests.running import Reply, Server
from tests.seeing import put_model, told, use_libraries
from tests.virtual_npu import read_trace

pytestmark = pytest.mark.integration

CRASHES = int(os.environ.get("RKLLAMA_TEST_CRASHES", "4"))
_EACH_HANG = 12
"""One of so many is a hang, for which a timeout has to pass."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server, and the trace of its models."""
    directory = tmp_path_factory.mktemp("crashes")
    trace = directory / "trace"
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, directory) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        use_libraries(patch)
        put_model(models, "crash", trace, encoder={"crash_at": 2})
        put_model(models, "hang", trace, encoder={"hang_at": 2})
        put_model(models, "text", trace, encoder=None, mode="echo")
        env = {"RKLLAMA_TOKEN_TIMEOUT": "4", "RKLLAMA_PREFILL_TIMEOUT": "0.01"}
        with Server("--max-loaded", "3", env=env) as running:
            yield running, trace


def ask(server: Server, model: str, image: bytes | None = None) -> Reply:
    images = [base64.b64encode(image).decode()] if image else []
    message = {"role": "user", "content": "What is it?", "images": images}
    body = {"model": model, "messages": [message], "stream": False, "keep_alive": -1}
    return server.post("/api/chat", body)


def picture(number: int) -> bytes:
    """A picture that no other number has, so that it has to be encoded."""
    return encoded(Image.new("RGB", (9, 9), (number % 256, number // 256, 40)))


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_each_crash_and_each_hang_costs_one_answer(server: tuple[Server, Path]) -> None:
    running, trace = server
    assert ask(running, "text").status == 200
    before = 0
    for number in range(CRASHES):
        hangs = number % _EACH_HANG == _EACH_HANG - 1
        model = "hang" if hangs else "crash"
        good, bad = picture(2 * number), picture(2 * number + 1)
        reply = ask(running, model, good)
        assert reply.status == 200, reply.body
        assert reply.json["message"]["content"] == told(good)
        reply = ask(running, model, bad)
        assert reply.status == (504 if hangs else 500), (number, reply.body)
        assert ("sent nothing for" if hangs else "SIGSEGV") in reply.json["error"]
        before = before or descriptors(running)
    assert descriptors(running) <= before + 2
    assert ask(running, "text").status == 200
    events = [event["event"] for event in read_trace(trace)]
    assert events.count("encoder_init") == CRASHES
    loads = [event for event in read_trace(trace) if event["event"] == "init"]
    assert len(loads) == CRASHES + 1, "each crash loads its model once, and no other one"
