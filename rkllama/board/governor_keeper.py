"""What of the board's governors is changed, and how it is put back whatever happens to those who change it.

Several helpers (see governor_helper.py) may hold the governors at once, and share a directory: `before.json`
has what stood there before, on the disk before anything is written. Whoever holds them shares the lock on
`holding`; who can have that alone is the last one, and puts back. The kernel gives up the lock of a helper
that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..files import NewFile, make_directory, open_regular
from ..types import Clock
from .sysroot import read_text, system_path
from .telemetry import read_cpu_clocks, read_ddr_clock, read_npu_clock

PERFORMANCE = "performance"
_LARGEST = 1 << 16
"""Bytes of what is remembered: a board has a handful of clocks."""


class Report(NamedTuple):
    """What a hold has brought."""

    set: tuple[str, ...]
    """The clocks whose governor is "performance" now and was another one."""
    refused: dict[str, str]
    """Those where that could not be written, and why."""


def scaled_clocks() -> list[Clock]:
    """Return the clocks whose governor decides how fast a model runs."""
    clocks = (read_npu_clock(), read_ddr_clock(), *read_cpu_clocks())
    return [clock for clock in clocks if clock is not None and clock.governor is not None]


class Keeper:
    """Sets the governors, and remembers in `directory` what stood there before."""

    def __init__(self, directory: str) -> None:
        """Put back what a killed helper has left. Raises OSError where the directory cannot be made."""
        make_directory(directory)
        self._before = os.path.join(directory, "before.json")
        self._directory = directory
        self._hold = -1
        """The lock that all helpers share that hold the governors; -1 while this one does not."""
        self._restore_if_last(self._lock("holding"))

    def hold(self) -> Report:
        """Set "performance" where the kernel offers it. Again, it does nothing: what somebody has changed
        meanwhile is not overruled. Raises OSError where what was before cannot be kept.
        """
        if self._hold >= 0:
            return Report((), {})
        hold = self._lock("holding")
        try:
            fcntl.flock(hold, fcntl.LOCK_SH)
            with self._changing():
                report = self._set()
        except BaseException:
            self._restore_if_last(hold)  # some may be set already
            raise
        self._hold = hold
        return report

    def release(self) -> None:
        """Put back what was before, unless another helper holds the governors, too."""
        if self._hold >= 0:
            hold, self._hold = self._hold, -1
            self._restore_if_last(hold)

    def _set(self) -> Report:
        before = self._read()
        changes = {
            clock.governor_file: clock
            for clock in scaled_clocks()
            if clock.governor_file not in before
            if clock.governor != PERFORMANCE
            if {PERFORMANCE, clock.governor} <= {*clock.governors}  # it can be put back
        }
        if not changes:
            return Report((), {})
        for file, clock in changes.items():
            before[file] = str(clock.governor)
        self._write(before)
        refused = {}
        for file, clock in changes.items():
            try:
                _write_governor(file, PERFORMANCE)
            except OSError as error:
                refused[clock.name] = error.strerror or str(error)
                del before[file]
        if refused:
            self._write(before)
        return Report(tuple(c.name for c in changes.values() if c.name not in refused), refused)

    def _restore_if_last(self, hold: int) -> None:
        """Put back what was before if no other helper holds the lock `hold`, which is closed."""
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._restore()
        except BlockingIOError:
            pass  # the last of the others does it
        finally:
            os.close(hold)

    def _restore(self) -> None:
        """Put back what can be; the rest is kept for the next helper: a CPU that is switched off has no
        governor, and comes back with the one that it had.
        """
        before, clocks = self._read(), {clock.governor_file: clock for clock in scaled_clocks()}
        left = {
            file: governor
            for file, governor in before.items()
            if not _put_back(clocks.get(file), governor)
        }
        with contextlib.suppress(OSError):
            if left:
                self._write(left)
            else:
                os.unlink(self._before)

    def _lock(self, name: str) -> int:
        path = os.path.join(self._directory, name)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only helper that sets governors."""
        lock = self._lock("changing")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self) -> dict[str, str]:
        try:
            with open_regular(self._before) as stream:
                values = json.loads(stream.read(_LARGEST))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(values, dict):
            return {}
        return {file: name for file, name in values.items() if isinstance(name, str)}

    def _write(self, before: dict[str, str]) -> None:
        """Write what was before to the disk."""
        with NewFile(self._directory) as new:
            new.stream.write(json.dumps(before).encode())
            new.stream.flush()
            os.fsync(new.stream.fileno())
            new.place(self._before)


def _put_back(clock: Clock | None, governor: str) -> bool:
    """Return whether nothing is left to be put back; a governor that somebody has set meanwhile stays."""
    if clock is None:
        return False
    if governor in clock.governors and clock.governor == PERFORMANCE:
        try:
            _write_governor(clock.governor_file, governor)
        except OSError:
            return False
    return True


def _write_governor(file: str, governor: str) -> None:
    # The kernel's links stay in /sys; a tree that stands in for a board may have any.
    kernels = os.path.realpath(system_path("/sys"))
    if not os.path.realpath(os.path.dirname(system_path(file))).startswith(f"{kernels}/"):
        raise OSError(errno.EXDEV, "it leads out of /sys")
    fd = os.open(system_path(file), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, f"{governor}\n".encode())
    finally:
        os.close(fd)
    if read_text(file) != governor:  # a device may have a governor that cannot be left
        raise OSError(errno.EINVAL, "the kernel did not take it")
