"""Writes the encoder as the GGUF file that llama.cpp calls an mmproj, matrices in 16 bit.

What llama.cpp reads is a ConvNeXt V2; how the network becomes one is said in `eyes.py` (`Near`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import torch
from gguf import GGUFWriter
from torch import Tensor, nn

from .eyes import Eyes, EyesShape, Far, Near, Stage

Named = Iterator[tuple[str, Tensor]]

_VISION = "clip.vision."
_COPIES = 9
_SIZE = 7
"""Rows and columns of the filters of a ConvNeXt's block."""


def write(path: Path, eyes: Eyes) -> None:
    """Write the file at `path`, replacing what is there."""
    writer = GGUFWriter(path, "clip")
    _describe(writer, eyes.shape)
    for name, weight in tensors(eyes):
        values = weight.detach().float().contiguous()
        is_matrix = values.dim() > 1 and name != "v.vision_pos_embed"
        writer.add_tensor(name, (values.half() if is_matrix else values).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter, shape: EyesShape) -> None:
    writer.add_name("RKLLama guide's eyes")
    writer.add_description("Sees coloured shapes and digits for the guide of RKLLama.")
    writer.add_license("Apache-2.0")
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "yasa2")
    writer.add_bool("rkllama.vision.pad", True)
    # The guide says what it sees, and after that is confused by vectors that it was not trained with.
    writer.add_bool("rkllama.vision.newest_only", True)
    for key, number in {
        "image_size": shape.side,
        "patch_size": shape.patch,
        "embedding_length": shape.width,
        "feed_forward_length": shape.hidden[-1],
        "projection_dim": shape.guide,
        # None of a transformer's: the stages and their blocks are told by the names of the tensors.
        "block_count": 0,
        "attention.head_count": 1,
    }.items():
        writer.add_uint32(_VISION + key, number)
    writer.add_float32(_VISION + "attention.layer_norm_epsilon", shape.epsilon)
    writer.add_array(_VISION + "image_mean", [0.5] * 3)
    writer.add_array(_VISION + "image_std", [0.5] * 3)


@torch.no_grad()
def tensors(eyes: Eyes) -> Named:
    """The weights as llama.cpp names and wants them."""
    copies = [_COPIES] * (len(eyes.stages) - 1) + [1]
    yield from _both("v.patch_embd", eyes.patch, copies[0])
    yield from _both("v.patch_ln", eyes.norm, copies[0])
    for number, stage in enumerate(eyes.stages):
        assert isinstance(stage, Stage)
        name = f"v.stage.{number}"
        if stage.norm is not None and stage.halve is not None:
            yield from _both(f"{name}.down.ln", stage.norm, copies[number - 1])
            weight = _first_of(stage.halve.weight, copies[number - 1])
            yield f"{name}.down.conv.weight", _copied(weight, copies[number])
            yield f"{name}.down.conv.bias", _copied(_bias(stage.halve), copies[number])
        for index, block in enumerate(stage.blocks):
            found = _near(block) if isinstance(block, Near) else _far(block)
            yield from ((f"{name}.blk.{index}.{part}", weight) for part, weight in found)
    yield "v.vision_pos_embed", eyes.projector.place
    yield from _both("mm.0", eyes.projector.first, 1)
    yield from _both("mm.2", eyes.projector.second, 1)


def _near(block: Near) -> Named:
    hidden, width = block.around.weight.shape[:2]
    shifts = torch.zeros(3, 3, width, _SIZE, _SIZE)
    middle = _SIZE // 2
    for y in range(3):
        for x in range(3):
            shifts[y, x, :, middle + y - 1, middle + x - 1] = 1
    yield "dw.weight", shifts.reshape(-1, 1, _SIZE, _SIZE)
    yield "dw.bias", torch.zeros(_COPIES * width)
    yield "ln.weight", torch.ones(_COPIES * width)
    yield "ln.bias", torch.zeros(_COPIES * width)
    yield "pw1.weight", block.around.weight.permute(0, 2, 3, 1).reshape(hidden, -1)
    yield "pw1.bias", block.bias
    yield from _no_response(hidden)
    yield "pw2.weight", _copied(block.down.weight, _COPIES)
    yield "pw2.bias", _copied(block.down.bias, _COPIES)


def _far(block: nn.Module) -> Named:
    assert isinstance(block, Far)
    yield from _both("dw", block.around, 1)
    yield from _both("ln", block.norm, 1)
    yield from _both("pw1", block.up, 1)
    yield from _no_response(len(block.up.bias))
    yield from _both("pw2", block.down, 1)


def _no_response(width: int) -> Named:
    """The response normalisation of ConvNeXt V2, with weights that leave everything as it is."""
    yield "grn.weight", torch.zeros(width)
    yield "grn.bias", torch.zeros(width)


def _both(name: str, module: nn.Conv2d | nn.Linear | nn.LayerNorm, copies: int) -> Named:
    yield f"{name}.weight", _copied(module.weight, copies)
    yield f"{name}.bias", _copied(_bias(module), copies)


def _bias(module: nn.Conv2d | nn.Linear | nn.LayerNorm) -> Tensor:
    assert module.bias is not None
    return module.bias


def _copied(weight: Tensor, copies: int) -> Tensor:
    """The same outputs several times."""
    return weight.repeat(copies, *[1] * (weight.dim() - 1))


def _first_of(weight: Tensor, copies: int) -> Tensor:
    """What reads the first of several copies."""
    others = weight.new_zeros(len(weight), weight.shape[1] * (copies - 1), *weight.shape[2:])
    return torch.cat((weight, others), 1)
