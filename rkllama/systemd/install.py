"""What installs and removes the service: a plan of steps."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import stat
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InvalidRequest, RKLLamaError
from .manager import Manager, run
from .steps import Command, MakeKey, RemoveFile, RemoveTree, Step, WriteFile, read
from .units import (
    HOME,
    SYSTEM_FILES,
    USER_FILES,
    DropIn,
    UnitFile,
    command_line,
    keys_drop_in,
    program_drop_in,
    render,
)

USER = "rkllama"
"""The user that the service for all users runs as."""
_GROUPS = ("render", "video")
"""Who owns the NPU and its memory."""
_NODES = (("/dev/dma_heap/*", "video"), ("/dev/rknpu", "render"))
_TABLES = ("passwd", "group", "shadow", "gshadow")
"""What the tools that make and delete users change."""
_PACKAGED = ("/usr/lib", "/lib")


class Plan(NamedTuple):
    """What an installation is to be."""

    manager: Manager
    program: tuple[str, ...]
    drop_ins: Sequence[DropIn] = ()
    always_on: bool | None = None
    """Whether the server starts at boot, and not with the first connection; None leaves it as it is."""
    key: str | None = None
    """Where a key is to be made, as the server sees the path."""
    force: bool = False
    """Whether edited files are replaced."""

    @property
    def files(self) -> tuple[UnitFile, ...]:
        """The files of the service."""
        return USER_FILES if self.manager.user else SYSTEM_FILES

    def steps(self) -> list[Step]:
        """Return what installs the service, in order. Raises InvalidRequest."""
        manager = self.manager
        steps: list[Step] = [*self._configuration()]
        if not manager.user:
            steps += _for_the_user(manager)
        if self.key is not None:
            steps.append(
                MakeKey(manager.root + self.key, self.key, lambda: owner_of_service(manager))
            )
        steps += [self._written(f) for f in self.files if f.is_unit and not self._is_packaged(f)]
        steps += self._beside_the_units()
        return _within(manager, [*steps, *self._started()])

    def _configuration(self) -> list[Step]:
        """The files of other programs: who the user is, whose the devices are."""
        return [self._written(f) for f in self.files if not f.is_unit and not self._is_packaged(f)]

    def _written(self, file: UnitFile) -> WriteFile:
        path = os.path.join(self.manager.configuration, file.target)
        return WriteFile(path, render(file, self.program), force=self.force)

    def _is_packaged(self, file: UnitFile) -> bool:
        """Return whether a package has brought the file. Raises InvalidRequest where that is of another
        RKLLama than this one.
        """
        path = packaged(self.manager, file)
        if path is None:
            return False
        text = (read(path) or b"").decode(errors="replace")
        if "\nExecStart=" in text and f"\nExecStart={command_line(self.program)} " not in text:
            raise InvalidRequest(
                f"{path} comes from a package, and runs another RKLLama than this one",
                hint="Use the `rkllama` of the package, or remove the package.",
            )
        return True

    def _beside_the_units(self) -> list[Step]:
        drop_ins = list(self.drop_ins)
        if not self.manager.user and (own := program_drop_in(self.program[0])):
            drop_ins.append(own)
        if self.key is not None:
            drop_ins.append(keys_drop_in(self.key))
        folder = self.manager.units
        return [
            WriteFile(os.path.join(folder, one.place), one.text, force=self.force)
            for one in drop_ins
        ]

    def _started(self) -> list[Step]:
        manager = self.manager
        units = [file.name for file in self.files if file.is_unit]
        names = [file.name for file in self.files if file.enabled]
        names += ["rkllama.service"] if self.always_on else []
        on_demand: list[Step] = [_on_demand(manager)] if self.always_on is False else []
        if manager.root:
            return [*on_demand, self._enabled(names)]
        return [
            *on_demand,
            Command(
                "Have systemd read its units",
                manager.systemctl("daemon-reload"),
                lambda: any(_is_unread(manager, unit, missing=True) for unit in units),
                follows=lambda: True,
            ),
            Command(
                "Enable and start the service",
                manager.systemctl("enable", "--now", *names),
                lambda: not all(_is_up(manager, name) for name in names),
                follows=self._is_disabled_before,
            ),
            *(_restarted(manager, unit) for unit in sorted(units, key=_is_service)),
        ]

    def _enabled(self, names: Sequence[str]) -> Command:
        return Command(
            "Enable the service",
            self.manager.systemctl("enable", *names),
            lambda: not all(self.manager.is_enabled(name) for name in names),
            follows=self._is_disabled_before,
        )

    def _is_disabled_before(self) -> bool:
        """Return whether a step before disables the socket, because it disables the service."""
        return self.always_on is False and _is_always_on(self.manager)


def removal(manager: Manager, *, purge: bool = False, force: bool = False) -> list[Step]:
    """Return the steps that remove the service, in order; `purge` its user and all its files, too."""
    files = USER_FILES if manager.user else SYSTEM_FILES
    units = [file.name for file in files if file.is_unit]
    there = [file.name for file in files if file.is_unit and _is_installed(manager, file)]
    steps: list[Step] = [_disabled(manager, there)] if there else []
    for unit in units:
        beside = glob.glob(os.path.join(glob.escape(manager.units), f"{unit}.d", "*.conf"))
        steps += [RemoveFile(path, force=force) for path in sorted(beside)]
    written = (os.path.join(manager.configuration, file.target) for file in reversed(files))
    steps += [RemoveFile(path, force=force) for path in written]
    if not manager.root:
        steps.append(
            Command(
                "Have systemd forget its units",
                manager.systemctl("daemon-reload"),
                lambda: any(_is_unread(manager, unit, missing=False) for unit in units),
                follows=lambda: True,
            )
        )
    if purge and not manager.user:
        root = [f"--prefix={manager.root}"] if manager.root else []
        steps.append(RemoveTree(manager.root + HOME))
        steps.append(
            Command(f"Delete the user {USER}", ["userdel", *root, USER], lambda: _knows(manager))
        )
    return _within(manager, steps)


def _within(manager: Manager, steps: list[Step]) -> list[Step]:
    """Return steps whose files lie in the root. Raises InvalidRequest where a link of it leads elsewhere."""
    top = os.path.realpath(manager.root) if manager.root else ""
    tables = [f"{manager.root}/etc/{name}" for name in _TABLES]
    files = [path for step in steps if (path := getattr(step, "path", None)) is not None]
    for place in (*map(os.path.dirname, files), *tables) if top else ():
        if not f"{os.path.realpath(place)}/".startswith(f"{top}/"):
            raise InvalidRequest(
                f"{place} leads out of {manager.root}, to {os.path.realpath(place)}",
                hint="Make it a link with a relative path within that system, or run the command there.",
            )
    return steps


def packaged(manager: Manager, file: UnitFile) -> str | None:
    """Return where a package has put a file of the service; None without one."""
    if manager.user:
        return None
    paths = (os.path.join(manager.root + place, file.target) for place in _PACKAGED)
    return next((path for path in paths if os.path.isfile(path)), None)


def check_program(manager: Manager, program: tuple[str, ...]) -> None:
    """Raise RKLLamaError unless the service can run `program`, as its user and with none of our variables."""
    if manager.root:
        if not os.path.isfile(manager.root + program[0]):
            raise RKLLamaError(
                f"there is no {program[0]} in {manager.root}",
                hint="Install RKLLama there first, or say where it is with --program.",
            )
        return
    try:
        run(_as_service(manager, (*program, "--version")))
    except RKLLamaError as error:
        raise RKLLamaError(
            f"the service cannot run {program[0]}: {error.message}",
            hint="Install RKLLama where every user can read it, such as in /opt/rkllama: "
            "`sudo python3 -m venv /opt/rkllama && sudo /opt/rkllama/bin/pip install rkllama`. Or install "
            "the service for yourself alone, without root.",
        ) from None


def can_write(manager: Manager, directory: str) -> bool:
    """Return whether the service may write to a directory of this machine."""
    try:
        run(_as_service(manager, ("test", "-w", directory)))
    except RKLLamaError:
        return False
    return True


def _as_service(manager: Manager, words: Sequence[str]) -> list[str]:
    """Return the command line that runs a program as the service would."""
    clean = ["env", "-i", "-C", "/", "PATH=/usr/bin:/bin", *words]
    if manager.user:
        return clean
    try:
        pwd.getpwnam(USER)
    except KeyError:  # it is made later
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *clean]
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *clean]


# --- What the steps look at --------------------------------------------------------------------


def _for_the_user(manager: Manager) -> list[Step]:
    root = [f"--root={manager.root}"] if manager.root else []
    steps: list[Step] = [
        Command(
            f"Make the user {USER}, in the groups {' and '.join(_GROUPS)}",
            ["systemd-sysusers", *root, "rkllama.conf"],
            lambda: not _knows(manager, _GROUPS),
        ),
        Command(
            f"Make {HOME}",
            ["systemd-tmpfiles", "--create", *root, "rkllama.conf"],
            lambda: not _is_owned(manager),
        ),
    ]
    if not manager.root and os.path.exists("/dev/dma_heap") | os.path.exists("/dev/rknpu"):
        devices = [f"--subsystem-match={name}" for name in ("dma_heap", "drm", "misc")]
        steps += [
            Command("Have udev read its rules", ["udevadm", "control", "--reload"], _nodes_closed),
            Command(
                "Give the NPU to its groups",
                ["udevadm", "trigger", "--settle", *devices],
                _nodes_closed,
            ),
        ]
    return steps


def _knows(manager: Manager, groups: Sequence[str] = ()) -> bool:
    """Return whether the service's user is there, and in these groups."""
    if not any(row[0] == USER for row in _table(manager, "passwd")):
        return False
    members = {row[0]: row[3].split(",") for row in _table(manager, "group") if len(row) > 3}
    return all(USER in members.get(group, ()) for group in groups)


