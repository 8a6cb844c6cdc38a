"""Looking at a librkllmrt in a process of its own: a strange library may do anything when it is loaded.

`python -m rkllama.runner.probe PATH` prints what it found as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys

from ..errors import LibraryNotFound, LoadFailed, see_doctor
from ..files import IMPORT_ROOT
from ..rkllm.library import open_library
from .environment import without_secrets

_TIMEOUT = 30.0
"""Seconds after which a library that is being loaded counts as hung."""
_HINT = "Name a librkllmrt.so for this machine, or run `rkllama runtime install` to fetch one."


def probe(path: str, abi: str | None = None) -> str:
    """Return the release whose header fits the library at `path`. Raises LoadFailed."""
    command = [sys.executable, "-m", "rkllama.runner.probe", path, abi or ""]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
            cwd=IMPORT_ROOT,
            env=without_secrets(),
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{path} cannot be used: loading it does not end") from None
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise LoadFailed(
            f"{path} cannot be used: loading it ended its process (status {done.returncode})",
            hint=see_doctor(
                "It may be for another CPU, or damaged: copy it again, or take another release."
            ),
        ) from None
    if "error" in found:
        raise LoadFailed(found["error"], hint=found["hint"])
    release: str = found["release"]
    return release


def main() -> None:
    """Print the release, or the error."""
    try:
        library = open_library(sys.argv[1], sys.argv[2] or None, {})
        found = {"release": library.version or library.release}
    except LibraryNotFound as error:  # which is about a setting; here a file was named
        reasons = "; ".join(reason for _, reason in error.tried)
        found = {"error": f"{sys.argv[1]} cannot be used: {reasons}", "hint": _HINT}
    except LoadFailed as error:
        found = {"error": error.message, "hint": error.hint or ""}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
