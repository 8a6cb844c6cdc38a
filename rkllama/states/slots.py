"""Which of a runtime's slots a prompt goes to. Each holds a conversation; those that nobody uses are free."""

from __future__ import annotations

from collections.abc import Sequence

from .conversation import Conversations
from .policy import common_length

_LEAST_SHARE = 0.1
"""Of a prompt, that a slot has to hold to be worth what else is in it; llama.cpp by itself has this, too."""
_SPARED = 0.05
"""Of a prompt, that is evaluated again rather than to overwrite a conversation."""


def choose(
    free: Sequence[Conversations], text: str, *, digest: str | None, owner: str = ""
) -> Conversations:
    """Return the memory of a free slot for a run on `text`: the one whose conversation goes on; else one that
    holds much of it, unless a state on the disk holds nearly as much; else the least recently used one.
    """
    oldest = min(free, key=lambda memory: memory.used)
    best = max(free, key=lambda memory: common_length(text, memory.prompt))
    common = common_length(text, best.prompt)
    if common == len(best.prompt) > 0:
        return best
    if common <= _LEAST_SHARE * len(text):
        return oldest
    saved = best.saved_length(text, digest, owner)
    return oldest if saved >= common - _SPARED * len(text) else best
