"""Where this machine's `/proc`, `/sys`, `/dev` and `/usr/lib` are: RKLLAMA_SYSROOT may put them elsewhere.

Tests set it, and whoever looks at the files of another board. Everything that reads the board comes here;
what a process asks about itself or its children (its log, its memory) does not.
"""

from __future__ import annotations

import os

_LARGEST = 1 << 16
"""Bytes that are read of one of the kernel's files."""


def system_path(path: str) -> str:
    """Return where the absolute `path` of the system is to be read."""
    root = os.environ.get("RKLLAMA_SYSROOT")
    return root.rstrip("/") + path if root else path


def read_text(path: str) -> str | None:
    """Return what stands in one of the system's files, without the white space around it; None where
    it cannot be read.
    """
    try:
        fd = os.open(system_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Not open(): its buffers cost more than the read, and a telling of the board is fifty of these.
        return os.read(fd, _LARGEST).decode(errors="replace").strip()
    except OSError:
        return None
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    """Return the whole number in one of the system's files; None where there is none."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def list_names(directory: str) -> list[str]:
    """Return the names in one of the system's directories, in order; none where it cannot be read."""
    try:
        return sorted(os.listdir(system_path(directory)))
    except OSError:
        return []