def _table(manager: Manager, name: str) -> list[list[str]]:
    text = read(f"{manager.root}/etc/{name}") or b""
    return [line.split(":") for line in text.decode(errors="replace").splitlines()]


def owner_of_service(manager: Manager) -> tuple[int, int]:
    """Return uid and gid of the service's user. Raises RKLLamaError where there is none."""
    if manager.user:
        return os.getuid(), os.getgid()
    for row in _table(manager, "passwd"):
        if row[0] == USER and len(row) > 3:
            return int(row[2]), int(row[3])
    raise RKLLamaError(f"there is no user {USER}", hint="Run `rkllama service install` again.")


def _is_owned(manager: Manager) -> bool:
    try:
        about = os.lstat(manager.root + HOME)
        return stat.S_ISDIR(about.st_mode) and about.st_uid == owner_of_service(manager)[0]
    except (OSError, RKLLamaError):
        return False


def _nodes_closed() -> bool:
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


def _is_unread(manager: Manager, unit: str, *, missing: bool) -> bool:
    """Return whether a unit is not as its files are; `missing` for one that the manager does not know."""
    about = manager.show(unit)
    return manager.is_unread(about) if about.get("LoadState") == "loaded" else missing


def _is_up(manager: Manager, unit: str) -> bool:
    about = manager.show(unit)
    return about.get("ActiveState") == "active" and about.get("UnitFileState") == "enabled"


