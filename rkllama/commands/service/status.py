"""`rkllama service status`: how the service is installed, and what its running server says."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import RKLLamaError
from ..common import JSONFlag, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...systemd.status import Status

ForUser = Annotated[
    bool | None,
    typer.Option(
        "--user/--system",
        help="For you alone, or for all users, which needs root. [default: --system as root]",
    ),
]


def status(user: ForUser = None, as_json: JSONFlag = False) -> None:
    """Show whether the service is installed, enabled and running.

    The exit code is 1 if it is not installed, was stopped or fails.
    """
    from ...systemd.manager import Manager
    from ...systemd.status import read_status

    Manager().require()
    services, errors = [], []
    for scope in (False, True) if user is None else (user,):
        try:
            services.append(read_status(Manager(user=scope)))
        except RKLLamaError as error:  # root has no manager of its own, for one
            errors.append(error)
    found = [service for service in services if service is not None]
    if errors and (user is not None or not services):
        raise errors[0]
    rows = [(service, _server_of(service)) for service in found]
    if as_json:
        print_json([{**service._asdict(), "server": server} for service, server in rows])
    else:
        _show(rows)
    if not any(service.state in ("running", "waiting") for service in found):
        raise typer.Exit(1)


def _server_of(service: "Status") -> dict[str, Any] | None:
    """Return what the running server says of itself; None where none runs: a question would start it."""
    if service.state != "running":
        return None
    from ...client.discover import ServerAddress
    from ...config import load_settings, reachable_host, server_address, server_url

    host, port = server_address(service.address)
    url = server_url(reachable_host(host), port)
    try:
        return ServerAddress(load_settings(), url, with_key=False).get("/health")
    except RKLLamaError as error:
        return {"error": error.text}


def _show(rows: "Iterable[tuple[Status, dict[str, Any] | None]]") -> None:
    from ...console.output import table, write_styled

    rows = list(rows)
    if not rows:
        sys.stderr.write("The service is not installed. Install it: rkllama service install\n")
    for number, (service, server) in enumerate(rows):
        sys.stdout.write("\n" * bool(number))
        write_styled(table(("SERVICE", _who(service)), list(_facts(service, server))))


def _who(service: "Status") -> str:
    return "of all users" if service.scope == "system" else "of this user"


def _facts(service: "Status", server: dict[str, Any] | None) -> "Iterator[tuple[str, str]]":
    from ... import __version__

    yield "unit", service.file + " (edited)" * service.edited
    yield from (("drop-in", path) for path in service.drop_ins)
    start = "at boot" if service.scope == "system" else "at login"
    how = f"the server starts {start}" if service.always_on else "a connection starts the server"
    yield "enabled", f"yes, {how}" if service.enabled else "no"
    process = f" (process {service.pid})" if service.pid else ""
    yield "state", service.state + process + (f": {service.result}" if service.result else "")
    yield "address", f"http://{service.address}"
    yield "home", service.home
    yield "models", service.models
    if server is not None:
        version = server.get("version")
        other = "" if version in (__version__, None) else f"; this is {__version__}"
        yield ("version", f"{version}{other}") if version else ("note", str(server.get("error")))
    if service.reload_needed:
        user = " --user" if service.scope == "user" else ""
        yield "note", f"its files have changed: systemctl{user} daemon-reload"
