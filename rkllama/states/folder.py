"""The directory of states, for this user alone.

    ID.part    what the runtime writes now
    ID.kv      what it has written
    ID.json    the header: with it, and not before, ID.kv is a state
    disk       what the disk can do: see disk.py
    failed     runtimes that did not do with states what they should, a key each line; once may be chance

Whoever holds `lock` writes and removes here; others read headers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ..files import NewFile, make_private_directory, write_file
from .header import LARGEST, Header, decode, encode

_BLOCK = 1 << 20
_LOCK, _FAILED = "lock", "failed"


class Stamp(NamedTuple):
    """What changes with a file's content."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def trial_of(path: str) -> str:
    """Return the directory for states that are only measured: beside that of the saved ones, on its disk."""
    return f"{path}-bench"


class Folder:
    """A directory of states; `take` it before anything but reading headers."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lock = -1

    def take(self) -> bool:
        """Make the directory where it is missing and lock it; False if another process has it.

        Raises OSError, also for a directory that is not ours.
        """
        make_private_directory(self.path)
        about = os.stat(self.path)
        if about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise PermissionError(f"{self.path} is not for this user alone")
        fd = os.open(self._at(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._lock = fd
        return True

    def release(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def payload(self, state: str) -> str:
        """Return the path of a state's file."""
        return self._at(f"{state}.kv")

    def draft(self, state: str) -> str:
        """Make an empty file of ours for the runtime to write to; return its path. Raises OSError."""
        path = self._at(f"{state}.part")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return path

    def written(self, state: str) -> int:
        """Take what the runtime has written to a draft as a state's file; return its size.

        Raises OSError, also for a file that is not ours alone any more.
        """
        draft = self._at(f"{state}.part")
        fd = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                raise PermissionError(f"{draft} is not a file of ours")
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        os.rename(draft, self.payload(state))
        return about.st_size

    def sync(self, state: str) -> None:
        """Bring a state's file to the disk. Raises OSError."""
        fd = self._open(state)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def commit(self, state: str, header: Header, used: int) -> None:
        """Write the header of a file that is on the disk: from now on it is a state, and was last used at
        `used`, nanoseconds since the epoch. Raises OSError.
        """
        with NewFile(self.path) as new:
            os.fchmod(new.stream.fileno(), 0o600)
            new.stream.write(encode(header))
            new.stream.flush()
            # The kernel's own time is that of its last tick, which two uses may share.
            os.utime(new.stream.fileno(), ns=(used, used))
            os.fsync(new.stream.fileno())
            new.place(self._at(f"{state}.json"))
        self._sync_names()

    def _sync_names(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def stamp(self, state: str) -> Stamp | None:
        """Return the stamp of a state's file, None where it is missing or not ours alone."""
        try:
            fd = self._open(state)
        except OSError:
            return None
        try:
            about = os.fstat(fd)
            return Stamp(about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        finally:
            os.close(fd)

    def crc(self, state: str) -> int | None:
        """Read a state's file and return its CRC-32; None where it cannot be read."""
        try:
            fd = self._open(state)
        except OSError:
            return None
        try:
            return _crc(fd)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _open(self, state: str) -> int:
        fd = os.open(self.payload(state), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not _is_private(fd):
            os.close(fd)
            raise PermissionError(f"{self.payload(state)} is not a file of ours alone")
        return fd

    def touch(self, state: str, used: int) -> None:
        """Note when a state was used (nanoseconds since the epoch), for the next process too."""
        with contextlib.suppress(OSError):
            os.utime(self._at(f"{state}.json"), ns=(used, used))

    def remove(self, state: str) -> None:
        """Remove a state, its header first."""
        for ending in ("json", "kv", "part"):
            with contextlib.suppress(OSError):
                os.unlink(self._at(f"{state}.{ending}"))

    def headers(self) -> Iterator[tuple[str, Header, int]]:
        """Yield each state here, its header and when it was last used (nanoseconds since the epoch)."""
        for name in self._names():
            state, dot, ending = name.partition(".")
            if dot and ending == "json" and (found := self._read(name)) is not None:
                yield (state, *found)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except OSError:
            return []

    def _read(self, name: str) -> tuple[Header, int] | None:
        try:
            fd = os.open(self._at(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            header = decode(os.read(fd, LARGEST)) if _is_private(fd) else None
            return None if header is None else (header, os.fstat(fd).st_mtime_ns)
        except OSError:
            return None
        finally:
            os.close(fd)

    def failures(self, key: str) -> int:
        """Return how often a runtime has failed with states."""
        return self._failed().count(key)

    def _failed(self) -> list[str]:
        try:
            with open(self._at(_FAILED), encoding="ascii") as stream:
                return stream.read(1 << 16).split()
        except (OSError, ValueError):
            return []

    def note_failures(self, key: str, times: int) -> None:
        """Remember that a runtime has failed, until `forget_failed`."""
        lines = "".join(f"{line}\n" for line in (*self._failed(), *[key] * times))
        with contextlib.suppress(OSError):
            write_file(self._at(_FAILED), lines.encode())

    def forget_failed(self) -> None:
        """Let every runtime try again."""
        with contextlib.suppress(OSError):
            os.unlink(self._at(_FAILED))

    def delete(self) -> None:
        """Remove the directory with all that is in it, unless another process has it."""
        if not os.path.isdir(self.path):
            return
        with contextlib.suppress(OSError):
            if self.take():
                self.sweep(set())
                for name in (_LOCK, _FAILED, "disk"):
                    self._remove_name(name)
                os.rmdir(self.path)
        self.release()

    def sweep(self, kept: set[str]) -> None:
        """Remove what belongs to none of the states in `kept`: what killed processes have left."""
        for name in self._names():
            state, _, ending = name.partition(".")
            left = name.startswith(".new-") or ending == "part"
            if left or (ending in ("kv", "json") and state not in kept):
                self._remove_name(name)

    def _remove_name(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._at(name))


def _is_private(fd: int) -> bool:
    about = os.fstat(fd)
    ours = about.st_uid == os.geteuid() and about.st_nlink == 1
    return ours and stat.S_ISREG(about.st_mode) and not about.st_mode & 0o077


def _crc(fd: int) -> int:
    crc, place = 0, 0
    while block := os.pread(fd, _BLOCK, place):
        crc, place = zlib.crc32(block, crc), place + len(block)
    return crc
