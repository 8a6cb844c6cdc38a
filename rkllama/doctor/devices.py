"""Checks of the NPU's device nodes, and of who may use them."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import NamedTuple

from ..board.sysroot import Node, list_nodes, members, read_node, read_user
from .finding import Finding, Subject, Topic
from .machine import has_npu, in_container, npu_nodes

_OLD = "/dev/rknpu"
_HEAPS = "/dev/dma_heap"
_GROUPS = ("render", "video")
_RULES = "/etc/udev/rules.d/99-rkllama.rules"
_FOR_CONTAINERS = (
    "Start the container with `--device /dev/dri --device /dev/dma_heap`, and `--group-add` for the "
    "numbers of the groups render and video."
)


_node = Topic(
    check="npu-device",
    title="NPU device",
    good="/dev/dri/renderD*, or /dev/rknpu with old drivers",
).tell


def check_npu_link(_subject: Subject) -> Iterator[Finding]:
    """Has somebody made a link /dev/rknpu, which sends librkllmrt down the way of old drivers?"""
    node = read_node(_OLD)
    if node is None or node.target is None or not npu_nodes():
        return
    yield Finding(
        check="npu-link",
        status="broken",
        title="Link /dev/rknpu",
        found=f"a link to {node.target}: librkllmrt then speaks to it as an old driver (hw_version -1)",
        good="no such link; librkllmrt finds the NPU in /dev/dri by itself",
        advice="Remove it, also where it is made: in a udev rule, or when the container starts.",
        cure=(f"sudo rm {_OLD}",),
        source=_OLD,
    )


def check_npu_device(_subject: Subject) -> Iterator[Finding]:
    """Is the NPU's device node there?"""
    if not has_npu():
        return
    wanted, there = npu_nodes(), _npu()
    if there:
        paths = ", ".join(node.path for node in there)
        yield _node("good", paths, source="/sys/class/drm" if wanted else _OLD)
    elif wanted:
        yield _node(
            "broken",
            f"the kernel has {' and '.join(wanted)}, but it is not here",
            advice=_FOR_CONTAINERS if in_container() else "Restart udev, which makes them.",
            cure=() if in_container() else ("sudo udevadm trigger --subsystem-match=drm",),
            source="/dev/dri",
        )
    else:
        yield _node(
            "broken",
            "the driver has made none",
            advice="The kernel was built without the NPU's interface, or its start failed: see what the "
            "driver says. A kernel of the board's vendor has it.",
            cure=("sudo dmesg | grep -i rknpu",),
            source="/sys/class/drm",
        )


def _npu() -> list[Node]:
    """The nodes of the NPU that are here: those of DRM, else the old one."""
    found = [node for node in map(read_node, npu_nodes()) if node is not None]
    old = read_node(_OLD)
    return found or ([old] if old is not None and old.mode[0] == "c" and not npu_nodes() else [])


def check_npu_access(_subject: Subject) -> Iterator[Finding]:
    """May this user read and write the NPU's device node?"""
    nodes = _npu() if has_npu() else []
    if nodes:
        may = f"{read_user().name} may use it"
        yield _about_access("npu-access", "NPU access", nodes, may, at_least_one=True)


def check_dma_heap(_subject: Subject) -> Iterator[Finding]:
    """May this user take memory for the NPU from /dev/dma_heap?"""
    if not has_npu() or not _npu():
        return
    heaps = [node for node in list_nodes(_HEAPS) if node.mode[0] == "c"]
    needed = not npu_nodes()
    if heaps and not _are_closed_together(heaps):
        names = ", ".join(node.path.rpartition("/")[2] for node in heaps)
        yield _about_access("dma-heap", "DMA heaps", heaps, names, at_least_one=not needed)
    elif not heaps and (needed or in_container()):
        yield Finding(
            check="dma-heap",
            status="broken" if needed else "warning",
            title="DMA heaps",
            found="there is no /dev/dma_heap, from which the NPU gets memory",
            good="/dev/dma_heap/*, readable and writable for the group video",
            advice=_FOR_CONTAINERS if in_container() else "Use a kernel of the board's vendor.",
            source=_HEAPS,
        )


def _are_closed_together(heaps: list[Node]) -> bool:
    """Whether what opens the NPU's device, which was told before, opens the heaps too."""
    device, closed = _npu(), [heap for heap in heaps if not heap.usable]
    if not closed or any(node.usable for node in device):
        return False
    ways = _way(device), _way(closed)
    return (ways[0].advice, ways[0].cure) == (ways[1].advice, ways[1].cure)


class _Way(NamedTuple):
    """Why a node is closed, and how it is opened."""

    reason: str
    advice: str
    cure: tuple[str, ...] = ()


def _about_access(
    check: str, title: str, nodes: list[Node], good: str, *, at_least_one: bool
) -> Finding:
    """What becomes of those nodes that this user cannot use."""
    closed = [node for node in nodes if not node.usable]
    way = _way(closed) if closed else None
    only_some = at_least_one and len(closed) < len(nodes)
    return Finding(
        check=check,
        status="good" if way is None else "warning" if only_some else "broken",
        title=title,
        found=good if way is None else way.reason,
        good=None if way is None else "readable and writable for the groups render and video",
        advice=way and way.advice,
        cure=way.cure if way else (),
        source=", ".join(node.path for node in closed or nodes),
    )


def _way(closed: list[Node]) -> _Way:
    user, node = read_user().name, closed[0]
    if node.permitted:
        return _Way(f"the rules of the container forbid {node.path}", _FOR_CONTAINERS)
    reason = f"{user} may not use {node.path} ({node.mode} {node.owner} {node.group})"
    if in_container():
        return _Way(reason, _FOR_CONTAINERS)
    if any(node.gid == 0 or node.mode[4:6] != "rw" for node in closed):
        return _Way(reason, "A udev rule gives it to a group of yours.", _rule(node.path, user))
    groups = sorted({node.group for node in closed})
    if all(user in members(group) for group in groups):
        return _Way(reason, f"{user} has joined the groups, but not in this session: log in again.")
    names = ",".join(dict.fromkeys([*_GROUPS, *groups]))
    cure = f"sudo usermod -aG {quote(names)} {quote(user)}"
    return _Way(reason, "Join the groups, then log out and in again.", (cure,))


def _rule(path: str, user: str) -> tuple[str, ...]:
    """The lines that give a device to a group, and the group to a user."""
    kind = next(kind for kind in _UDEV if path.startswith(kind))
    subsystem, rule = _UDEV[kind]
    return (
        f"echo '{rule}, MODE=\"0660\"' | sudo tee -a {_RULES}",
        "sudo udevadm control --reload",
        f"sudo udevadm trigger --subsystem-match={subsystem}",
        f"sudo usermod -aG {','.join(_GROUPS)} {quote(user)}",
    )


_UDEV = {
    "/dev/dma_heap/": ("dma_heap", 'SUBSYSTEM=="dma_heap", GROUP="video"'),
    "/dev/dri/card": ("drm", 'SUBSYSTEM=="drm", KERNEL=="card*", GROUP="video"'),
    "/dev/dri/": ("drm", 'SUBSYSTEM=="drm", KERNEL=="renderD*", GROUP="render"'),
    "/dev/rknpu": ("misc", 'KERNEL=="rknpu", GROUP="render"'),
}
"""The devices that a rule is for, by the beginning of their paths: their subsystem, and the rule."""

CHECKS = (check_npu_link, check_npu_device, check_npu_access, check_dma_heap)
