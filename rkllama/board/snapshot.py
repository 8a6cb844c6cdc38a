"""The files of this board as a tree for RKLLAMA_SYSROOT, to be looked at on another machine.

Only what the checks asked for is taken, and nothing that tells one board or user from another: serial
numbers, addresses of network cards, names of users.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from .lock import SERVICE_USER
from .sysroot import (
    Node,
    list_names,
    list_nodes,
    read_kernel_log,
    read_node,
    read_text,
    read_user,
    system_path,
)

USER = "USER"
"""What stands for the name of this user."""
_LARGEST = 1 << 16
_MOST_NAMES = 256
_NODE_FOLDERS = ("/dev/dri", "/dev/dma_heap", "/dev/accel")
_LISTING = "NODES"
_KERNEL_LOG = "/dev/kmsg"
_OF_NPU = re.compile(r"(?i)npu|rknn|iommu|\bcma\b|dma.?heap|thermal")
_LIBRARIES = ("/usr/lib", "/usr/local/lib", "/lib/")
_PERSONAL = (
    (re.compile(rb"(?im)^(serial\s*:\s*)\S+"), rb"\g<1>0"),
    (re.compile(rb"(?i)(\S*serial\S*=)\S+"), rb"\g<1>0"),
    (re.compile(rb"(?i)\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), b"00:00:00:00:00:00"),
    (re.compile(rb"(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), b"0"),
)


class Piece(NamedTuple):
    """A file of the tree, or a directory where the content is None; the path is relative."""

    path: str
    content: bytes | None


def take(paths: Iterable[str], stand_in: Callable[[str], bytes]) -> Iterator[Piece]:
    """Yield the tree of the absolute paths that were asked for; `stand_in` makes the file that stands for a
    library at a path.
    """
    # A check that hangs may still ask for more.
    asked = set(map(os.path.normpath, list(paths)))
    yield Piece(_LISTING, "".join(f"{_without_name(node)}\n" for node in _nodes()).encode())
    for path in sorted(asked):
        if path == _KERNEL_LOG:
            yield from _kernel_log()
        elif path in ("/etc/passwd", "/etc/group"):
            continue  # their lines that matter come at the end
        elif path.startswith(_LIBRARIES):
            if os.path.isfile(system_path(path)):
                yield Piece(path[1:], stand_in(system_path(path)))
        elif path.startswith(("/proc/", "/sys/", "/run/", "/.")):
            yield from _file_or_folder(path, asked)
    yield from _tables()


def is_personal(name: str) -> bool:
    """Return whether the name of a user tells who it is."""
    return name not in ("", "root", SERVICE_USER) and not name.isdigit()


def without_personal(content: bytes) -> bytes:
    """Return a text without what tells one board from another."""
    for pattern, replacement in _PERSONAL:
        content = pattern.sub(replacement, content)
    return content


def _file_or_folder(path: str, asked: set[str]) -> Iterator[Piece]:
    real = system_path(path)
    if os.path.isdir(real):
        yield Piece(path[1:], None)
        if not path.startswith("/sys/"):
            return
        for name in list_names(path)[:_MOST_NAMES]:
            inner = f"{path}/{name}"
            if inner not in asked:
                is_folder = os.path.isdir(system_path(inner))
                yield Piece(inner[1:], None if is_folder else b"")
        return
    try:
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        yield Piece(path[1:], without_personal(os.read(fd, _LARGEST)))
    except OSError:
        pass
    finally:
        os.close(fd)


def _kernel_log() -> Iterator[Piece]:
    text = read_kernel_log()
    if text is not None:
        lines = [f"6,0,0,-;{line}\n" for line in text.splitlines() if _OF_NPU.search(line)]
        yield Piece(_KERNEL_LOG[1:], without_personal("".join(lines).encode()))


def _nodes() -> list[Node]:
    names = [name for name in list_names("/dev") if name.startswith(("rknpu", "mali"))]
    single = [read_node(f"/dev/{name}") for name in ("rknpu", *names)]
    nodes = {node.path: node for node in single if node is not None}
    for folder in _NODE_FOLDERS:
        nodes |= {node.path: node for node in list_nodes(folder)}
    return [nodes[path] for path in sorted(nodes)]


def _without_name(node: Node) -> Node:
    """Return a node as it is, with another name for this user."""
    return node._replace(owner=_shown(node.owner), group=_shown(node.group))


def _shown(name: str) -> str:
    """Return the name of a user or group, and another one for this user's."""
    user = read_user().name
    return USER if name == user and is_personal(user) else name


def _tables() -> Iterator[Piece]:
    """Yield the users and groups that the nodes and this user have."""
    user, nodes = read_user(), _nodes()
    users = {0: "root", user.uid: user.name, **{node.uid: node.owner for node in nodes}}
    rows = (f"{_shown(name)}:x:{uid}:{uid}::/:/bin/sh\n" for uid, name in sorted(users.items()))
    yield Piece("etc/passwd", "".join(rows).encode())
    ours = {node.gid for node in nodes} | user.groups
    yield Piece("etc/group", "".join(_groups(ours, user.name)).encode())


def _groups(numbers: Iterable[int], user: str) -> Iterator[str]:
    """Yield the lines of some groups, with this user as their only member."""
    wanted = {str(number) for number in numbers}
    for row in (line.split(":") for line in (read_text("/etc/group") or "").splitlines()):
        if len(row) > 3 and row[2] in wanted:
            member = _shown(user) if user in row[3].split(",") else ""
            yield f"{_shown(row[0])}:x:{row[2]}:{member}\n"
