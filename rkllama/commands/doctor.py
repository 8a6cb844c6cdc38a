"""`rkllama doctor`: what keeps this board from running models, and what to do about it."""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..console.output import (
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    columns_of,
    display_width,
    is_terminal,
    styled,
    write_styled,
)
from ..console.streams import printable
from .common import JSONFlag, model_names, models_option, print_json

if TYPE_CHECKING:
    from ..config import Settings
    from ..doctor.checks import Told
    from ..doctor.finding import Finding, Status, Subject

_SIGNS: "dict[Status, tuple[str, str]]" = {
    "good": ("✓", GREEN),
    "warning": ("!", YELLOW),
    "broken": ("✗", RED),
    "unseen": ("?", DIM),
}
"""Of each status: the symbol on a terminal, elsewhere the word itself, and the colour."""
_WRONG = ("broken", "warning")
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
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Cure what needs no root, and print the rest as a script for the shell."
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="Write a file for a bug report, without keys and prompts."),
    ] = False,
) -> None:
    """Find what keeps this board from running models, and say how to cure it.

    Each finding tells what is there, what should be there, and the lines that cure it. The exit code is 1 if
    something is broken, and 0 otherwise, warnings included.
    """
    from ..board.sysroot import recording
    from ..config import usable_settings
    from ..doctor.checks import examine
    from ..doctor.finding import Subject

    if as_json + fix + report > 1:
        raise typer.BadParameter("use one of --json, --fix and --report")
    _say_whose_board()
    settings, _ = usable_settings({"models": models_option(context)})  # a check tells the faults
    name = None if model is None else _full_name(settings, model)
    subject = Subject(settings=settings, model=name)
    with recording() as asked:
        told = examine(subject)
    if as_json:
        from ..doctor.objects import findings_object

        print_json(findings_object(told, name))
    elif fix:
        told = _fix(subject, told)
    elif report:
        _report(subject, told, asked)
    else:
        write_styled(findings_text(told, columns_of(sys.stdout) or 80))
    raise typer.Exit(int(any(entry.finding.status == "broken" for entry in told)))


def _say_whose_board() -> None:
    import os

    if root := os.environ.get("RKLLAMA_SYSROOT"):
        text = (
            f"Models, server, disk and network are this machine's; the board is the one in {root}"
        )
        columns = columns_of(sys.stderr) or len(text)
        sys.stderr.write("".join(f"{line}\n" for line in _wrapped(text, columns, "", "")))


def _fix(subject: "Subject", told: "list[Told]") -> "list[Told]":
    """Cure what can be, print the script with the rest, and return what is found after that."""
    from ..console.terminal import agreed, can_ask, say
    from ..doctor.checks import examine
    from ..doctor.cures import fix

    findings = [entry.finding for entry in told]
    fixed = fix(
        findings,
        subject.settings.models,
        agree=lambda question: can_ask() and agreed(question, default=True),
        say=say,
    )
    sys.stdout.write(fixed.script)
    if fixed.script and sys.stdout.isatty():
        say("Read these lines, then run them: rkllama doctor --fix > fix.sh && sh fix.sh")
    elif not fixed.script:
        say("Nothing is left to do." if fixed.done else "There is nothing to do.")
    return examine(subject) if fixed.done else told


def _report(subject: "Subject", told: "Sequence[Told]", asked: "Iterable[str]") -> None:
    from ..console.terminal import say
    from ..doctor.report import default_name, write_report

    path = default_name()
    write_report(path, subject, [entry.finding for entry in told], asked)
    sys.stdout.write(f"{path}\n")
    say("It has no keys, no prompts and no names of users. Look into it before you send it.")


def _full_name(settings: "Settings", model: str) -> str:
    from ..models.catalog import Catalog
    from ..models.scan import scan

    return Catalog(tuple(scan(settings.models))).find(model).name


# --- For people --------------------------------------------------------------------------------


def findings_text(told: "Sequence[Told]", columns: int) -> str:
    """Return the findings for people, in lines of so many columns; those to be copied may be longer."""
    lines: list[str] = []
    group = None
    width = max((display_width(entry.finding.title) for entry in told), default=0)
    for entry in told:
        if entry.group != group:
            lines += ["", styled(entry.group, BOLD, sys.stdout)]
            group = entry.group
        lines += _lines(entry.finding, width, columns)
    return "".join(f"{line}\n" for line in [*lines[1:], "", *_summary(told, columns)])


def _lines(finding: "Finding", width: int, columns: int) -> Iterator[str]:
    mark, colour = _mark(finding.status)
    lead = " " * (len(mark) + 3)
    if columns >= _NARROW:
        title, indent = f"{finding.title:<{width}}  ", lead + " " * (width + 2)
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
    for text in (good, source, finding.advice):
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
