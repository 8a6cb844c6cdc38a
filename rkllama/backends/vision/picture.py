"""From a picture's file, as a client sent it, to the square of pixels that an image encoder takes.

Done by Pillow (the extra `vision`), in the model's process: what a hostile file breaks is one answer.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from ...board.installation import how_to_add_an_extra
from ...errors import BackendMissing, InvalidRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_MOST_PIXELS = 40_000_000
_MOST_JPEG_PIXELS = 120_000_000
"""A JPEG is decoded to an eighth where that suffices, and phones make large ones; all of a progressive one
is in memory at a time."""
_MOST_WEBP_PIXELS = 25_000_000
"""Each takes 16 bytes while a WebP is decoded, four times as many as in other files."""
_GREY = (128, 128, 128)
"""What is beside the picture in its square: 127.5, as the vendor's demo rounds it."""
_CLIP_GREY = (122, 116, 104)
"""The same for encoders that were trained like CLIP: the mean of its pictures."""
_WHITE = 255
"""What stands behind transparent pixels, as in most places where such pictures are shown."""
_OVERSIZE = 2
"""How many times larger than needed a JPEG is decoded, for the sake of its details."""
_LEAST = 28
"""Pixels that a side has at least of what is handed on as a file: a patch of encoders that cut into such."""
_ORIENTATION = 0x0112
_OTHER_KIND = "Send a PNG, JPEG, WebP, GIF or BMP."
_SMALLER = "Make it smaller first: models see less than 1400 x 1400 pixels of it anyhow."
_ANEW = "Send the whole file, or save the picture anew with another program."


def square(data: bytes, width: int, height: int, name: str) -> bytes:
    """Return a picture as uint8 RGB pixels, rows from the top: in the middle of a grey square, which is
    scaled to `width` x `height`. `name` is what errors call the picture.

    Raises InvalidRequest for what is no picture, is damaged or too large, BackendMissing without Pillow.
    """
    return _decoded(data, name, lambda module, image: _squared(module, image, (width, height)))


def fitted(data: bytes, longest: int, name: str) -> bytes:
    """Return a picture as a PNG file: upright, RGB, at most `longest` pixels on its longer side. See `square`
    for what is raised.
    """
    return _decoded(data, name, lambda module, image: _fitted(module, image, longest))


def square_file(data: bytes, side: int, name: str) -> bytes:
    """Return a picture as a PNG file: in the middle of a square of `side` pixels, whose colour is the one
    that llama.cpp gives to such. See `square` for what is raised.
    """

    def make(module: Any, image: Any) -> bytes:
        pixels = _squared(module, image, (side, side), _CLIP_GREY)
        return _png(module.frombytes("RGB", (side, side), pixels))

    return _decoded(data, name, make)


def _decoded(data: bytes, name: str, make: Callable[[Any, Any], bytes]) -> bytes:
    image_module = _import_pillow()
    try:
        with warnings.catch_warnings(), io.BytesIO(data) as stream:
            warnings.simplefilter("ignore")  # of odd metadata, which are not used
            with _opened(image_module, stream, name) as image:
                return make(image_module, image)
    except InvalidRequest:
        raise
    except MemoryError:
        raise _unreadable(name, "it does not fit the memory", _SMALLER) from None
    except Exception as error:
        # A damaged file makes Pillow raise whatever its bytes happen to break: there is no list.
        raise _unreadable(name, _reason(error), _ANEW) from None


def _import_pillow() -> Any:
    """Return PIL.Image, which knows the formats then. Raises BackendMissing."""
    try:
        from PIL import (
            BmpImagePlugin,  # noqa: F401 - without it, the first picture of its kind loads every format
            GifImagePlugin,  # noqa: F401
            Image,
            JpegImagePlugin,  # noqa: F401
            PngImagePlugin,  # noqa: F401
            WebPImagePlugin,  # noqa: F401
        )
    except ImportError as error:
        raise BackendMissing(
            f"pictures need Pillow, which is not installed ({error})",
            hint=how_to_add_an_extra("vision"),
        ) from None
    Image.MAX_IMAGE_PIXELS = None  # the limit is below
    return Image


