"""One run: a prompt, its answer, and when the first text and the end came."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from ..service import Service
from ..types import ChatRequest, Finished, SamplingParams
from .plan import Plan
from .power import NO_METER, Meter
from .results import Cache, Run

SAMPLING = SamplingParams(temperature=1.0, top_k=40, top_p=1.0, repeat_penalty=1.1)
"""Answers to words in random order neither end early nor run in circles with it. Runtimes before 1.3 fix it
when they load a model, so that every request has to have the same."""
KEEP_ALIVE = 3600.0
"""Seconds: the model is not to go between two runs."""
_WAITED = 0.05
"""Seconds in the queue, or for a load, from which on something was done for others, or once more."""
_MOST_COLD, _LEAST_WARM = 0.05, 0.5
"""Shares of a prompt that may, and have to, be in memory; some runtimes begin every prompt with a token of
their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What came back, with monotonic times in seconds; `first` is None for an answer without text."""

    finished: Finished
    started: float
    first: float | None
    ended: float


def ask(
    service: Service,
    model: str,
    text: str,
    *,
    tokens: int,
    context_length: int | None,
    meter: Meter = NO_METER,
) -> Observed:
    """Have a prompt answered by at most so many tokens. Raises what the service does."""
    request = ChatRequest(
        model=model,
        prompt=text,
        raw=True,  # a chat template would be the same beginning of every prompt
        sampling=SAMPLING,
        max_tokens=tokens,
        context_length=context_length,
        keep_alive=KEEP_ALIVE,
    )
    first: float | None = None
    finished: Finished | None = None
    meter.note()
    started = time.monotonic()
    with contextlib.closing(service.stream(request)) as events:
        for event in events:
            if isinstance(event, Finished):
                finished = event
            elif first is None:
                first = time.monotonic()
                meter.note()
    ended = time.monotonic()
    meter.note()
    assert finished is not None, "every stream ends with Finished"
    return Observed(finished=finished, started=started, first=first, ended=ended)


def make_run(
    observed: Observed, plan: Plan, meter: Meter, *, number: int, size: int, cache: Cache
) -> Run:
    """Return the figures of a run, and whether they count."""
    usage, timings = observed.finished.usage, observed.finished.timings
    first, ended = observed.first, observed.ended
    unfit = _spoilt(observed) or _wrong_cache(observed, cache)
    short = _too_short(observed, plan)
    return Run(
        round=number,
        size=size,
        cache=cache,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        answer_tokens=usage.completion_tokens,
        finish_reason="repeats" if observed.finished.repeats else observed.finished.reason,
        queue_seconds=timings.queue,
        first_token_seconds=None if first is None else first - observed.started,
        answer_seconds=None if first is None else ended - first,
        runtime_prompt_seconds=timings.prompt,
        runtime_answer_seconds=timings.generation,
        prompt_joules=None if first is None else meter.joules(observed.started, first),
        answer_joules=None if first is None else meter.joules(first, ended),
        prompt_counts=unfit is None and first is not None,
        answer_counts=unfit is None and short is None,
        remark=unfit or short,
    )


def _spoilt(observed: Observed) -> str | None:
    if observed.finished.reason == "cancelled":
        return "it was interrupted: somebody unloaded the model"
    timings = observed.finished.timings
    if (timings.queue or 0.0) >= _WAITED:
        return "it waited for another request"
    if (timings.load or 0.0) >= _WAITED:
        return "the model had to be loaded for it"
    return None


def _wrong_cache(observed: Observed, cache: Cache) -> str | None:
    """Return why a run is not what it was meant to be, as far as the runtime tells."""
    usage = observed.finished.usage
    if not usage.prompt_tokens or usage.cached_tokens is None:
        return None
    share = usage.cached_tokens / usage.prompt_tokens
    if cache == "cold" and share > _MOST_COLD:
        return "part of its prompt was in memory"
    if cache == "warm" and share < _LEAST_WARM:
        return "its prompt was not in memory"
    return None


def _too_short(observed: Observed, plan: Plan) -> str | None:
    tokens = observed.finished.usage.completion_tokens
    if observed.first is None or not tokens:
        return "it has no answer"
    if tokens < plan.least_answer:
        return f"its answer ended after {tokens} tokens"
    return None