def _on_demand(manager: Manager) -> Command:
    """Take back that the server starts at boot, and with that what enables its socket."""
    return Command(
        "Have the first connection start the server",
        manager.systemctl("disable", "rkllama.service"),
        lambda: _is_always_on(manager),
    )


def _is_always_on(manager: Manager) -> bool:
    return manager.is_enabled("rkllama.service")


def _disabled(manager: Manager, names: Sequence[str]) -> Command:
    if manager.root:
        return Command(
            "Disable the service",
            manager.systemctl("disable", *names),
            lambda: any(manager.is_enabled(name) for name in names),
        )
    return Command(
        "Stop and disable the service",
        manager.systemctl("disable", "--now", *reversed(names)),
        lambda: any(_is_there(manager, name) for name in names),
    )


def _is_there(manager: Manager, unit: str) -> bool:
    about = manager.show(unit)
    running = about.get("ActiveState") not in ("inactive", "failed")
    return running or about.get("UnitFileState") == "enabled"


def _is_installed(manager: Manager, file: UnitFile) -> bool:
    own = os.path.join(manager.configuration, file.target)
    return os.path.exists(own) or packaged(manager, file) is not None


def _is_service(unit: str) -> bool:
    """Return whether a unit comes after the sockets, which restart their services themselves."""
    return unit.endswith(".service")


def _restarted(manager: Manager, unit: str) -> Command:
    return Command(
        f"Restart {unit}",
        manager.systemctl("try-restart", unit),
        lambda: _is_outdated(manager, unit),
        follows=lambda: manager.show(unit).get("ActiveState") == "active",
    )


def _is_outdated(manager: Manager, unit: str) -> bool:
    """Return whether a unit runs that started before one of its files was written."""
    about = manager.show(unit)
    started = int(about.get("InactiveExitTimestampMonotonic") or 0) / 1e6
    if not started or about.get("ActiveState") != "active":
        return False
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - started
    paths = [about.get("FragmentPath", ""), *about.get("DropInPaths", "").split()]
    times = [os.stat(path).st_mtime for path in paths if os.path.isfile(path)]
    return any(time.time() - written < age for written in times)
