"""The encoder: a vision transformer with llama.cpp's `mlp` projector, as its `clip` reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class EyesShape:
    """The encoder's dimensions; `guide` is the language model's width."""

    side: int = 32
    patch: int = 4
    width: int = 96
    layers: int = 4
    heads: int = 8
    hidden: int = 256
    projector: int = 256
    guide: int = 256
    epsilon: float = 1e-5

    @property
    def patches(self) -> int:
        """How many there are, and how many vectors the encoder returns."""
        return (self.side // self.patch) ** 2


class Block(nn.Module):
    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.ln1 = nn.LayerNorm(shape.width, shape.epsilon)
        self.ln2 = nn.LayerNorm(shape.width, shape.epsilon)
        self.q, self.k, self.v, self.out = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.up = nn.Linear(shape.width, shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        h = self.ln1(x)
        q, k, v = (
            part(h).view(rows, length, self.heads, -1).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(gelu(self.up(self.ln2(x))))


class Projector(nn.Module):
    """From the encoder's normalised states to vectors that stand where the guide's embeddings do."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width, shape.epsilon)
        self.first = nn.Linear(shape.width, shape.projector)
        self.second = nn.Linear(shape.projector, shape.guide)

    def forward(self, states: Tensor) -> Tensor:
        return self.second(gelu(self.first(self.norm(states))))


class Eyes(nn.Module):
    """Pictures (rows, 3, side, side) from -1 to 1, to vectors (rows, patches, guide)."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=False)
        self.position = nn.Parameter(torch.empty(shape.patches, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.projector = Projector(shape)
        _start(self)

    def states(self, pictures: Tensor) -> Tensor:
        """Before the projector and its norm: (rows, patches, width)."""
        x: Tensor = self.blocks[-1](self.local(pictures))
        return x

    def local(self, pictures: Tensor) -> Tensor:
        """The states before the last block, which is the first to look at the whole picture."""
        x = self.patch(pictures).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks[:-1]:
            x = block(x)
        return x

    def forward(self, pictures: Tensor) -> Tensor:
        states: Tensor = self.projector(self.states(pictures))
        return states


def gelu(x: Tensor) -> Tensor:
    """The approximation that llama.cpp computes."""
    return functional.gelu(x, approximate="tanh")


@torch.no_grad()
def _start(eyes: Eyes) -> None:
    """Let the network begin as a convolution, from which it learns with far fewer pictures.

    The patches begin as their lowest cosine frequencies, beside which the last twelve numbers hold the
    place. In all blocks but the last each head looks at one neighbour, in the last at the whole picture.
    """
    eyes.patch.weight.copy_(_cosines(eyes.shape))
    eyes.position.copy_(_places(eyes.shape))
    for number, block in enumerate(eyes.blocks):
        for linear in (block.q, block.k, block.v, block.out, block.up, block.down):
            nn.init.zeros_(linear.bias)
        # Large enough that the activations bend: what is linear sees colours, but no shapes.
        nn.init.normal_(block.up.weight, std=0.2)
        nn.init.normal_(block.up.bias, std=0.5)
        nn.init.normal_(block.down.weight, std=0.06)
        nn.init.normal_(block.v.weight, std=0.12)
        nn.init.normal_(block.out.weight, std=0.1)
        if number == len(eyes.blocks) - 1:
            nn.init.normal_(block.q.weight, std=0.02)
            nn.init.normal_(block.q.bias)
            nn.init.normal_(block.k.weight, std=0.15)
            continue
        for head, (down, right) in enumerate(_NEIGHBOURS):
            rows = slice(head * _PLACE, head * _PLACE + _PLACE)
            block.k.weight[rows] = _SHARPNESS * torch.eye(eyes.shape.width)[-_PLACE:]
            block.q.weight[rows] = 0
            block.q.weight[rows, -_PLACE:] = _SHARPNESS * _shift(down, right)


_PLACE = 12
"""Numbers that tell a place: sines and cosines of three frequencies, of the row and of the column."""
_FREQUENCIES = (1, 2, 4)
_SHARPNESS = 2.0
_NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def _angles(steps: Tensor) -> Tensor:
    return steps[..., None] * torch.tensor(_FREQUENCIES) * (torch.pi / 8)


def _places(shape: EyesShape) -> Tensor:
    """(patches, width), all zero but for the last twelve numbers."""
    count = shape.side // shape.patch
    angles = _angles(torch.arange(count))
    axis = torch.stack((angles.cos(), angles.sin()), -1).flatten(1)
    rows = axis[:, None].expand(-1, count, -1)
    columns = axis[None, :].expand(count, -1, -1)
    places = torch.zeros(shape.patches, shape.width)
    places[:, -_PLACE:] = torch.cat((rows, columns), 2).reshape(shape.patches, _PLACE)
    return places


def _shift(down: int, right: int) -> Tensor:
    """What turns a place (12) into that of a neighbour."""
    angles = torch.cat((_angles(torch.tensor(down)), _angles(torch.tensor(right))))
    turns = [torch.stack((a.cos(), -a.sin(), a.sin(), a.cos())).view(2, 2) for a in angles]
    return torch.block_diag(*turns)


def _cosines(shape: EyesShape) -> Tensor:
    """Filters (width, 3, patch, patch): the lowest frequencies, most of brightness, some of colour."""
    size = shape.patch
    at = (torch.arange(size) + 0.5) * (torch.pi / size)
    waves = torch.cos(torch.arange(size)[:, None] * at)
    pairs = sorted(((y, x) for y in range(size) for x in range(size)), key=lambda p: (sum(p), p))
    bright = (shape.width - _PLACE) - 2 * _COLOUR_WAVES
    channels = [(_BRIGHTNESS, bright), *((colour, _COLOUR_WAVES) for colour in _OPPOSED)]
    filters = torch.zeros(shape.width, 3, size, size)
    number = 0
    for channel, count in channels:
        for y, x in pairs[:count]:
            wave = waves[y][:, None] * waves[x][None, :]
            wave = wave / wave.norm() * (1 + y + x) / size
            filters[number] = torch.tensor(channel)[:, None, None] * wave
            number += 1
    return filters


_COLOUR_WAVES = 10
_BRIGHTNESS = (0.6, 0.6, 0.6)
_OPPOSED = ((1.0, -1.0, 0.0), (0.5, 0.5, -1.0))
"""Red against green, and both against blue."""
