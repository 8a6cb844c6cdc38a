"""What a .rknn file says of itself, read without librknnrt and without believing it.

Layout, little-endian: "RKNN", 4 zero bytes, u64 format, u64 length of the model; behind the model, which
begins at 64 (24 in format 1), a u64 length and a JSON text. That text names the SoCs and describes inputs
and outputs; what the library tells once the file is loaded is what counts.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from ..errors import LoadFailed

_MAGIC = b"RKNN\0\0\0\0"
_HEADER = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")
_FORMATS = range(1, 17)
_MOST_TEXT = 16 << 20
"""Bytes of JSON: a tensor takes some 300, and the largest encoders have a few thousand."""
_LARGEST_SIDE = 1 << 14
_MOST_OUTPUTS = 64


class EncoderFile(NamedTuple):
    """An encoder as its file describes it; None or empty where it does not."""

    platforms: tuple[str, ...] = ()
    """SoCs in lower case: "rk3588"."""
    height: int | None = None
    width: int | None = None
    tokens: int | None = None
    """Tokens that a picture takes."""
    embedding: int | None = None
    """Numbers that each output has for a token."""
    outputs: int | None = None
    version: str | None = None
    """Of the converter that made the file."""


def read_file(path: str) -> EncoderFile:
    """Read the file's own text. Raises LoadFailed for what is no .rknn file, and for a part of one."""
    name = os.path.basename(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            text = _read_text(stream)
    except OSError as error:
        raise LoadFailed(f"the image encoder {name} cannot be read: {error.strerror}") from None
    except _NotAFile as error:
        raise LoadFailed(
            f"{name} is no image encoder: {error}",
            hint="Download it again; a clone of a repository needs `git lfs pull`.",
        ) from None
    return _described(_json_of(text))


class _NotAFile(Exception):
    """The reason why the bytes are no .rknn file."""


def _read_text(stream: BinaryIO) -> bytes:
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise _NotAFile("it is not a file")
    head = stream.read(24)
    if head[:8] != _MAGIC or len(head) < 24:
        pointer = head.startswith(b"version https://git-lfs"[:24])
        raise _NotAFile("it is a Git LFS pointer" if pointer else "it does not begin as one")
    form, length = _HEADER.unpack_from(head, 8)
    if form not in _FORMATS:
        raise _NotAFile(f"its format {form} is not known")
    at = length + (24 if form == 1 else 64)
    if at + _LENGTH.size > status.st_size:
        raise _NotAFile("its end is missing: a download or copy broke off")
    stream.seek(at)
    (size,) = _LENGTH.unpack(stream.read(_LENGTH.size).ljust(_LENGTH.size, b"\0"))
    if at + _LENGTH.size + size > status.st_size:
        raise _NotAFile("its end is missing: a download or copy broke off")
    return b"" if size > _MOST_TEXT else stream.read(size)


def _json_of(text: bytes) -> dict[str, Any]:
    """Return what can be read of the text; the library may take a file whose text we do not understand."""
    try:
        value = json.loads(text.rstrip(b"\0"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _described(text: dict[str, Any]) -> EncoderFile:
    inputs, outputs = _tensors(text, "input"), _tensors(text, "output")
    height, width = _picture_size(inputs[0]) if inputs else (None, None)
    tokens, embedding = tokens_of(outputs[0]) if outputs else (None, None)
    number, version = text.get("output_num"), text.get("version")
    platforms = text.get("target_platform")
    return EncoderFile(
        platforms=tuple(_platforms(platforms if isinstance(platforms, list) else [platforms])),
        height=height,
        width=width,
        tokens=tokens,
        embedding=embedding,
        outputs=number if type(number) is int and 0 < number <= _MOST_OUTPUTS else None,
        version=version if isinstance(version, str) and _speakable(version) else None,
    )


def _platforms(names: Sequence[object]) -> Iterator[str]:
    for name in names[:16]:
        if isinstance(name, str) and _speakable(name):
            yield name.lower()


def _speakable(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isprintable()


def _tensors(text: dict[str, Any], side: str) -> list[tuple[int, ...]]:
    """Return the sizes of the inputs or outputs, in order, as far as they are described."""
    tensors, edges = text.get("norm_tensor"), text.get("graph")
    if not isinstance(tensors, list) or not isinstance(edges, list):
        return []
    ids = {
        edge.get("left_tensor_id"): edge.get("right_tensor_id")
        for edge in edges[:_MOST_OUTPUTS]
        if isinstance(edge, dict)
        and edge.get("left") == side
        and isinstance(edge.get("left_tensor_id"), int)
        and isinstance(edge.get("right_tensor_id"), int)
    }
    found = {
        tensor["tensor_id"]: size
        for tensor in tensors
        if isinstance(tensor, dict)
        and tensor.get("tensor_id") in ids.values()
        and (size := _size(tensor.get("size")))
    }
    sizes = [found.get(ids.get(index), ()) for index in range(len(ids))]
    return sizes if all(sizes) else []


def _size(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= 16:
        return ()
    fits = all(isinstance(number, int) and 0 < number < 1 << 31 for number in value)
    return tuple(value) if fits else ()


def _picture_size(size: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Return height and width. Three are the channels: NCHW, though the input be asked for as NHWC."""
    if len(size) != 4 or 3 not in (size[1], size[3]):
        return None, None
    height, width = size[2:] if size[1] == 3 else size[1:3]
    if max(height, width) > _LARGEST_SIDE:
        return None, None
    return height, width


def tokens_of(dims: Sequence[int]) -> tuple[int | None, int | None]:
    """Return an output's tokens, which are the first dimension greater than 1, and the one after it, which
    is the size of an embedding; (None, None) where there are none.
    """
    for position, number in enumerate(dims[:-1]):
        if number > 1:
            return number, dims[position + 1]
    return None, None
