"""The rounds of a measurement, through a server or without one: both are a `Service`.

What has been measured is there at any moment, so that an interrupted measurement loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import InvalidRequest, LoadFailed, WorkerError
from ..service import Service
from ..types import BoardState, LoadedModel, ModelInfo
from .conditions import busy_cpus
from .facts import moment_of, read_board, read_load_average
from .memory import cpu_affinity, find_loaded, is_here, peak_memory, unload_idle
from .plan import Plan
from .power import NO_METER, Meter
from .prompts import Prompt, PromptMaker, learn
from .results import Cache, Failure, Moment, Run
from .run import Observed, ask, make_run

_CACHES: tuple[Cache, ...] = ("cold", "warm")
_FIRST_PROMPT = "The river, the stone and the cloud"
_WARM_UP = (32, 8)
"""Tokens in and out of the run after each load, which does not count."""
_LOOK = 0.5
"""Seconds for which it is watched what other programs do; the kernel counts in hundredths."""
_MOST_FAILURES = 3
"""Failures without a measured run between them, after which it is given up."""


class Progress(NamedTuple):
    """How far a measurement is: so many steps of all of them, and what is done now."""

    done: int
    total: int
    doing: str


class Measurement:
    """Measures one model; `report` is told of each step before it begins."""

    def __init__(
        self,
        service: Service,
        info: ModelInfo,
        plan: Plan,
        *,
        meter: Meter = NO_METER,
        report: Callable[[Progress], object] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.info = info
        self.loaded: LoadedModel | None = None
        """As it was in memory."""
        self.here = False
        """Whether its process runs on this machine."""
        self.cpu_affinity: str | None = None
        """The CPUs that it may run on, "0-3"."""
        self.board: BoardState | None = None
        """How its machine was before the first round; None where that does not tell."""
        self.busy_cpus: float | None = None
        """How many CPUs others kept busy there, before the model was loaded."""
        self.first_load: float | None = None
        self.loads: list[float] = []
        """Seconds of the rounds' loads."""
        self.runs: list[Run] = []
        self.failures: list[Failure] = []
        self.skipped: dict[int, str] = {}
        self.peaks: list[int] = []
        """Bytes, of each round's process."""
        self.moments: list[Moment] = []
        """Of that machine: before the first round, and at the end of each."""
        self.complete = False
        self._service = service
        self._meter = meter
        self._report = report
        self._maker = PromptMaker()
        self._done = 0
        self._is_warmed_up = False
        self._failures_in_a_row = 0

    @property
    def knows_tokens(self) -> bool:
        """Whether the runtime tells how many tokens a prompt has."""
        return self._maker.is_exact

    # --- Before the first round ------------------------------------------------------------------

    def prepare(self) -> None:
        """Load the model and learn its tokens. Raises what loading it raises, and InvalidRequest for a
        context in which nothing can be measured.
        """
        self._tell("Loading the model")
        load_average = read_load_average()
        self._look_at_others()
        unloaded = unload_idle(self._service, self.info)
        observed = self._ask(_FIRST_PROMPT, 1)
        if unloaded:
            self.first_load = observed.finished.timings.load
        self.loaded = find_loaded(self._service, self.info)
        if self.loaded is not None and self.loaded.pid is not None and is_here(self.loaded):
            self.here, self.cpu_affinity = True, cpu_affinity(self.loaded.pid)
        # With the model in memory: governors may be set for as long as one is.
        self.board = read_board(self._service, here=self.here)
        if self.board is not None:
            self.moments.append(moment_of(self.board, load_average if self.here else None))
        self._skip_what_does_not_fit()
        self._tell("Learning its tokens")
        self._maker = learn(lambda text: self._ask(text, 1).finished.usage.prompt_tokens)

    def _look_at_others(self) -> None:
        """See how busy the machine is without us: the load average would still tell of a minute ago."""
        first = read_board(self._service, here=False)
        if first is None or not first.core_times:
            return
        time.sleep(_LOOK)
        second = read_board(self._service, here=False)
        if second is not None:
            self.busy_cpus = busy_cpus(first.core_times, second.core_times)

    def _skip_what_does_not_fit(self) -> None:
        context = self.loaded.context_length if self.loaded else None
        for size in self.plan.sizes:
            if obstacle := self.plan.obstacle(size, context):
                self.skipped[size] = obstacle
        if len(self.skipped) == len(self.plan.sizes):
            raise InvalidRequest(
                f"{self.info.name} cannot be measured: {self.skipped[self.plan.sizes[0]]}",
                hint="A longer context is set with --ctx, as far as the model has one.",
            )

    # --- The rounds ------------------------------------------------------------------------------

    def run(self) -> None:
        """Measure. Raises the error after which going on is in vain."""
        self._meter.start()
        try:
            for number in range(1, self.plan.rounds + 1):
                self._round(number)
        finally:
            self._meter.stop()
        self.complete = True

    def _round(self, number: int) -> None:
        self._tell(f"Round {number} of {self.plan.rounds}: load")
        is_loaded = self._try(number, None, None, self._reload) is not None
        self._done += 1
        for size in (size for size in self.plan.sizes if size not in self.skipped):
            self._measure_size(number, size, is_loaded)
        self._look_at_board()

    def _measure_size(self, number: int, size: int, is_loaded: bool) -> None:
        """Measure a prompt cold and warm; after a failure, whatever it was, the rest of it is left out."""
        prompt = self._maker.make(size)
        for cache in _CACHES:
            if is_loaded:
                self._tell(f"Round {number} of {self.plan.rounds}: {size} tokens, {cache}")
                is_loaded = self._measure(number, size, cache, prompt)
            self._done += 1

    def _measure(self, number: int, size: int, cache: Cache, prompt: Prompt) -> bool:
        """Do one run; return whether it went well."""

        def answer() -> Observed:
            if not self._is_warmed_up:
                self._warm_up()
            return self._ask(prompt.text, self.plan.answer_tokens)

        observed = self._try(number, size, cache, answer)
        if observed is None:
            return False
        self._failures_in_a_row = 0
        run = make_run(observed, self.plan, self._meter, number=number, size=size, cache=cache)
        self.runs.append(run)
        return True

    def _reload(self) -> Observed:
        unloaded = unload_idle(self._service, self.info)
        observed = self._warm_up()
        load = observed.finished.timings.load
        if unloaded and load is not None:
            self.loads.append(load)
        return observed

    def _warm_up(self) -> Observed:
        tokens, answer = _WARM_UP
        observed = self._ask(self._maker.make(tokens).text, answer)
        self._is_warmed_up = True
        return observed

    def _try(
        self, number: int, size: int | None, cache: Cache | None, action: Callable[[], Observed]
    ) -> Observed | None:
        """Return what `action` does; None where the model failed, which is kept. Raises a third in a row."""
        try:
            return action()
        except (WorkerError, LoadFailed) as error:
            self._is_warmed_up = False
            self.failures.append(
                Failure(
                    round=number, size=size, cache=cache, code=error.code, message=error.message
                )
            )
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _MOST_FAILURES:
                raise
            return None

    def _look_at_board(self) -> None:
        """Keep how the board is at the end of a round, and what the model's process has needed."""
        board = read_board(self._service, here=self.here)
        if board is not None:
            self.moments.append(moment_of(board, read_load_average() if self.here else None))
        self.loaded = find_loaded(self._service, self.info) or self.loaded
        if self.here and self.loaded is not None and self.loaded.pid is not None:
            peak = peak_memory(self.loaded.pid)
            self.peaks += [] if peak is None else [peak]

    # --- One request -----------------------------------------------------------------------------

    def _ask(self, text: str, tokens: int) -> Observed:
        return ask(
            self._service,
            self.info.name,
            text,
            tokens=tokens,
            context_length=self.plan.context_length,
            meter=self._meter,
        )

    def _tell(self, doing: str) -> None:
        sizes = len(self.plan.sizes) - len(self.skipped)
        total = self.plan.rounds * (1 + len(_CACHES) * sizes)
        self._report(Progress(self._done, total, doing))
