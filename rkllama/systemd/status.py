"""What the service manager knows of the service."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

from .manager import Manager
from .steps import is_edited, read
from .units import ADDRESS, HOME, SERVICE, SOCKET


class Status(NamedTuple):
    """The service as it is installed, and whether it runs. None: not known, or not so."""

    scope: str
    """"system" or "user"."""
    file: str
    """The file of its unit."""
    edited: bool
    """Whether somebody has changed that file since it was installed; false for a package's."""
    drop_ins: list[str]
    enabled: bool
    """Whether its socket, or it itself, is there from boot or login on."""
    always_on: bool
    """Whether the server starts at boot, and not with the first connection."""
    state: str
    """"running", "waiting" for a connection, "stopped", "failed", or "restarting" after it has failed."""
    result: str | None
    """Why it failed, in systemd's words."""
    pid: int | None
    address: str
    """Where it listens: an address and a port."""
    home: str
    models: str
    reload_needed: bool
    """Whether its files have changed since systemd read them."""


def read_status(manager: Manager) -> Status | None:
    """Return how the service is; None where it is not installed. Raises RKLLamaError."""
    service, socket = manager.show(SERVICE), manager.show(SOCKET)
    path = service.get("FragmentPath", "")
    if not path:
        return None
    environment = environment_of(service)
    home = environment.get("RKLLAMA_HOME") or os.path.expanduser("~/RKLLAMA")
    own = path.startswith(manager.units)
    pid = int(service.get("MainPID") or 0)
    return Status(
        scope="user" if manager.user else "system",
        file=path,
        edited=own and is_edited(read(path) or b""),
        drop_ins=[*service.get("DropInPaths", "").split(), *socket.get("DropInPaths", "").split()],
        enabled="enabled" in (service.get("UnitFileState"), socket.get("UnitFileState")),
        always_on=service.get("UnitFileState") == "enabled",
        state=_state(service, socket),
        result=next((r for r in map(_failure, (service, socket)) if r), None),
        pid=pid or None,
        address=address_of(socket),
        home=home,
        models=environment.get("RKLLAMA_MODELS") or os.path.join(home, "models"),
        reload_needed=manager.is_unread(service) or manager.is_unread(socket),
    )


def address_of(socket: dict[str, str]) -> str:
    """Return where a socket unit listens; for one that is not there, where it would."""
    return socket.get("Listen", "").partition(" ")[0] or ADDRESS


def environment_of(service: dict[str, str]) -> dict[str, str]:
    """Return the variables that a unit sets."""
    words = shlex.split(service.get("Environment", ""))
    return dict(word.split("=", 1) for word in words if "=" in word)


def models_of(manager: Manager) -> str:
    """Return the models directory of the service for all users."""
    variables = {} if manager.root else environment_of(manager.show(SERVICE))
    return manager.root + (variables.get("RKLLAMA_MODELS") or f"{HOME}/models")


def _state(service: dict[str, str], socket: dict[str, str]) -> str:
    states = service.get("ActiveState"), socket.get("ActiveState")
    if service.get("SubState") == "auto-restart":
        return "restarting"
    if states[0] in ("active", "activating", "reloading", "deactivating"):
        return "running"
    if "failed" in states:
        return "failed"
    return "waiting" if states[1] == "active" else "stopped"


def _failure(unit: dict[str, str]) -> str | None:
    failed = unit.get("ActiveState") == "failed" or unit.get("SubState") == "auto-restart"
    return unit.get("Result") if failed else None
