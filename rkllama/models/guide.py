"""The guide: a tiny model of our own inside the package, put into the models directory on first use."""

from __future__ import annotations

import contextlib
import filecmp
import os

from ..errors import ConfigError, DiskFull, RKLLamaError
from ..files import copy_file, free_space, is_full, make_directory
from .filename import strip_extension, without_registry

NAME = "guide"
FILE = os.path.join(os.path.dirname(__file__), "guide.gguf")
ENCODER = os.path.join(os.path.dirname(__file__), "guide-mmproj.gguf")
"""What it sees with; not every build of the package has it."""


def means_guide(name: str) -> bool:
    """Return whether `name` is the guide's, in any of the spellings that models have."""
    plain = without_registry(name.strip()).removesuffix(":latest")
    return strip_extension(plain).lower() == NAME


def install(models: str) -> None:
    """Put the guide into the directory `models`, which is created if needed. Raises DiskFull, ConfigError."""
    try:
        make_directory(models)
        if os.path.isfile(ENCODER):  # first: a guide without it would be taken for whole
            copy_file(ENCODER, os.path.join(models, os.path.basename(ENCODER)), 0o644)
        copy_file(FILE, os.path.join(models, os.path.basename(FILE)), 0o644)
    except OSError as error:
        raise _explained(error, models) from None


def give_eyes(path: str) -> None:
    """Put the encoder beside the guide at `path` that was put there before there was one, if it is the same
    guide. In a directory that cannot be written it stays without.
    """
    beside = os.path.join(os.path.dirname(path), os.path.basename(ENCODER))
    if os.path.basename(path) != os.path.basename(FILE) or os.path.lexists(beside):
        return
    with contextlib.suppress(OSError):
        if os.path.isfile(ENCODER) and filecmp.cmp(path, FILE, shallow=False):
            copy_file(ENCODER, beside, 0o644)


def _explained(error: OSError, models: str) -> RKLLamaError:
    reason = f"the guide cannot be copied to {models}: {error.strerror or error}"
    if is_full(error):
        return DiskFull(reason, needed=os.path.getsize(FILE), available=free_space(models))
    return ConfigError(reason, hint="Set RKLLAMA_MODELS to another directory.")
