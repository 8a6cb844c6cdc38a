"""What conversations begin with again and again: a model's system prompt and its tools.

A state ends where a run's prompt ended, so a prefix gets one by a run of its own: of one token, right before
the run that would have evaluated it anyway.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from .policy import common_length

_CONVERSATIONS = 8
_LONGEST = 1 << 16
"""Characters of a conversation's beginning that are remembered."""


class _Beginning(NamedTuple):
    key: str
    text: str


class Prefixes:
    """The beginnings of a model's last conversations; thread-safe."""

    def __init__(self) -> None:
        self._recent: deque[_Beginning] = deque(maxlen=_CONVERSATIONS)
        self._lock = threading.Lock()

    def note(self, key: str, text: str) -> None:
        """Remember a conversation; its next turn takes its place."""
        head = text[:_LONGEST]
        with self._lock:
            for other in self._recent:
                if other.key == key and head.startswith(other.text):
                    self._recent.remove(other)
                    break
            self._recent.append(_Beginning(key, head))

    def _beginnings(self) -> list[_Beginning]:
        with self._lock:
            return list(self._recent)

    def continues(self, key: str, text: str) -> bool:
        """Return whether a text goes on from one of the last conversations."""
        return any(other.key == key and text.startswith(other.text) for other in self._beginnings())

    def recurring(self, key: str, text: str, control_tokens: Collection[str]) -> str:
        """Return the longest beginning of `text` that another conversation had, up to where a control token
        begins; "" where there is none, and where `text` continues a conversation.
        """
        longest = 0
        for other in self._beginnings():
            if other.key == key:
                if text.startswith(other.text):
                    return ""
                longest = max(longest, common_length(text, other.text))
        places = (text.rfind(token, 0, longest + len(token)) for token in control_tokens if token)
        return text[: max(0, *places, 0)]
