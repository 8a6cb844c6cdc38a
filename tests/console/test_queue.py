"""What a user at a terminal sees of the queue of a busy server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import Server
from tests.terminal import CTRL_C, Terminal
from tests.virtual_npu import directive, write_model

pytestmark = pytest.mark.integration

LONG = "hi " + directive(tokens=3000, token_us=10_000)
BUSY = {"model": "m", "stream": True, "messages": LONG}


def test_nothing_is_left_of_the_spinner(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", reply="Here.")
    with server.stream("/generate", BUSY) as running:
        assert running.status() == 200
        next(iter(running))
        with Terminal("run", "m", "hello", env={"RKLLAMA_HOST": server.url}) as one:
            one.expect_spinner("Waiting: 1 before you")
            running.close()
            assert one.end() == 0
            assert one.screen == "Here.\n"


def test_the_spinner_tells_how_many_are_before(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", reply="Here.")
    env = {"RKLLAMA_HOST": server.url}
    with server.stream("/generate", BUSY) as running:
        assert running.status() == 200
        next(iter(running))
        with Terminal("run", "m", LONG, env=env) as one:
            one.expect_spinner("Waiting: 1 before you")
            with Terminal("run", "m", env=env) as chat:  # only now: who comes first is first
                chat.expect_spinner("Waiting: 2 before you")
                assert server.get("/health").json["queue"] == 2
                running.close()
                chat.expect_spinner("Waiting: 1 before you")
                one.type(CTRL_C)
                assert one.end() == 130
                assert "Waiting" not in one.screen
                chat.expect(">>> ")
                assert chat.ask("hello") == "Here."
