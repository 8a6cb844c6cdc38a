"""What llama.cpp's log says of a failure. Pure functions of that text."""

from __future__ import annotations

import re

from ..types import Diagnosis


def load_error(log: str) -> str | None:
    """Why a model could not be loaded: llama.cpp's exception does not tell. None: not in the log (yet)."""
    pattern = r"(?:error loading model|failed to initialize the context): (.+)\n"
    reasons: list[str] = re.findall(pattern, log)
    return reasons[-1].strip() if reasons else None


def encoder_error(log: str) -> str | None:
    """Why a model's image encoder could not be loaded; None: not in the log (yet)."""
    pattern = r"(?:clip_init: failed to load model '[^']*'|mtmd_init_from_file: error): (.+)\n"
    match = re.search(pattern, log)
    return match[1].strip() if match else None


def schema_error(log: str) -> str | None:
    """Why llama.cpp's grammar engine does not take a JSON schema; None: not in the log (yet)."""
    told: list[str] = re.findall(r"llg error: (.*(?:\n.*)?(?:\n.*)?(?:\n *error: .*)?)", log)
    if not told:
        return None
    lines = told[-1].splitlines()
    reason = next((line for line in lines if line.strip().startswith("error: ")), lines[0])
    return re.sub(r"^(?:at [\d()]+: |failed to compile JSON schema: |\s*error: )+", "", reason)


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


_ERROR_LINE = re.compile(
    r"^(?:[\d.]+ E .+|.*\b(?:error|failed|cannot|couldn't|invalid|terminate called|what\(\)).*)$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line in which a llama-server, of whatever build, tells what goes wrong."""
_LONGEST_LINE = 300


def last_error(log: str) -> str | None:
    """Return the last line of a llama-server's log that tells of an error; None where none does."""
    lines: list[str] = _ERROR_LINE.findall(log)
    return re.sub(r"^[\d.]+ E ", "", lines[-1]).strip()[:_LONGEST_LINE] if lines else None


def diagnose_server(log: str) -> Diagnosis | None:
    """The cause of a llama-server's end that `log` names, else its last error; None: it names none."""
    line = last_error(log)
    if (known := diagnose(log)) is not None or line is None:
        return known
    return Diagnosis(
        message=f"llama-server said: {line}",
        hint="Try the model with another build of llama-server, or without one.",
    )
