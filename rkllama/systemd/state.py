"""What there is of the service on a machine: its user, its files, its units, and how they are."""

from __future__ import annotations

import glob
import grp
import os
import stat
import time
from collections.abc import Sequence

from ..board.lock import SERVICE_USER
from ..errors import RKLLamaError
from .manager import Manager
from .steps import read
from .units import HOME, SERVICE, UnitFile

_NODES = (("/dev/dma_heap/*", "video"), ("/dev/rknpu", "render"))
_PACKAGED = ("/usr/lib", "/lib")


def packaged(manager: Manager, file: UnitFile) -> str | None:
    """Return where a package has put a file of the service; None without one."""
    if manager.user:
        return None
    paths = (os.path.join(manager.root + place, file.target) for place in _PACKAGED)
    return next((path for path in paths if os.path.isfile(path)), None)


def knows_user(manager: Manager, groups: Sequence[str] = ()) -> bool:
    """Return whether the service's user is there, and in these groups."""
    if not any(row[0] == SERVICE_USER for row in _table(manager, "passwd")):
        return False
    members = {row[0]: row[3].split(",") for row in _table(manager, "group") if len(row) > 3}
    return all(SERVICE_USER in members.get(group, ()) for group in groups)


def _table(manager: Manager, name: str) -> list[list[str]]:
    text = read(f"{manager.root}/etc/{name}") or b""
    return [line.split(":") for line in text.decode(errors="replace").splitlines()]


def owner_of_service(manager: Manager) -> tuple[int, int]:
    """Return uid and gid of the service's user. Raises RKLLamaError where there is none."""
    if manager.user:
        return os.getuid(), os.getgid()
    for row in _table(manager, "passwd"):
        if row[0] == SERVICE_USER and len(row) > 3:
            return int(row[2]), int(row[3])
    raise RKLLamaError(
        f"there is no user {SERVICE_USER}", hint="Run `rkllama service install` again."
    )


def is_home_owned(manager: Manager) -> bool:
    """Return whether the home of the service is there and its user's."""
    try:
        about = os.lstat(manager.root + HOME)
        return stat.S_ISDIR(about.st_mode) and about.st_uid == owner_of_service(manager)[0]
    except (OSError, RKLLamaError):
        return False


def are_nodes_closed() -> bool:
    """Return whether a node of the NPU is not its group's."""
    for pattern, group in _NODES:
        for path in glob.glob(pattern):
            about = os.stat(path)
            try:
                name = grp.getgrgid(about.st_gid).gr_name
            except KeyError:
                name = ""
            if name != group or about.st_mode & 0o060 != 0o060:
                return True
    return False


def is_unread(manager: Manager, unit: str, *, missing: bool) -> bool:
    """Return whether a unit is not as its files are; `missing` for one that the manager does not know."""
    about = manager.show(unit)
    return manager.is_unread(about) if about.get("LoadState") == "loaded" else missing


def is_up(manager: Manager, unit: str) -> bool:
    """Return whether a unit runs and is enabled."""
    about = manager.show(unit)
    return about.get("ActiveState") == "active" and about.get("UnitFileState") == "enabled"


def is_always_on(manager: Manager) -> bool:
    """Return whether the server starts at boot, and not with the first connection."""
    return manager.is_enabled(SERVICE)


def is_there(manager: Manager, unit: str) -> bool:
    """Return whether a unit runs or is enabled."""
    about = manager.show(unit)
    running = about.get("ActiveState") not in ("inactive", "failed")
    return running or about.get("UnitFileState") == "enabled"


def is_installed(manager: Manager, file: UnitFile) -> bool:
    """Return whether a file of the service is there, installed or from a package."""
    own = os.path.join(manager.configuration, file.target)
    return os.path.exists(own) or packaged(manager, file) is not None


def is_outdated(manager: Manager, unit: str) -> bool:
    """Return whether a unit runs that started before one of its files was written."""
    about = manager.show(unit)
    started = int(about.get("InactiveExitTimestampMonotonic") or 0) / 1e6
    if not started or about.get("ActiveState") != "active":
        return False
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - started
    paths = [about.get("FragmentPath", ""), *about.get("DropInPaths", "").split()]
    times = [os.stat(path).st_mtime for path in paths if os.path.isfile(path)]
    return any(time.time() - written < age for written in times)
