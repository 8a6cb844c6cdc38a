"""The server: whether one runs, whose it is, who may use it, and who has the NPU."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator

from ... import __version__
from ...board.lock import default_path, describe_holder, fault, holder
from ...board.proc import describe_listener, listens_to_others
from ...client.discover import ServerAddress, find_server, has_other_models
from ...config import Settings, is_loopback, is_this_machine, reachable_host, server_address
from ...errors import ConfigError, RKLLamaError
from ...systemd.manager import Manager
from ...systemd.units import SERVICE, SOCKET
from ..finding import Check, Finding, Subject
from .inventory import read_models

_QUICK = 1.0
"""Seconds in which a server tells its version."""
_SYSTEM_UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def check_server(subject: Subject) -> Iterator[Finding]:
    """Does a server run, and do the commands reach it?"""
    settings = subject.settings
    try:
        server = find_server(settings, timeout=_QUICK)
    except ConfigError as error:
        yield Finding(
            check="server",
            status="broken",
            title="Server",
            found=error.message,
            advice=error.hint,
            source=settings.host,
        )
        return
    except RKLLamaError as error:
        yield _waking() if _is_started_by_systemd(settings) else _silent(settings, error)
        return
    if server is None and _is_started_by_systemd(settings):
        yield _waking()
    elif server is None:
        yield from _without(settings)
    else:
        yield from _running(server, subject)


def _silent(settings: Settings, error: RKLLamaError) -> Finding:
    named = bool(os.environ.get("RKLLAMA_HOST"))
    advice = "Start it there, or unset RKLLAMA_HOST." if named else error.hint
    return Finding(
        check="server",
        status="broken",
        title="Server",
        found=error.message,
        advice=advice,
        source="RKLLAMA_HOST" if named else settings.host,
    )


def _is_started_by_systemd(settings: Settings) -> bool:
    """Return whether systemd listens in the server's place, and starts it for the first connection."""
    local = is_this_machine(server_address(settings.host)[0])
    return local and bool(_unit_in(*_SYSTEM_UNITS, Manager(user=True).units, name=SOCKET))


def _waking() -> Finding:
    return Finding(
        check="server",
        status="good",
        title="Server",
        found="it starts with the first connection",
        source=SOCKET,
    )


def _without(settings: Settings) -> Iterator[Finding]:
    """Tell that no server runs, and whether one could."""
    host, port = server_address(settings.host)
    if port and is_this_machine(host) and _is_taken(host, port):
        yield Finding(
            check="server-port",
            status="warning",
            title="Server's port",
            found=f"{port} is used by {describe_listener(port)}",
            good="a free one",
            advice="Start the server on another port, or set RKLLAMA_HOST.",
            cure=(f"rkllama serve --port {port + 1 if port < 65535 else 8080}",),
            source=settings.host,
        )
    yield Finding(
        check="server",
        status="good",
        title="Server",
        found="none is running: the commands do the work themselves",
        source=settings.host,
    )


def _is_taken(host: str, port: int) -> bool:
    try:
        socket.create_connection((reachable_host(host), port), _QUICK).close()
    except OSError:
        return False
    return True


def _running(server: ServerAddress, subject: Subject) -> Iterator[Finding]:
    if server.version and server.version != __version__:
        yield Finding(
            check="server-version",
            status="warning",
            title="Server's version",
            found=f"{server.version} at {server.url}",
            good=f"{__version__}, as this command",
            advice="Restart it, so that it is the one that is installed.",
            cure=_restart(),
            source=server.url,
        )
    elsewhere = is_this_machine(server.host) and has_other_models(server, subject.settings)
    hidden = len(read_models(subject).entries) if elsewhere and server.models else 0
    if hidden:
        yield Finding(
            check="server-models",
            status="warning",
            title="Server's models",
            found=f"in {server.models}; {_count(hidden)} in {subject.settings.models} not seen by it",
            advice="The commands show the server's. Those of a directory are shown with `rkllama --models "
            "DIR list`, or give the server this directory: RKLLAMA_MODELS.",
            source=server.url,
        )
    yield Finding(
        check="server",
        status="good",
        title="Server",
        found=f"running at {server.url}"
        + (f", its models are in {server.models}" if server.models and not hidden else ""),
        source=f"{server.url}/api/version",
    )


