"""Pictures as clients send them, and the square of pixels that the encoder gets."""

from __future__ import annotations

import builtins
import io
import random
import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image

from rkllama.backends.vision import picture
from rkllama.backends.vision.picture import square
from rkllama.errors import BackendMissing, InvalidRequest
from tests.backends.vision.pictures import BLUE, GREEN, GREY, RED, encoded, halves

Colour = tuple[int, ...]


def seen(data: bytes, width: int = 60, height: int = 60) -> Image.Image:
    """What the encoder gets of a picture."""
    pixels = square(data, width, height, "the picture")
    assert len(pixels) == width * height * 3
    return Image.frombytes("RGB", (width, height), pixels)


def near(pixel: Any, colour: Colour, most: int = 12) -> bool:
    return all(abs(a - b) <= most for a, b in zip(pixel, colour, strict=True))


def assert_halves(image: Image.Image, left: Colour = RED, right: Colour = BLUE) -> None:
    width, height = image.size
    assert near(image.getpixel((width // 4, height // 2)), left)
    assert near(image.getpixel((width * 3 // 4, height // 2)), right)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_each_format_is_read(form: str) -> None:
    options = {"quality": 95} if form in ("JPEG", "WEBP") else {}
    assert_halves(seen(encoded(halves(), form, **options)))


@pytest.mark.parametrize("form", ["TIFF", "PPM", "ICO", "TGA"])
def test_no_other_format_is_read(form: str) -> None:
    with pytest.raises(InvalidRequest, match="no picture of a kind that is known"):
        seen(encoded(halves(), form))


@pytest.mark.parametrize("size", [(120, 40), (40, 120), (119, 41), (7, 3)])
def test_a_picture_lies_in_the_middle_of_a_grey_square(size: tuple[int, int]) -> None:
    image = seen(encoded(Image.new("RGB", size, GREEN)))
    assert image.getpixel((30, 30)) == GREEN
    beside = [(30, 2), (30, 57)] if size[0] > size[1] else [(2, 30), (57, 30)]
    assert [image.getpixel(place) for place in beside] == [GREY, GREY]
    inside = [(2, 30), (57, 30)] if size[0] > size[1] else [(30, 2), (30, 57)]
    assert [image.getpixel(place) for place in inside] == [GREEN, GREEN]


def test_an_encoder_that_is_not_square_gets_the_square_stretched() -> None:
    image = seen(encoded(halves((100, 50))), 60, 30)
    assert [image.getpixel((x, 15)) for x in (10, 50)] == [RED, BLUE]
    assert [image.getpixel((30, y)) for y in (2, 27)] == [GREY, GREY]


def test_a_single_pixel_and_a_line_are_pictures() -> None:
    assert seen(encoded(Image.new("RGB", (1, 1), RED))).getpixel((30, 30)) == RED
    assert seen(encoded(Image.new("RGB", (3000, 1), RED)), 60, 60).size == (60, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright(orientation: int) -> None:
    """The picture is stored so that turning it as EXIF says has red on the left, green at the bottom."""
    upright = halves((90, 120))
    upright.paste(GREEN, (0, 80, 90, 120))
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = seen(encoded(stored, "JPEG", quality=95, exif=exif))
    assert near(image.getpixel((15, 15)), RED)
    assert near(image.getpixel((45, 15)), BLUE)
    assert near(image.getpixel((30, 55)), GREEN)
    assert near(image.getpixel((2, 30)), GREY)


def test_broken_exif_is_no_reason_to_refuse() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x07\0" * 5
    assert_halves(seen(encoded(halves(), "JPEG", quality=95, exif=exif)))


def test_what_is_transparent_is_white() -> None:
    layered = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    layered.paste((*BLUE, 255), (30, 0, 60, 60))
    assert_halves(seen(encoded(layered)), (255, 255, 255), BLUE)
    half = Image.new("RGBA", (60, 60), (0, 0, 0, 128))
    assert near(seen(encoded(half)).getpixel((30, 30)), (127, 127, 127), 2)
    grey = Image.new("LA", (60, 60), (10, 0))
    assert seen(encoded(grey)).getpixel((30, 30)) == (255, 255, 255)


def test_a_transparent_palette_is_white_too() -> None:
    image = Image.new("P", (60, 60), 0)
    image.putpalette([0, 0, 0, *BLUE])
    image.paste(1, (30, 0, 60, 60))
    for form in ("PNG", "GIF"):
        assert_halves(seen(encoded(image, form, transparency=0)), (255, 255, 255), BLUE)


def test_sixteen_bits_become_eight() -> None:
    row = struct.pack("<60H", *[0x4000] * 30, *[0xC000] * 30)
    image = Image.frombytes("I;16", (60, 60), row * 60)
    assert_halves(seen(encoded(image)), (64, 64, 64), (192, 192, 192))
    assert_halves(seen(encoded(image, "PNG", transparency=0)), (64, 64, 64), (192, 192, 192))


def test_one_bit_and_grey_are_read() -> None:
    bits = Image.new("1", (60, 60), 0)
    bits.paste(1, (30, 0, 60, 60))
    assert_halves(seen(encoded(bits)), (0, 0, 0), (255, 255, 255))
    assert seen(encoded(Image.new("L", (60, 60), 77))).getpixel((9, 9)) == (77, 77, 77)


def test_sixteen_bits_of_each_colour_become_eight() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 0xDC00, 0x1E00, 0x2800) * 30 for _ in range(30))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 30, 30, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    )
    assert seen(data).getpixel((30, 30)) == RED


def test_cmyk_is_read() -> None:
    image = halves().convert("CMYK")
    assert_halves(seen(encoded(image, "JPEG", quality=95)))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_seen(form: str) -> None:
    frames = [halves(left=GREEN, right=RED), halves(left=RED, right=GREEN)]
    data = encoded(halves(), form, save_all=True, append_images=frames, duration=100, lossless=True)
    assert_halves(seen(data))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_truncated_picture_is_refused_by_name(form: str) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    data = encoded(noise, form)
    with pytest.raises(InvalidRequest, match=r"^picture 2 of 3 cannot be read") as caught:
        square(data[: len(data) // 2], 60, 60, "picture 2 of 3")
    assert caught.value.param == "images"


def test_only_a_baseline_jpeg_may_be_very_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_MOST_PIXELS", 1000)
    image = Image.new("RGB", (100, 100), RED)
    assert near(seen(encoded(image, "JPEG")).getpixel((30, 30)), RED)
    for form, options in (("JPEG", {"progressive": True}), ("PNG", {})):
        with pytest.raises(InvalidRequest, match="it has 100 x 100 pixels"):
            seen(encoded(image, form, **options))


def test_a_webp_may_have_as_many_pixels_as_its_decoder_has_memory_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture, "_MOST_WEBP_PIXELS", 1_000_000)
    assert near(seen(encoded(Image.new("RGB", (1000, 1000), RED), "WEBP")).getpixel((30, 30)), RED)
    with pytest.raises(InvalidRequest, match="1001 x 1000 pixels, at most 1 million") as caught:
        seen(encoded(Image.new("RGB", (1001, 1000), RED), "WEBP"))
    assert "Make it smaller" in str(caught.value.hint)


def test_bombs_are_refused_before_they_are_decoded() -> None:
    rows = zlib.compress(bytes(10))
    head = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    )
    with pytest.raises(InvalidRequest, match="40000 x 40000 pixels, at most 40 million"):
        seen(data)


def test_the_encoder_never_gets_what_is_no_picture() -> None:
    for data in (
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
    ):
        with pytest.raises(InvalidRequest):
            seen(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_damaged_pictures_are_seen_or_refused(form: str) -> None:
    draw = random.Random(form)
    good = encoded(halves((40, 30)), form)
    for _ in range(80):
        data = bytearray(good)
        for _ in range(draw.randint(1, 12)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with suppress(InvalidRequest):
            seen(bytes(data))


def test_without_pillow_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ImportError("No module named 'PIL'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendMissing, match="pictures need Pillow") as caught:
        seen(b"")
    assert caught.value.hint is not None
    assert "pip install 'rkllama[vision]'" in caught.value.hint


def test_a_large_jpeg_is_decoded_small() -> None:
    data = encoded(Image.new("RGB", (4000, 3000), RED), "JPEG")
    image = Image.open(io.BytesIO(data))
    picture._draft(image, 896)
    assert image.size == (1000, 750)
    image.close()
