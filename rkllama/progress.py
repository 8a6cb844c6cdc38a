"""The progress of a download: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain

from .core import PullProgress
from .output import human_size
from .terminal import Spinner, quiet_keys


def show_progress(steps: Generator[PullProgress, None, None], reference: str) -> str:
    """Follow a download to its end; answers the model's name. Ctrl-C says how to go on."""
    try:
        with closing(steps):
            return _bar(steps) if sys.stderr.isatty() else _lines(steps)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nStopped. To go on where it stopped: rkllama pull {reference}\n")
        raise


def _lines(steps: Iterator[PullProgress]) -> str:
    announced, shown, status, name = False, 0, "", ""
    for step in steps:
        if step.status == "downloading" and step.total:
            if not announced:
                announced = True
                sys.stderr.write(
                    f"Downloading {step.file} ({human_size(step.total)}){_from(step)}\n"
                )
            percent = step.completed * 100 // step.total
            if percent >= shown + 10:
                shown = percent
                sys.stderr.write(f"{percent}%\n")
        elif step.status == "verifying" != status:
            if announced and shown < 100:
                sys.stderr.write("100%\n")
            sys.stderr.write("Verifying sha256\n")
        status, name = step.status, step.name or name
    return name


def _from(step: PullProgress) -> str:
    return f", going on at {human_size(step.resumed)}" if step.resumed else ""


def _bar(steps: Iterator[PullProgress]) -> str:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    name = ""
    with Spinner("Asking the Hub…"), quiet_keys():
        first = next(step for step in steps if step.status != "resolving")
    with quiet_keys(), Progress(*columns, console=Console(stderr=True)) as progress:
        # What an earlier try had left was not fetched now: it must not count as speed.
        task = progress.add_task(first.file, total=first.total, completed=first.resumed)
        for step in chain((first,), steps):
            label = f"Verifying {step.file}" if step.status == "verifying" else step.file
            progress.update(
                task, description=label, total=step.total, completed=step.completed, refresh=True
            )
            name = step.name or name
    return name
