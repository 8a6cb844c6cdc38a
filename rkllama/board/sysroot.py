"""Where this machine's `/proc`, `/sys`, `/dev` and `/usr/lib` are: RKLLAMA_SYSROOT may put them elsewhere.

Tests set it, and whoever looks at the files of another board. Everything that reads the board comes here;
what a process asks about itself or its children (its log, its memory) does not.

Device nodes can be made by root only, and archives keep neither them nor owners. So a tree that stands in
for a system lists what `lstat` said in the file `NODES` at its root, as `rkllama doctor --report` does:

    crw-rw---- root:0 render:105 226:129 /dev/dri/renderD129
    lrwxrwxrwx root:0 root:0 - /dev/rknpu -> dri/renderD129

That is the mode as `ls -l` has it, owner and group with their numbers, the device's major and minor number
(`-` for what is no device), the path, and a link's target. What the user of that system could open although
the mode forbids it has a `+` behind the mode (an access control list), and what he could not although the
mode allows it a `!` (a container's device rules).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from ..files import open_regular

_LARGEST = 1 << 16
"""Bytes that are read of one of the kernel's files."""
_LISTING = "/NODES"
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}")
_HARMLESS = re.compile(r"/dev/(rknpu|dri/renderD\d+|dma_heap/[\w-]+)")
_NOWHERE = "/dev/null/outside"
"""A path that no system has."""
_LARGEST_LISTING = 1 << 20
_LARGEST_LOG = 16 << 20
"""Bytes that are read of what stands in for a listing of nodes, and of the kernel's messages."""
_asked: set[str] | None = None
"""Which paths have been asked for, while that is recorded."""


def system_path(path: str) -> str:
    """Return where the absolute `path` of the system is to be read."""
    asked = _asked  # another thread may end the recording meanwhile
    if asked is not None:
        asked.add(path)
    root = os.environ.get("RKLLAMA_SYSROOT")
    return _inside(root.rstrip("/"), path) if root else path


def _inside(root: str, path: str) -> str:
    """Return a path in a tree; one that cannot be opened where its links lead out of the tree. The tree may
    be somebody's report, and what it points to here is not that board's, and not to be told as such.
    """
    whole, top = root + path, _real_folder(root or "/").rstrip("/")
    folder, name = os.path.split(whole)
    linked = os.path.islink(whole) or name in ("", ".", "..")
    real = os.path.realpath(whole) if linked else f"{_real_folder(folder).rstrip('/')}/{name}"
    return whole if real == top or real.startswith(f"{top}/") else _NOWHERE


@lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    """Return a folder's real path, looked up once: a telling of the board asks for it fifty times."""
    return os.path.realpath(folder)


@contextmanager
def recording() -> Iterator[set[str]]:
    """Collect the paths of the system that are asked for until the block ends; one block at a time."""
    global _asked
    asked: set[str] = set()
    _asked = asked
    try:
        yield asked
    finally:
        _asked = None


