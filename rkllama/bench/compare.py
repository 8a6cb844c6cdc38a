"""Two reports side by side: what became faster, what differs in the facts, and what is mere noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from .results import Moment, Report, Speeds, Stat
from .schema import to_json
from .summary import spread_of

Verdict = Literal["faster", "slower", "within the spread", "less than 3 %", "spread not known"]

_MOMENTARY = ("name", "size", "file", "before", "after", "hottest", "throttled")
"""Facts that are not compared as they are."""
_LEAST = 0.03
"""Differences below that are those of two measurements of one quiet machine."""
_NOTICEABLE = 10.0
"""Degrees Celsius."""


class Ratio(NamedTuple):
    """A figure of both reports."""

    name: str
    unit: Literal["s", "/s"]
    then: Stat
    now: Stat
    verdict: Verdict

    @property
    def value(self) -> float:
        """Now by then."""
        return self.now.median / self.then.median


class Difference(NamedTuple):
    """A fact that is not the same in both reports."""

    name: str
    then: str
    now: str


def ratios(then: Report, now: Report) -> Iterator[Ratio]:
    """Yield the figures that both reports have."""
    yield from _ratio("load", "s", then.load.seconds, now.load.seconds)
    before = {result.size: result for result in then.sizes}
    for result in now.sizes:
        other = before.get(result.size)
        if other is None:
            continue
        if other.cold and result.cold:
            yield from _cold_ratios(result.size, other.cold, result.cold)
        if other.warm and result.warm:
            yield from _warm_ratios(result.size, other.warm, result.warm)


def _cold_ratios(size: int, then: Speeds, now: Speeds) -> Iterator[Ratio]:
    yield from _ratio(
        f"{size} first token, cold", "s", then.first_token_seconds, now.first_token_seconds
    )
    yield from _ratio(f"{size} prompt", "/s", *_same_clock(then, now, "prompt_rate"))
    yield from _ratio(f"{size} answer", "/s", *_same_clock(then, now, "answer_rate"))


def _warm_ratios(size: int, then: Speeds, now: Speeds) -> Iterator[Ratio]:
    yield from _ratio(
        f"{size} first token, warm", "s", then.first_token_seconds, now.first_token_seconds
    )


def _same_clock(then: Speeds, now: Speeds, name: str) -> tuple[Stat | None, Stat | None]:
    """Return a rate of both by the runtime's clock; where one of them lacks it, by the client's."""
    own: tuple[Stat | None, Stat | None] = (
        getattr(then, f"runtime_{name}"),
        getattr(now, f"runtime_{name}"),
    )
    return (getattr(then, name), getattr(now, name)) if None in own else own


def _ratio(
    name: str, unit: Literal["s", "/s"], then: Stat | None, now: Stat | None
) -> Iterator[Ratio]:
    if then is None or now is None or not then.median:
        return
    faster = now.median > then.median if unit == "/s" else now.median < then.median
    verdict: Verdict = "faster" if faster else "slower"
    if spread_of(then) is None or spread_of(now) is None:
        verdict = "spread not known"
    elif then.q1 <= now.q3 and now.q1 <= then.q3:
        verdict = "within the spread"
    elif abs(now.median / then.median - 1) < _LEAST:
        verdict = "less than 3 %"
    yield Ratio(name, unit, then, now, verdict)


# --- Facts -------------------------------------------------------------------------------------


def differences(then: Report, now: Report) -> Iterator[Difference]:
    """Yield the facts that differ, the most telling ones first."""
    before, after = dict(_facts(then)), dict(_facts(now))
    for name in dict.fromkeys((*after, *before)):
        one, other = before.get(name), after.get(name)
        if one != other:
            yield Difference(name, _text(one), _text(other))
    yield from _heat(then, now)


def _facts(report: Report) -> Iterator[tuple[str, Any]]:
    """Yield names and values of what decides speed."""
    yield "model", report.model.name
    yield "sha256", (report.model.digest or "")[:12] or None
    yield "size", report.model.size
    sections = {"model": report.model, "runtime": report.runtime, "board": report.board}
    for section, facts in sections.items():
        for name, value in (to_json(facts) or {}).items():
            if name not in (*_MOMENTARY, "digest"):
                yield name.replace("_", " ") if name != section else name, value
    if report.board is not None:
        yield "throttled", report.board.throttled
        yield from _clocks(report.board.after)


def _clocks(moment: Moment) -> Iterator[tuple[str, Any]]:
    for clock in moment.clocks:
        yield f"{clock.name} governor", clock.governor
        limit = clock.limit or clock.highest
        yield f"{clock.name} MHz at most", None if limit is None else limit // 10**6


def _heat(then: Report, now: Report) -> Iterator[Difference]:
    one = then.board.hottest if then.board else None
    other = now.board.hottest if now.board else None
    if one is not None and other is not None and abs(one - other) >= _NOTICEABLE:
        yield Difference("hottest", f"{one:.0f} °C", f"{other:.0f} °C")


def _text(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
