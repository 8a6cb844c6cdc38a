"""An image encoder on the NPU: a square of pixels goes in, the embeddings of its tokens come out."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..board.soc import npu_cores
from ..errors import LoadFailed, RuntimeFailed
from .abi import header
from .file import tokens_of
from .library import find_library
from .runtime import Context, Tensor

_CORE_MASKS = {2: "RKNN_NPU_CORE_0_1", 3: "RKNN_NPU_CORE_0_1_2"}
_MOST_BYTES = 256 << 20
"""Of a picture's embeddings: those of Qwen3-VL have 6 MB."""
_LARGEST_SIDE = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an encoder takes and gives: pixels, tokens, and float32 numbers for each token."""

    height: int
    width: int
    tokens: int
    embedding: int
    outputs: int


class Encoder:
    """An image encoder in the NPU's memory, until `close`. Not safe from several threads at a time."""

    def __init__(self, path: str, *, soc: str | None, library: str | None = None) -> None:
        """Load the encoder. Raises LoadFailed, LibraryNotFound."""
        self._context = Context(find_library(library)[1], path)
        try:
            self._prepare(soc)
        except RuntimeFailed as error:
            self.close()
            name = os.path.basename(path)
            raise LoadFailed(f"the image encoder {name} cannot be used: {error.message}") from None
        except BaseException:
            self.close()
            raise

    def _prepare(self, soc: str | None) -> None:
        context = self._context
        if mask := _CORE_MASKS.get(npu_cores(soc)):  # else the library's own choice is right
            context.set_core_mask(header().enums["rknn_core_mask"][mask])
        inputs, outputs = context.counts()
        if inputs != 1:
            raise RuntimeFailed(f"it has {inputs} inputs, but a picture is one")
        self._outputs = [context.output(index) for index in range(outputs)]
        self.shape = shape_of(context.input(0), self._outputs)

    def encode(self, pixels: bytes) -> bytes:
        """Return a picture's embeddings: float32, tokens x outputs x embedding. `pixels` are uint8, RGB, rows
        from the top, of the encoder's height and width. Raises RuntimeFailed.
        """
        expected = self.shape.height * self.shape.width * 3
        if len(pixels) != expected:
            raise RuntimeFailed(f"{len(pixels)} bytes of pixels for an encoder of {expected}")
        return interleaved(self._context.run(pixels, self._outputs), self.shape.embedding * 4)

    def close(self) -> None:
        """Free the encoder; again, do nothing."""
        self._context.close()


def shape_of(taken: Tensor, outputs: list[Tensor]) -> Shape:
    """Return an encoder's shape from its input and outputs. Raises RuntimeFailed for what is no encoder."""
    if len(taken.dims) != 4:
        raise RuntimeFailed(f"its input has {len(taken.dims)} dimensions, a picture has 4")
    first = header().enums["rknn_tensor_format"]["RKNN_TENSOR_NCHW"]
    if taken.format == first:
        channels, height, width = taken.dims[1:]
    else:
        height, width, channels = taken.dims[1:]
    if channels != 3 or not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
        raise RuntimeFailed(
            f"its input of {width} x {height} pixels and {channels} channels is no picture"
        )
    tokens, embedding = tokens_of(outputs[0].dims)
    if not tokens or not embedding:
        raise RuntimeFailed(f"its output {list(outputs[0].dims)} has no tokens")
    if any(output.elements != tokens * embedding for output in outputs):
        raise RuntimeFailed("its outputs are not embeddings of the same tokens")
    if tokens * embedding * len(outputs) * 4 > _MOST_BYTES:
        raise RuntimeFailed(f"its output of {tokens} x {embedding} numbers is too large")
    return Shape(
        height=height, width=width, tokens=tokens, embedding=embedding, outputs=len(outputs)
    )


def interleaved(outputs: list[bytes], row: int) -> bytes:
    """Return outputs of `row` bytes per token as one: all that belongs to the first token, and so on."""
    if len(outputs) == 1:
        return outputs[0]
    views = [memoryview(output) for output in outputs]
    return b"".join(
        view[start : start + row] for start in range(0, len(outputs[0]), row) for view in views
    )
