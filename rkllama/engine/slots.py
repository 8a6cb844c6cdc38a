"""A run's slot, where a runtime has several: chosen by what they hold, and written before that is lost."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Settings
from ..runner.keeping import keep, run_extra, run_figures
from ..service import Caller
from ..states.conversation import Conversations
from ..states.slots import choose
from ..states.visit import Visit
from .memory.resident import Turn

_MOST_IN_COMPANY = 64 << 20
"""Bytes that are written while others' answers are: they stop for that long, 0.1 s at some 0.6 GB/s."""


def take_slot(
    turn: Turn, text: str, digest: str | None, settings: Settings, caller: Caller
) -> Conversations:
    """Let a turn have the slot that fits `text` best, and return what is known of it. The conversation that
    it loses to the text is kept, where that is worth it.
    """
    resident = turn.resident

    def choice(free: Sequence[Conversations]) -> Conversations:
        return choose(free, text, digest=digest, owner=caller.owner)

    turn.take_lane(choice)
    own = resident.conversations[turn.lane.index]
    own.begin_use(text)
    own.sweep()
    if (dropped := turn.lane.dropped) is not None:
        own.note_left(run_figures(dropped, resident.ready.context_length))
    extra = own.farewell(text, _MOST_IN_COMPANY if resident.has_company else None)
    if extra is not None:
        timeout = settings.prompt_timeout(len(extra.text))
        try:
            run_extra(turn.lane, extra, timeout, caller)
        except BaseException:
            own.forget()
            if resident.worker.dead and not resident.worker.retired:
                own.distrust("its process died when it saved one", sure=False)
            raise
    return own


def count_in_slot(
    turn: Turn, text: str, digest: str | None, settings: Settings, caller: Caller
) -> int | None:
    """Return how many tokens a text is, which is in the slot then: a request with it is likely to follow."""
    own = take_slot(turn, text, digest, settings, caller)
    own.forget()
    timeout = settings.prompt_timeout(len(text))
    tokens = turn.lane.count_tokens(text, timeout=timeout, caller=caller)
    if digest is not None:
        own.note_counted(text, own.key_of(digest, caller.owner), tokens)
    return tokens


def keep_slot(turn: Turn, visit: Visit, settings: Settings) -> None:
    """Write a slot after its run, where that is worth it and stops no other answer."""
    if turn.resident.has_company:
        return
    if (extra := visit.keep()) is not None:
        timeout = settings.prompt_timeout(len(extra.text))
        keep(turn.lane, extra, turn.resident.info.name, timeout)
