"""The files of a fleet's directory: which of them are as they should be, and writing those that are not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import RKLLamaError
from ..files import make_directory, not_written, write_file
from ..systemd.manager import run
from ..systemd.steps import is_edited, read, stamped
from .boards import Fleet
from .haproxy import CONFIGURATION, configuration, maps
from .reports import Report
from .routes import Routes, plan_routes

_COMMAND = "fleet update"
KNOWN = "models.json"
"""What each board had when it was last asked: one that is down keeps its models."""
_PROGRAMS = ("/usr/sbin/haproxy", "/usr/local/sbin/haproxy")
_CHECK_SECONDS = 30.0
_NUMBER = "haproxy.pid"
SERVICE_FILE = "/etc/haproxy/haproxy.cfg"
"""What Debian's service of HAProxy reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What has become of the files."""

    path: str
    """haproxy.cfg."""
    changed: tuple[str, ...]
    """The paths that were written: HAProxy has to read them again."""
    kept: bool = False
    """Whether haproxy.cfg was edited and stays, though ours says something else."""
    replaced: bool = False
    """Whether an edited one is now haproxy.cfg.old."""
    routes: Routes


def update_files(
    directory: str, fleet: Fleet, reports: Sequence[Report], *, force: bool = False
) -> Written:
    """Write what HAProxy reads, as the boards are now; what is as it should be is not touched.

    A configuration that was edited stays, unless `force`: then it gets the name haproxy.cfg.old. Raises
    RKLLamaError.
    """
    names = _names(directory, fleet, reports)
    routes, text = _plan(directory, fleet, reports, names)
    path = os.path.join(directory, CONFIGURATION)
    files = {name: text.encode() for name, text in maps(fleet, routes).items()}
    there = read(path)
    edited = there is not None and is_edited(there)
    kept = edited and not force
    if not kept:
        files[CONFIGURATION] = stamped(text, _COMMAND)
    try:
        make_directory(directory)
        _write_changed(directory, {KNOWN: json.dumps(names, indent=1).encode()})
        if edited and not kept:
            os.replace(path, f"{path}.old")
        changed = _write_changed(directory, files)
    except OSError as error:
        raise not_written(error, path) from None
    return Written(
        path=path, changed=tuple(changed), kept=kept, replaced=edited and not kept, routes=routes
    )


def expected_configuration(directory: str, fleet: Fleet, reports: Sequence[Report]) -> str:
    """Return what `update_files` would write as haproxy.cfg, without its first line."""
    return _plan(directory, fleet, reports, _names(directory, fleet, reports))[1]


def _plan(
    directory: str, fleet: Fleet, reports: Sequence[Report], names: Mapping[str, Sequence[str]]
) -> tuple[Routes, str]:
    routes = plan_routes([board.name for board in fleet.boards], names)
    check, root = _check(reports), _is_for_root(directory)
    return routes, configuration(fleet, routes, directory, check=check, root=root)


def _write_changed(directory: str, files: Mapping[str, bytes]) -> list[str]:
    """Write the files that say something else by now, each in one step. Raises OSError, RKLLamaError."""
    changed = []
    for name, content in files.items():
        path = os.path.join(directory, name)
        if read(path) != content:
            write_file(path, content, 0o644)
            changed.append(path)
    return changed


def _names(directory: str, fleet: Fleet, reports: Sequence[Report]) -> dict[str, list[str]]:
    """Return the models of each board; of one that does not answer, those that it had before."""
    before = _read_known(os.path.join(directory, KNOWN))
    now = {r.board.name: list(r.names) for r in reports if r.error is None}
    return {board.name: now.get(board.name, before.get(board.name, [])) for board in fleet.boards}


def _read_known(path: str) -> dict[str, list[str]]:
    try:
        values = json.loads(read(path) or b"{}")
        return {
            str(name): [each for each in names if isinstance(each, str)]
            for name, names in values.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _check(reports: Sequence[Report]) -> str:
    """Return the path that tells HAProxy how a board is: one that all have which have answered."""
    old = any(report.error is None and not report.tells_ready for report in reports)
    return "/health" if old else "/ready"


def _is_for_root(directory: str) -> bool:
    """Return whether root starts the HAProxy that reads this directory, and Debian's user is there for it."""
    import pwd

    try:
        pwd.getpwnam("haproxy")
    except KeyError:
        return False
    return directory.startswith("/etc/") and os.geteuid() == 0


# --- HAProxy itself ----------------------------------------------------------------------------


def find_haproxy() -> str | None:
    """Return the path of HAProxy's program; users seldom have its directory in PATH."""
    found = shutil.which("haproxy")
    return found or next((path for path in _PROGRAMS if os.access(path, os.X_OK)), None)


def start_line(path: str, *, running: bool) -> str:
    """Return the line for a shell that has HAProxy run with the configuration `path`.

    One that is `running` lets another take its place when it has answered what it has: a second one beside it
    would share its port, and requests would meet the one or the other.
    """
    if path == SERVICE_FILE:
        return "sudo systemctl reload-or-restart haproxy"
    number = os.path.join(os.path.dirname(path), _NUMBER)
    program = "haproxy" if shutil.which("haproxy") else find_haproxy() or "haproxy"
    line = f"{program} -D -f {path} -p {number}"
    return f"{line} -sf $(cat {number})" if running else line


def check_configuration(path: str) -> None:
    """Have HAProxy read a configuration. Raises RKLLamaError with what it says; without HAProxy, nothing."""
    program = find_haproxy()
    if program is not None:
        run((program, "-c", "-q", "-f", path), _CHECK_SECONDS)


def reload_haproxy(path: str) -> None:
    """Have the service of HAProxy read its configuration again, if it is this one. Raises RKLLamaError."""
    from ..systemd.manager import Manager

    if path != SERVICE_FILE:
        raise RKLLamaError(
            f"the service of HAProxy reads {SERVICE_FILE}, and not {path}",
            hint=f"`sudo rkllama fleet init --directory {os.path.dirname(SERVICE_FILE)}` writes that one.",
        )
    manager = Manager()
    manager.require()
    run(manager.systemctl("reload-or-restart", "haproxy.service"))
