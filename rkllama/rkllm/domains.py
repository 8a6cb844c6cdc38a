"""Which of the NPU's memory domains a model gets.

A domain holds 4 GiB, whatever the board's memory: two models in one do not fit where each fits alone, and
a larger model takes several in a row. The first model's is 0, unless
it sees: image encoders are loaded into 0, which nobody can change.
"""

from __future__ import annotations

import threading

COUNT = 16
"""Domains of the NPU's driver."""
_SIZE = 4 << 30
_BESIDE = 1 << 30
"""Bytes that a model takes beside its weights at most: the cache of a long context is half of it."""


class Domains:
    """The domains of the models in memory; safe from any thread."""

    def __init__(self, *, several: bool = True) -> None:
        """`several`: whether the board has more than one."""
        self._several = several
        self._lock = threading.Lock()
        self._taken: dict[str, frozenset[int]] = {}

    def take(self, key: str, size: int, wanted: int | None = None, *, sees: bool = False) -> int:
        """Return the first domain for a model whose files have `size` bytes: the one that is `wanted`, else
        the first where those that it needs are free. Where none are, it is 0, as for every model alone; for
        one that `sees`, 1.
        """
        needed = -(-(size + _BESIDE) // _SIZE) if self._several else 1
        encoders = frozenset({0} if sees and self._several else ())
        with self._lock:
            first = self._first_free(needed, len(encoders)) if wanted is None else wanted
            self._taken[key] = encoders.union(range(first, first + needed))
            return first

    def give_back(self, key: str) -> None:
        """End what `take` began; without it, do nothing."""
        with self._lock:
            self._taken.pop(key, None)

    def _first_free(self, needed: int, lowest: int) -> int:
        used = {domain for taken in self._taken.values() for domain in taken}
        last = COUNT - needed if self._several else 0
        candidates = range(lowest, last + 1)
        return next(
            (first for first in candidates if used.isdisjoint(range(first, first + needed))), lowest
        )
