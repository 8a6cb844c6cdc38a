"""The facts that decide speed: of the model, of what runs it, and of this board."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..board.soc import read_driver
from ..board.sysroot import read_text
from ..board.telemetry import parse_cores, read_state
from ..errors import RKLLamaError
from ..models.digests import DigestCache
from ..service import Service
from ..types import BoardState, Clock, LoadedModel, ModelInfo
from .results import BoardFacts, ClockFacts, ModelFacts, Moment, RuntimeFacts, TemperatureFacts


def model_facts(info: ModelInfo, loaded: LoadedModel | None, digest: str | None) -> ModelFacts:
    """Return what is known of the model."""
    return ModelFacts(
        name=info.name,
        file=info.file,
        format=info.format,
        size=info.size,
        digest=digest,
        family=info.family,
        parameter_size=info.parameter_size,
        quantization=info.quantization,
        platform=info.platform,
        toolkit=loaded.toolkit if loaded else None,
        context_limit=info.context_length,
    )


def runtime_facts(
    loaded: LoadedModel | None,
    *,
    version: str | None,
    through_server: bool,
    cpu_affinity: str | None,
) -> RuntimeFacts:
    """Return what is known of what runs the model; `version` is the release of RKLLama that does."""
    return RuntimeFacts(
        rkllama=version,
        through="server" if through_server else "process",
        backend=loaded.backend if loaded else None,
        runtime=loaded.runtime if loaded else None,
        context_length=loaded.context_length if loaded else None,
        threads=loaded.threads if loaded else None,
        cpu_affinity=cpu_affinity,
    )


def board_facts(
    moments: Sequence[Moment], state: BoardState | None, *, here: bool
) -> BoardFacts | None:
    """Return what is known of the board that ran a model, given how it was before and after each round.

    `here`: whether that is this machine, whose files are read then.
    """
    if not moments:
        return None
    temperatures = [one.celsius for moment in moments for one in moment.temperatures]
    throttled = [moment.throttled for moment in moments if moment.throttled is not None]
    return BoardFacts(
        board=_board_name() if here else None,
        soc=state.soc if state else None,
        architecture=os.uname().machine if here else None,
        cpus=_cpu_count() if here else None,
        kernel=_kernel() if here else None,
        npu_driver=_driver() if here else None,
        memory=state.memory.total if state else None,
        before=moments[0],
        after=moments[-1],
        hottest=max(temperatures, default=None),
        throttled=any(throttled) if throttled else None,
    )


def read_board(service: Service, *, here: bool) -> BoardState | None:
    """Return how the board is doing on which a service runs models; None where it does not tell. `here`:
    whether that is this machine.
    """
    try:
        return service.board()
    except RKLLamaError:  # a server of an earlier release
        return read_state() if here else None


def moment_of(state: BoardState, load_average: float | None) -> Moment:
    """Return what decides speed of how a board is doing."""
    clocks = (*filter(None, (state.npu, state.ddr)), *state.cpus)
    return Moment(
        clocks=tuple(map(_clock, clocks)),
        temperatures=tuple(
            TemperatureFacts(zone=one.zone, celsius=one.celsius) for one in state.temperatures
        ),
        throttled=state.throttled,
        memory_available=state.memory.available,
        load_average=load_average,
    )


def file_digest(info: ModelInfo, models: str) -> str | None:
    """Return the sha256 of a model's file, computing it where it is not known in the directory `models`; None
    for a file that is not on this machine.
    """
    try:
        status = os.stat(info.path)
    except OSError:
        return None
    cache = DigestCache(os.path.realpath(models))
    key = (info.path, status.st_size, status.st_mtime_ns)
    try:
        cache.refresh()
        if cache.get(*key) is None:
            cache.want(*key)
            cache.settle()
        return cache.get(*key)
    finally:
        cache.close()


def _clock(clock: Clock) -> ClockFacts:
    return ClockFacts(
        name=clock.name,
        current=clock.current,
        highest=clock.highest,
        limit=clock.limit,
        governor=clock.governor,
    )


def read_load_average() -> float | None:
    """Return how many CPUs this machine's programs have kept busy over the last minute."""
    try:
        return float((read_text("/proc/loadavg") or "").split()[0])
    except (IndexError, ValueError):
        return None


def _driver() -> str | None:
    driver = read_driver()
    return None if driver is None else driver[0]


def _kernel() -> str | None:
    return read_text("/proc/sys/kernel/osrelease") or None


def _cpu_count() -> int | None:
    """Return how many CPUs are switched on."""
    return len(parse_cores(read_text("/sys/devices/system/cpu/online") or "")) or None


def _board_name() -> str | None:
    """Return the name that the board's maker gave it; a PC's CPU stands for it."""
    name = read_text("/proc/device-tree/model")
    if name:
        return name.rstrip("\0")
    match = re.search(r"(?m)^model name\s*:\s*(.+)$", read_text("/proc/cpuinfo") or "")
    return " ".join(match[1].split()) if match else None
