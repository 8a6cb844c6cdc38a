"""What the kernel tells of this machine's locks, processes and sockets, where nobody can write.

`rkllama list` may import this module: hence nothing heavy.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_LISTENS = "0A"


def locking_process(fd: int) -> int | None:
    """Return who holds a file's lock; None for nobody, also where the kernel does not show him here."""
    file = _identity(fd)
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as stream:
            rows = [line.split() for line in stream]
    except OSError:
        return None
    for row in rows:
        # 1: FLOCK  ADVISORY  WRITE 733 08:02:131 0 EOF; those that wait have an arrow behind the number.
        if len(row) > 5 and row[1] == "FLOCK" and row[5] == file:
            return int(row[4]) if row[4].isdigit() else 0
    return None


def _identity(fd: int) -> str:
    """Return an open file as /proc/locks names it.

    On btrfs and overlays fstat() tells another device than the file system's own, which mountinfo has.
    """
    about = os.fstat(fd)
    major, minor, inode = os.major(about.st_dev), os.minor(about.st_dev), about.st_ino
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as stream:
            info = dict(line.split(":", 1) for line in stream if line.count(":") == 1)
        mount = info["mnt_id"].strip()
        inode = int(info.get("ino", inode))  # since Linux 5.14
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            device = next(row[2] for row in map(str.split, stream) if row[0] == mount)
        major, minor = map(int, device.split(":"))
    except (OSError, KeyError, ValueError, StopIteration):
        pass
    return f"{major:02x}:{minor:02x}:{inode}"


def uids_of(pid: int) -> set[int]:
    """Return the real and all other uids of a process; empty where they cannot be read.

    The owner of /proc/PID is none of them for a process that hides its memory: then that is root.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("Uid:"):
                    return set(map(int, line.split()[1:]))
    except (OSError, ValueError):
        pass
    return set()


def listener_uids(port: int) -> set[int]:
    """Return the users whose sockets listen on a TCP port, on whichever addresses; empty for none."""
    return {uid for uid, _ in _listeners(port)}


def listens_to_others(port: int) -> bool:
    """Return whether something listens on a TCP port at an address that is not this machine's alone."""
    return any(not _is_loopback(address) for address, _, _ in _sockets(port))


def _is_loopback(address: str) -> bool:
    """Return whether an address as the kernel writes it, words in its own order of bytes, is 127.0.0.0/8
    or ::1.
    """
    words = [bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8)]
    octets = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    mapped = octets.removeprefix(bytes(10) + b"\xff\xff") if len(octets) == 16 else octets
    return octets == bytes(15) + b"\1" or (len(mapped) == 4 and mapped[0] == 127)


def listener(port: int) -> tuple[int, int] | None:
    """Return pid and uid of a process that listens on a TCP port; None for one of whom one may not know."""
    for uid, inode in dict(_listeners(port)).items():
        pid = _process_with(f"socket:[{inode}]")
        if pid is not None:
            return pid, uid
    return None


def describe_listener(port: int) -> str:
    """Return who listens on a TCP port in words, as far as this user may know it."""
    found = listener(port)
    if found is not None:
        pid, uid = found
        return f"`{process_name(pid)}` (process {pid} of user {user_name(uid)})"
    names = sorted(map(user_name, listener_uids(port)))
    return f"a program of user {' and '.join(names)}" if names else "another program"


def process_name(pid: int) -> str:
    """Return the name that a process has for the kernel, harmless to print; "?" for one that is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            name = stream.read(64).strip()
    except OSError:
        return "?"
    return printable(name) or "?"


def printable(text: str) -> str:
    """Return a text of others, harmless to print."""
    return "".join(char if char.isprintable() else "?" for char in text)


def user_name(uid: int) -> str:
    """Return the name of a user, or the number of one without."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _listeners(port: int) -> Iterator[tuple[int, int]]:
    """Yield user and inode of the sockets that listen on a port."""
    for _, uid, inode in _sockets(port):
        yield uid, inode


def _sockets(port: int) -> Iterator[tuple[str, int, int]]:
    """Yield address, user and inode of the sockets that listen on a port."""
    wanted = f":{port:04X}"
    for path in _TABLES:
        try:
            with open(path, encoding="ascii") as stream:
                rows = [line.split() for line in stream]
        except (OSError, ValueError):
            continue
        for row in rows:
            if len(row) > 9 and row[3] == _LISTENS and row[1].endswith(wanted):
                yield row[1].removesuffix(wanted), int(row[7]), int(row[9])


def _process_with(target: str) -> int | None:
    """Return a process that has this open; None where it belongs to a user whose files one cannot see."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        directory = f"/proc/{name}/fd"
        try:
            if any(os.readlink(f"{directory}/{fd}") == target for fd in os.listdir(directory)):
                return int(name)
        except OSError:  # it has ended, or is another user's
            continue
    return None
