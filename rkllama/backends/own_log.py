"""What this process has written to its own log, the only place where the runtime reports anything."""

from __future__ import annotations

import ctypes
import os
import stat
import time
from collections.abc import Callable

_LINE_BUFFERED = 1  # _IOLBF of glibc and musl
_PATIENCE = 1.0
"""Seconds in which a failure's reason has come into the log."""


class OwnOutput:
    """Reads the file that standard output goes to; without one (a terminal, a pipe) reads nothing.

    `path` names another file that holds this process's output.
    """

    def __init__(self, path: str | None = None) -> None:
        self._fd = _open(path or "/proc/self/fd/1")
        self._libc = ctypes.CDLL(None)
        self._mark = 0
        self.mark()

    def line_buffer(self) -> None:
        """Have C's stdout written line by line, so that a crash loses none."""
        stdout = ctypes.c_void_p.in_dll(self._libc, "stdout")
        self._libc.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))

    def mark(self) -> None:
        """Start over: `gained` returns what comes after this."""
        self._libc.fflush(None)
        if self._fd is not None:
            self._mark = os.fstat(self._fd).st_size

    def gained(self) -> str:
        """What was written since `mark`; where that is much, the end of it."""
        self._libc.fflush(None)
        if self._fd is None:
            return ""
        size = os.fstat(self._fd).st_size
        start = max(self._mark, size - (64 << 10))
        return os.pread(self._fd, max(0, size - start), start).decode("utf-8", "replace")

    def wait_for(self, find: Callable[[str], str | None]) -> str | None:
        """Return what `find` finds in what was written since `mark`; None where it does not come in time.

        llama.cpp's log is written by a thread, or a process, of its own: it may come after the failure.
        """
        deadline = time.monotonic() + _PATIENCE
        while (found := find(self.gained())) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _open(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None
