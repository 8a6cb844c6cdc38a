"""Where this machine's `/proc`, `/sys`, `/dev` and `/usr/lib` are: RKLLAMA_SYSROOT may put them elsewhere.

Tests set it, and whoever looks at the files of another board.
"""

from __future__ import annotations

import os


def system_path(path: str) -> str:
    """Return where the absolute `path` of the system is to be read."""
    root = os.environ.get("RKLLAMA_SYSROOT")
    return root.rstrip("/") + path if root else path
