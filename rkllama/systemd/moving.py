"""Moves a user's models and runtimes to the service: by renaming them, else they are copied and compared.

Root does this in a directory that belongs to somebody else, who may change it meanwhile. So every path is
walked by open directories that are that user's and never through a link below the first, and a file is
touched only if it is a plain one with a single name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import DiskFull, RKLLamaError
from ..files import RESERVE, free_space, gigabytes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20
_DEEPEST = 32
"""Folders in each other: each takes two open directories, and of models there are three or four."""
_PART = ".moving"
"""What the name of a copy ends with until it is whole."""


class Owner(NamedTuple):
    """Whose files they become."""

    uid: int
    gid: int


class Moved(NamedTuple):
    """What came of it: files and bytes that were moved, and what stayed with the reason."""

    files: int
    size: int
    stayed: list[str]


Report = Callable[[str, int], object]
"""Is told of the file that is being moved, and of how many bytes there are together so far."""


class Move:
    """Moves what is in a directory into another one, which keeps what it has."""

    def __init__(self, source: str, uid: int, target: str, owner: Owner) -> None:
        """`uid` is whose `source` has to be. Nothing is looked at before `size` or `run`."""
        self._uid = uid
        self._source = source
        self._target = target
        self._owner = owner
        self._files = self._bytes = 0
        self._stayed: list[str] = []

    def size(self) -> int:
        """Return how many bytes are there to be moved; 0 where there is no such directory."""
        with contextlib.suppress(OSError), _opened(self._source) as source:
            return sum(about.st_size for _, about in _walk(source))
        return 0

    def run(self, report: Report) -> Moved:
        """Move. What was interrupted goes on. Raises DiskFull, RKLLamaError."""
        try:
            with _opened(self._source) as source, _opened(self._target) as target:
                self._check_room(source)
                self._move_tree(source, target, "", report)
        except OSError as error:
            raise RKLLamaError(
                f"{error.filename or self._source} cannot be moved to {self._target}: {error.strerror}",
                hint="Run the command again: what has been moved is not moved twice.",
            ) from None
        return Moved(self._files, self._bytes, self._stayed)

    def _check_room(self, source: int) -> None:
        if os.fstat(source).st_dev == os.stat(self._target).st_dev:
            return
        needed = sum(about.st_size for _, about in _walk(source))
        available = free_space(self._target) - RESERVE
        if needed > available:
            raise DiskFull(
                f"{self._target} has room for {gigabytes(max(0, available))}, but {gigabytes(needed)} "
                "are to be moved there",
                needed=needed,
                available=max(0, available),
            )

    def _move_tree(self, source: int, target: int, path: str, report: Report) -> None:
        if os.fstat(source).st_uid not in (self._uid, self._owner.uid):
            self._stayed.append(f"{path or self._source}: it belongs to another user")
            return
        if path.count("/") >= _DEEPEST:
            self._stayed.append(f"{path}: it lies too deep")
            return
        for name in sorted(os.listdir(source)):
            shown = os.path.join(path, name)
            about = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode):
                report(shown, self._bytes)
                self._move_file(source, target, name, shown)
                continue
            _make_directory(target, name, self._owner)
            with _opened(name, source) as inner, _opened(name, target) as place:
                self._move_tree(inner, place, shown, report)
            with contextlib.suppress(OSError):  # something stayed in it
                os.rmdir(name, dir_fd=source)

    def _move_file(self, source: int, target: int, name: str, shown: str) -> None:
        if name.endswith(_PART):
            return
        with _file(name, source) as fd:
            reason = "it is a link or a device" if fd is None else self._fault(fd)
            if fd is None or reason:
                self._stayed.append(f"{shown}: {reason}")
                return
            size = os.fstat(fd).st_size
            if _exists(name, target):
                if not _is_same(fd, name, target):
                    self._stayed.append(f"{shown}: there is another file of this name")
                    return
                os.unlink(name, dir_fd=source)
            else:
                self._bring(fd, source, target, name)
            self._files += 1
            self._bytes += size

    def _fault(self, fd: int) -> str:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            return "it is not a plain file"
        if about.st_uid not in (0, self._uid, self._owner.uid):
            return "it belongs to another user"
        return "it has several names" if about.st_nlink > 1 else ""

    def _bring(self, fd: int, source: int, target: int, name: str) -> None:
        """Move one file whose name is free; its owner changes before anybody finds it there."""
        if os.fstat(fd).st_dev == os.fstat(target).st_dev:
            self._give(fd, os.fstat(fd))
            try:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:  # it is mounted in two places
                    raise
        self._copy_over(fd, target, name)
        os.unlink(name, dir_fd=source)

    def _copy_over(self, fd: int, target: int, name: str) -> None:
        part = f"{name[: 255 - len(_PART)]}{_PART}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=target)  # of a move that was interrupted
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(part, flags, 0o600, dir_fd=target)
        try:
            if _copy(fd, copy) != _digest(copy):
                raise OSError(errno.EIO, "the copy differs from the original", name)
            about = os.fstat(fd)
            self._give(copy, about)
            os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))
            os.rename(part, name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=target)
            raise
        finally:
            os.close(copy)

    def _give(self, fd: int, about: os.stat_result) -> None:
        os.fchmod(fd, stat.S_IMODE(about.st_mode) & 0o755 | 0o600)
        os.fchown(fd, *self._owner)


def make_place(parent: str, name: str, owner: Owner) -> None:
    """Make the directory `name` in `parent` for `owner`, where it is missing. Raises OSError."""
    with _opened(parent) as place:
        _make_directory(place, name, owner)


def _make_directory(parent: int, name: str, owner: Owner) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    with _opened(name, parent) as place:
        if os.fstat(place).st_uid == os.geteuid():  # made now, or by a move that was interrupted
            os.fchown(place, *owner)


@contextlib.contextmanager
def _opened(path: str, parent: int | None = None) -> Iterator[int]:
    """A directory, through no link in its last part. Raises OSError."""
    fd = os.open(path, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _file(name: str, parent: int) -> Iterator[int | None]:
    """A file to read; None for a link, a socket and the like."""
    try:
        fd = os.open(name, _FILE, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _walk(directory: int, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the plain files of a directory and of those below it, as deep as they are moved."""
    for name in os.listdir(directory):
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(about.st_mode):
            yield name, about
        elif stat.S_ISDIR(about.st_mode) and depth < _DEEPEST:
            with _opened(name, directory) as inner:
                yield from _walk(inner, depth + 1)


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_same(fd: int, name: str, parent: int) -> bool:
    """Return whether an open file has the content of another one: then a move was interrupted after it."""
    with _file(name, parent) as other:
        if other is None or not stat.S_ISREG(os.fstat(other).st_mode):
            return False
        if os.fstat(fd).st_size != os.fstat(other).st_size:
            return False
        return _digest(fd) == _digest(other)


def _copy(source: int, target: int) -> bytes:
    """Copy an open file onto the disk; return the sha256 of what was read."""
    digest, place = hashlib.sha256(), 0
    while block := os.pread(source, _BLOCK, place):
        digest.update(block)
        written = 0
        while written < len(block):
            written += os.pwrite(target, block[written:], place + written)
        place += len(block)
    os.fsync(target)
    os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read next comes from the disk
    return digest.digest()


def _digest(fd: int) -> bytes:
    digest, place = hashlib.sha256(), 0
    while block := os.pread(fd, _BLOCK, place):
        digest.update(block)
        place += len(block)
    return digest.digest()
