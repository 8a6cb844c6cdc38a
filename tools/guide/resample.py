"""A picture as llama.cpp hands it to an encoder with the `mlp` projector: resized and padded to a square.

llama.cpp interpolates by cubic polynomials between the four pixels around a point, without averaging
first where it makes a picture smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING = (122, 116, 104)
"""The colour that llama.cpp puts around a picture that is not square."""
_NEIGHBOURS = np.arange(-1, 3)


def squared(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """The picture as (side, side, 3), its proportions kept."""
    pixels = np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    if (width, height) == (side, side):
        return pixels
    scale = min(np.float32(side) / np.float32(width), np.float32(side) / np.float32(height))
    wide, high = (min(int(np.ceil(np.float32(n) * scale)), side) for n in (width, height))
    smaller = _along(_along(pixels.astype(np.float32), 1, wide), 0, high)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = PADDING
    left, top = (side - wide) // 2, (side - high) // 2
    square[top : top + high, left : left + wide] = np.clip(np.floor(smaller + 0.5), 0, 255)
    return square


def _along(pixels: NDArray[np.float32], axis: int, length: int) -> NDArray[np.float32]:
    """The pixels interpolated to `length` along one axis."""
    ratio = np.float32(pixels.shape[axis]) / np.float32(length)
    places = ratio * np.arange(length, dtype=np.float32)
    whole = places.astype(int)
    weights = _weights(places - whole)
    total = np.zeros((), np.float32)
    for offset, weight in zip(_NEIGHBOURS, weights, strict=True):
        taken = pixels.take((whole + offset).clip(0, pixels.shape[axis] - 1), axis)
        total = total + taken * weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return total


def _weights(d: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    """Of the four neighbours, for a point `d` past the second of them."""
    before = -d / 3 + d**2 / 2 - d**3 / 6
    after = d + d**2 / 2 - d**3 / 2
    beyond = (d**3 - d) / 6
    return before, 1 - before - after - beyond, after, beyond
