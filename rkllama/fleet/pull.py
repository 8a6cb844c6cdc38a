"""Pulling a model on all boards at the same time: each fetches the file for its own SoC."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Queue

from ..client.discover import ServerAddress
from ..client.remote import RemoteService
from ..config import Settings
from ..errors import RKLLamaError, ServerUnreachable
from ..types import PullProgress
from .boards import Board

_UNREAD = 256
"""Steps that wait to be shown; a board that sends more of them has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """News of one board: a step of its download, or how that has ended."""

    board: Board
    progress: PullProgress | None = None
    error: RKLLamaError | None = None
    """Why it has failed."""
    done: bool = False
    """Whether nothing more comes of this board."""


def pull_everywhere(boards: Sequence[Board], reference: str, settings: Settings) -> Iterator[Step]:
    """Have every board pull a model; yield what they tell, as it comes, until all are done.

    A board whose download breaks off keeps what it has: the next pull goes on from there. If the caller
    goes, the connections end with the process, and the boards stop.
    """
    steps: Queue[Step] = Queue(_UNREAD)

    def pull(board: Board) -> None:
        error: RKLLamaError | None = None
        try:
            service = RemoteService(ServerAddress(settings, board.url))
            for progress in service.pull(reference):
                steps.put(Step(board=board, progress=progress))
        except ServerUnreachable as problem:  # whose hint is about this machine's own server
            problem.hint = "`rkllama fleet doctor` says what the boards lack."
            error = problem
        except RKLLamaError as problem:
            error = problem
        except Exception as problem:  # what a board has sent makes no sense
            error = RKLLamaError(f"{type(problem).__name__}: {problem}")
        steps.put(Step(board=board, error=error, done=True))

    for board in boards:
        threading.Thread(target=pull, args=(board,), daemon=True).start()
    left = len(boards)
    while left:
        step = steps.get()
        left -= step.done
        yield step
