"""What the disk of the states can do, and what has been written to it: flash wears.

disk    {"version": 1, "device": …, "read": …, "write": …, "total": …, "hours": [[hour, bytes], …]}
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from ..files import write_file
from .policy import Speeds

_FILE, _PROBE = "disk", "probe.part"
_SIZE = 8 << 20
_WEIGHT = 0.3
"""Of a new measurement beside those before it."""
_SHARE = 0.01
"""The part of the disk that may be written in an hour: cheap flash endures some 1000 writes of each cell,
and writes two or three times what it is given. 1 % in an hour is 400 times the disk in 4.5 years, day and
night."""


class Disk:
    """Measured speeds, and the bytes of the hours; not thread-safe."""

    def __init__(self, folder: str, hourly: int | None) -> None:
        """`hourly`: bytes that may be written in an hour, None for a share of the disk."""
        self._folder = folder
        self.hourly = hourly or 0
        """Bytes that may be written in an hour."""
        self._takes_share = hourly is None
        self._speeds: Speeds | None = None
        self._hours: list[tuple[int, int]] = []
        self.total = 0
        """Bytes written since the directory was made."""
        self._device = 0

    def open(self) -> None:
        """Read what is known, and measure what is not: once for a disk. Raises OSError."""
        self._device = os.stat(self._folder).st_dev
        if self._takes_share:
            about = os.statvfs(self._folder)
            self.hourly = int(about.f_blocks * about.f_frsize * _SHARE)
        values = _read(os.path.join(self._folder, _FILE))
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self.total = int(values["total"])
            self._hours = [(int(hour), int(size)) for hour, size in values["hours"]]
            if values["device"] == self._device and min(values["read"], values["write"]) > 0:
                self._speeds = Speeds(float(values["read"]), float(values["write"]))
        if self._speeds is None:
            self._speeds = _measure(os.path.join(self._folder, _PROBE))
            self._save()

    @property
    def speeds(self) -> Speeds:
        """Bytes per second, read and written."""
        assert self._speeds is not None, "open comes first"
        return self._speeds

    @property
    def recent(self) -> int:
        """Bytes written in this hour and the one before, as much of that as is less than an hour ago."""
        now = time.time() / 3600
        return sum(int(size * min(1.0, max(0.0, hour + 2 - now))) for hour, size in self._hours)

    def may_write(self, size: int) -> bool:
        """Return whether so many bytes more are within the hour's bound."""
        return self.recent + size <= self.hourly

    def note_write(self, size: int) -> None:
        """Count bytes that were written."""
        hour = int(time.time() // 3600)
        hours = dict(entry for entry in self._hours if hour - 2 < entry[0] <= hour)
        hours[hour] = hours.get(hour, 0) + size
        self._hours = sorted(hours.items())
        self.total += size
        self._save()

    def note_sync(self, size: int, seconds: float) -> None:
        """Take into account how long written bytes took to come to the disk: a part may have been there."""
        if size >= _SIZE and seconds > 0 and size / seconds < self.speeds.write:
            self._speeds = self.speeds._replace(write=_mixed(self.speeds.write, size / seconds))

    def note_read(self, size: int, seconds: float) -> None:
        """Take the time of a read into account."""
        if seconds > 0 and size >= _SIZE:
            self._speeds = self.speeds._replace(read=_mixed(self.speeds.read, size / seconds))

    def _save(self) -> None:
        values = {
            "version": 1,
            "device": self._device,
            "read": self.speeds.read,
            "write": self.speeds.write,
            "total": self.total,
            "hours": self._hours,
        }
        with contextlib.suppress(OSError):
            write_file(os.path.join(self._folder, _FILE), json.dumps(values).encode())


def _mixed(before: float, now: float) -> float:
    return (1 - _WEIGHT) * before + _WEIGHT * now


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            values: Any = json.loads(stream.read(1 << 16))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _measure(path: str) -> Speeds:
    """Write, sync and read back a few megabytes. Raises OSError."""
    block = os.urandom(1 << 20)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        started = time.perf_counter()
        for _ in range(_SIZE >> 20):
            os.write(fd, block)
        os.fsync(fd)
        written = time.perf_counter()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # else memory is measured
        begun = time.perf_counter()
        for place in range(0, _SIZE, 1 << 20):
            os.pread(fd, 1 << 20, place)
        read = time.perf_counter()
    finally:
        os.close(fd)
        os.unlink(path)
    return Speeds(_SIZE / max(read - begun, 1e-6), _SIZE / max(written - started, 1e-6))
