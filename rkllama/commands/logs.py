"""`rkllama logs`: what the models' processes have printed, and what the server has logged."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..errors import AmbiguousName, ModelNotFound, ModelsDirMissing, RKLLamaError
from .common import model_names, models_option, print_json, settings_of

if TYPE_CHECKING:
    from ..config import Settings
    from ..runner.log_reader import LogFile
    from ..systemd.manager import Manager

SERVER = "server"


def _names(incomplete: str) -> list[str]:
    return [*model_names(incomplete), *(name for name in (SERVER,) if name.startswith(incomplete))]


def logs(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|server]",
            help="The model whose log to show, or the server; by default the logs are listed.",
            autocompletion=_names,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what is added, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="Show the last N lines.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Show what the models' processes, or the server, have logged."""
    if as_json and (name is not None or follow):
        raise typer.BadParameter("only the list of logs is printed as JSON", param_hint="--json")
    if follow and name is None:
        raise typer.BadParameter("it needs a model or server", param_hint="--follow")
    settings = settings_of(context)
    if name == SERVER:
        _show_server(settings, lines, follow=follow)
        return
    home, models = _places(settings, context)
    directory = os.path.join(home, "logs")
    if name is None:
        _list(directory, as_json=as_json)
    else:
        _show(_path_of(name, directory, models), lines, follow=follow)


def _places(settings: "Settings", context: typer.Context) -> tuple[str, str]:
    """Return the home whose logs are meant, and the models directory: those of a server that is running."""
    from ..client.discover import find_server
    from ..config import is_this_machine, server_address

    own = settings.home, settings.models
    if models_option(context) is not None:
        return own
    if not is_this_machine(server_address(settings.host)[0]):
        raise RKLLamaError(
            f"the logs of the server at {settings.host} are on its machine",
            hint="Run this command there; unset RKLLAMA_HOST to see the logs of this one.",
        )
    try:
        server = find_server(settings)
    except RKLLamaError:
        return own  # a server that is in trouble is why logs are read
    if server is None:
        return own
    return server.home or own[0], server.models or own[1]


# --- The models' logs --------------------------------------------------------------------------


def _list(directory: str, *, as_json: bool) -> None:
    from ..console.output import human_size, human_time, table, write_styled

    found = _logs_in(directory)
    if as_json:
        print_json([log._asdict() for log in found])
        return
    if found:
        rows = [(log.name, human_size(log.size), human_time(log.modified)) for log in found]
        write_styled(table(("NAME", "SIZE", "MODIFIED"), rows))
        sys.stdout.flush()
    else:
        sys.stderr.write("No logs yet: a model's begins when it is loaded.\n")
    sys.stderr.write(f"They are in {directory}; the server's: rkllama logs server\n")


def _logs_in(directory: str) -> "list[LogFile]":
    from ..runner.log_reader import log_files

    try:
        return log_files(directory)
    except OSError as error:
        raise _unreadable(directory, error) from None


def _path_of(name: str, directory: str, models: str) -> str:
    """Return the log that a name means: that of the model that it means elsewhere, or one that is left of a
    model that is gone. Only what is found in a directory becomes a path. Raises RKLLamaError.
    """
    from ..models.catalog import Catalog
    from ..models.scan import Scan
    from ..runner.log import log_path

    logs = {log.name: log for log in _logs_in(directory)}
    if name in logs:
        return os.path.join(directory, f"{name}.log")
    try:
        entries = tuple(Scan(models).entries())
        meant = Catalog(entries).find(name)
    except (ModelNotFound, ModelsDirMissing):
        return os.path.join(directory, f"{_left_of(name, [*logs])}.log")
    # A model and its other names share a process, which logs under the name that it was loaded by.
    names = [entry.name for entry in entries if entry.path == meant.path]
    paths = [log_path(directory, other) for other in {meant.name, *names}]
    there = [path for path in paths if os.path.isfile(path)]
    if not there:
        return log_path(directory, meant.name)
    return max(there, key=os.path.getmtime)


