"""A long prompt in steps, while other runs of the same model write: llama.cpp puts a batch of the prompt
before their next tokens, and a batch that is quick to evaluate as a whole takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .llama_wire import Completion

_SECONDS = 0.15
"""What a step should take: others' tokens come at most so much later."""
_TOKENS = 32
"""Of the first step, about, and of what it may begin too late: a step that ends before what is in the cache
would drop the rest of that.
"""
_CHARACTERS = 4
"""Of a token, where nothing has been told yet."""


class Steps:
    """The beginnings of one prompt that are evaluated one after the other; each is in the cache then."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._end = self._size = 0
        self.evaluated = 0
        """Tokens that were evaluated so far,"""
        self.seconds = 0.0
        """and what that took."""

    @staticmethod
    def are_worthwhile(progress: dict[str, Any]) -> bool:
        """Return whether much of a prompt is still to be evaluated, as far as llama.cpp has told."""
        left: int = progress.get("total", 0) - progress.get("processed", 0)
        return left > 4 * _TOKENS

    def begin_after(self, texts: Iterable[str]) -> None:
        """Begin behind what one of these texts, which are in the cache, has in common with the prompt."""
        cached = max((_common(self._prompt, each) for each in texts), default=0)
        self._size = _TOKENS * _CHARACTERS
        self._end = cached

    def begin(self, progress: dict[str, Any]) -> None:
        """Go on after a run that was ended at this progress."""
        total, processed = progress["total"], progress["processed"]
        a_token = len(self._prompt) / total
        self._size = max(1, int(_TOKENS * a_token))
        self._end = int((processed + _TOKENS) * a_token)
        self._count(max(0, processed - progress.get("cache", 0)), progress.get("time_ms", 0) / 1000)

    @property
    def are_left(self) -> bool:
        """Whether more of the prompt is left than a step."""
        return self._end + self._size < len(self._prompt)

    def next(self) -> str:
        """Return the beginning that is to be evaluated next."""
        self._end += self._size
        return self._prompt[: self._end]

    def took(self, seconds: float, completion: Completion) -> None:
        """Count a step, and make the next one as long as it may be."""
        fitting = self._size * _SECONDS / max(seconds, 0.001)
        self._size = int(max(1.0, self._size / 2, min(fitting, 2 * self._size)))
        result = completion.result(aborted=False)
        self._count((result.prompt_tokens or 0) - (result.cached_tokens or 0), seconds)

    def _count(self, tokens: int, seconds: float) -> None:
        self.evaluated += tokens
        self.seconds += seconds


def _common(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
