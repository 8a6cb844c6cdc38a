"""What a check has found. Checks are functions that yield these; `doctor.checks` lists them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..config import Settings

Status = Literal["good", "warning", "broken", "unseen"]
"""Fine; works, but slowly or not for long; does not work; cannot be seen by this user (not counted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """The name of the check, for programs: "npu-driver"."""
    status: Status
    title: str
    """What was looked at, in a word or two: "NPU driver"."""
    found: str
    """What is there: "0.9.6"."""
    good: str | None = None
    """What should be there: "0.9.8"."""
    advice: str | None = None
    """What to do, as a sentence; with `cure`, why."""
    cure: tuple[str, ...] = ()
    """The lines to run in a shell, in order; those that need root begin with "sudo "."""
    source: str | None = None
    """Where it was read, a path or a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What one check tells of. `good` and `source` are what its findings have that name no other."""

    check: str
    title: str
    good: str | None = None
    source: str | None = None

    def tell(
        self,
        status: Status,
        found: str,
        *,
        good: str | None = None,
        advice: str | None = None,
        cure: tuple[str, ...] = (),
        source: str | None = None,
    ) -> Finding:
        """Return a finding; one that is good need not say what should be there."""
        return Finding(
            check=self.check,
            status=status,
            title=self.title,
            found=found,
            good=None if status == "good" else good or self.good,
            advice=advice,
            cure=cure,
            source=source or self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is examined: this machine with these settings, or one model on it."""

    settings: Settings
    model: str | None = None
    """The full name of a model; None is all of them."""


Check = Callable[[Subject], Iterator[Finding]]
"""Yields what it has found, worst first; nothing where it does not apply to this machine."""
