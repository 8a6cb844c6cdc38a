"""The guide: a tiny model of our own inside the package, put into the models directory on first use."""

from __future__ import annotations

import os

from ..errors import ConfigError, DiskFull, RKLLamaError
from ..files import copy_file, free_space, is_full, make_directory
from .filename import strip_extension, without_registry

NAME = "guide"
FILE = os.path.join(os.path.dirname(__file__), "guide.gguf")


def means_guide(name: str) -> bool:
    """Return whether `name` is the guide's, in any of the spellings that models have."""
    plain = without_registry(name.strip()).removesuffix(":latest")
    return strip_extension(plain).lower() == NAME


def install(models: str) -> None:
    """Put the guide into the directory `models`, which is created if needed. Raises DiskFull, ConfigError."""
    try:
        make_directory(models)
        copy_file(FILE, os.path.join(models, os.path.basename(FILE)), 0o644)
    except OSError as error:
        raise _explained(error, models) from None


def _explained(error: OSError, models: str) -> RKLLamaError:
    reason = f"the guide cannot be copied to {models}: {error.strerror or error}"
    if is_full(error):
        return DiskFull(reason, needed=os.path.getsize(FILE), available=free_space(models))
    return ConfigError(reason, hint="Set RKLLAMA_MODELS to another directory.")
