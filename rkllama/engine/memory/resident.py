"""What occupies a place in memory: a loaded model with its process and what is known of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...backends.base import LoadedInfo, LoadSpec, RunResult
from ...models.metadata import StoredModel
from ...runner.growth import Growth
from ...runner.lane import Lane, State
from ...runner.worker import Worker
from ...states.conversation import Conversations
from ...types import LoadedModel, ModelInfo
from .scheduler import Slot

_FOR_EVER = 1e9
"""Seconds (30 years) from which a keep-alive has no end: clocks and dates overflow with such numbers."""


class Demand(NamedTuple):
    """What a request wants of a model."""

    model: StoredModel
    spec: LoadSpec
    """What it is to be loaded with."""
    wanted_context: int
    """The context length before it was clamped."""


@dataclass(slots=True)
class Resident:
    """What occupies a slot. `loaded` is None while the model is being loaded."""

    model: StoredModel
    """As it was loaded."""
    info: ModelInfo
    """Under the name by which it was last asked for: an alias shares the process of its model."""
    worker: Worker
    spec: LoadSpec
    wanted_context: int
    """The context length before it was clamped: asking for it again needs no new load."""
    keep_alive: float
    pinned: bool = False
    """Stays until it is unloaded, whatever keep-alive requests ask for."""
    loaded: LoadedInfo | None = None
    raw: bool = False
    """Whether a complete prompt has been run: the runtime's own template is switched off for good."""
    tokens_per_character: float | None = None
    """Of the last prompt whose size was told; 0 where none is ever told."""
    memory: int | None = None
    """Bytes, as the runtime reported with the last answer."""
    tokens_per_second: float | None = None
    """Of the last answer."""
    growth: Growth | None = None
    """Of its memory since it was loaded; None where it is not minded."""
    bloated: bool = False
    """Whether it has to be loaded anew for that."""
    conversations: tuple[Conversations, ...] = ()
    """What is kept of its conversations on the disk, by its lanes; empty where nothing is."""
    answered: bool = False
    """Whether a run has gone well since that was last asked."""
    told: set[str] = field(default_factory=set)
    """What has been logged about templates, its own and its aliases': once is enough."""
    _cached: dict[Lane, int] = field(default_factory=dict)
    """Tokens that the last run of each lane has left in its KV cache."""
    _taken: set[Lane] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Lane:
        """Return a lane that nobody uses; one whose last run was given up and goes on comes first, since it
        tells whether the process still reacts.
        """
        with self._mutex:
            free = [lane for lane in self.worker.lanes if lane not in self._taken]
            lane = max(free, key=lambda lane: lane.state is State.DRAINING)
            self._taken.add(lane)
            return lane

    def note_run(self, lane: Lane, tokens: int) -> None:
        """Note that a run went well, and that `tokens` of prompt and completion are in its KV cache now."""
        self.answered = True
        with self._mutex:
            self._cached[lane] = tokens

    def note_answer(self, lane: Lane, result: RunResult) -> None:
        """Note that a completion was run, and what it tells of the process."""
        self.note_run(lane, (result.prompt_tokens or 0) + (result.completion_tokens or 0))
        self.memory = result.memory or self.memory

    @property
    def cache_use(self) -> float | None:
        """The share of its KV cache that is in use, 0 to 1, as the runs told that have ended; None while it
        is being loaded.
        """
        if self.loaded is None:
            return None
        with self._mutex:
            tokens = sum(self._cached.values())
        room = self.loaded.context_length * len(self.worker.lanes)
        return min(1.0, tokens / room) if room else None

    def leave(self, lane: Lane) -> None:
        """Give a lane back."""
        with self._mutex:
            self._taken.discard(lane)

    def take_instead(
        self, lane: Lane, choose: Callable[[Sequence[Conversations]], Conversations]
    ) -> Lane:
        """Return the lane whose memory is chosen of the free ones, in place of a lane that was taken."""
        with self._mutex:
            lanes = [one for one in self.worker.lanes if one not in self._taken]
            free = [lane, *(one for one in lanes if one.state is State.READY)]
            memories = {self.conversations[one.index]: one for one in free}
            chosen = memories[choose(list(memories))]
            self._taken.discard(lane)
            self._taken.add(chosen)
            return chosen

    @property
    def demand(self) -> Demand:
        """What it was loaded for."""
        return Demand(self.model, self.spec, self.wanted_context)

    @property
    def has_company(self) -> bool:
        """Whether several requests use it."""
        return len(self._taken) > 1

    @property
    def ready(self) -> LoadedInfo:
        """What the backend said about the loaded model."""
        assert self.loaded is not None, "only a lease's holder asks, and it has loaded the model"
        return self.loaded

    @property
    def end_of_life(self) -> float | None:
        """The monotonic time at which the model goes if its last use ends now; None is never."""
        forever = self.pinned or not 0 <= self.keep_alive < _FOR_EVER
        return None if forever else time.monotonic() + self.keep_alive

    @property
    def at_limit(self) -> bool:
        """Whether the model takes no longer context than it has."""
        own, limit = self.ready.context_length, self.info.context_length
        return self.wanted_context > own or (limit is not None and own >= limit)


class Traffic(NamedTuple):
    """What goes on with a model."""

    running: int
    """Requests whose turn it is,"""
    waiting: int
    """and those that wait for it."""
    cache_use: float | None
    """The share of its KV cache that is in use, 0 to 1; None: it is not in memory."""


@dataclass(slots=True)
class Turn:
    """A request's turn on a loaded model, and what it waited for."""

    resident: Resident
    lane: Lane
    """What its runs go over."""
    queue_seconds: float
    load_seconds: float = 0.0

    def take_lane(self, choose: Callable[[Sequence[Conversations]], Conversations]) -> None:
        """Go on with another lane, by what is in its memory."""
        self.lane = self.resident.take_instead(self.lane, choose)

    @property
    def conversations(self) -> Conversations | None:
        """What is kept of those in the lane's memory; None where nothing is."""
        every = self.resident.conversations
        return every[self.lane.index] if every else None


def describe(slot: Slot[Resident]) -> LoadedModel | None:
    """Return what is told of the model in a place; None where none is."""
    resident = slot.resident
    if resident is None:
        return None
    loaded = resident.loaded
    # While it is used its time does not run.
    expires = resident.end_of_life if slot.held else slot.expires
    return LoadedModel(
        info=resident.info,
        state="loading" if loaded is None else "busy" if slot.held else "ready",
        context_length=loaded.context_length if loaded else None,
        expires=None if expires is None else time.time() + expires - time.monotonic(),
        memory=resident.memory or (loaded.memory if loaded else None),
        runtime=loaded.runtime if loaded else None,
        pid=resident.worker.pid,
        uses_npu=resident.worker.kind.needs_npu,
        backend=resident.worker.kind.name,
        threads=loaded.threads if loaded else None,
        toolkit=loaded.toolkit if loaded else None,
        tokens_per_second=resident.tokens_per_second,
    )
