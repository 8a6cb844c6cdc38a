"""`rkllama doctor`: what keeps this board from running models, and what to do about it."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..console.output import (
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    columns_of,
    is_terminal,
    styled,
    write_styled,
)
from ..console.streams import printable
from .common import JSONFlag, model_names, print_json, settings_of

if TYPE_CHECKING:
    from ..config import Settings
    from ..doctor.checks import Told
    from ..doctor.finding import Finding, Status

JSON_VERSION = 1
"""Of the form of what `--json` prints; a change that programs would notice raises it."""
_SIGNS: "dict[Status, tuple[str, str]]" = {
    "good": ("✓", GREEN),
    "warning": ("!", YELLOW),
    "broken": ("✗", RED),
    "unseen": ("?", DIM),
}
"""Of each status: the symbol on a terminal, elsewhere the word itself, and the colour."""
_WRONG = ("broken", "warning")
_TITLE = 14
"""Columns of a title."""
_NARROW = 60
"""Columns below which nothing is aligned."""
_INDENT = " " * 6


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Check only what this model needs.",
            autocompletion=model_names,
        ),
    ] = None,
    as_json: JSONFlag = False,
) -> None:
    """Find what keeps this board from running models, and say how to cure it.

    Each finding tells what is there, what should be there, and the lines that cure it. The exit code is 1 if
    something is broken, and 0 otherwise, warnings included.
    """
    from ..doctor.checks import examine
    from ..doctor.finding import Subject

    settings = settings_of(context)
    name = None if model is None else _full_name(settings, model)
    told = examine(Subject(settings=settings, model=name))
    if as_json:
        print_json(_as_json(told, name))
    else:
        write_styled(findings_text(told, columns_of(sys.stdout) or 80))
    raise typer.Exit(int(any(entry.finding.status == "broken" for entry in told)))


def _full_name(settings: "Settings", model: str) -> str:
    from ..models.catalog import Catalog
    from ..models.scan import scan

    return Catalog(tuple(scan(settings.models))).find(model).name


def _as_json(told: "Sequence[Told]", model: str | None) -> dict[str, object]:
    from dataclasses import asdict

    from .. import __version__
    from ..board.soc import read_soc

    statuses = {entry.finding.status for entry in told}
    return {
        "version": JSON_VERSION,
        "rkllama": __version__,
        "soc": read_soc(),
        "model": model,
        "status": next((s for s in ("broken", "warning") if s in statuses), "good"),
        "findings": [{"group": entry.group, **asdict(entry.finding)} for entry in told],
    }


# --- For people --------------------------------------------------------------------------------


def findings_text(told: "Sequence[Told]", columns: int) -> str:
    """Return the findings for people, in lines of so many columns; those to be copied may be longer."""
    lines: list[str] = []
    group = None
    for entry in told:
        if entry.group != group:
            lines += ["", styled(entry.group, BOLD, sys.stdout)]
            group = entry.group
        lines += _lines(entry.finding, columns)
    return "".join(f"{line}\n" for line in [*lines[1:], "", *_summary(told, columns)])


def _lines(finding: "Finding", columns: int) -> Iterator[str]:
    mark, colour = _mark(finding.status)
    lead = " " * (len(mark) + 3)
    if columns >= _NARROW:
        title, indent = f"{finding.title:<{_TITLE}} ", lead + " " * (_TITLE + 1)
    else:
        title, indent = f"{finding.title}: ", lead
    first, *rest = _wrapped(title + finding.found, columns, lead, indent)
    yield f"  {styled(mark, colour, sys.stdout)} {first[len(lead) :]}"
    yield from rest
    if finding.status in ("broken", "warning"):
        yield from _details(finding, columns)


def _mark(status: "Status") -> tuple[str, str]:
    sign, colour = _SIGNS[status]
    shows_signs = is_terminal(sys.stdout) and sys.stdout.encoding.lower().startswith("utf")
    return sign if shows_signs else f"{status:<7}", colour


def _details(finding: "Finding", columns: int) -> Iterator[str]:
    good = f"Good: {finding.good}." if finding.good else None
    source = f"Seen in {finding.source}" if finding.source else None
    for text in (good, finding.advice, source):
        if text:
            yield from _wrapped(text, columns, _INDENT, _INDENT)
    for line in finding.cure:
        yield f"{_INDENT}  {styled(printable(line), BOLD, sys.stdout)}"


def _wrapped(text: str, columns: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        columns,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _summary(told: "Sequence[Told]", columns: int) -> Iterator[str]:
    """What is wrong and where to begin; what only root sees."""
    from ..doctor.checks import sort_by_weight

    wrong = list(sort_by_weight(told))
    if wrong:
        counts = [(sum(f.status == status for f in wrong), status) for status in _WRONG]
        told_counts = " and ".join(_count(number, status) for number, status in counts if number)
        yield from _wrapped(f"{told_counts}. Begin with: {wrong[0].title}.", columns, "", "")
    else:
        yield "All is well."
    unseen = [entry.finding.title for entry in told if entry.finding.status == "unseen"]
    if unseen:
        yield from _wrapped(f"Not seen: {', '.join(unseen)}. Root may see more:", columns, "", "")
        yield "  sudo rkllama doctor"


def _count(number: int, status: str) -> str:
    if status == "broken":
        return f"{number} broken"
    return f"{number} warning{'' if number == 1 else 's'}"
