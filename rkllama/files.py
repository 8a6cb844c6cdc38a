"""Files: where this package lies, what a disk has room for, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat

from .errors import DiskFull, RKLLamaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

IMPORT_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory from which `import rkllama` gets this very package, for the processes that it starts."""


RESERVE = 32 << 20
"""Bytes that downloads and uploads leave free: a system disk that is full to the last block stops working."""
_NEW = ".new-"


def gigabytes(size: float) -> str:
    """Return bytes as people read them: "1.9 GB", "340 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 999_500_000 else f"{size / 1e6:.0f} MB"


def is_full(error: OSError) -> bool:
    """Return whether an error says that there is no room, on the disk or in the user's quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_space(directory: str) -> int:
    """Free bytes where `directory` lies, or will lie: for one that is missing, where it would be made."""
    directory = os.path.abspath(directory)
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    return shutil.disk_usage(directory).free


def private(path: str, flags: int) -> int:
    """An opener for open(): the file is its owner's alone, whatever the umask, also one that was wider.

    A device, and another user's file, stays as it is. Raises OSError.
    """
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode) and stat.S_IMODE(about.st_mode) != 0o600:
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o600)
    return fd


def open_regular(path: str) -> BinaryIO:
    """Open a file to read. Raises OSError, also for what is none: a pipe would be waited for, and a terminal
    would take the keys.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a file", path)
    return os.fdopen(fd, "rb")


def make_private_directory(path: str) -> None:
    """Make a directory of ours, and those above it that are missing, for this user alone.

    One that is there and ours is closed to others, too. Raises OSError.
    """
    make_directory(path)
    about = os.stat(path)
    if about.st_uid == os.geteuid() and about.st_mode & 0o077:
        os.chmod(path, 0o700)


def make_directory(path: str) -> None:
    """Make a directory, and those above it that are missing, for this user alone, whatever the umask.

    What is there is left as it is: its owner may share it. Raises OSError.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if not os.path.exists(parent):
        make_directory(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    else:
        os.chmod(path, 0o700)


def not_written(error: OSError, path: str) -> RKLLamaError:
    """Return what to tell of a file or folder `path` that could not be written: DiskFull if that is why."""
    text, folder = f"{path} cannot be written: {error.strerror or error}", os.path.dirname(path)
    if is_full(error):
        return DiskFull(text, needed=1, available=free_space(folder))
    return RKLLamaError(text, hint=f"Check that RKLLama may write to {folder}.")


class NewFile:
    """A file in `directory` that nobody sees until it is whole: write to `stream`, then `place` it.

    Until then it has a hidden name of its own; leaving the block, or `discard`, removes what was not
    placed. Its permissions are as the umask has them. Everything raises OSError but `discard`.
    """

    def __init__(self, directory: str, buffering: int = -1) -> None:
        while True:
            self._path = os.path.join(directory, f"{_NEW}{os.urandom(8).hex()}")
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            if _hold(fd, self._path):
                break
            os.close(fd)
        self.stream = os.fdopen(fd, "wb", buffering)
        self._placed = False

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def place(self, path: str) -> None:
        """Make it the file `path` of the same file system in one step, in the place of what is there."""
        self.stream.flush()
        os.replace(self._path, path)  # still locked: nobody takes it for a leftover
        self._placed = True
        self.stream.close()

    def discard(self) -> None:
        """Remove it, unless it has been placed."""
        if not self._placed:
            with contextlib.suppress(OSError):
                self.stream.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def write_file(path: str, content: bytes, mode: int | None = None) -> None:
    """Replace the file `path` in one step, also where a link has its name, with `mode` as its permissions.

    Raises OSError.
    """
    with NewFile(os.path.dirname(path)) as new:
        if mode is not None:
            os.fchmod(new.stream.fileno(), mode)
        new.stream.write(content)
        new.place(path)


def copy_file(source: str, path: str, mode: int | None = None) -> None:
    """Replace the file `path` by a copy in one step, with `mode` as its permissions. Raises OSError."""
    with open(source, "rb") as stream, NewFile(os.path.dirname(path)) as new:
        if mode is not None:
            os.fchmod(new.stream.fileno(), mode)
        shutil.copyfileobj(stream, new.stream, 1 << 20)
        new.place(path)


def link_target(path: str) -> str | None:
    """Return where the link leads that `path` is, or that its folder is; None for what is no link."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder = os.path.dirname(path)
    return os.path.realpath(folder) if os.path.islink(folder) else None


# --- What is left of processes that were killed ------------------------------------------------


def _hold(fd: int, path: str) -> bool:
    """Lock a new file until it is closed; False if `clear_new_files` has just found it and removes it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks, on which nothing is cleared either
        return True


def clear_new_files(directory: str) -> None:
    """Remove the files there that a NewFile of a killed process has left. Those of a live one are locked."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_NEW) and entry.is_file(follow_symlinks=False):
                _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(fd)