def _left_of(name: str, logs: list[str]) -> str:
    """Return the log of a model that is not there any more, by a beginning that only one has."""
    matches = [log for log in logs if name and log.lower().startswith(name.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise AmbiguousName(name, tuple(matches), reason=f"'{name[:100]}' matches several logs")
    from difflib import get_close_matches

    near = tuple(get_close_matches(name[:100], logs, cutoff=0.5))
    raise ModelNotFound(name[:100], candidates=near, hint="`rkllama logs` lists the logs.")


def _show(path: str, lines: int, *, follow: bool) -> None:
    from ..runner.log_reader import LogReader

    reader = LogReader(path)
    try:
        text = reader.last(lines)
        _write(text)
        if not (text or follow or os.path.getsize(path)):
            sys.stderr.write("The log is empty.\n")
    except FileNotFoundError:
        if not follow:
            name = os.path.basename(path).removesuffix(".log")
            raise RKLLamaError(
                f"{name} has no log yet", hint="It begins when the model is loaded."
            ) from None
        sys.stderr.write("There is no log yet; it begins when the model is loaded.\n")
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        if follow:
            for text in reader.follow(sys.stdout.fileno()):
                _write(text)
    finally:
        reader.close()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _unreadable(path: str, error: OSError) -> RKLLamaError:
    hint = None
    if isinstance(error, PermissionError):
        hint = "Logs may quote prompts, and only their owner reads them. Try it with sudo."
    return RKLLamaError(f"{path} cannot be read: {error.strerror or error}", hint=hint)


# --- The server's ------------------------------------------------------------------------------


def _show_server(settings: "Settings", lines: int, *, follow: bool) -> None:
    """Show the journal of the service, or the file that the server's stderr goes to. Raises RKLLamaError."""
    manager = _manager_of_service()
    if manager is not None:
        _show_journal(manager, lines, follow=follow)
    pid = _server_process(settings)
    place = None if pid is None else _stderr_of(pid)
    if place is None:
        raise RKLLamaError(
            "no service keeps the server's log; it goes to stderr",
            hint="To keep it, start the server with: rkllama serve 2>> server.log",
        )
    if not os.path.isfile(place):
        raise RKLLamaError(f"the server (process {pid}) writes its log to {place}")
    _show(place, lines, follow=follow)


def _server_process(settings: "Settings") -> int | None:
    """Return the process of a server on this machine, as far as that can be known."""
    from ..board.lock import holder
    from ..board.proc import listener
    from ..client.discover import find_server
    from ..config import is_this_machine

    try:
        server = find_server(settings)
    except RKLLamaError:
        server = None
    if server is not None:
        found = listener(server.port) if is_this_machine(server.host) else None
        return None if found is None else found[0]
    owner = holder(settings.lock) or {}  # one that hangs, maybe
    pid: int | None = owner.get("pid") if "serve" in owner.get("command", "") else None
    return pid


def _manager_of_service() -> "Manager | None":
    """Return the service manager that has the unit: that of the user before the system's, and one that runs
    it before one that does not; None without a unit.
    """
    from ..systemd.manager import Manager
    from ..systemd.units import SERVICE

    idle: Manager | None = None
    for manager in (Manager(user=True), Manager()):
        try:
            about = manager.show(SERVICE)
        except RKLLamaError:
            continue
        if about.get("LoadState") == "loaded":
            if about.get("ActiveState") == "active":
                return manager
            idle = manager if idle is None else idle
    return idle


def _show_journal(manager: "Manager", lines: int, *, follow: bool) -> NoReturn:
    """Become journalctl, which also says whom the journal is open to."""
    from ..systemd.units import SERVICE

    user, added = ["--user"] * manager.user, ["--follow"] * follow
    command = ["journalctl", *user, f"--unit={SERVICE}", f"--lines={lines}", "--no-pager", *added]
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise RKLLamaError(f"journalctl cannot be started: {error.strerror}") from None


def _stderr_of(pid: int) -> str | None:
    """Return where a process of this user writes its errors, as the kernel names it."""
    try:
        return os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return None
