"""What librkllmrt can run on, and how it becomes an RKLLMInput."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..clib.ctypes_types import CTypes
from ..errors import InvalidRequest, Unsupported
from .abi import first_release


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInput:
    """Text. `role` is "user" or "tool"; `think` None leaves the model's thinking on."""

    text: str
    role: str = "user"
    think: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInput:
    """Token ids."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedInput:
    """`tokens` rows of embeddings as float32 bytes in native order."""

    embed: bytes
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Embedded images, or videos of `frames` each: float32 bytes in native order, `tokens` rows per
    image or frame. `start`, `end` and `content` are the model's markers (1.3; before it they are
    parameters of init).
    """

    embed: bytes
    tokens: int
    count: int = 1
    frames: int = 1
    width: int = 0
    height: int = 0
    start: str = ""
    end: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalInput:
    """Text with images, from 1.3 on with videos too. `think` as in PromptInput."""

    prompt: str
    images: Pictures | None = None
    videos: Pictures | None = None
    think: bool | None = None


Input = PromptInput | TokenInput | EmbedInput | MultimodalInput


def c_string(text: str) -> bytes:
    """`text` as C wants it. Raises InvalidRequest for a NUL, at which C would stop reading."""
    data = text.encode("utf-8", "replace")
    if b"\0" in data:
        raise InvalidRequest("a text for the model must not contain the character U+0000")
    return data


def fill(target: Any, source: Input, types: CTypes, keep: list[Any]) -> None:
    """Write `source` into the RKLLMInput `target`; what has to stay alive goes to `keep`."""
    if hasattr(target, "role"):
        target.role = c_string(getattr(source, "role", "user"))
        target.enable_thinking = getattr(source, "think", None) is not False
    kinds = types.enums["RKLLMInputType"]
    if isinstance(source, PromptInput):
        target.input_type = kinds["RKLLM_INPUT_PROMPT"]
        target.prompt_input = c_string(source.text)
    elif isinstance(source, TokenInput):
        target.input_type = kinds["RKLLM_INPUT_TOKEN"]
        target.token_input.input_ids = (ctypes.c_int32 * len(source.ids))(*source.ids)
        target.token_input.n_tokens = len(source.ids)
    elif isinstance(source, EmbedInput):
        target.input_type = kinds["RKLLM_INPUT_EMBED"]
        target.embed_input.embed = _floats(source.embed, keep)
        target.embed_input.n_tokens = source.tokens
    else:
        target.input_type = kinds["RKLLM_INPUT_MULTIMODAL"]
        _fill_multimodal(target.multimodal_input, source, types, keep)


def _floats(data: bytes, keep: list[Any]) -> Any:
    """Return a float* to `data` itself, which is kept; nothing is copied."""
    if not data or len(data) % 4:
        raise InvalidRequest(f"{len(data)} bytes are not an array of 32-bit floats")
    keep.append(data)
    return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_float))


def _fill_multimodal(target: Any, source: MultimodalInput, types: CTypes, keep: list[Any]) -> None:
    target.prompt = c_string(source.prompt)
    if hasattr(target, "image"):
        if source.images:
            _fill_grouped(target.image, source.images, keep)
        if source.videos:
            _fill_videos(target.video, source.videos, keep)
        return
    if source.videos:
        raise Unsupported(f"librkllmrt {types.header.release} takes no videos, 1.3.0 does")
    if source.images is None:
        raise InvalidRequest("a multimodal input needs an image")
    values = {
        "image_embed": _floats(source.images.embed, keep),
        "n_image_tokens": source.images.tokens,
        "n_image": source.images.count,
        "image_width": source.images.width,
        "image_height": source.images.height,
    }
    if not hasattr(target, "n_image") and source.images.count > 1:
        raise Unsupported(
            f"librkllmrt {types.header.release} takes one image, "
            f"{first_release('n_image')} takes several"
        )
    for name, value in values.items():
        if hasattr(target, name):
            setattr(target, name, value)


def _fill_grouped(target: Any, images: Pictures, keep: list[Any]) -> None:
    target.image_embed = _floats(images.embed, keep)
    target.n_image_tokens = images.tokens
    target.n_image = images.count
    target.image_width = images.width
    target.image_height = images.height
    _fill_markers(target, "image", images)


def _fill_videos(target: Any, videos: Pictures, keep: list[Any]) -> None:
    target.video_embed = _floats(videos.embed, keep)
    target.n_frame_tokens = videos.tokens
    target.n_frame_per_video = videos.frames
    target.n_video = videos.count
    target.frame_width = videos.width
    target.frame_height = videos.height
    _fill_markers(target, "video", videos)


def _fill_markers(target: Any, kind: str, pictures: Pictures) -> None:
    for name in ("start", "end", "content"):
        setattr(target, f"{kind}_{name}", c_string(getattr(pictures, name)))
