"""The lock of the NPU's owner: one per machine, since two processes on the NPU at once freeze boards.

It is an flock on a file that names its holder. A model's process inherits it, so that the lock outlives a
killed parent for just as long as that process still holds the NPU.

`rkllama list` imports this module: hence nothing heavy at its top.
"""

from __future__ import annotations

import os

from ..errors import LoadFailed, NPUBusy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_NAME = "rkllama-npu.lock"


def default_path() -> str:
    """Return a file that every user of the machine can open."""
    directory = "/run/lock"
    # Where only root may write there, root may have made the file: then it is everybody's.
    if not any(os.access(p, os.W_OK) for p in (directory, os.path.join(directory, _NAME))):
        import tempfile

        directory = tempfile.gettempdir()
    return os.path.join(directory, _NAME)


def holder(path: str | None = None) -> dict[str, Any] | None:
    """Who holds the lock: its `pid`, `command` and, for a server, `url`; None when nobody does.

    It only reads: trying the lock could make the rightful owner's attempt fail.
    """
    try:
        fd = os.open(path or default_path(), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = _read(fd)
    finally:
        os.close(fd)
    return about if os.path.isdir(f"/proc/{about.get('pid')}") else None


def _read(fd: int) -> dict[str, Any]:
    data = os.pread(fd, 4096, 0)
    if not data:
        return {}
    import json

    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


class NPULock:
    """The lock of this process, taken at most once; safe from several threads."""

    def __init__(self, path: str | None, command: str, url: str | None = None) -> None:
        import threading

        self._mutex = threading.Lock()
        self._path = path or default_path()
        self._about = {"pid": os.getpid(), "command": command, "url": url}
        self._fd = -1

    @property
    def fd(self) -> int:
        """The file descriptor that a child inherits; -1 while the lock is not held."""
        return self._fd

    def acquire(self) -> None:
        """Take the lock. Raises NPUBusy naming the holder, LoadFailed when the file cannot be used."""
        with self._mutex:
            if self._fd >= 0:
                return
            fd = self._open()
            try:
                self._take(fd)
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd

    def _take(self, fd: int) -> None:
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NPUBusy(describe_holder(_read(fd))) from None
        except OSError as error:
            raise self._unusable(error) from None
        import json

        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(self._about).encode(), 0)
        except OSError as error:  # its file system is full
            raise self._unusable(error) from None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            # Without O_CREAT first: in a sticky directory the kernel may forbid it for others' files.
            return os.open(self._path, flags)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fd = os.open(self._path, flags | os.O_CREAT, 0o666)
            os.fchmod(fd, 0o666)  # regardless of the umask: other users must be able to lock it
        except OSError as error:
            raise self._unusable(error) from None
        return fd

    def _unusable(self, error: OSError) -> LoadFailed:
        return LoadFailed(
            f"the NPU's lock file {self._path} cannot be used: {error.strerror}",
            hint="Delete it if no RKLLama is running, or set RKLLAMA_LOCK to another file.",
        )

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        with self._mutex:
            if self._fd >= 0:
                os.ftruncate(self._fd, 0)
                os.close(self._fd)
                self._fd = -1


def describe_holder(about: dict[str, Any]) -> str:
    """A holder in words, from what stands in the file."""
    if not about:
        return "another process"
    at = f" at {about['url']}" if about.get("url") else ""
    return f"`{about.get('command', '?')}` (process {about.get('pid', '?')}){at}"