def _count(number: int) -> str:
    return f"{number} model{'' if number == 1 else 's'}"


def _restart() -> tuple[str, ...]:
    if _unit_in(*_SYSTEM_UNITS):
        return (f"sudo systemctl restart {SERVICE}",)
    if _unit_in(Manager(user=True).units):
        return (f"systemctl --user restart {SERVICE}",)
    return ()


def check_server_access(subject: Subject) -> Iterator[Finding]:
    """Can other machines use the server without a key?"""
    settings = subject.settings
    try:
        host, port = server_address(settings.host)
    except ConfigError:
        return  # which is told with the settings
    would = not is_loopback(host) and is_this_machine(host) and not settings.api_keys
    owner = holder(settings.lock) or {}
    url = owner.get("url")
    if url:
        port = server_address(str(url))[1]
    opened = bool(port) and listens_to_others(port) and _is_open(settings, port)
    if not would and not opened:
        return
    yield Finding(
        check="server-access",
        status="warning",
        title="Server access",
        found=f"anyone who reaches port {port} of this machine may use it: there is no key",
        good="an API key, or the address 127.0.0.1",
        advice="Set RKLLAMA_API_KEY for the server (and for its clients), or have it listen on "
        "127.0.0.1 only.",
        source=settings.host,
    )


def _is_open(settings: Settings, port: int) -> bool:
    """Return whether a server of ours at a port of this machine answers without a key."""
    server = ServerAddress(settings, f"127.0.0.1:{port}", with_key=False)
    try:
        return "rkllama" in server.ask_version(_QUICK)
    except RKLLamaError:
        return False


def check_npu_lock(subject: Subject) -> Iterator[Finding]:
    """Who has the NPU, and can it be taken?"""
    path = subject.settings.lock
    reason = fault(path)
    if reason is not None:
        yield Finding(
            check="npu-lock",
            status="broken",
            title="NPU's lock",
            found=f"its file cannot be used: {reason}",
            advice="Remove it if no RKLLama is running.",
            cure=(f"sudo rm {_quoted(path)}",),
            source=_lock_path(path),
        )
        return
    owner = holder(path)
    found = (
        "nobody has the NPU" if owner is None else f"the NPU is in use by {describe_holder(owner)}"
    )
    yield Finding(
        check="npu-lock", status="good", title="NPU's lock", found=found, source=_lock_path(path)
    )


def _lock_path(path: str | None) -> str:
    return path or default_path()


def _quoted(path: str | None) -> str:
    return shlex.quote(_lock_path(path))


# --- The service -------------------------------------------------------------------------------


def check_service(_subject: Subject) -> Iterator[Finding]:
    """Is the service that is installed in order?"""
    for manager, sudo, flag in ((Manager(), "sudo ", ""), (Manager(user=True), "", "--user ")):
        unit = _unit_in(*((manager.units,) if manager.user else _SYSTEM_UNITS))
        if unit is None:
            continue
        state = _state(manager)
        failed = state == "failed"
        yield Finding(
            check="service",
            status="broken" if failed else "unseen" if state is None else "good",
            title="Service",
            found=f"{SERVICE} is {state}"
            if state
            else f"{SERVICE} is installed; its state is not known",
            advice="The journal tells why; then start it again." if failed else None,
            cure=(
                f"{sudo}journalctl {flag}-u {SERVICE} -n 50 --no-pager",
                f"{sudo}systemctl {flag}restart {SERVICE}",
            )
            if failed
            else (),
            source=unit,
        )


def _unit_in(*folders: str, name: str = SERVICE) -> str | None:
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.exists(path)), None)


def _state(manager: Manager) -> str | None:
    """Return what systemd says of the service, "active" or "failed"; None where it says nothing in time."""
    try:
        return manager.show(SERVICE, _QUICK).get("ActiveState")
    except RKLLamaError:
        return None


CHECKS: tuple[Check, ...] = (check_server, check_server_access, check_npu_lock, check_service)
