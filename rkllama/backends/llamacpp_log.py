"""What llama.cpp's log says of a failure. Pure functions of that text."""

from __future__ import annotations

import re

from ..types import Diagnosis


def load_error(log: str) -> str | None:
    """Why a model could not be loaded: llama.cpp's exception does not tell. None: not in the log (yet)."""
    pattern = r"(?:error loading model|failed to initialize the context): (.+)\n"
    reasons: list[str] = re.findall(pattern, log)
    return reasons[-1].strip() if reasons else None


def diagnose(log: str) -> Diagnosis | None:
    """The cause of a crash that `log` names; None: it names none."""
    if match := re.search(r"GGML_ASSERT[^\n]{0,200}", log):
        return Diagnosis(
            message=f"the runtime stopped itself: {match[0]}",
            hint="The model and this runtime may not go together. Download it again if that may have "
            "broken off.",
        )
    if "Too many open files" in log:
        return Diagnosis(
            message="the process ran out of file descriptors",
            hint="Raise the limit: LimitNOFILE= in the systemd unit, or `ulimit -n 16384`.",
        )
    return None
