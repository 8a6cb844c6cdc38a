"""Pictures for tests, made by Pillow."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

RED, GREEN, BLUE, GREY = (220, 30, 40), (20, 200, 60), (30, 60, 210), (128, 128, 128)


def halves(
    size: tuple[int, int] = (120, 120),
    left: tuple[int, int, int] = RED,
    right: tuple[int, int, int] = BLUE,
) -> Image.Image:
    """A picture of two colours, side by side."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
