"""A worker's runs as states/ sees them: their figures, and the runs that are made for a state alone."""

from __future__ import annotations

import contextlib
import logging

from ..backends.base import GenerateSpec, RunResult
from ..errors import RKLLamaError
from ..service import LOCAL, Caller
from ..states.conversation import Conversations, Extra
from ..states.facts import RunFigures
from ..states.index import Entry
from .lane import CLOSE_GRACE, Lane, State

log = logging.getLogger("rkllama")

_SPARE = 8
"""Tokens of the context from which on it counts as full."""


def run_figures(result: RunResult, context_length: int, *, counted: bool = False) -> RunFigures:
    """Return what a run tells of its prompt; one that was `counted` had been evaluated before."""
    tokens, evaluated, reused = result.prompt_tokens, result.evaluated_tokens, result.reused_tokens
    if tokens is None and evaluated is not None and reused is not None:
        tokens = evaluated + reused
    return RunFigures(
        prompt_tokens=tokens,
        evaluated=None if counted else evaluated,
        reused=reused,
        prompt_seconds=result.prompt_seconds,
        saved=result.saved,
        full=(tokens or 0) + (result.completion_tokens or 0) + _SPARE >= context_length,
        exact=result.prompt_tokens is not None and result.cached_tokens is not None,
    )


def run_extra(lane: Lane, extra: Extra, timeout: float, caller: Caller = LOCAL) -> Entry | None:
    """Make a run of one token for the state that it leaves, or write the slot; None where there is nothing.

    Raises what `Lane.generate` raises when the caller has gone or the process has ended.
    """
    try:
        if extra.writes_slot:
            return _write_slot(lane, extra, timeout, caller)
        return _run_for_state(lane, extra, timeout, caller)
    except RKLLamaError:
        extra.give_up()
        if lane.state is State.DEAD or caller.has_left():
            raise
        return None


def _write_slot(lane: Lane, extra: Extra, timeout: float, caller: Caller) -> Entry | None:
    """Write a slot, after a run on the text where it is not in memory."""
    result, prompt_tokens = None, extra.in_memory
    if prompt_tokens is None:
        spec = GenerateSpec(prompt=extra.text, max_tokens=0)
        result = _run(lane, spec, timeout, caller)
        prompt_tokens = result.prompt_tokens or 0
    tokens = lane.save(extra.path, timeout=timeout, caller=caller) or 0
    # One that holds less holds something else, or has been cut off.
    is_whole = tokens >= prompt_tokens > 0
    figures = RunFigures(
        prompt_tokens=prompt_tokens,
        evaluated=result.evaluated_tokens if result else None,
        reused=None,
        prompt_seconds=result.prompt_seconds if result else None,
        saved=is_whole,
        answer=max(0, tokens - prompt_tokens),
    )
    entry = extra.end(figures)
    if not tokens:
        extra.distrust_writing()
    if entry is not None and result is None:
        extra.note_saved(entry)
    return entry


def _run_for_state(lane: Lane, extra: Extra, timeout: float, caller: Caller) -> Entry | None:
    spec = GenerateSpec(prompt=extra.text, max_tokens=1, save_state=extra.path)
    result = _run(lane, spec, timeout, caller)
    return extra.end(run_figures(result, extra.context_length))


def _run(lane: Lane, spec: GenerateSpec, timeout: float, caller: Caller) -> RunResult:
    result: RunResult | None = None
    with contextlib.closing(
        lane.generate(spec, first=timeout, each=timeout, caller=caller)
    ) as pieces:
        for piece in pieces:
            result = piece.result
    assert result is not None
    return result


def keep_conversation(lane: Lane, conversations: Conversations) -> None:
    """Keep what an idle model has in memory before it goes, if that is worth it and the runtime can."""
    if (extra := conversations.farewell()) is not None:
        keep(lane, extra, conversations.model, CLOSE_GRACE)


def keep(lane: Lane, extra: Extra, model: str, timeout: float) -> None:
    """Keep a conversation for whoever comes later; the log tells if that fails."""
    try:
        run_extra(lane, extra, timeout)
    except RKLLamaError as error:
        log.warning("%s: its conversation is not kept: %s", model, error)
