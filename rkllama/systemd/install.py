"""What installs and removes the service: a plan of steps."""

from __future__ import annotations

import glob
import os
import pwd
from collections.abc import Sequence
from typing import NamedTuple

from ..board.lock import SERVICE_USER
from ..errors import InvalidRequest, RKLLamaError
from .manager import Manager, run
from .state import (
    are_nodes_closed,
    is_always_on,
    is_home_owned,
    is_installed,
    is_outdated,
    is_there,
    is_unread,
    is_up,
    knows_user,
    owner_of_service,
    packaged,
)
from .steps import Command, MakeKey, RemoveFile, RemoveTree, Step, WriteFile, read
from .units import (
    HOME,
    SERVICE,
    SYSTEM_FILES,
    USER_FILES,
    DropIn,
    UnitFile,
    command_line,
    keys_drop_in,
    program_drop_in,
    render,
)

_GROUPS = ("render", "video")
"""Who owns the NPU and its memory."""
_TABLES = ("passwd", "group", "shadow", "gshadow")
"""What the tools that make and delete users change."""


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
        names += [SERVICE] if self.always_on else []
        on_demand: list[Step] = [_on_demand(manager)] if self.always_on is False else []
        if manager.root:
            return [*on_demand, self._enabled(names)]
        return [
            *on_demand,
            Command(
                "Have systemd read its units",
                manager.systemctl("daemon-reload"),
                lambda: any(is_unread(manager, unit, missing=True) for unit in units),
                follows=lambda: True,
            ),
            Command(
                "Enable and start the service",
                manager.systemctl("enable", "--now", *names),
                lambda: not all(is_up(manager, name) for name in names),
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
        return self.always_on is False and is_always_on(self.manager)


def removal(manager: Manager, *, purge: bool = False, force: bool = False) -> list[Step]:
    """Return the steps that remove the service, in order; `purge` its user and all its files, too."""
    files = USER_FILES if manager.user else SYSTEM_FILES
    units = [file.name for file in files if file.is_unit]
    there = [file.name for file in files if file.is_unit and is_installed(manager, file)]
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
                lambda: any(is_unread(manager, unit, missing=False) for unit in units),
                follows=lambda: True,
            )
        )
    if purge and not manager.user:
        root = [f"--prefix={manager.root}"] if manager.root else []
        steps.append(RemoveTree(manager.root + HOME))
        steps.append(
            Command(
                f"Delete the user {SERVICE_USER}",
                ["userdel", *root, SERVICE_USER],
                lambda: knows_user(manager),
            )
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
        pwd.getpwnam(SERVICE_USER)
    except KeyError:  # it is made later
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *clean]
    return [
        "setpriv",
        f"--reuid={SERVICE_USER}",
        f"--regid={SERVICE_USER}",
        "--init-groups",
        *clean,
    ]


# --- Single steps ------------------------------------------------------------------------------


def _for_the_user(manager: Manager) -> list[Step]:
    root = [f"--root={manager.root}"] if manager.root else []
    steps: list[Step] = [
        Command(
            f"Make the user {SERVICE_USER}, in the groups {' and '.join(_GROUPS)}",
            ["systemd-sysusers", *root, "rkllama.conf"],
            lambda: not knows_user(manager, _GROUPS),
        ),
        Command(
            f"Make {HOME}",
            ["systemd-tmpfiles", "--create", *root, "rkllama.conf"],
            lambda: not is_home_owned(manager),
        ),
    ]
    if not manager.root and os.path.exists("/dev/dma_heap") | os.path.exists("/dev/rknpu"):
        devices = [f"--subsystem-match={name}" for name in ("dma_heap", "drm", "misc")]
        steps += [
            Command(
                "Have udev read its rules", ["udevadm", "control", "--reload"], are_nodes_closed
            ),
            Command(
                "Give the NPU to its groups",
                ["udevadm", "trigger", "--settle", *devices],
                are_nodes_closed,
            ),
        ]
    return steps


def _on_demand(manager: Manager) -> Command:
    """Take back that the server starts at boot, and with that what enables its socket."""
    return Command(
        "Have the first connection start the server",
        manager.systemctl("disable", SERVICE),
        lambda: is_always_on(manager),
    )


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
        lambda: any(is_there(manager, name) for name in names),
    )


def _is_service(unit: str) -> bool:
    """Return whether a unit comes after the sockets, which restart their services themselves."""
    return unit.endswith(".service")


def _restarted(manager: Manager, unit: str) -> Command:
    return Command(
        f"Restart {unit}",
        manager.systemctl("try-restart", unit),
        lambda: is_outdated(manager, unit),
        follows=lambda: manager.show(unit).get("ActiveState") == "active",
    )
