"""A model for llama.cpp that sees, made of known weights: it names the colours of a picture's halves.

The encoder takes 16 x 16 pixels as one patch: its kernel is the mean of red, green and blue in each half,
from -1 to 1. The language model has one layer, whose attention is the mean of all tokens: so what the token
of a picture holds reaches each token behind it. An answer's first token is the colour that fits the left
half best, the second one that of the right half, and the third one the end.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gguf
import numpy

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
"""By their red, green and blue as bits."""
SIDE = 16
_SIGNS = tuple(itertools.product((-1, 1), repeat=3))
_WIDTH = 32
_LEFT, _RIGHT = slice(0, 3), slice(3, 6)
_TEXT, _SAID_LEFT, _SAID_RIGHT = 6, 7, 8
"""Dimensions that tell what the last token was."""
_SEEN_LEFT, _SEEN_RIGHT = slice(10, 13), slice(13, 16)
_GAIN = 30.0
_END = "<|im_end|>"
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def colour(name: str) -> tuple[int, int, int]:
    """A colour that the model knows, as 8-bit red, green, blue; not quite pure, as photographs are not."""
    red, green, blue = (235 if sign > 0 else 20 for sign in _SIGNS[COLOURS.index(name)])
    return red, green, blue


def write_seeing(model: Path, encoder: Path | None = None, *, context: int = 4096) -> None:
    """Write the language model, and its encoder."""
    model.parent.mkdir(parents=True, exist_ok=True)
    _write_model(model, context)
    if encoder is not None:
        write_mmproj(encoder)


def write_mmproj(path: Path, width: int = _WIDTH, *, patches: int = 1, blocks: int = 1) -> None:
    """Write an encoder; `width` is that of the model that it fits. With more `patches` on a side, and blocks
    that do nothing, it is slow.
    """
    writer = gguf.GGUFWriter(path, "clip")
    keys: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.has_text_encoder": False,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": SIDE * patches,
        "clip.vision.patch_size": SIDE,
        "clip.vision.embedding_length": _WIDTH,
        "clip.vision.feed_forward_length": _WIDTH,
        "clip.vision.projection_dim": width,
        "clip.vision.block_count": blocks,
        "clip.vision.attention.head_count": 1,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5] * 3,
        "clip.vision.image_std": [0.5] * 3,
    }
    for name, value in keys.items():
        _add(writer, name, value)
    patch = numpy.zeros((_WIDTH, 3, SIDE, SIDE))
    for channel in range(3):
        patch[channel, channel, :, : SIDE // 2] = 2 / SIDE**2
        patch[3 + channel, channel, :, SIDE // 2 :] = 2 / SIDE**2
    tensors: dict[str, Any] = {
        "v.patch_embd.weight": patch,
        "v.position_embd.weight": _zeros(patches**2),
    }
    for block in range(blocks):
        for part in ("ln1", "ln2"):
            tensors[f"v.blk.{block}.{part}.weight"] = numpy.ones(_WIDTH)
            tensors[f"v.blk.{block}.{part}.bias"] = numpy.zeros(_WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
            tensors[f"v.blk.{block}.{part}.weight"] = _zeros(_WIDTH)
            tensors[f"v.blk.{block}.{part}.bias"] = numpy.zeros(_WIDTH)
    # Between the two is a GELU, which leaves what is far from 0 as it is.
    tensors |= {"mm.0.weight": numpy.eye(_WIDTH), "mm.0.bias": numpy.full(_WIDTH, 20.0)}
    back = numpy.eye(width, _WIDTH)
    tensors |= {"mm.2.weight": back, "mm.2.bias": back @ numpy.full(_WIDTH, -20.0)}
    finish(writer, tensors)


def _write_model(path: Path, context: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Seer")
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_WIDTH)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    letters = byte_letters()
    words = [*COLOURS, *(f"{letters[32]}{name}" for name in COLOURS)]
    control = ["<|im_start|>", _END]
    writer.add_token_list([*letters, *words, *control])
    kinds = [gguf.TokenType.NORMAL] * (len(letters) + len(words))
    writer.add_token_types([*kinds, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL])
    writer.add_token_merges(["\u0100 \u0100"])
    end = len(kinds) + 1
    writer.add_eos_token_id(end)
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_sampling_temp(0.0)
    writer.add_chat_template(_TEMPLATE)
    finish(writer, _weights(len(letters), end))


def _weights(first: int, end: int) -> dict[str, Any]:
    """The model's tensors; the colours' tokens begin at `first`."""
    embeddings = numpy.zeros((end + 1, _WIDTH))
    output = numpy.zeros((end + 1, _WIDTH))
    embeddings[:, _TEXT] = 1
    for number, signs in enumerate(_SIGNS):
        left, right = first + number, first + len(COLOURS) + number
        embeddings[[left, right], _TEXT] = 0
        embeddings[left, _SAID_LEFT] = embeddings[right, _SAID_RIGHT] = 1
        output[left, _SEEN_LEFT] = output[right, _SEEN_RIGHT] = signs
        said = 500.0 if number else 500.01  # black where nothing is seen
        output[left, [_TEXT, _SAID_LEFT, _SAID_RIGHT]] = said, -2000, -2000
        output[right, [_TEXT, _SAID_LEFT, _SAID_RIGHT]] = -2000, said, -2000
    output[end, [_TEXT, _SAID_LEFT, _SAID_RIGHT]] = -2000, -2000, 2000
    value, out = _zeros(_WIDTH), _zeros(_WIDTH)
    value[_LEFT, _LEFT] = value[_RIGHT, _RIGHT] = numpy.eye(3)
    out[_SEEN_LEFT, _LEFT] = out[_SEEN_RIGHT, _RIGHT] = numpy.eye(3) * _GAIN
    tensors: dict[str, Any] = {"token_embd.weight": embeddings, "output.weight": output}
    tensors |= {"output_norm.weight": numpy.ones(_WIDTH)}
    for part in ("attn_norm", "ffn_norm"):
        tensors[f"blk.0.{part}.weight"] = numpy.ones(_WIDTH)
    for part in ("attn_q", "attn_k", "ffn_gate", "ffn_up", "ffn_down"):
        tensors[f"blk.0.{part}.weight"] = _zeros(_WIDTH)
    return tensors | {"blk.0.attn_v.weight": value, "blk.0.attn_output.weight": out}


def _zeros(rows: int) -> Any:
    return numpy.zeros((rows, _WIDTH))


def byte_letters() -> list[str]:
    """The letters that stand for bytes in GPT-2's vocabulary, by byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def finish(writer: gguf.GGUFWriter, tensors: dict[str, Any]) -> None:
    for name, values in tensors.items():
        writer.add_tensor(name, numpy.ascontiguousarray(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
