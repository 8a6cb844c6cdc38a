"""`rkllama fleet pull`: a model on all boards."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..common import settings_of
from .group import Directory, app, directory_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...errors import RKLLamaError
    from ...fleet.boards import Board
    from ...fleet.pull import Step
    from ...types import PullProgress


@app.command("pull")
def pull(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for `rkllama pull`: a name, or USER/REPO.")
    ],
    directory: Directory = None,
) -> None:
    """Pull a model on all boards at once, on each the file for its SoC.

    What is interrupted goes on where it was when the command is run again; boards that have the model are
    done at once. Afterwards `rkllama fleet update` routes requests to those that have it.
    """
    from ...console.output import print_error
    from ...fleet.boards import read_fleet
    from ...fleet.pull import pull_everywhere

    settings = settings_of(context)
    fleet = read_fleet(directory_of(settings, directory))
    failed: list[tuple[Board, RKLLamaError]] = []
    shown = _Progress(fleet.boards)
    try:
        for step in pull_everywhere(fleet.boards, model, settings):
            shown.report(step)
            if step.error is not None:
                failed.append((step.board, step.error))
    except KeyboardInterrupt:
        shown.close()
        sys.stderr.write(f"\nStopped. To resume: rkllama fleet pull {model}\n")
        raise
    finally:
        shown.close()
    for board, error in failed:
        error.message = f"{board.name}: {error.message}"
        print_error(error)
    done = len(fleet.boards) - len(failed)
    following = (
        f"When that is mended: rkllama fleet pull {model}"
        if failed
        else "Next: rkllama fleet update"
    )
    sys.stderr.write(f"{done} of {len(fleet.boards)} boards have it. {following}\n")
    raise typer.Exit(1 if failed else 0)


class _Progress:
    """A line for what begins and ends on each board; on a terminal one with all percents below."""

    def __init__(self, boards: "Sequence[Board]") -> None:
        from ...console.terminal import Spinner

        self._percents: dict[str, str] = {}
        self._doing: dict[str, str] = {}
        self._width = max(len(board.name) for board in boards)
        self._spinner = Spinner(self._text)
        self._spinner.start()

    def report(self, step: "Step") -> None:
        name = step.board.name
        if step.done:
            self._percents.pop(name, None)
            if step.error is None:
                self._say(name, "done")
        elif step.progress is not None:
            self._advance(name, step.progress)

    def close(self) -> None:
        """Leave the lines where they are."""
        self._spinner.stop()

    def _advance(self, name: str, progress: "PullProgress") -> None:
        from ...console.output import human_size

        if progress.status in ("downloading", "copying") and progress.total:
            percent = progress.completed * 100 // progress.total
            self._percents[name] = f"{name} {percent}%"
            doing = f"{progress.file} ({human_size(progress.total)})"
        elif progress.status == "verifying":
            self._percents[name], doing = f"{name} verifying", self._doing.get(name, "")
        else:
            return
        if doing and self._doing.get(name) != doing:
            self._doing[name] = doing
            self._say(name, doing)

    def _say(self, name: str, what: str) -> None:
        """Write one line above the percents, whatever a board has sent."""
        self._spinner.stop()
        line = "".join(char for char in what if char.isprintable())
        sys.stderr.write(f"{name:<{self._width}}  {line}\n")
        sys.stderr.flush()
        if self._percents:
            self._spinner.start()

    def _text(self) -> str:
        return ", ".join(dict(self._percents).values()) or "Asking the boards…"
