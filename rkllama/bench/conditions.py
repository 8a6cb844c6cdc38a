"""What would spoil the figures: told before a measurement, which never refuses for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..board.telemetry import HOT, core_loads, megahertz
from ..types import CoreTime
from .results import ClockFacts, Moment

_LOAD = 0.5
"""CPUs that other programs may keep busy."""
_ENOUGH = 0.9
"""The part of its highest clock that NPU and memory should have."""
_NAMES = {"npu": "the NPU", "ddr": "the memory"}


def busy_cpus(first: Sequence[CoreTime], second: Sequence[CoreTime]) -> float | None:
    """Return how many CPUs were busy between two readings; None where they do not tell."""
    loads = core_loads(first, second)
    return sum(loads.values()) if loads else None


def spoilers(moment: Moment, busy: float | None, *, uses_npu: bool) -> Iterator[str]:
    """Yield what is not as it should be before the first round, as sentences.

    `busy` is how many CPUs were busy before the model was loaded; None is not known.
    """
    clocks = [clock for clock in moment.clocks if uses_npu or clock.name not in _NAMES]
    yield from _governors(clocks)
    slow = [
        clock for clock in clocks if clock.limit and clock.highest and clock.limit < clock.highest
    ]
    if moment.throttled:
        yield "The board is throttled: heat holds its clocks down."
    elif slow:
        yield (
            f"The clock of {_listed(slow)} is held below the highest: "
            f"{megahertz(slow[0].limit or 0)} of {megahertz(slow[0].highest or 0)}."
        )
    hottest = max(moment.temperatures, key=lambda one: one.celsius, default=None)
    if hottest is not None and hottest.celsius >= HOT:
        yield f"The board is hot: {hottest.zone} has {hottest.celsius:.0f} °C."
    yield from _others(busy, moment.load_average)


def _others(busy: float | None, load_average: float | None) -> Iterator[str]:
    if busy is not None and busy >= _LOAD:
        yield f"Other programs keep {busy:.1f} CPUs busy. Measure on a quiet board."
    elif busy is None and load_average is not None and load_average >= _LOAD:
        yield f"Other programs are busy (load average {load_average:.2f}). Measure on a quiet board."


def _governors(clocks: Sequence[ClockFacts]) -> Iterator[str]:
    slow = [clock for clock in clocks if _waits_for_load(clock)]
    for governor in sorted({str(clock.governor) for clock in slow}):
        own = [clock for clock in slow if clock.governor == governor]
        yield f"The governor of {_listed(own)} is {governor}, not performance."
    if slow:
        yield "`rkllama doctor` tells how to raise the clocks."


def _waits_for_load(clock: ClockFacts) -> bool:
    """Whether a clock changes with load: that of a CPU may be high now because this program computes.

    NPU and memory that are at their highest while nothing runs are held there, as the vendor's
    rknpu_ondemand does.
    """
    if clock.governor in (None, "performance"):
        return False
    if clock.name not in _NAMES or clock.current is None or clock.highest is None:
        return True
    return clock.current < _ENOUGH * clock.highest


def server_spoilers(in_use: Sequence[str], waiting: int) -> Iterator[str]:
    """Yield what else a server does."""
    if in_use:
        yield f"The server is answering others: {', '.join(in_use)} is in use."
    if waiting:
        requests = (
            "1 request of others waits" if waiting == 1 else f"{waiting} requests of others wait"
        )
        yield f"{requests} in the server's queue."


def _listed(clocks: Sequence[ClockFacts]) -> str:
    return ", ".join(_NAMES.get(clock.name, clock.name) for clock in clocks)
