"""What the checks have found, as an object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from .. import __version__
from ..board.soc import read_soc
from .checks import Told

JSON_VERSION = 1
"""Of the form of this object; a change that programs would notice raises it."""


def findings_object(told: Sequence[Told], model: str | None = None) -> dict[str, object]:
    """Return what `rkllama doctor --json` prints; `model` is the one that was examined, None for all."""
    statuses = {entry.finding.status for entry in told}
    return {
        "version": JSON_VERSION,
        "rkllama": __version__,
        "soc": read_soc(),
        "model": model,
        "status": next((s for s in ("broken", "warning") if s in statuses), "good"),
        "findings": [{"group": entry.group, **asdict(entry.finding)} for entry in told],
    }
