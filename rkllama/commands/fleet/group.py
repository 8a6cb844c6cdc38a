"""`rkllama fleet`: several boards behind one address."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..common import command_group, settings_of

if TYPE_CHECKING:
    from ...config import Settings
    from ...fleet.boards import Fleet
    from ...fleet.reports import Report

Directory = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="The directory of the fleet's files. [default: fleet in RKLLama's home]"
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.1, max=600, help="Wait so long for the boards."
    ),
]

app = command_group("fleet", "Put several boards behind one address, with HAProxy.")


def directory_of(settings: "Settings", directory: str | None) -> str:
    """Return the directory of the fleet, an absolute path that HAProxy can read. Raises InvalidRequest."""
    from ...errors import InvalidRequest

    path = os.path.abspath(os.path.expanduser(directory or os.path.join(settings.home, "fleet")))
    if not path.isprintable() or set(path) & set(" \t#'\"\\,(){}$|@"):
        raise InvalidRequest(
            f"{path!r} cannot be the directory of a fleet: HAProxy could not read that path",
            hint="Choose one of letters, digits, dots and dashes with --directory.",
        )
    return path


def why_silent(report: "Report") -> str:
    """Return why a board has not told how it is, and for a key what to do."""
    text = f"{report.board.name} ({report.board.address}): {report.error}"
    return f"{text}; set RKLLAMA_API_KEY to one of its keys" if report.refused else text


def read(
    context: typer.Context, directory: str | None, seconds: float
) -> "tuple[str, Fleet, list[Report]]":
    """Return the directory of the fleet, what is configured there, and how its boards are."""
    from ...console.terminal import Spinner
    from ...fleet.boards import read_fleet
    from ...fleet.reports import read_reports

    settings = settings_of(context)
    path = directory_of(settings, directory)
    fleet = read_fleet(path)
    with Spinner(f"Asking {len(fleet.boards)} boards…"):
        return path, fleet, read_reports(fleet.boards, settings, seconds)