def read_text(path: str) -> str | None:
    """Return what stands in one of the system's files, without the white space around it; None where
    it cannot be read.
    """
    try:
        fd = os.open(system_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Not open(): its buffers cost more than the read, and a telling of the board is fifty of these.
        return os.read(fd, _LARGEST).decode(errors="replace").strip()
    except OSError:
        return None
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    """Return the whole number in one of the system's files; None where there is none."""
    text = read_text(path) or ""
    return int(text) if _NUMBER.fullmatch(text) else None


def exists(path: str) -> bool:
    """Return whether one of the system's files or directories is there, as far as this user may see."""
    return os.path.exists(system_path(path))


def read_kernel_log() -> str | None:
    """Return the messages of the kernel, one a line; None where this user may not read them."""
    try:
        fd = os.open(system_path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    records, size = [], 0
    try:
        # Each read gives one record, until there is none; of the file that stands in for it, everything.
        while size < _LARGEST_LOG and (record := _next_record(fd)):
            records.append(record.decode(errors="replace"))
            size += len(record)
    finally:
        os.close(fd)
    # 6,1234,5678901,-;text, and lines that begin with a space for what belongs to it
    return "\n".join(line.partition(";")[2] for line in "".join(records).splitlines())


def _next_record(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, _LARGEST)
        except BrokenPipeError:  # it was overwritten; the next read gives the oldest that is left
            continue
        except OSError:
            return b""


def list_names(directory: str) -> list[str]:
    """Return the names in one of the system's directories, in order; none where it cannot be read."""
    try:
        return sorted(os.listdir(system_path(directory)))
    except OSError:
        return []


class Node(NamedTuple):
    """What the system says of a path without following it."""

    path: str
    mode: str
    """As `ls -l` has it: "crw-rw----"."""
    owner: str
    uid: int
    group: str
    gid: int
    device: str | None
    """The major and minor number, "226:129"; None for what is no device."""
    target: str | None
    """Where a link leads, as it stands there."""
    usable: bool
    """Whether this user may read and write it."""

    @property
    def permitted(self) -> bool:
        """Whether the mode lets this user read and write it, whatever else decides."""
        return _allows(self.mode, self.uid, self.gid)

    def __str__(self) -> str:
        """The line of a listing, see the top."""
        sign = "" if self.usable == self.permitted else "!+"[self.usable]
        link = "" if self.target is None else f" -> {self.target}"
        return (
            f"{self.mode}{sign} {self.owner}:{self.uid} {self.group}:{self.gid} "
            f"{self.device or '-'} {self.path}{link}"
        )


def read_node(path: str) -> Node | None:
    """Return what `path` is and whether this user may use it; None where there is nothing."""
    root = os.environ.get("RKLLAMA_SYSROOT")
    return _read_listing(root).get(path) if root else _look_at(path)


def list_nodes(directory: str) -> list[Node]:
    """Return what lies in one of the system's directories, in order of the names."""
    root = os.environ.get("RKLLAMA_SYSROOT")
    if root:
        nodes = _read_listing(root)
        return [nodes[path] for path in sorted(nodes) if os.path.dirname(path) == directory]
    found = [_look_at(f"{directory}/{name}") for name in list_names(directory)]
    return [node for node in found if node is not None]


def _look_at(path: str) -> Node | None:
    try:
        about = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(about.st_mode) else None
    except OSError:
        return None
    number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}" if about.st_rdev else None
    return Node(
        path=path,
        mode=stat.filemode(about.st_mode),
        owner=_name("passwd", about.st_uid),
        uid=about.st_uid,
        group=_name("group", about.st_gid),
        gid=about.st_gid,
        device=number,
        target=target,
        usable=_opens(path),
    )


def _opens(path: str) -> bool:
    """Whether this user may read and write a path. Only the attempt tells what a container's rules say.

    It is made where it changes nothing: a watchdog that is opened begins to wait, a display gets a master.
    """
    if not os.access(path, os.R_OK | os.W_OK):
        return False
    if not _HARMLESS.fullmatch(path):
        return True
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _read_listing(root: str) -> dict[str, Node]:
    """Return the nodes of a tree that stands in for a system; lines that are none are passed over."""
    nodes: dict[str, Node] = {}
    try:
        with open_regular(_inside(root.rstrip("/"), _LISTING)) as stream:
            text = stream.read(_LARGEST_LISTING).decode(errors="replace")
    except OSError:
        return nodes
    for line in text.splitlines():
        node = _parse(line)
        if node is not None:
            nodes[node.path] = node
    return nodes


def _parse(line: str) -> Node | None:
    try:
        mode, owner, group, device, path, *link = line.split()
        (user, uid), (team, gid) = owner.split(":"), group.split(":")
        allowed = _allows(mode[:10], int(uid), int(gid))
    except ValueError:
        return None
    return Node(
        path=path,
        mode=mode[:10],
        owner=user,
        uid=int(uid),
        group=team,
        gid=int(gid),
        device=None if device == "-" else device,
        target=link[1] if len(link) > 1 else None,
        usable={"+": True, "!": False}.get(mode[10:], allowed),
    )


def _allows(mode: str, uid: int, gid: int) -> bool:
    """Return whether a mode lets this user read and write."""
    user = read_user()
    if user.uid == 0:
        return True
    place = 1 if user.uid == uid else 4 if gid in user.groups else 7
    return mode[place : place + 2] == "rw"


def _name(table: str, number: int) -> str:
    """Return the name of a user ("passwd") or group ("group"), or the number of one without."""
    for name, _, own, *_ in _rows(table):
        if own == str(number):
            return name
    return str(number)


def _rows(table: str) -> list[list[str]]:
    lines = (read_text(f"/etc/{table}") or "").splitlines()
    return [row for row in (line.split(":") for line in lines) if len(row) > 3]


def members(group: str) -> set[str]:
    """Return the users that a group of this system has, whether or not they have logged in since."""
    found = [row[3].split(",") for row in _rows("group") if row[0] == group]
    return {name for names in found for name in names if name}


class User(NamedTuple):
    """As whom this process runs."""

    uid: int
    name: str
    groups: frozenset[int]


def read_user() -> User:
    """Return as whom this process runs, or ran on the system that a tree stands in for."""
    lines = (read_text("/proc/self/status") or "").splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    try:
        uid = int(fields["Uid"][1])
        groups = frozenset(map(int, [fields["Gid"][1], *fields["Groups"]]))
    except (KeyError, ValueError, IndexError):
        uid, groups = os.geteuid(), frozenset(os.getgroups())
    return User(uid, _name("passwd", uid), groups)
