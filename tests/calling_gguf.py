"""A model for llama.cpp that calls a tool, made of known weights: with arguments that are wrong at first.

Its attention is nothing, so that each token follows from the one before it. It begins a call whose last
argument is a word where a number has to be; where its text is cut off before that, a number follows.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy

from tests.seeing_gguf import byte_letters, finish

_BEGINNING = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": '
_KEY = '"days":'
_END = "<|im_end|>"
_FOLLOWS = {
    "\n": _BEGINNING,
    _BEGINNING: "few",
    "few": "}}",
    _KEY: " 3}",
    " 3}": "}",
    "}}": _END,
    "}": "\n</tool_call>",
    "\n</tool_call>": _END,
}
"""What comes behind a token; behind any other the end."""
_WIDTH = 32
_GAIN = 50.0


def write_caller(path: Path, *, context: int = 4096) -> None:
    """Write the model."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Caller")
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
    words = [word for word in _FOLLOWS if len(word) > 1]
    writer.add_token_list([*letters, *words, "<|im_start|>", _END])
    kinds = [gguf.TokenType.NORMAL] * len(letters) + [gguf.TokenType.USER_DEFINED] * len(words)
    writer.add_token_types([*kinds, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL])
    writer.add_token_merges(["\u0100 \u0100"])
    writer.add_eos_token_id(len(kinds) + 1)
    writer.add_bos_token_id(len(kinds) + 1)
    writer.add_add_bos_token(False)
    names = [*(chr(byte) for byte in range(256)), *words, "<|im_start|>", _END]
    _write_weights(writer, names)


def _write_weights(writer: gguf.GGUFWriter, names: list[str]) -> None:
    embeddings, output = numpy.zeros((2, len(names), _WIDTH))
    states = list(_FOLLOWS)
    for token, name in enumerate(names):
        state = states.index(name) if name in _FOLLOWS else len(states)
        embeddings[token, state] = 1
    for state, word in enumerate([*_FOLLOWS.values(), _END]):
        output[names.index(word), state] = _GAIN
    tensors = {"token_embd.weight": embeddings, "output.weight": output}
    for part in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        tensors[f"{part}.weight"] = numpy.ones(_WIDTH)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        tensors[f"blk.0.{part}.weight"] = numpy.zeros((_WIDTH, _WIDTH))
    finish(writer, tensors)
