"""`rkllama fleet init` and `update`: which boards there are, and HAProxy's configuration for them."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import ConfigError, InvalidRequest
from ..common import settings_of
from .group import Directory, Seconds, app, directory_of, read, why_silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...fleet.boards import Board, Fleet
    from ...fleet.files import Written
    from ...fleet.reports import Report

Force = Annotated[
    bool,
    typer.Option("--force", help="Replace an edited haproxy.cfg, and keep it as haproxy.cfg.old."),
]
Reload = Annotated[
    bool, typer.Option("--reload", help="Have the service of HAProxy read its configuration again.")
]
_ASKS = 5.0


@app.command("init")
def init(
    context: typer.Context,
    boards: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BOARD]...",
            help="The boards, each as HOST, HOST:PORT or NAME=HOST:PORT; without any, those of boards.toml.",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST]:PORT",
            help="Where HAProxy listens; :8090 is every address of this machine. [default: "
            "127.0.0.1:8090]",
        ),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Serve HTTPS with this certificate and key (PEM)."),
    ] = None,
    browse: Annotated[
        bool,
        typer.Option("--browse", help="Look for boards that announce themselves (avahi)."),
    ] = False,
    directory: Directory = None,
    force: Force = False,
    reload: Reload = False,
) -> None:
    """Write boards.toml and HAProxy's configuration for these boards."""
    from dataclasses import replace

    from ...console.output import print_note
    from ...fleet.boards import (
        FILE,
        Fleet,
        checked,
        is_edited,
        parse_boards,
        read_fleet,
        write_fleet,
    )
    from ...fleet.reports import read_reports

    settings = settings_of(context)
    path = directory_of(settings, directory)
    named = _browsed() if browse else parse_boards(boards) if boards else ()
    there = os.path.exists(os.path.join(path, FILE))
    if not named and not there:
        raise InvalidRequest(
            "no board is named",
            hint="Name each by its address: rkllama fleet init 192.168.1.11 192.168.1.12",
        )
    before = read_fleet(path) if there else Fleet(boards=named)
    fleet = checked(
        replace(
            before,
            boards=_with_places(named, before.boards) or before.boards,
            listen=listen or before.listen,
            certificate=certificate or before.certificate,
        )
    )
    _check_certificate(fleet)
    if not there or fleet != before:
        edited = there and is_edited(path, before)
        file = write_fleet(path, fleet, keep=edited)
        sys.stderr.write(f"Wrote {file}\n")
        if edited:
            print_note(f"The file that you had edited is now {file}.old.")
    reports = read_reports(fleet.boards, settings, _ASKS)
    _update(path, fleet, reports, force=force, reload=reload)


@app.command("update")
def update(
    context: typer.Context,
    directory: Directory = None,
    force: Force = False,
    reload: Reload = False,
    seconds: Seconds = _ASKS,
) -> None:
    """Ask the boards which models they have, and write HAProxy's files where that has changed them."""
    path, fleet, reports = read(context, directory, seconds)
    _update(path, fleet, reports, force=force, reload=reload)


def _with_places(boards: "Sequence[Board]", before: "Sequence[Board]") -> "tuple[Board, ...]":
    """Return boards with the number of requests that those at the same address had before."""
    from dataclasses import replace

    places = {board.address: board.parallel for board in before}
    return tuple(replace(b, parallel=places.get(b.address, b.parallel)) for b in boards)


def _update(
    directory: str, fleet: "Fleet", reports: "Sequence[Report]", *, force: bool, reload: bool
) -> None:
    from ...console.output import print_note
    from ...fleet.balancer import is_current
    from ...fleet.files import check_configuration, find_haproxy, reload_haproxy, update_files

    written = update_files(directory, fleet, reports, force=force)
    for path in written.changed:
        sys.stderr.write(f"Wrote {path}\n")
    for report in reports:
        if report.error is not None:
            print_note(why_silent(report))
    _say_kept(written)
    check_configuration(written.path)
    if reload and (written.changed or not is_current(fleet, written.path)):
        reload_haproxy(written.path)
        sys.stderr.write("HAProxy has read its configuration.\n")
    elif written.changed or written.kept:
        _say_next(written, fleet, installed=find_haproxy() is not None)
    else:
        sys.stderr.write("Nothing has changed.\n")


def _say_kept(written: "Written") -> None:
    from ...console.output import print_note

    if written.kept:
        print_note(
            f"{written.path} was edited and stays as it is; only the maps are new. --force takes ours "
            "instead, and keeps it as haproxy.cfg.old."
        )
    if written.replaced:
        print_note(f"The edited file is now {written.path}.old.")
    if written.routes.left_out:
        names = ", ".join(written.routes.left_out[:5])
        print_note(f"not routed by name, so that any board may get them: {names}")


def _say_next(written: "Written", fleet: "Fleet", *, installed: bool) -> None:
    from ...fleet.balancer import read_balancer
    from ...fleet.files import start_line

    if not installed:
        sys.stderr.write("HAProxy is not installed here: sudo apt install haproxy\n")
    running = read_balancer(fleet) is not None
    line = start_line(written.path, running=running)
    sys.stderr.write(f"{'Have HAProxy read it' if running else 'Start HAProxy with it'}: {line}\n")
    sys.stderr.write(f"Clients then use {_url(fleet)}\n")


def _url(fleet: "Fleet") -> str:
    """Return where clients find the balancer: by this machine's name, if it listens on all addresses."""
    from ...config import outer_host
    from ...fleet.boards import join_address, split_address

    host, port = split_address(fleet.listen)
    address = join_address(outer_host(host), port)
    return f"{'http' if fleet.certificate is None else 'https'}://{address}"


def _check_certificate(fleet: "Fleet") -> None:
    path = fleet.certificate
    if path is not None and not os.path.isfile(path):
        raise ConfigError(
            f"the certificate {path} is not there",
            hint="HAProxy wants one file with the certificate and its key, both as PEM.",
        )


def _browsed() -> "tuple[Board, ...]":
    """Return the boards that the network tells of and the user takes."""
    from ...console.terminal import agreed, can_ask
    from ...fleet.mdns import browse

    found = browse()
    if not found:
        raise InvalidRequest(
            "no board announces itself on this network",
            hint="docs/fleet.md says how avahi does that; or name the boards: rkllama fleet init HOST…",
        )
    for board in found:
        sys.stderr.write(f"  {board.name}={board.address}\n")
    if not can_ask() or not agreed("Anybody on the network can announce one. Take these boards?"):
        names = " ".join(f"{board.name}={board.address}" for board in found)
        raise InvalidRequest(
            "the boards were not taken",
            hint=f"Name those that are yours: rkllama fleet init {names}",
        )
    return tuple(found)
