"""What boards tell of their downloads, right and wrong, as `rkllama fleet pull` shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rkllama.client.wire import pull_progress
from rkllama.commands.fleet.pull import _Progress
from rkllama.config import load_settings
from rkllama.fleet.boards import Board
from rkllama.fleet.pull import Step, pull_everywhere
from rkllama.types import PullProgress

BOARD = Board(name="rk1", host="10.0.0.1")


@pytest.mark.parametrize(
    "line",
    [
        {"total": 10, "completed": "9" * 50},
        {"total": 1e400, "completed": 1},
        {"total": float("nan")},
        {"total": [1], "completed": None},
        {"total": -5},
        {"completed": 10**400},
        {"resumed": True},
        {"file": ["x"]},
    ],
)
def test_a_figure_that_is_none_is_not_taken(line: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        pull_progress({"status": "pulling", "file": "f", **line})


def test_a_board_writes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _Progress([BOARD])
    news = PullProgress(status="downloading", file="a\x1b[2J\nfake: done", total=5, completed=1)
    shown.report(Step(board=BOARD, progress=news))
    shown.close()
    assert capsys.readouterr().err == "rk1  a[2Jfake: done (5 B)\n"


def test_a_board_that_sends_without_end_waits_until_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Endless:
        def __init__(self, _: object) -> None:
            pass

        def pull(self, _: str) -> Iterator[PullProgress]:
            for number in range(1000):
                yield PullProgress(status="downloading", file=str(number))
            all_sent.set()

    all_sent = threading.Event()
    monkeypatch.setattr("rkllama.fleet.pull.RemoteService", Endless)
    steps = pull_everywhere([BOARD], "m", load_settings())
    first = next(steps)
    assert first.progress is not None
    assert not all_sent.wait(0.2)
    assert len([*steps]) == 1000
    assert all_sent.is_set()
