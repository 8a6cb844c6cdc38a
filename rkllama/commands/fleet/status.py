"""`rkllama fleet status` and `doctor`: how the boards are, and what is wrong with them."""

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from ..common import JSONFlag, print_json
from .group import Directory, Seconds, app, read, why_silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...fleet.balancer import Balancer
    from ...fleet.reports import Report

_DEADLINE = 3.0
_HEAD = ("BOARD", "STATE", "QUEUE", "NPU", "TEMP", "CACHED", "VERSION", "MODELS")
_LESSER = ("VERSION", "NPU", "TEMP")
_MODELS = 24
"""Columns of a terminal that the names of a board's models may have."""


@app.command("status")
def status(
    context: typer.Context,
    directory: Directory = None,
    as_json: JSONFlag = False,
    seconds: Seconds = _DEADLINE,
) -> None:
    """Show how each board is: its state, requests, load, temperature and models.

    QUEUE is requests that run and that wait, CACHED the share of all prompt tokens so far that came out of a
    cache. The exit code is 1 if no board is ready.
    """
    from ...fleet.balancer import read_balancer

    path, fleet, reports = read(context, directory, seconds)
    balancer = read_balancer(fleet)
    if as_json:
        print_json(_as_json(reports, balancer))
    else:
        _show(reports)
        _say_balancer(balancer, path, fleet.listen)
    if not any(report.error is None and report.unready is None for report in reports):
        raise typer.Exit(1)


@app.command("doctor")
def doctor(
    context: typer.Context,
    directory: Directory = None,
    as_json: JSONFlag = False,
    seconds: Seconds = 5.0,
) -> None:
    """Find what is wrong in the fleet, and say how to cure it.

    The exit code is 1 if something is broken, and 0 otherwise, warnings included.
    """
    from dataclasses import asdict

    from ...console.output import columns_of, write_styled
    from ...doctor.objects import JSON_VERSION
    from ...fleet.balancer import read_balancer
    from ...fleet.checks import Fleetwide, examine_fleet
    from ...fleet.files import expected_configuration
    from ..doctor import findings_text

    path, fleet, reports = read(context, directory, seconds)
    expected = expected_configuration(path, fleet, reports)
    told = examine_fleet(Fleetwide(path, fleet, reports, read_balancer(fleet), expected))
    if as_json:
        findings = [{"group": entry.group, **asdict(entry.finding)} for entry in told]
        print_json({"version": JSON_VERSION, "findings": findings})
    else:
        write_styled(findings_text(told, columns_of(sys.stdout) or 80))
    raise typer.Exit(int(any(entry.finding.status == "broken" for entry in told)))


def _show(reports: "Sequence[Report]") -> None:
    from ...console.output import GREEN, RED, YELLOW, print_note, table, write_styled

    looks = {"ready": GREEN, "down": RED}
    styles = [looks.get(_state(report), YELLOW) for report in reports]
    rows = [_row(report) for report in reports]
    write_styled(table(_HEAD, rows, right="QUEUE", lesser=_LESSER, styles=styles))
    sys.stdout.flush()
    for report in reports:
        if report.error is not None:
            print_note(why_silent(report))
        elif report.unready is not None:
            print_note(f"{report.board.name} is not ready: {report.unready}")


def _say_balancer(balancer: "Balancer | None", directory: str, listen: str) -> None:
    from ...console.output import print_note
    from ...fleet.files import start_line
    from ...fleet.haproxy import CONFIGURATION

    if balancer is None:
        line = start_line(os.path.join(directory, CONFIGURATION), running=False)
        print_note(f"HAProxy is not running here with this configuration. To start it: {line}")
    else:
        sys.stderr.write(f"HAProxy at {listen}: {balancer.waiting} waiting\n")


def _state(report: "Report") -> str:
    if report.error is not None:
        return "no key" if report.refused else "down"
    if report.unready is not None:
        return "not ready"
    return "hot" if report.throttled else "ready"


def _row(report: "Report") -> tuple[str, ...]:
    return (
        report.board.name,
        _state(report),
        _queue(report),
        _known(report.npu_load, "{} %"),
        _known(report.celsius, "{:.0f} °C"),
        _known(None if report.cached is None else report.cached * 100, "{:.0f} %"),
        report.version or "-",
        _models(report),
    )


def _queue(report: "Report") -> str:
    if report.waiting is None:
        return "-"
    running = "?" if report.running is None else str(report.running)
    return f"{running}+{report.waiting}"


def _models(report: "Report") -> str:
    """Return the models in memory, or how many there are on the disk."""
    from ...console.output import cut_middle
    from ...console.streams import printable

    loaded = ", ".join(model.name for model in report.models if model.loaded)
    if report.error is not None:
        return "-"
    if not loaded:
        return f"{len(report.models)} on disk"
    return cut_middle(printable(loaded), _MODELS) if sys.stdout.isatty() else loaded


def _known(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)


def _as_json(reports: "Sequence[Report]", balancer: "Balancer | None") -> dict[str, Any]:
    from dataclasses import asdict

    boards = []
    for report in reports:
        values = asdict(report)
        board = values.pop("board")
        boards.append(
            {
                "name": board["name"],
                "address": report.board.address,
                "state": _state(report),
                **values,
            }
        )
    return {"boards": boards, "balancer": None if balancer is None else asdict(balancer)}
