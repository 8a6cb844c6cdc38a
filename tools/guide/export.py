"""Writes the trained network and its vocabulary as one GGUF file, weights in Q8_0."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from torch import Tensor

from .bpe import CONTROL, END, TURN_END, Tokenizer
from .network import Guide

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.out": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def write(path: Path, network: Guide, tokenizer: Tokenizer) -> None:
    """Write the file at `path`, replacing what is there."""
    writer = GGUFWriter(path, "llama")
    _describe(writer, network)
    _add_vocabulary(writer, tokenizer)
    for name, weight in network.state_dict().items():
        _add_tensor(writer, _tensor_name(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path, network: Guide) -> None:
    """Take over the weights of a file that `write` wrote, as exactly as Q8_0 kept them."""
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, weight in network.named_parameters():
        tensor = found[_tensor_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weight.data.copy_(torch.tensor(values).reshape(weight.shape))


def _describe(writer: GGUFWriter, network: Guide) -> None:
    shape = network.shape
    writer.add_name("RKLLama guide")
    writer.add_description(
        "A 3M-parameter guide that answers questions about RKLLama, in English and in French."
    )
    writer.add_size_label("3M")
    writer.add_license("Apache-2.0")
    writer.add_languages(["en", "fr"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_sampling_temp(0.0)  # llama.cpp's default of 0.8 would draw among answers
    writer.add_key_value(
        "general.parameter_count",
        sum(weight.numel() for weight in network.parameters()),
        gguf.GGUFValueType.UINT64,
    )


def _add_vocabulary(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(
        [TokenType.CONTROL if token in CONTROL else TokenType.NORMAL for token in tokenizer.tokens]
    )
    writer.add_token_merges([f"{a} {b}" for a, b in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.ids[END])
    writer.add_eos_token_id(tokenizer.ids[TURN_END])
    writer.add_eot_token_id(tokenizer.ids[TURN_END])
    writer.add_pad_token_id(tokenizer.ids[END])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensor_name(name: str) -> str:
    if name.startswith("layers."):
        _, number, part = name.split(".", 2)
        return f"blk.{number}.{LAYER_NAMES[part.removesuffix('.weight')]}.weight"
    return {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]


def _add_tensor(writer: GGUFWriter, name: str, weight: Tensor) -> None:
    values = weight.detach().float().numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
