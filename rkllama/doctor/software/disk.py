"""The disk that the models are on: its room and its speed."""

from __future__ import annotations

import mmap
import os
import shlex
import time
from collections.abc import Iterator

from ...files import RESERVE, free_space, gigabytes
from ..finding import Check, Finding, Status, Subject
from .home import existing
from .inventory import read_models

_LITTLE = 2 << 30
"""Bytes of room below which a usual model does not fit."""
_MOST_READ = 64 << 20
_CHUNK = 1 << 20
_MOST_TIME = 0.4
"""Seconds that reading may take."""
_SLOW = 25e6
"""Bytes a second below which a model takes minutes to load."""


def check_disk_room(subject: Subject) -> Iterator[Finding]:
    """Is there room for models?"""
    directory = subject.settings.models
    try:
        free = free_space(directory)
    except OSError:
        return
    status: Status = "broken" if free < RESERVE else "warning" if free < _LITTLE else "good"
    yield Finding(
        check="disk-room",
        status=status,
        title="Disk space",
        found=f"{gigabytes(free)} free",
        good=None if status == "good" else f"{gigabytes(_LITTLE)}, or what the next model needs",
        advice=None
        if status == "good"
        else "Remove models with `rkllama rm`, or set RKLLAMA_MODELS to a directory on another disk.",
        cure=() if status == "good" else (f"du -xh -d 2 {shlex.quote(existing(directory))}",),
        source=directory,
    )


def check_disk_speed(subject: Subject) -> Iterator[Finding]:
    """How fast are models read? The largest one is read in part, not from memory."""
    entries = [one for one in read_models(subject).entries if one.format]
    largest = max(entries, key=lambda entry: entry.size, default=None)
    if largest is None or largest.size < _CHUNK:
        return
    try:
        speed = read_speed(largest.path)
    except OSError:
        return  # that it cannot be read is told where its content is looked at
    if not speed:
        return  # it has just been emptied
    slow = speed < _SLOW
    seconds = largest.size / speed
    loads = f"; {largest.name} takes {seconds:.0f} s" if seconds >= 1 else ""
    yield Finding(
        check="disk-speed",
        status="warning" if slow else "good",
        title="Disk speed",
        found=f"{speed / 1e6:.0f} MB a second{loads}",
        good=f"{_SLOW / 1e6:.0f} MB a second or more" if slow else None,
        advice="Models load slowly. Put them on an eMMC or NVMe disk, or a faster card."
        if slow
        else None,
        source=largest.path,
    )


def read_speed(path: str) -> float:
    """Return the bytes a second with which a file comes from its disk. Raises OSError.

    What lies in the page cache is dropped from it first, as far as no process has it mapped.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = min(os.fstat(fd).st_size, _MOST_READ)
        os.posix_fadvise(fd, 0, size, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, _CHUNK) as buffer:  # no new memory for each chunk
            done, start = 0, time.perf_counter()
            taken = 1e-9
            while done < size and taken < _MOST_TIME:
                count = os.preadv(fd, [buffer], done)
                if not count:
                    break
                done += count
                taken = max(1e-9, time.perf_counter() - start)
        os.posix_fadvise(fd, 0, size, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return done / taken


CHECKS: tuple[Check, ...] = (check_disk_room, check_disk_speed)
