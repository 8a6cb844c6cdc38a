"""What a reader makes of a text that may be a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Found:
    """Calls, each a name and its arguments; the text up to `end` belongs to them."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    end: int


@dataclass(frozen=True, slots=True)
class Stray:
    """The arguments of a call of `tool` begin at `start`, and go on as its parameters do not allow.

    `closers` are the brackets that the call needs behind them. With `whole` it is the JSON of the call itself
    that begins there, and is not as it has to be. Arguments that are no JSON in the text have `begun` as it,
    which goes into their place.
    """

    tool: str
    start: int
    closers: str = ""
    whole: bool = False
    begun: str | None = None


Outcome = Found | Stray | Literal["more", "no"]
""""more": the text may become a call, when more of it is there; "no": it is none."""
