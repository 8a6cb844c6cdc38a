"""The lock of the NPU's owner: one per machine, since two processes on the NPU at once freeze boards.

It is an flock on a file that names its holder. A model's process inherits it, so that the lock outlives a
killed parent for just as long as that process still holds the NPU.

`rkllama list` imports this module: hence nothing heavy at its top.
"""

from __future__ import annotations

import errno
import os

from ..config import is_this_machine, server_address
from ..errors import ConfigError, LoadFailed, NPUBusy, see_doctor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_NAME = "rkllama-npu.lock"
_LARGEST = 4096
"""Bytes that a lock file may have."""
_LONGEST = 200
"""Characters of a text in it that are shown."""
_SAFELY = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS, _READING = os.O_RDWR | _SAFELY, os.O_RDONLY | _SAFELY
SERVICE_USER = "rkllama"
"""The user that the service for all users runs as; see systemd/data."""


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

    What is not known for sure is missing: anybody may write into the file. `pid` is what the kernel
    says, `command` is only believed of a process that is this user's, root's or the service's, and
    `url` where moreover only such users listen at that address of this machine.

    It only reads: trying the lock could make the rightful owner's attempt fail.
    """
    try:
        fd = os.open(path or default_path(), _READING)
    except OSError:
        return None
    try:
        return _about(fd) if _defect(fd) is None else None
    finally:
        os.close(fd)


def fault(path: str | None = None) -> str | None:
    """Return why the lock's file cannot be used; None: it can, or is not there yet. It is not locked."""
    try:
        fd = os.open(path or default_path(), _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _reason(error)
    try:
        return _defect(fd)
    finally:
        os.close(fd)


def _defect(fd: int) -> str | None:
    """Return why an open file cannot be the lock; None for one that can."""
    import stat

    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        return "it is no plain file"
    if about.st_nlink != 1:
        return "it has several names" if about.st_nlink else "it has just been deleted"
    if about.st_size > _LARGEST:
        return "it holds something else"
    if about.st_uid != os.geteuid() and not about.st_mode & stat.S_IWOTH:
        return "it belongs to another user, who has it for himself"
    return None


def _about(fd: int) -> dict[str, Any] | None:
    """Return what is known of the process that holds the lock; see `holder`."""
    from .proc import locking_process, uids_of

    pid = locking_process(fd)
    if pid is None:
        return None
    if not os.path.isdir(f"/proc/{pid}"):
        return {}  # its child has the lock now, or it is in another container
    about: dict[str, Any] = {"pid": pid}
    trusted = _trusted_uids()
    uids = uids_of(pid)
    if not uids or not uids <= trusted:
        return about
    values = _read(fd)
    about["command"] = _plain(values.get("command"))
    url = _plain(values.get("url"))
    if url and _is_trusted_address(url, trusted):
        about["url"] = url
    return about


def _trusted_uids() -> set[int]:
    """This user, root, and the user that the service runs as, where there is one."""
    import pwd

    uids = {0, os.getuid(), os.geteuid()}
    try:
        return {*uids, pwd.getpwnam(SERVICE_USER).pw_uid}
    except KeyError:
        return uids


def _is_trusted_address(url: str, trusted: set[int]) -> bool:
    """Return whether a URL leads to a server of these users on this machine.

    Everybody can write to the file while another holds its lock. Who listens is what the kernel knows.
    """
    if not url.startswith("http://"):
        return False
    try:
        host, port = server_address(url)
    except ConfigError:
        return False
    if not is_this_machine(host):
        return False
    from .proc import listener_uids

    uids = listener_uids(port)
    return bool(uids) and uids <= trusted


def _read(fd: int) -> dict[str, Any]:
    data = os.pread(fd, _LARGEST, 0)
    if not data:
        return {}
    import json

    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _plain(value: object) -> str:
    """Return a text that stands in the file, harmless to print; "" for what is none."""
    from .proc import printable

    return printable(value[:_LONGEST]) if isinstance(value, str) else ""


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

    def is_elsewhere(self) -> bool:
        """Return whether another process holds the lock, as far as the kernel shows it here."""
        from .proc import locking_process

        if self._fd >= 0:
            return False
        try:
            fd = os.open(self._path, _READING)
        except OSError:
            return False
        try:
            return locking_process(fd) is not None
        finally:
            os.close(fd)

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
            raise NPUBusy(describe_holder(_about(fd) or {})) from None
        except OSError as error:
            raise self._unusable(_reason(error)) from None
        import json

        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(self._about).encode(), 0)
        except OSError as error:  # its file system is full
            raise self._unusable(_reason(error)) from None

    def _open(self) -> int:
        fd = self._open_file()
        try:
            defect = _defect(fd)
            if defect is not None:
                raise self._unusable(defect)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_file(self) -> int:
        try:
            # Without O_CREAT first: in a sticky directory the kernel may forbid it for others' files.
            return os.open(self._path, _FLAGS)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(_reason(error)) from None
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another process was first
            return self._open_file()
        except OSError as error:
            raise self._unusable(_reason(error)) from None
        os.fchmod(fd, 0o666)  # regardless of the umask: other users must be able to lock it
        return fd

    def _unusable(self, reason: str) -> LoadFailed:
        return LoadFailed(
            f"the NPU's lock file {self._path} cannot be used: {reason}",
            hint=see_doctor(
                "Delete it if no RKLLama is running, or set RKLLAMA_LOCK to another file."
            ),
        )

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        with self._mutex:
            if self._fd >= 0:
                os.ftruncate(self._fd, 0)
                os.close(self._fd)
                self._fd = -1


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link"
    return error.strerror or str(error)


def describe_holder(about: dict[str, Any]) -> str:
    """A holder in words; see `holder`."""
    if not about:
        return "another process"
    pid = about["pid"]
    if not about.get("command"):
        return f"process {pid}"
    at = f" at {about['url']}" if about.get("url") else ""
    return f"`{about['command']}` (process {pid}){at}"
