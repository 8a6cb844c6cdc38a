"""The tokens that a family of models has around a picture and in the place of its embeddings.

From the vendor's demo and the models' own files. The runtime writes them; a prompt has only `<image>`.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Markers(NamedTuple):
    """What stands before a picture, behind it, and for each of its tokens."""

    start: str
    end: str
    content: str


_QWEN = Markers("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_FAMILIES = (
    (r"qwen.*vl|qwen3[.-]?5", _QWEN),
    (r"internvl", Markers("<img>", "</img>", "<IMG_CONTEXT>")),
    (r"minicpm", Markers("<image>", "</image>", "<unk>")),
    (
        r"smolvlm",
        Markers("<fake_token_around_image>", "<fake_token_around_image>", "<image>"),
    ),
    (r"deepseek.*ocr", Markers("", "", "<｜▁pad▁｜>")),
    (r"gemma", Markers("<start_of_image>", "<end_of_image>", "<image_soft_token>")),
    (r"janus", Markers("<begin_of_image>", "<end_of_image>", "<image_placeholder>")),
)
"""By what the family's name, or else the file's, holds."""


def find_markers(*names: str | None) -> Markers:
    """Return the markers of the first of these names that tells a family; those of Qwen where none does,
    which most models for this NPU are made from.
    """
    for name in names:
        for pattern, markers in _FAMILIES:
            if name and re.search(pattern, name.lower()):
                return markers
    return _QWEN
