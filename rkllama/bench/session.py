"""A measurement from its beginning to its report: what is looked at before it, and put right after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

from .. import __version__
from ..client.remote import RemoteService
from ..config import Settings
from ..errors import RKLLamaError
from ..service import Service
from ..types import ModelInfo
from .conditions import server_spoilers, spoilers
from .facts import board_facts, file_digest, model_facts, runtime_facts
from .measure import Measurement, Progress
from .memory import Residents
from .plan import Plan
from .power import Meter
from .results import LoadResult, MemoryResult, Report
from .summary import size_results, stat_of

Warn = Callable[[str], object]


class Outcome(NamedTuple):
    """What there is, and why it is not all: an error, or Ctrl-C."""

    report: Report
    problem: RKLLamaError | KeyboardInterrupt | None


def measure_model(
    service: Service,
    info: ModelInfo,
    plan: Plan,
    meter: Meter,
    *,
    settings: Settings,
    report: Callable[[Progress], object],
    warn: Warn,
) -> Outcome:
    """Measure a model and leave the service's memory as it was.

    `warn` is told what spoils the figures, before they are measured. Raises what goes wrong before anything
    has been measured, KeyboardInterrupt for one.
    """
    remote = service if isinstance(service, RemoteService) else None
    notes: list[str] = []
    report(Progress(0, 1, "Computing the sha256 of the file"))
    digest = file_digest(info, settings.models)
    residents = Residents(service, info, settings.keep_alive)
    measurement = Measurement(service, info, plan, meter=meter, report=report)

    def tell_spoilers() -> None:
        for text in _spoilers(measurement, residents, remote, digest):
            notes.append(text)
            warn(text)

    problem = _run(measurement, residents, tell_spoilers)
    done = _report(
        measurement,
        version=__version__ if remote is None else _version(remote),
        through_server=remote is not None,
        digest=digest if measurement.here else None,
        meter=meter,
        notes=tuple(notes),
    )
    return Outcome(done, problem)


def _run(
    measurement: Measurement, residents: Residents, tell_spoilers: Callable[[], None]
) -> RKLLamaError | KeyboardInterrupt | None:
    """Measure, and return what broke it off; raise that where nothing has been measured."""
    try:
        measurement.prepare()
        tell_spoilers()
        measurement.run()
    except (RKLLamaError, KeyboardInterrupt) as error:
        if not measurement.runs:
            raise
        return error
    finally:
        # Ctrl-C once more does not cost the results.
        with contextlib.suppress(KeyboardInterrupt):
            residents.restore()
    return None


def _spoilers(
    measurement: Measurement, residents: Residents, remote: RemoteService | None, digest: str | None
) -> Iterator[str]:
    if measurement.moments:
        loaded = measurement.loaded
        yield from spoilers(
            measurement.moments[0],
            measurement.busy_cpus,
            uses_npu=bool(loaded and loaded.uses_npu),
        )
    if remote is not None:
        yield from server_spoilers(residents.in_use, remote.queue_length())
        known = remote.show(measurement.info.name).info.digest
        if measurement.here and digest is not None and known != digest:
            yield "The server is still computing the sha256 of the model's file."
    if not measurement.knows_tokens:
        yield "This runtime tells no token counts: the sizes are those of words."


def _version(remote: RemoteService) -> str | None:
    try:
        return str(remote.version()["rkllama"])
    except (RKLLamaError, KeyError):  # it has just gone
        return None


def _report(
    measurement: Measurement,
    *,
    version: str | None,
    through_server: bool,
    digest: str | None,
    meter: Meter,
    notes: tuple[str, ...],
) -> Report:
    """Return what there is of a measurement, which may have been interrupted."""
    plan, loaded = measurement.plan, measurement.loaded
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        complete=measurement.complete,
        rounds=plan.rounds,
        answer_tokens=plan.answer_tokens,
        model=model_facts(measurement.info, loaded, digest),
        runtime=runtime_facts(
            loaded,
            version=version,
            through_server=through_server,
            cpu_affinity=measurement.cpu_affinity,
        ),
        board=board_facts(measurement.moments, measurement.board, here=measurement.here),
        power=meter.facts,
        load=LoadResult(first_seconds=measurement.first_load, seconds=stat_of(measurement.loads)),
        memory=MemoryResult(
            peak=max(measurement.peaks, default=None), runtime=loaded.memory if loaded else None
        ),
        sizes=size_results(plan, measurement.runs, measurement.skipped),
        runs=tuple(measurement.runs),
        failures=tuple(measurement.failures),
        notes=notes,
    )
