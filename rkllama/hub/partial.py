"""An unfinished download on disk: `FILE.part`, and `FILE.part.json`, which says what it is part of.

A part outlives its process: the next one that asks for the same content continues it, one that asks for
another content starts afresh. The small file is also the lock. It stays until the finished file has its
name and its hash is known, so that the next owner of the lock always sees the file or the part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..errors import DiskFull, PullError
from ..files import RESERVE, free_space, is_full, write_file
from ..models.scan import PART

CHUNK = 1 << 20


class Part:
    """The locked part of the file `path`, which will have `size` bytes and the hash `etag`.

    `etag` is a hash (see `is_hash`); with anything else nothing but the size is compared.
    """

    def __init__(self, lock: int, path: str, size: int, etag: str) -> None:
        self.path = path
        self.total = size
        self.etag = etag
        self.size = 0
        self.resumed = 0
        self._hash = _hasher(etag, size)
        self._lock = lock
        self._over = False
        self._fd = _open(_part(path))

    @classmethod
    def acquire(cls, path: str, size: int, etag: str) -> Part | None:
        """Return the part of `path` for this process alone; None while another one is writing it."""
        os.makedirs(os.path.dirname(path), exist_ok=True)  # the one before us may have given up
        lock = _open(_identity(path))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us may have finished, and taken what we have just locked away.
            if os.path.samestat(os.fstat(lock), os.stat(_identity(path))):
                return cls(lock, path, size, etag)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock; a part with something in it stays for a later attempt."""
        if not self._over and os.fstat(self._fd).st_size == 0:
            self.discard()
        os.close(self._fd)
        if self._over:
            _unlink(_identity(self.path))
        os.close(self._lock)

    def resume(self) -> Iterator[int]:
        """Take over what an earlier attempt left, yielding how many bytes have been read again.

        Nothing is taken over when it belongs to another content.
        """
        left = os.fstat(self._fd).st_size
        identity = {"size": self.total, "etag": self.etag}
        if read_json(_identity(self.path)) != identity:
            self.reset()
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, json.dumps(identity).encode(), 0)
            return
        os.lseek(self._fd, 0, os.SEEK_SET)
        while self.size < left and (chunk := os.read(self._fd, CHUNK)):
            self._hash.update(chunk)
            self.size += len(chunk)
            yield self.size
        self.resumed = self.size

    def reserve(self) -> None:
        """Raise DiskFull when the rest does not fit on the disk."""
        needed = self.total - self.size
        free = free_space(os.path.dirname(self.path))
        if needed and needed + RESERVE > free:
            raise self._disk_full(free)

    def write(self, chunk: bytes) -> None:
        """Append `chunk`. Raises DiskFull; what fitted stays."""
        view = memoryview(chunk)
        while view:
            try:
                count = os.write(self._fd, view)
            except OSError as error:
                raise self._explained(error) from error
            self._hash.update(view[:count])
            self.size += count
            view = view[count:]

    def reset(self) -> None:
        """Start again with nothing."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size = self.resumed = 0
        self._hash = _hasher(self.etag, self.total)

    def matches(self) -> bool:
        """Return whether size and hash are as announced."""
        return self.size == self.total and (
            self._hash.name == "none" or self._hash.hexdigest() == self.etag
        )

    def finish(self) -> None:
        """Give the complete file its name, so that it is there whole or not at all."""
        os.fsync(self._fd)
        os.replace(_part(self.path), self.path)
        self._over = True
        _sync_directory(os.path.dirname(self.path))

    def discard(self) -> None:
        """Remove the part."""
        _unlink(_part(self.path))
        self._over = True

    def _disk_full(self, free: int) -> DiskFull:
        needed = self.total - self.size
        return DiskFull(
            f"{os.path.basename(self.path)} needs {needed / 1e6:.0f} MB more, and the disk of"
            f" {os.path.dirname(self.path)} has only {free / 1e6:.0f} MB left",
            needed=needed,
            available=free,
        )

    def _explained(self, error: OSError) -> PullError:
        if is_full(error):
            return self._disk_full(free_space(os.path.dirname(self.path)))
        if error.errno == errno.EFBIG:
            return PullError(
                f"the file system of {self.path} cannot hold a file of {self.total / 1e9:.1f} GB",
                hint="Set RKLLAMA_MODELS to a directory on another file system, such as ext4.",
            )
        return PullError(f"{self.path} cannot be written: {error.strerror}")


def unfinished(path: str) -> int:
    """Return how many bytes of `path` lie there unfinished."""
    try:
        return os.stat(_part(path)).st_size
    except OSError:
        return 0


class FileCheck:
    """Whether the file `path` has the hash `etag`: iterate, then ask `matches`."""

    def __init__(self, path: str, etag: str) -> None:
        self.path = path
        self.etag = etag
        self.matches = False

    def __iter__(self) -> Iterator[int]:
        """Read the file, yielding how many bytes have been read."""
        with open(self.path, "rb") as stream:
            hasher = _hasher(self.etag, os.fstat(stream.fileno()).st_size)
            while hasher.name != "none" and (chunk := stream.read(CHUNK)):
                hasher.update(chunk)
                yield stream.tell()
        self.matches = hasher.name == "none" or hasher.hexdigest() == self.etag

    def run(self) -> bool:
        """Read all of the file and return whether it matches."""
        for _ in self:
            pass
        return self.matches


def write_json(path: str, value: object) -> None:
    """Replace the file `path` in one step."""
    write_file(path, json.dumps(value).encode())


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def read_json(path: str) -> object:
    """Return what the file `path` holds; None if it is missing or not JSON."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read(CHUNK))
    except (OSError, ValueError, RecursionError):
        return None


class _NoHash:
    """Stands in if the Hub announces no hash that can be checked."""

    name = "none"

    def update(self, data: object) -> None: ...

    def hexdigest(self) -> str:
        return ""


def is_hash(etag: str) -> bool:
    """Return whether this is a hash of a file's content: a sha256, or a git object id (a sha1).

    Any other server may send an md5, or what means something to itself alone.
    """
    return bool(re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", etag))


def _hasher(etag: str, size: int) -> Any:
    if is_hash(etag) and len(etag) == 64:
        return hashlib.sha256()
    if is_hash(etag):  # a git object: a header, then the content
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return _NoHash()


def _part(path: str) -> str:
    return f"{path}{PART}"


def _identity(path: str) -> str:
    return f"{path}{PART}.json"


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
