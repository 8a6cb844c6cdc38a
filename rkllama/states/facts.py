"""What runs tell, and what is known of a loaded model by that: all its memories share it."""

from __future__ import annotations

from typing import NamedTuple

from .prefixes import Prefixes


class RunFigures(NamedTuple):
    """What a run tells. `reused`: tokens that were in the KV cache, give or take policy.SLACK."""

    prompt_tokens: int | None
    evaluated: int | None
    reused: int | None
    prompt_seconds: float | None
    saved: bool
    full: bool = False
    """Whether the context became full, so that what is in memory is not the prompt any more."""
    exact: bool = False
    """Whether `prompt_tokens` and `reused` are not off by a token."""
    answer: int = 0
    """Tokens of the answer that a saved state holds after those of the prompt."""


class Proof(NamedTuple):
    """White space at the end of a prompt: a token ends there if a run that goes on from it reuses as many."""

    tail: str
    tokens: int


class Facts:
    """What is known of one loaded model and its states."""

    def __init__(self, off: bool) -> None:
        self.off = off
        """Whether the disk is too slow for this model, or the runtime does not do what it should."""
        self.prefill: float | None = None
        """Seconds per prompt token."""
        self.prefixes = Prefixes()
        self.unused = 0
        """States of first turns that were written since a conversation has gone on."""
        self.proven: set[str] = set()
        """The white space after which the runtime has shown that a token ends."""
        self.keys: dict[tuple[str, str], str] = {}
        self.uses = 0
        """Of all its memories."""
