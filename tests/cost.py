"""What work costs, in figures that a busy machine leaves alone: calls, and the thread's processor time."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

_GROWTH = 4
_NOISE = 0.001
"""Seconds below which processor times are not compared."""


def calls(work: Callable[[], object]) -> Counter[str]:
    """Count the calls, of Python's functions and of C's, that the work makes in this thread, by name."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "call":
            counts[frame.f_code.co_name] += 1
        elif event == "c_call":
            counts[function.__name__] += 1

    before = sys.getprofile()
    gc.disable()  # it calls back whoever asked it to
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    del counts["setprofile"]
    return counts


def processor_seconds(work: Callable[[], object]) -> float:
    """Measure the processor time that the work takes in this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Fail unless work on four times the size takes about four times as long: quadratic takes sixteen."""

    def seconds(size: int) -> float:
        return min(processor_seconds(lambda: work(size)) for _ in range(3))

    small, large = seconds(size), seconds(_GROWTH * size)
    assert large < 2 * _GROWTH * max(small, _NOISE), f"{small} s at first, then {large} s"
