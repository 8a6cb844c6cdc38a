"""A worker's runs as states/ sees them: their figures, and the runs that are made for a state alone."""

from __future__ import annotations

import contextlib
import logging

from ..backends.base import GenerateSpec, RunResult
from ..errors import RKLLamaError
from ..service import LOCAL, Caller
from ..states.conversation import Conversations, Extra, RunFigures
from ..states.index import Entry
from .lane import CLOSE_GRACE, Lane, State
from .worker import Worker

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
    """Make a run of one token for the state that it leaves; None where it has left none.

    Raises what `Lane.generate` raises when the caller has gone or the process has ended.
    """
    spec = GenerateSpec(prompt=extra.text, max_tokens=1, save_state=extra.path)
    result: RunResult | None = None
    try:
        with contextlib.closing(
            lane.generate(spec, first=timeout, each=timeout, caller=caller)
        ) as pieces:
            for piece in pieces:
                result = piece.result
    except RKLLamaError:
        extra.give_up()
        if lane.state is State.DEAD or caller.has_left():
            raise
        return None
    return extra.end(run_figures(result, extra.context_length)) if result is not None else None


def keep_conversation(worker: Worker, conversations: Conversations) -> None:
    """Keep what an idle model has in memory before it goes, if that is worth it and the runtime can."""
    extra = conversations.farewell()
    if extra is None:
        return
    try:
        run_extra(worker, extra, CLOSE_GRACE)
    except RKLLamaError as error:
        log.warning("%s: its conversation is not kept: %s", conversations.model, error)
