"""A measurement of conversations on disk from its beginning to its report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

from ... import __version__
from ...config import Settings
from ...engine.service import LocalService
from ...errors import RKLLamaError
from ...service import no_text_error
from ...states.folder import Folder, trial_of
from ...states.key import identity_key
from ...states.store import FAILURES
from ...types import BoardState, LoadedModel
from ..conditions import spoilers
from ..facts import (
    board_facts,
    file_digest,
    model_facts,
    moment_of,
    read_board,
    read_load_average,
    runtime_facts,
)
from ..measure import Progress
from ..memory import cpu_affinity, find_loaded
from ..plan import Plan
from ..results import Moment
from .measure import CacheMeasurement
from .results import CacheReport, DiskFacts
from .verdict import expected_bytes, judge

_FAILED = (
    "RKLLama keeps no conversations with this runtime and model, since that has failed before. "
    "`rkllama cache clear` lets it be tried again."
)


class Outcome(NamedTuple):
    """What there is, and why it is not all: an error, or Ctrl-C."""

    report: CacheReport
    problem: RKLLamaError | KeyboardInterrupt | None


def require_states(settings: Settings) -> None:
    """Raise RKLLamaError where conversations are not kept at all."""
    if settings.state_budget == 0:
        raise RKLLamaError(
            "conversations are not kept on the disk: state_budget is 0",
            hint="Unset it to measure; `rkllama config` shows where it is set.",
        )


def measure_cache(
    service: LocalService,
    name: str,
    plan: Plan,
    *,
    settings: Settings,
    report: Callable[[Progress], object],
    warn: Callable[[str], object],
) -> Outcome:
    """Measure what conversations of a model on the disk are worth, and leave nothing there.

    Raises what goes wrong before anything has been measured, KeyboardInterrupt for one.
    """
    return _Session(service, name, plan, settings, report).measure(warn)


class _Session:
    def __init__(
        self,
        service: LocalService,
        name: str,
        plan: Plan,
        settings: Settings,
        report: Callable[[Progress], object],
    ) -> None:
        self._service = service
        self._settings = settings
        self._model = service.store.resolve(name)
        self._measurement = CacheMeasurement(
            service, self._model, plan, folder=trial_of(settings.states), report=report
        )
        self._tell = report
        self._moments: list[Moment] = []
        self._board: BoardState | None = None
        self._loaded: LoadedModel | None = None
        self._cpus: str | None = None
        self._notes: list[str] = []

    def measure(self, warn: Callable[[str], object]) -> Outcome:
        if "completion" not in self._model.capabilities:
            raise no_text_error(self._model.info.name, self._model.capabilities)
        self._tell(Progress(0, 1, "Computing the sha256 of the file"))
        digest = file_digest(self._model.info, self._settings.models)
        problem: RKLLamaError | KeyboardInterrupt | None = None
        prepared = False
        try:
            self._prepare(warn)
            prepared = True
            self._measurement.run()
        except (RKLLamaError, KeyboardInterrupt) as error:
            if not prepared:
                raise
            problem = error
        finally:
            # Ctrl-C once more neither costs the results nor leaves files.
            with contextlib.suppress(KeyboardInterrupt):
                self._look()
                self._measurement.clean_up()
        return Outcome(self._result(digest), problem)

    def _prepare(self, warn: Callable[[str], object]) -> None:
        load_average = read_load_average()
        self._measurement.prepare()
        self._loaded = find_loaded(self._service, self._model.info)
        if self._loaded is not None and self._loaded.pid is not None:
            self._cpus = cpu_affinity(self._loaded.pid)
        self._look(load_average)
        if self._moments:
            uses_npu = bool(self._loaded and self._loaded.uses_npu)
            self._notes += spoilers(self._moments[0], None, uses_npu=uses_npu)
        self._notes += self._failed_before()
        for note in self._notes:
            warn(note)

    def _look(self, load_average: float | None = None) -> None:
        self._board = read_board(self._service, here=True)
        if self._board is not None:
            average = read_load_average() if load_average is None else load_average
            self._moments.append(moment_of(self._board, average))

    def _failed_before(self) -> tuple[str, ...]:
        identity = self._measurement.identity
        if identity is None:
            return ()
        failures = Folder(self._settings.states).failures(identity_key(identity))
        if failures < FAILURES:
            return ()
        return (_FAILED,)

    def _result(self, digest: str | None) -> CacheReport:
        measurement = self._measurement
        sizes = tuple(figures.result() for figures in measurement.figures.values())
        speeds = measurement.speeds
        assert speeds is not None, "it was opened before the first round"
        info = self._model.info
        return CacheReport(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            complete=measurement.complete,
            rounds=measurement.plan.rounds,
            model=model_facts(info, self._loaded, digest),
            runtime=runtime_facts(
                self._loaded, version=__version__, through_server=False, cpu_affinity=self._cpus
            ),
            board=board_facts(self._moments, self._board, here=True),
            disk=DiskFacts(read=speeds.read, write=speeds.write, written=measurement.written),
            sizes=sizes,
            verdict=judge(sizes, speeds, expected_bytes(info)),
            failures=tuple(measurement.failures),
            notes=tuple(self._notes),
        )
