"""Waiting in tests: for a condition with a deadline, and for threads with their results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LIMIT = 20.0
"""Seconds after which a test fails instead of hanging."""


def until(
    condition: Callable[[], object],
    failure: str = "it never came",
    *,
    seconds: float = LIMIT,
    each: float = 0.001,
) -> None:
    """Return as soon as the condition holds; fail after `seconds`. It is asked `each` so many seconds, and
    one that takes long less often: asking takes no more than a quarter of the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        ended = time.monotonic()
        assert ended < deadline, failure
        time.sleep(max(each, min(3 * (ended - began), 0.1)))


class Task(Generic[T]):
    """Work in a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it came."""
        self._thread.join(seconds)
        return self.done

    def result(self) -> T:
        """Wait for the end; gives what the work returned, raises what it raised."""
        self._thread.join(LIMIT)
        assert self.done, "it never ended"
        if self._error is not None:
            raise self._error
        return self._results[0]
