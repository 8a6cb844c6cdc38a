"""The doctor over HTTP: what `rkllama doctor --json` prints, found by a running server."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.engine.health.examination import Examination
from tests.boards import build_board
from tests.running import Server
from tests.test_cli import rkllama
from tests.waiting import Task, until


@pytest.mark.integration
def test_it_finds_what_the_command_finds(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3588-no-groups", tmp_path)))
    with Server("--api-key", "sesame") as server:
        assert server.get("/api/rkllama/doctor").status == 401
        answer = server.get("/api/rkllama/doctor", Authorization="Bearer sesame").json
        monkeypatch.setenv("RKLLAMA_HOST", server.url)
        monkeypatch.setenv("RKLLAMA_API_KEY", "sesame")
        printed = json.loads(rkllama("doctor", "--json").stdout)
        running = [f["found"] for f in answer["findings"] if f["check"] == "server"]
        assert len(running) == 1
        assert running[0].startswith(f"running at {server.url}")
    assert answer["status"] == "broken"
    assert answer.keys() == printed.keys()
    told = [(f["group"], f["check"], f["status"], f["cure"]) for f in answer["findings"]]
    assert told == [(f["group"], f["check"], f["status"], f["cure"]) for f in printed["findings"]]
    assert any(cure for *_, cure in told)


class Counted(threading.Event):
    """An event that counts who waits for it."""

    waiting = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting += 1
        return super().wait(timeout)


class Held(Examination):
    """An examination that ends when it is let go; it counts its runs."""

    def __init__(self) -> None:
        super().__init__(load_settings({}, {}), None)
        self.ended = Counted()
        self.runs = 0
        self.fails = False
        self.released = threading.Event()

    def _examine(self) -> Mapping[str, Any]:
        if self._run is not None:  # none is, where one that waited has to do it by itself
            self.ended = Counted()
            self._run.ended = self.ended
        self.runs += 1
        run = self.runs
        assert self.released.wait(20)
        if self.fails and run == 1:
            raise OSError("no")
        return {"run": run}


def test_who_asks_while_it_runs_gets_the_same_result() -> None:
    examination = Held()
    first = Task(examination.result)
    until(lambda: examination.runs == 1)
    others = [Task(examination.result) for _ in range(5)]
    until(lambda: examination.ended.waiting == 5)
    examination.released.set()
    assert [task.result() for task in (first, *others)] == [{"run": 1}] * 6
    assert examination.result() == {"run": 2}, "a later one is examined anew"


def test_a_run_that_fails_takes_nothing_from_the_others() -> None:
    examination = Held()
    examination.fails = True
    first = Task(examination.result)
    until(lambda: examination.runs == 1)
    other = Task(examination.result)
    until(lambda: examination.ended.waiting == 1)
    examination.released.set()
    with pytest.raises(OSError, match="no"):
        first.result()
    assert other.result()["run"] == 2
