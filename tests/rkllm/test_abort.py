"""Aborts of the NPU backend that come as a run ends."""

from __future__ import annotations

import threading

import pytest

from rkllama.rkllm.abort import Aborter
from rkllama.rkllm.callback import Results
from tests.waiting import LIMIT, Task, until


class _Results(Results):
    """What an aborter needs of results."""

    def __init__(self) -> None:
        self.stopped: str | None = None


def test_an_abort_that_comes_as_its_run_ends_never_hits_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, over = threading.Event(), threading.Event()
    hit: list[bool] = []
    aborter, results = Aborter(lambda: hit.append(began.is_set())), _Results()
    first = aborter.running(results)
    first.__enter__()

    def end_and_go_on() -> None:
        first.__exit__(None, None, None)
        with aborter.running(results):
            began.set()
            assert over.wait(LIMIT)

    ask, tasks = aborter.ask, list[Task[None]]()

    def ask_late() -> None:
        tasks.append(Task(end_and_go_on))
        began.wait(0.1)  # as long as it may take: it must not be possible
        ask()

    monkeypatch.setattr(aborter, "ask", ask_late)
    aborter.cancel()
    assert began.wait(LIMIT)
    until(lambda: not aborter._asked.is_set())
    over.set()
    tasks[0].result()
    aborter.close()
    assert True not in hit
