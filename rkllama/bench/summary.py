"""From single runs to medians: which figures count, and what is left where there are too few."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from .plan import Plan
from .results import Cache, Run, SizeResult, Speeds, Stat

_FEWEST = 3
"""Figures from which on a spread says something."""

Figure = Callable[[Run], "float | None"]


def stat_of(values: Iterable[float | None]) -> Stat | None:
    """Return the median and the spread of the values that are known; None where there are none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    q1 = q3 = statistics.median(known)
    if len(known) > 1:
        q1, _, q3 = statistics.quantiles(known, n=4, method="inclusive")
    return Stat(
        count=len(known),
        median=statistics.median(known),
        q1=q1,
        q3=q3,
        min=known[0],
        max=known[-1],
    )


def spread_of(stat: Stat) -> float | None:
    """Return the interquartile range as a share of the median; None where too few figures tell it."""
    if stat.count < _FEWEST or not stat.median:
        return None
    return (stat.q3 - stat.q1) / stat.median


def size_results(
    plan: Plan, runs: Sequence[Run], skipped: dict[int, str]
) -> tuple[SizeResult, ...]:
    """Return the results of each size of a plan."""
    return tuple(
        SizeResult(
            size=size,
            skipped=skipped.get(size),
            cold=_speeds(runs, size, "cold"),
            warm=_speeds(runs, size, "warm"),
        )
        for size in plan.sizes
    )


def _speeds(runs: Sequence[Run], size: int, cache: Cache) -> Speeds | None:
    own = [run for run in runs if run.size == size and run.cache == cache]
    prompts = [run for run in own if run.prompt_counts]
    answers = [run for run in own if run.answer_counts]
    if not prompts and not answers:
        return None
    cold = prompts if cache == "cold" else []

    def over(among: Sequence[Run], figure: Figure) -> Stat | None:
        return stat_of(map(figure, among))

    return Speeds(
        prompt_tokens=_middle(run.prompt_tokens for run in prompts),
        cached_tokens=_middle(run.cached_tokens for run in prompts),
        answer_tokens=_middle(run.answer_tokens for run in answers),
        first_token_seconds=over(prompts, lambda run: run.first_token_seconds),
        prompt_rate=over(cold, lambda run: _rate(evaluated(run), run.first_token_seconds)),
        runtime_prompt_rate=over(
            cold, lambda run: _rate(evaluated(run), run.runtime_prompt_seconds)
        ),
        answer_rate=over(answers, lambda run: _rate(_after_first(run), run.answer_seconds)),
        runtime_answer_rate=over(
            answers, lambda run: _rate(run.answer_tokens, run.runtime_answer_seconds)
        ),
        prompt_joules_per_token=over(cold, lambda run: _share(run.prompt_joules, evaluated(run))),
        answer_joules_per_token=over(
            answers, lambda run: _share(run.answer_joules, run.answer_tokens)
        ),
    )


def evaluated(run: Run) -> int | None:
    """Return the tokens of a run's prompt that the runtime evaluated; None where they are not known.

    Where a runtime does not tell what it reused, nothing of a cold prompt can have been: none of them begins
    like another.
    """
    if run.prompt_tokens is None:
        return None
    return run.prompt_tokens - (run.cached_tokens or 0)


def _after_first(run: Run) -> int | None:
    """Return the answer's tokens after the first, whose time is the prompt's."""
    return None if run.answer_tokens is None else run.answer_tokens - 1


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return tokens / seconds if tokens and seconds else None


def _share(joules: float | None, tokens: int | None) -> float | None:
    return None if joules is None or not tokens else joules / tokens


def _middle(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return statistics.median_low(known) if known else None
