"""The frames on the two pipes between a model's process and its parent.

    u32 payload length | u8 kind | u32 run | payload

`run` numbers the commands of one child; what a child sends carries the number of the command that it
answers, so nothing of one answer can be taken for the next one's. Payloads are JSON, but for TEXT (UTF-8),
VECTOR (float32, native order) and BYTES: a token costs no JSON, and an image is not blown up by it.

BYTES frames come before the command that they belong to and carry its number: the images of a GENERATE
frame, one each, in order.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import fields
from functools import cache
from typing import Any

from ..backends.base import GenerateSpec, LoadedInfo, LoadSpec, RerankSpec, RunResult
from ..errors import RKLLamaError
from ..types import NPUParams, SamplingParams, TokenLogprob

# Parent to child.
LOAD, GENERATE, EMBED, COUNT, ABORT, CLOSE, BYTES, RESTORE, RERANK, SAVE = range(1, 11)
# Child to parent. RESULT and ERROR end a run; the others come before.
TEXT, LOGPROBS, VECTOR, RESULT, ERROR = range(16, 21)

_HEADER = struct.Struct("<IBI")
HEADER_SIZE = _HEADER.size
pack_header = _HEADER.pack

MAX_PAYLOAD = 256 << 20
"""A length above this is not a frame: the child's memory is corrupt."""
MAX_BYTES = 64 << 20
"""Bytes that the BYTES frames of one command carry at most, all together."""


class BrokenFrame(ValueError):
    """What arrived on a pipe is not a frame."""


class FrameBuffer:
    """Cuts what was read from a pipe into frames."""

    __slots__ = ("_missing", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """The beginning of a frame; it is joined once, however many reads it takes."""
        self._missing = 0
        """Bytes that it lacks at least."""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the complete frames (kind, run, payload) up to now. Raises BrokenFrame."""
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data, self._parts = b"".join(self._parts), []
        frames, offset, end = [], 0, len(data)
        unpack, self._missing = _HEADER.unpack_from, HEADER_SIZE
        while end - offset >= HEADER_SIZE:
            length, kind, run = unpack(data, offset)
            if length > MAX_PAYLOAD:
                raise BrokenFrame(f"a frame of {length} bytes")
            start = offset + HEADER_SIZE
            if end - start < length:
                self._missing = HEADER_SIZE + length
                break
            offset = start + length
            frames.append((kind, run, data[start:offset]))
        if offset < end:
            self._parts.append(data[offset:])
            self._missing -= end - offset
        return frames


def write_frame(fd: int, kind: int, run: int, payload: bytes = b"") -> None:
    """Write one frame whole. Raises BrokenPipeError when nobody reads any more."""
    view = memoryview(pack_header(len(payload), kind, run) + payload)
    while view:
        view = view[os.write(fd, view) :]


def _members(value: Any) -> dict[str, Any]:
    """Return the members of a dataclass by name; `asdict` would copy each of them, for every request."""
    return {name: getattr(value, name) for name in _names(value.__class__)}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_members).encode


def encode(values: object) -> bytes:
    """JSON in UTF-8, of dataclasses too. Lone surrogates pass: file names that are not UTF-8 contain them."""
    return _encode(values).encode("utf-8", "surrogatepass")


def decode(payload: bytes) -> Any:
    """Return what `encode` was given. Raises BrokenFrame."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BrokenFrame(str(error)) from None


def encode_generate(spec: GenerateSpec) -> bytes:
    """A GenerateSpec as JSON, without its images: they are sent as BYTES frames."""
    return encode({**_members(spec), "images": ()})


def decode_load(payload: bytes) -> LoadSpec:
    """Return the LoadSpec of a LOAD frame."""
    values = decode(payload)
    values["sampling"] = SamplingParams(**values["sampling"])
    values["eos_tokens"] = tuple(values["eos_tokens"])
    values["npu"] = NPUParams(**values["npu"])
    values["llama_server"] = tuple(values["llama_server"])
    values["image_markers"] = tuple(values["image_markers"])
    return LoadSpec(**values)


def decode_generate(payload: bytes, images: tuple[bytes, ...] = (), slot: int = 0) -> GenerateSpec:
    """The GenerateSpec of a GENERATE frame and of the BYTES frames before it, on lane `slot`."""
    values = decode(payload)
    values["images"], values["slot"] = images, slot
    values["sampling"] = SamplingParams(**values["sampling"])
    values["markers"] = tuple(values["markers"])
    return GenerateSpec(**values)


def decode_rerank(payload: bytes) -> RerankSpec:
    """The RerankSpec of a RERANK frame."""
    values = decode(payload)
    for name in ("documents", "yes_no_tokens", "usual_yes_no_tokens"):
        values[name] = tuple(values[name])
    return RerankSpec(**values)


def decode_loaded(payload: bytes) -> LoadedInfo:
    """Return the LoadedInfo that answers a LOAD frame."""
    values = decode(payload)
    values["notices"] = tuple(values["notices"])
    return LoadedInfo(**values)


def decode_result(payload: bytes) -> RunResult:
    """Return the RunResult that answers a GENERATE frame."""
    return RunResult(**decode(payload))


def encode_logprobs(text: str, logprobs: tuple[TokenLogprob, ...]) -> bytes:
    """Return the text of some tokens with their figures."""
    return encode([text, [item.to_dict() for item in logprobs]])


def decode_logprobs(payload: bytes) -> tuple[str, tuple[TokenLogprob, ...]]:
    """Return what `encode_logprobs` was given."""
    text, items = decode(payload)
    return text, tuple(TokenLogprob.from_dict(item) for item in items)


pack_score = struct.Struct("=f").pack
"""A document's score, as the bytes of a VECTOR frame."""


def encode_error(error: RKLLamaError) -> bytes:
    """Return an error as JSON, attributes included."""
    return encode(error.to_dict())


def decode_error(payload: bytes) -> RKLLamaError:
    """Return the error that `encode_error` was given."""
    return RKLLamaError.from_dict(decode(payload))
