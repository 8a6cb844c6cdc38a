"""What the rounds have told of conversations of one size."""

from __future__ import annotations

from collections.abc import Sequence

from ...states.header import Header
from ..summary import stat_of
from .results import StateResult
from .runs import RunOf

FIRST_ANSWER, ANSWER = 128, 64
"""Tokens of the answers to the first and to the second turn, at most."""


class Figures:
    """The figures of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.skipped: str | None = None
        self.failed = False
        """Whether the runtime died when it saved or loaded, or did not take what it had written."""
        self.cold_repeats: bool | None = None
        self._state: Header | None = None
        self._cold: list[RunOf] = []
        self._loaded: list[RunOf] = []
        self._prefills: list[float | None] = []
        self._plain: list[float] = []
        self._saving: list[float] = []
        self._syncs: list[float] = []
        self._checks: list[float] = []
        self._loads: list[float] = []
        self._loaded_firsts: list[float | None] = []
        self._same = 0

    @property
    def differs(self) -> bool:
        """Whether an answer after a load was another one."""
        return self._same < len(self._loaded)

    def per_token(self, usual: float) -> float:
        """Return the bytes that a token takes; `usual` until one has told."""
        return usual if self._state is None else self._state.size / self._state.tokens

    def note_saved(self, plain: RunOf, saving: RunOf, state: Header, seconds: float) -> None:
        """Note a run without and the same with saving, what it left, and how long that took to the disk."""
        self._state = state
        self._plain.append(plain.total)
        self._saving.append(saving.total)
        self._syncs.append(seconds)
        self._prefills += [plain.prefill, saving.prefill]

    def note_cold(self, run: RunOf) -> None:
        """Note the next turn without the state."""
        self._cold.append(run)
        self._prefills.append(run.prefill)

    def note_loaded(self, run: RunOf, cold: RunOf, checking: float, loading: float) -> None:
        """Note it with the state, and how long that took to be checked and loaded."""
        self._loaded.append(run)
        self._checks.append(checking)
        self._loads.append(loading)
        self._loaded_firsts.append(None if run.first is None else checking + loading + run.first)
        self._same += run.text == cold.text

    def result(self) -> StateResult:
        """Return the medians."""
        cold, loaded = _last(self._cold), _last(self._loaded)
        return StateResult(
            size=self.size,
            skipped=self.skipped,
            failed=self.failed,
            state_tokens=self._state.tokens if self._state else None,
            state_bytes=self._state.size if self._state else None,
            prompt_tokens=cold.figures.prompt_tokens if cold else None,
            cold_evaluated=cold.figures.evaluated if cold else None,
            loaded_evaluated=loaded.figures.evaluated if loaded else None,
            loaded_reused=loaded.figures.reused if loaded else None,
            prefill_seconds=stat_of(self._prefills),
            plain_seconds=stat_of(self._plain),
            saving_seconds=stat_of(self._saving),
            sync_seconds=stat_of(self._syncs),
            check_seconds=stat_of(self._checks),
            load_seconds=stat_of(self._loads),
            cold_seconds=stat_of(run.first for run in self._cold),
            loaded_seconds=stat_of(self._loaded_firsts),
            answers=len(self._loaded),
            same_answers=self._same,
            cold_repeats=self.cold_repeats,
        )


def _last(runs: Sequence[RunOf]) -> RunOf | None:
    return runs[-1] if runs else None
