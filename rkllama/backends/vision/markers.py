"""The tokens that a family of models has around a picture and in the place of its embeddings.

From the vendor's demo and the models' own files. The runtime writes them; a prompt has only `<image>`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...models.metadata import StoredModel


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


def markers_of(model: StoredModel) -> Markers:
    """Return the markers of a model's family; where its names tell none, those that its Modelfile has from
    the older RKLLama, else those of Qwen, which most models that see here are made from.
    """
    info = model.info
    if found := find_markers(info.family, info.name, info.file):
        return found
    named = dict(model.modelfile.parameters)
    keys = ("img_start", "img_end", "img_content")
    return Markers(*(named[key] for key in keys)) if all(key in named for key in keys) else _QWEN


def find_markers(*names: str | None) -> Markers | None:
    """Return the markers of the first of these names that tells a family."""
    for name in names:
        for pattern, markers in _FAMILIES:
            if name and re.search(pattern, name.lower()):
                return markers
    return None
