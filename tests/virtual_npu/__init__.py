"""A stand-in for librkllmrt and the NPU behind it; README.md says what it does."""

from .build import VERSIONS, driver, library
from .model import directive, read_prompts, read_trace, write_model

__all__ = [
    "VERSIONS",
    "directive",
    "driver",
    "library",
    "read_prompts",
    "read_trace",
    "write_model",
]