def _unreadable(name: str, reason: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{name} cannot be read: {reason}", param="images", hint=hint)


def _reason(error: Exception) -> str:
    text = str(error)
    if "truncated" in text or isinstance(error, EOFError):
        return "its end is missing"
    return "its data are damaged"


def _opened(image_module: Any, stream: io.BytesIO, name: str) -> Any:
    """Return the picture, of which only the header has been read."""
    try:
        image = image_module.open(stream, formats=FORMATS)
    except image_module.UnidentifiedImageError:
        raise _unreadable(
            name, "it is no picture of a kind that is known here", _OTHER_KIND
        ) from None
    width, height = image.size
    most = _most_pixels(image)
    if width < 1 or height < 1:
        raise _unreadable(name, "it has no pixels", _ANEW)
    if width * height > most:
        reason = f"it has {width} x {height} pixels, at most {most // 1_000_000} million are taken"
        raise _unreadable(name, reason, _SMALLER)
    return image


def _most_pixels(image: Any) -> int:
    """Return how many pixels a picture of its kind may have, for the memory that decoding takes."""
    if image.format == "WEBP":
        return _MOST_WEBP_PIXELS
    streamed = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
    return _MOST_JPEG_PIXELS if streamed else _MOST_PIXELS


def _squared(
    image_module: Any, image: Any, wanted: tuple[int, int], beside: tuple[int, int, int] = _GREY
) -> bytes:
    width, height = wanted
    plain = _upright(image_module, image, max(width, height))
    side = max(plain.size)
    size = max(1, round(plain.width * width / side)), max(1, round(plain.height * height / side))
    plain = _scaled(image_module, plain, size)
    data: bytes = _centred(image_module, plain, wanted, beside).tobytes()
    return data


def _fitted(image_module: Any, image: Any, longest: int) -> bytes:
    plain = _upright(image_module, image, longest)
    side = max(plain.size)
    if side > longest:
        size = [max(1, round(length * longest / side)) for length in plain.size]
        plain = _scaled(image_module, plain, tuple(size))
    least = max(_LEAST, plain.width), max(_LEAST, plain.height)
    return _png(plain if plain.size == least else _centred(image_module, plain, least, _GREY))


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _centred(
    image_module: Any, image: Any, size: tuple[int, int], beside: tuple[int, int, int]
) -> Any:
    """Return a picture in the middle of a canvas."""
    canvas = image_module.new("RGB", size, beside)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def _upright(image_module: Any, image: Any, side: int) -> Any:
    """Return the picture as RGB and as EXIF has it turned, not smaller than a square of `side` needs it."""
    _draft(image, side * _OVERSIZE)
    image.load()
    turn = _turn(image_module, image)
    plain = _flattened(image_module, _eight_bit(image_module, image))
    if turn is None:
        return plain
    return _scaled(image_module, plain, _upper(plain.size, side)).transpose(turn)


def _draft(image: Any, side: int) -> None:
    """Have a JPEG decoded at the smallest scale whose longer side has `side` pixels."""
    if image.format in ("JPEG", "MPO"):
        longest = max(image.size)
        wanted = tuple(max(1, length * side // longest) for length in image.size)
        image.draft("RGB", wanted)


def _upper(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return a size that suffices for a square of `side`: turning what is larger would only cost memory."""
    longest = max(size)
    if longest <= side * _OVERSIZE:
        return size
    return (
        max(1, size[0] * side * _OVERSIZE // longest),
        max(1, size[1] * side * _OVERSIZE // longest),
    )


def _scaled(image_module: Any, image: Any, size: tuple[int, int]) -> Any:
    if image.size == size:
        return image
    return image.resize(size, image_module.Resampling.BILINEAR, reducing_gap=3.0)


def _turn(image_module: Any, image: Any) -> Any:
    """Return how EXIF says that the picture has to be turned, None for not at all."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:
        return None  # broken EXIF is no reason to refuse a picture
    transpose = image_module.Transpose
    turns = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _eight_bit(image_module: Any, image: Any) -> Any:
    """Return a picture of 16 bits with the upper 8 of them; any other as it is."""
    if image.mode.startswith("I;16"):
        # In one step, which takes half the memory of one over 32 bits.
        order = "B" if image.mode.endswith("B") else ""
        return image_module.frombytes("L", image.size, image.tobytes(), "raw", f"L;16{order}")
    if image.mode != "I":
        return image
    return image.point(lambda value: value * (1 / 256)).convert("L")


def _flattened(image_module: Any, image: Any) -> Any:
    """Return a picture as RGB, with white behind what is transparent."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layered = image if image.mode == "RGBA" else image.convert("RGBA")
    plain = image_module.new("RGB", layered.size, (_WHITE, _WHITE, _WHITE))
    plain.paste(layered, mask=layered)
    return plain
