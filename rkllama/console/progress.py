"""The progress of a download or a copy: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager

from ..service import Service
from ..types import PullProgress
from .output import cut_middle, human_size, is_terminal, print_note
from .streams import control, printable
from .terminal import Spinner, quiet_keys, say

Report = Callable[[PullProgress], object]

_WIDE = 70
"""Columns of a terminal that has room for a bar and the speed."""
_BESIDES, _BESIDES_NARROW = 52, 29
"""Columns that everything but the name takes."""
_SHORTEST_NAME = 8

_DOING = {"downloading": "Downloading", "copying": "Copying"}


def show_progress(steps: Generator[PullProgress, None, None], reference: str) -> str:
    """Follow a download to its end and return the model's name. Ctrl-C prints how to resume."""
    name = ""
    try:
        with closing(steps), shown_progress("Contacting the Hub…") as report:
            for step in steps:
                report(step)
                name = step.name or name
    except KeyboardInterrupt:
        sys.stderr.write(f"\nStopped. To resume: rkllama pull {reference}\n")
        raise
    return name


def show_upload(service: Service, path: str) -> tuple[str, str]:
    """Bring a file to where a model can be made of it; return its name and sha256."""
    file = os.path.basename(path)
    with shown_progress(f"Reading {file}…") as report:
        return file, service.upload(path, report)


@contextmanager
def shown_progress(waiting: str) -> Iterator[Report]:
    """Show what is reported; until something is, show `waiting`."""
    if not sys.stderr.isatty():
        yield _Lines().report
        return
    with Spinner(waiting) as spinner, quiet_keys(), closing(_Bar(spinner)) as bar:
        yield bar.report


@contextmanager
def counted_progress() -> Iterator[Callable[[int, int, str], object]]:
    """Show how many steps of all are done, and what is done now; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, _doing: None
        return
    with quiet_keys(), closing(_Counter()) as counter:
        yield counter.report


def print_note_above(text: str) -> None:
    """Print a note on stderr in the place of a bar, which goes on below it."""
    if is_terminal(sys.stderr):
        control(sys.stderr, "\r\x1b[K")
    print_note(text)
    sys.stderr.flush()


class _Counter:
    """A bar for steps, with the time that they have taken."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        # A stream of its own: stderr lets no control sequence pass (see .streams).
        self._stream = open(  # noqa: SIM115 - `close` closes it
            os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace"
        )
        self._progress = Progress(
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=self._stream),
            # The cores are measured meanwhile.
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=None)

    def report(self, done: int, total: int, doing: str) -> None:
        self._progress.update(
            self._task, description=printable(doing), total=total, completed=done, refresh=True
        )

    def close(self) -> None:
        """Remove the bar."""
        try:
            self._progress.stop()
        finally:
            self._stream.close()


class _Lines:
    """A line for each tenth, and for what is done besides."""

    def __init__(self) -> None:
        self._announced = False
        self._shown = 0
        self._status = ""

    def report(self, step: PullProgress) -> None:
        if step.note:
            sys.stderr.write(f"{_sentence(step.note)}\n")
        doing = _DOING.get(step.status)
        if doing is not None and step.total:
            if not self._announced:
                self._announced = True
                size = f"{step.file} ({human_size(step.total)})"
                sys.stderr.write(f"{doing} {size}{_from(step)}\n")
            percent = step.completed * 100 // step.total
            if percent >= self._shown + 10 or percent == 100 > self._shown:
                self._shown = percent
                sys.stderr.write(f"{percent}%\n")
        elif step.status == "verifying" != self._status:
            if self._announced and self._shown < 100:
                self._shown = 100
                sys.stderr.write("100%\n")
            sys.stderr.write("Verifying sha256\n")
        self._status = step.status


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def _from(step: PullProgress) -> str:
    return f", resuming at {human_size(step.resumed)}" if step.resumed else ""


class _Bar:
    """The spinner until there is something to show, then a bar."""

    def __init__(self, spinner: Spinner) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskID,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        # A stream of its own: stderr lets no control sequence pass (see .streams).
        self._stream = open(  # noqa: SIM115 - `close` closes it
            os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace"
        )
        console = Console(file=self._stream)
        wide = console.width >= _WIDE
        # What is short of room goes in this order: the bar, the speed, the name.
        self._room = max(_SHORTEST_NAME, console.width - (_BESIDES if wide else _BESIDES_NARROW))
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            *((BarColumn(bar_width=None),) if wide else ()),
            TaskProgressColumn(),
            DownloadColumn(),
            *((TransferSpeedColumn(),) if wide else ()),
            TimeRemainingColumn(compact=True),
            console=console,
            # Ctrl-C in its start would leave sys.stderr as a stand-in that writes to a closed stream.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._spinner = spinner

    def report(self, step: PullProgress) -> None:
        if step.status == "resolving":
            self._spinner.text = f"Asking the Hub: {step.file}"
            if step.note:
                self._spinner.stop()
                say(_sentence(step.note))
            return
        if self._task is None:
            self._spinner.stop()
            self._progress.start()
            # What an earlier attempt had left was not fetched now: it must not count as speed.
            self._task = self._progress.add_task(
                cut_middle(printable(step.file), self._room),
                total=step.total,
                completed=step.resumed,
            )
        label = f"Verifying {step.file}" if step.status == "verifying" else step.file
        label = cut_middle(printable(label), self._room)
        self._progress.update(
            self._task,
            description=label,
            total=step.total,
            completed=step.completed,
            refresh=True,
        )

    def close(self) -> None:
        """Leave the bar where it is."""
        try:
            if self._progress.live.is_started:
                self._progress.stop()
        finally:
            self._stream.close()
