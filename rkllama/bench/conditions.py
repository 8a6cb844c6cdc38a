"""What would spoil the figures: told before a measurement, which never refuses for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .results import ClockFacts, Moment

_HOT = 80.0
"""Degrees Celsius from which on boards hold their clocks down, or soon will."""
_LOAD = 0.5
"""CPUs that other programs may keep busy."""
_NAMES = {"npu": "the NPU", "ddr": "the memory"}


def spoilers(moment: Moment, *, uses_npu: bool) -> Iterator[str]:
    """Yield what is not as it should be, as sentences; `moment` is before the model is loaded."""
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
            f"{(slow[0].limit or 0) // 10**6} of {(slow[0].highest or 0) // 10**6} MHz."
        )
    hottest = max(moment.temperatures, key=lambda one: one.celsius, default=None)
    if hottest is not None and hottest.celsius >= _HOT:
        yield f"The board is hot: {hottest.zone} has {hottest.celsius:.0f} °C."
    if moment.load_average is not None and moment.load_average >= _LOAD:
        yield (
            f"Other programs are busy: the load average is {moment.load_average:.2f}. "
            "Measure on a quiet board."
        )


def _governors(clocks: Sequence[ClockFacts]) -> Iterator[str]:
    kinds = {clock.governor for clock in clocks if clock.governor not in (None, "performance")}
    for governor in sorted(kind for kind in kinds if kind is not None):
        own = [clock for clock in clocks if clock.governor == governor]
        yield f"The governor of {_listed(own)} is {governor}, not performance: clocks will change."


def server_spoilers(in_use: Sequence[str], waiting: int) -> Iterator[str]:
    """Yield what else a server does."""
    if in_use:
        yield f"The server is answering others: {', '.join(in_use)} is in use."
    if waiting:
        yield f"{waiting} request{'' if waiting == 1 else 's'} of others wait in the server's queue."


def _listed(clocks: Sequence[ClockFacts]) -> str:
    return ", ".join(_NAMES.get(clock.name, clock.name) for clock in clocks)
