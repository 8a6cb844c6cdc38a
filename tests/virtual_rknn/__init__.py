"""A stand-in for librknnrt, which encodes pictures on the NPU; README.md says what it does."""

from .build import describe, library, write_encoder

__all__ = ["describe", "library", "write_encoder"]
