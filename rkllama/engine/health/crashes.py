"""Whether models' processes die again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOP = 3
"""So many deaths or failed loads one after the other are a loop,"""
MEMORY = 60.0
"""for so many seconds after the last: then it is tried again, which nobody would while it is one."""


class Crashes:
    """Counts the deaths of processes, and the loads that failed, since the last use that went well."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str | None, tuple[int, float]] = {}
        """By model, and of all together (None): how many, and when the last one was."""

    def note_crash(self, key: str) -> None:
        """Count one of model `key`."""
        now = self._clock()
        with self._lock:
            for place in (key, None):
                count, last = self._counts.get(place, (0, now))
                self._counts[place] = (1 if now - last > MEMORY else count + 1), now

    def note_use(self, key: str) -> None:
        """Note that the process of model `key` outlived a use."""
        if self._counts:
            with self._lock:
                self._counts.pop(key, None)
                self._counts.pop(None, None)

    def is_loop(self, key: str | None = None) -> bool:
        """Return whether model `key` crashes again and again; without a `key`, whatever model is used."""
        with self._lock:
            count, last = self._counts.get(key, (0, 0.0))
        return count >= LOOP and self._clock() - last <= MEMORY
