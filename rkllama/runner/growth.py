"""The memory of a model's process from run to run: known releases of the NPU's runtime leak with each."""

from __future__ import annotations

import mmap

FLOOR = 512 << 20
"""Bytes by which it must have grown: what a first long prompt takes is none the less needed."""
USES = 16
"""Uses after which it is looked at first: a model that needs the memory is not to be loaded all the time."""


class Growth:
    """What one process takes, from the end of its load on."""

    __slots__ = ("_base", "_pid", "_reported", "_uses")

    def __init__(self, pid: int, later: int = 0) -> None:
        """`later` are bytes that it takes with reason after its load: those of an image encoder."""
        self._pid = pid
        private = private_memory(pid)
        self._base = None if private is None else private + later
        """Bytes of its own, without what it shares with files; None where the system does not tell."""
        self._reported: int | None = None
        self._uses = 0

    def note_use(self, reported: int | None) -> bool:
        """Return whether its memory has doubled, after a use in which the runtime `reported` its bytes."""
        self._uses += 1
        if self._reported is None:
            self._reported = reported
        if self._uses < USES:
            return False
        now = private_memory(self._pid)
        return _has_doubled(self._base, now) or _has_doubled(self._reported, reported)


def private_memory(pid: int) -> int | None:
    """Return the bytes that a process has to itself; None where that cannot be known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as stream:
            resident, shared = map(int, stream.read().split()[1:3])
    except (OSError, ValueError):
        return None
    return (resident - shared) * mmap.PAGESIZE


def _has_doubled(base: int | None, now: int | None) -> bool:
    return base is not None and now is not None and now >= max(2 * base, base + FLOOR)
