"""The bodies of requests, in memory and all under one limit. Files of models go to disk instead."""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading

from ..errors import RKLLamaError, TooManyBodies

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 1 << 20
"""Bytes from which on a block is mapped by itself, and gone when it is freed."""
_SMALL = 64 << 10
"""Bytes of each body that take no room, so that large ones keep no small ones out."""


class Bodies:
    """Room for `limit` bytes of bodies, those that come and those of requests that are being answered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Return whether there was room for so many bytes more; if so, they are taken."""
        with self._lock:
            fits = self._held + size <= self.limit
            if fits:
                self._held += size
        return fits

    def give_back(self, size: int) -> None:
        """Free what was taken."""
        with self._lock:
            self._held -= size


class Body:
    """One body as it comes, and the stream from which it is read, once: a buffer like waitress's own.

    No piece raises anything: `failure` says that there is no room.
    """

    def __init__(self, room: Bodies) -> None:
        self.failure: RKLLamaError | None = None
        self._room = room
        self._length = 0
        self._taken = 0
        self._data = io.BytesIO()

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes) -> None:
        """Add the next piece; after a failure it is dropped."""
        needed = max(0, self._length + len(data) - _SMALL - self._taken)
        if self.failure is not None or not self._room.take(needed):
            self.failure = TooManyBodies(self._room.limit)
            return
        self._taken += needed
        self._length += len(data)
        self._data.write(data)

    def getfile(self) -> io.BytesIO:
        """Return the application's input."""
        self._data.seek(0)
        return self._data

    def close(self) -> None:
        """Free its room."""
        self._room.give_back(self._taken)
        self._length = self._taken = 0
        self._data.close()

    __del__ = close
    """The server closes what it has read; of a connection that breaks off it drops the request only."""


def keep_little_memory() -> None:
    """Have glibc's malloc give large blocks back, and not keep those of each thread apart; see mallopt(3).

    By default it learns from a freed block of up to 32 MiB to keep the next one of that size.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 2)
