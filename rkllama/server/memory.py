"""Memory that is given back to the system once a large body has been answered."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 1 << 20
"""Bytes from which on a block is mapped by itself, and gone when it is freed."""


def keep_little_memory() -> None:
    """Have glibc's malloc give large blocks back, and not keep those of each thread apart; see mallopt(3).

    By default it learns from a freed block of up to 32 MiB to keep the next one of that size.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 2)
