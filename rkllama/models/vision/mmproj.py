"""An image encoder for llama.cpp (an `mmproj` file) as its own header describes it."""

from __future__ import annotations

import os
from typing import NamedTuple

from ...errors import LoadFailed
from ..gguf import GGUFHeader, read_header

ARCHITECTURE = "clip"
"""What such a file has as its architecture, whatever encoder it is."""
_SHRINKS = {"mlp": 1, "mlp_norm": 1, "ldp": 4, "ldpv2": 4, "gemma3": 16}
"""By the projectors that make as many tokens of every picture: how many patches become one token."""
_PADS = ("mlp", "mlp_norm", "ldp", "ldpv2")
"""Those before which llama.cpp makes a square of the picture, and no pieces."""
_POOLS = {"yasa2": 64}
"""Those that make so many tokens of every picture, whatever its patches."""
_WANTS_PADDING = "rkllama.vision.pad"
"""A key of ours, by which the guide's encoder says that it has not learnt from stretched pictures."""
_NEWEST_ONLY = "rkllama.vision.newest_only"
"""Another one: pictures of earlier turns would confuse its model."""


class Mmproj(NamedTuple):
    """What is known of an encoder; None where its header does not tell, or where that differs."""

    projector: str = ""
    side: int | None = None
    """Of the square that each picture becomes, in pixels."""
    tokens: int | None = None
    """Tokens that each picture takes of the context."""
    pads: bool = False
    """Whether llama.cpp puts the picture into the middle of that square, rather than to stretch it."""
    newest_only: bool = False
    """Whether the pictures of earlier turns are to be left out."""
    problem: str | None = None
    """Why it is no image encoder."""

    @property
    def at_once(self) -> int:
        """How many tokens have to be evaluated at once: those of a whole picture, where each sees all."""
        return (self.tokens or 512) if self.projector.startswith("gemma") else 0


def read_mmproj(path: str) -> Mmproj:
    """Return what the file says of itself. Raises GGUFError, a LoadFailed."""
    header = read_header(path)
    told = header.metadata
    projector = told.get("clip.vision.projector_type") or told.get("clip.projector_type")
    if problem := _problem(header, projector):
        return Mmproj(problem=f"{os.path.basename(path)} {problem}")
    projector = str(projector)
    side, patch = told.get("clip.vision.image_size"), told.get("clip.vision.patch_size")
    in_pieces = told.get("clip.vision.mm_patch_merge_type") == "spatial_unpad"
    if in_pieces or not (_is_size(side) and _is_size(patch)):
        return Mmproj(projector=projector)
    assert isinstance(side, int)
    assert isinstance(patch, int)
    if (tokens := _tokens(projector, side // patch)) is None:
        return Mmproj(projector=projector)
    pads = projector in _PADS or told.get(_WANTS_PADDING) is True
    newest_only = told.get(_NEWEST_ONLY) is True
    return Mmproj(projector=projector, side=side, tokens=tokens, pads=pads, newest_only=newest_only)


def _tokens(projector: str, across: int) -> int | None:
    """Return what a picture of `across` x `across` patches takes; None where that is not known."""
    if projector in _POOLS:
        return _POOLS[projector]
    shrinks = _SHRINKS.get(projector)
    return None if shrinks is None else across**2 // shrinks


def _problem(header: GGUFHeader, projector: object) -> str | None:
    if header.architecture != ARCHITECTURE:
        return "is no image encoder but a language model"
    if header.metadata.get("clip.has_vision_encoder") is False or not projector:
        return "encodes no pictures"
    return None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 14


def check_is_model(name: str, header: GGUFHeader) -> None:
    """Raise LoadFailed for an image encoder that is taken for the language model `name`."""
    if header.architecture == ARCHITECTURE:
        raise LoadFailed(
            f"{name} is no language model but the image encoder of one",
            hint="Put it into the folder of its model, with mmproj in its name.",
        )
