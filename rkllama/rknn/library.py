"""Finding librknnrt.so, as librkllmrt.so is found."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from ..clib import finding
from .abi import header

FILE = "librknnrt.so"
_SOUGHT = finding.Sought(
    file=FILE,
    setting="rknn_lib",
    stranger="it is not librknnrt, or it is too old",
    hint="Pictures need it: run `rkllama runtime install rknn` to fetch it, or copy librknnrt.so for "
    "this machine to {home}, or set RKLLAMA_RKNN_LIB to it. Text works without it.",
)


def find_library(
    explicit: str | None = None, environ: Mapping[str, str] | None = None
) -> tuple[str, ctypes.CDLL]:
    """Return the library's file, and it loaded. Raises LibraryNotFound.

    `explicit` (or else RKLLAMA_RKNN_LIB) is the only place looked at where it is set.
    """
    env = os.environ if environ is None else environ
    return finding.find_library(_SOUGHT, tuple(header().functions), explicit, env)


def look_for_library(
    explicit: str | None = None, environ: Mapping[str, str] | None = None
) -> str | None:
    """Return the file that `find_library` would most likely load, without loading it; None for none."""
    env = os.environ if environ is None else environ
    return finding.look_for_library(_SOUGHT, explicit, env)
