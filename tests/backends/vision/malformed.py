"""Malformed pictures: files of each format whose bytes were changed, by a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.backends.vision.pictures import encoded, halves


def malformed(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield so many files; most are damaged beyond use, some can still be seen."""
    draw = random.Random(seed)
    good = list(_good())
    for number in range(count):
        data = bytearray(good[number % len(good)])
        for _ in range(draw.choice((1, 1, 2, 4))):
            draw.choice(_CHANGES)(data, draw)
        if draw.random() < 0.2:
            data = bytearray(_with_checksums(bytes(data)))
        yield bytes(data)


def _good() -> Iterator[bytes]:
    plain, noise = halves((60, 40)), Image.effect_noise((50, 70), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [halves((30, 30)), noise.resize((30, 30))]
    for image in (plain, noise):
        yield encoded(image)
        yield encoded(image.convert("P"))
        yield encoded(image.convert("RGBA"))
        yield encoded(image, "JPEG", exif=exif)
        yield encoded(image, "JPEG", progressive=True)
        yield encoded(image.convert("CMYK"), "JPEG")
        yield encoded(image, "WEBP", exif=exif)
        yield encoded(image, "WEBP", lossless=True)
        yield encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)])
        yield encoded(image, "GIF")
        yield encoded(image, "GIF", save_all=True, append_images=frames)
        yield encoded(image, "BMP")
        yield encoded(image.convert("P"), "BMP")
        yield encoded(image.convert("1"), "BMP")


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 8)):
        if data:
            data[draw.randrange(len(data))] = draw.randrange(256)


def _flip_in_header(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 4)):
        if data:
            data[draw.randrange(min(64, len(data)))] = draw.randrange(256)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randint(0, len(data)) :]


def _drop(data: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(data))
    del data[start : start + draw.randint(1, 40)]


def _repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(data))
    piece = bytes(data[start : start + draw.randint(1, 60)])
    data[start:start] = piece * draw.randint(1, 50)


def _insert(data: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(data))
    data[start:start] = draw.randbytes(draw.randint(1, 200))


def _large_number(data: bytearray, draw: random.Random) -> None:
    """A size or an offset that is much too large, or negative."""
    value = draw.choice((0, 1, 0xFFFF, 0x7FFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000))
    order = draw.choice("<>")
    packed = struct.pack(f"{order}I", value)[draw.choice((0, 2)) :]
    start = draw.randint(0, min(80, len(data)))
    data[start : start + len(packed)] = packed


def _zeros(data: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(data))
    end = min(len(data), start + draw.randint(1, 100))
    data[start:end] = bytes(end - start)


_CHANGES = (_flip, _flip_in_header, _cut, _drop, _repeat, _insert, _large_number, _zeros)


def _with_checksums(data: bytes) -> bytes:
    """A PNG with right checksums, which else hide what lies behind them; anything else as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])
