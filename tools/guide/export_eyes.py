"""Writes the encoder as the GGUF file that llama.cpp calls an mmproj, matrices in 16 bit, and reads it."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGUFWriter

from .eyes import Eyes, EyesShape

_BLOCK_NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "out": "attn_out",
    "up": "ffn_up",
    "down": "ffn_down",
}
_NAMES = {
    "patch.weight": "v.patch_embd.weight",
    "position": "v.position_embd.weight",
    "projector.norm": "v.post_ln",
    "projector.first": "mm.0",
    "projector.second": "mm.2",
}
_VISION = "clip.vision."


def write(path: Path, eyes: Eyes) -> None:
    """Write the file at `path`, replacing what is there."""
    writer = GGUFWriter(path, "clip")
    _describe(writer, eyes)
    for name, weight in eyes.state_dict().items():
        values = weight.detach().float().numpy()
        is_matrix = values.ndim > 1 and name != "position"
        writer.add_tensor(_tensor_name(name), values.astype(np.float16) if is_matrix else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path, eyes: Eyes) -> None:
    """Take over the weights of a file that `write` wrote."""
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    for name, weight in eyes.named_parameters():
        values = np.array(found[_tensor_name(name)], np.float32)
        weight.data.copy_(torch.from_numpy(values).reshape(weight.shape))


def _describe(writer: GGUFWriter, eyes: Eyes) -> None:
    shape: EyesShape = eyes.shape
    writer.add_name("RKLLama guide's eyes")
    writer.add_description("Sees coloured shapes and digits for the guide of RKLLama.")
    writer.add_license("Apache-2.0")
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for key, number in {
        "image_size": shape.side,
        "patch_size": shape.patch,
        "embedding_length": shape.width,
        "feed_forward_length": shape.hidden,
        "projection_dim": shape.guide,
        "block_count": shape.layers,
        "attention.head_count": shape.heads,
    }.items():
        writer.add_uint32(_VISION + key, number)
    writer.add_float32(_VISION + "attention.layer_norm_epsilon", shape.epsilon)
    # Without it llama.cpp leaves the last block out, as LLaVA does.
    writer.add_array(_VISION + "feature_layer", [shape.layers])
    writer.add_array(_VISION + "image_mean", [0.5] * 3)
    writer.add_array(_VISION + "image_std", [0.5] * 3)


def _tensor_name(name: str) -> str:
    if name.startswith("blocks."):
        _, number, part, kind = name.split(".")
        return f"v.blk.{number}.{_BLOCK_NAMES.get(part, part)}.{kind}"
    whole = _NAMES.get(name)
    if whole is not None:
        return whole
    module, _, kind = name.rpartition(".")
    return f"{_NAMES[module]}.{kind}"
