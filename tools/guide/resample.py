"""A picture as the encoder gets it: in the middle of a square, scaled by Pillow as RKLLama does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING = (122, 116, 104)
"""What is beside a picture that is not square."""


def squared(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """The picture as (side, side, 3), its proportions kept; the same as `square_file` in RKLLama gives."""
    longest = max(picture.size)
    width, height = (max(1, round(length * side / longest)) for length in picture.size)
    scaled = picture.convert("RGB").resize(
        (width, height), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
