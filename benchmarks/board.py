"""What it costs to tell how a board is doing, on the tree of an RK3588 and beside one file of the kernel's.

On a board the same Python takes longer, and so does the read that it is compared with.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rkllama.board.telemetry import read_state
from tests.boards import build_board

_ROUNDS, _CALLS = 15, 40


def measure(report: Callable[..., None]) -> None:
    """Report the time of one reading, and how many reads of /proc/meminfo it is worth."""
    with tempfile.TemporaryDirectory(prefix="rkllama-board-") as directory:
        root = str(build_board("rk3588", Path(directory)))
        pairs = [(_state(root), _one_file()) for _ in range(_ROUNDS)]
    seconds = statistics.median(state for state, _ in pairs)
    ratio = statistics.median(state / one for state, one in pairs)
    report("board: state of an RK3588 (files, no hardware)", f"{seconds * 1000:.2f} ms", "< 1 ms")
    report("board: the same", f"{ratio:.0f} reads of /proc/meminfo")


def _state(root: str) -> float:
    os.environ["RKLLAMA_SYSROOT"] = root
    try:
        return _seconds(read_state)
    finally:
        del os.environ["RKLLAMA_SYSROOT"]


def _one_file() -> float:
    return _seconds(Path("/proc/meminfo").read_text)


def _seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call: other programs do not count."""
    started = time.thread_time()
    for _ in range(_CALLS):
        work()
    return (time.thread_time() - started) / _CALLS
