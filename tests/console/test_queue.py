"""What a user at a terminal sees of the queue of a busy server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import Server
from tests.terminal import Terminal
from tests.virtual_npu import directive, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

BUSY = {"model": "m", "stream": True, "messages": "hi " + directive(tokens=3000, token_us=10_000)}


def test_the_spinner_tells_how_many_are_before(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", reply="Here.")
    env = {"RKLLAMA_HOST": server.url}
    with server.stream("/generate", BUSY) as running:
        assert running.status() == 200
        next(iter(running))
        with (
            Terminal("run", "m", "hello", env=env) as one,
            Terminal("run", "m", env=env) as chat,
        ):
            one.expect_spinner("Waiting: 1 before you")
            until(lambda: server.get("/health").json["queue"] == 2)
            chat.expect_spinner("Waiting: 2 before you")
            running.close()
            assert one.end() == 0
            assert one.screen == "Here.\n"
            chat.expect(">>> ")
            assert chat.ask("hello") == "Here."
