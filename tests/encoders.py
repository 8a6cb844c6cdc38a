"""Encoders as .gguf files, for tests of embeddings and rerankers."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy


def write_encoder(path: Path, pooling: gguf.PoolingType = gguf.PoolingType.MEAN) -> None:
    """Write a BERT of one layer, with a vocabulary of seven tokens and weights that mean nothing; for RANK it
    has a head with one output, as rerankers have.
    """
    width, context = 32, 64
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581a", "\u2581b"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_type_count(2)
    for number, add in enumerate(
        (writer.add_pad_token_id, writer.add_unk_token_id, writer.add_bos_token_id)
    ):
        add(number)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    square = (width, width)
    shapes = {"token_embd": (len(tokens), width), "token_types": (2, width)}
    shapes |= {"position_embd": (context, width)}
    biased: dict[str, tuple[int, ...]] = {"token_embd_norm": (width,)}
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        biased[f"blk.0.{part}"] = square
    for part in ("attn_output_norm", "layer_output_norm"):
        biased[f"blk.0.{part}"] = (width,)
    random = numpy.random.default_rng(0)
    for name, shape in (shapes | biased).items():
        writer.add_tensor(f"{name}.weight", random.random(shape, dtype=numpy.float32))
    for name in biased:
        writer.add_tensor(f"{name}.bias", random.random(width, dtype=numpy.float32))
    if pooling is gguf.PoolingType.RANK:
        head = (random.random((1, width), dtype=numpy.float32) - 0.5) * 0.5
        writer.add_tensor("cls.output.weight", head)
        writer.add_tensor("cls.output.bias", numpy.zeros(1, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
