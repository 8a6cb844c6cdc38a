"""One run on a model's process, and how long it took."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ...backends.base import GenerateSpec, RunResult
from ...config import Settings
from ...runner.keeping import run_figures
from ...runner.lane import Lane
from ...states.facts import RunFigures
from ...types import SamplingParams
from .conversation import Text

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOf:
    """A prompt's answer; times in seconds, `first` is None for an answer without text."""

    text: str
    figures: RunFigures
    first: float | None
    total: float

    @property
    def prefill(self) -> float | None:
        """Seconds per token that was evaluated: the runtime's own figure, else until the first text."""
        seconds, tokens = self.figures.prompt_seconds or self.first, self.figures.evaluated
        return seconds / tokens if seconds and tokens else None


class Runner:
    """Runs prompts one after the other."""

    def __init__(
        self, lane: Lane, settings: Settings, context_length: int, sampling: SamplingParams
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._context = context_length
        self._sampling = sampling

    def __call__(self, text: Text, tokens: int, save: str | None = None) -> RunOf:
        """Have a prompt answered by at most so many tokens; `save` is a file for its state. Raises what
        `Lane.generate` does.
        """
        spec = GenerateSpec(
            prompt=text.prompt,
            max_tokens=tokens,
            sampling=self._sampling,
            markers=text.markers,
            save_state=save,
        )
        pieces: list[str] = []
        first: float | None = None
        result: RunResult | None = None
        started = time.perf_counter()
        answer = self._lane.generate(
            spec,
            first=self._settings.prompt_timeout(len(text.prompt)),
            each=self._settings.token_timeout,
        )
        with contextlib.closing(answer):
            for piece in answer:
                result = piece.result or result
                pieces.append(piece.text)
                if first is None and piece.text:
                    first = time.perf_counter() - started
        assert result is not None, "the last piece has it"
        total = time.perf_counter() - started
        figures = run_figures(result, self._context)
        return RunOf(text="".join(pieces), figures=figures, first=first, total=total)

    def restore(self, path: str, tokens: int, characters: int) -> bool:
        """Load a state; return whether the runtime has taken it."""
        timeout = self._settings.prompt_timeout(characters)
        return self._lane.restore(path, tokens, timeout=timeout)


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """Return what `action` does, and the seconds that it took."""
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


def drop_from_memory(path: str) -> None:
    """Have a file that is on the disk read from there again, as after a restart of the board."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
