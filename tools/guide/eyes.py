"""The encoder: a convolutional network that can be written down as a ConvNeXt V2.

That is what llama.cpp's `clip` reads under the name yasa2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class EyesShape:
    """The encoder's dimensions; `guide` is the language model's width."""

    side: int = 64
    patch: int = 2
    widths: tuple[int, ...] = (16, 32, 96)
    """Of the stages, each of which has half as many rows and columns as the one before."""
    hidden: tuple[int, ...] = (32, 64, 192)
    """The width inside of a stage's blocks."""
    blocks: tuple[int, ...] = (1, 1, 4)
    """In each stage."""
    projector: int = 256
    guide: int = 256
    epsilon: float = 1e-6

    @property
    def grid(self) -> int:
        """Rows and columns after the last stage: llama.cpp makes 8 of them, whatever there are."""
        return self.side // self.patch >> len(self.widths) - 1

    @property
    def vectors(self) -> int:
        """How many the guide gets."""
        return self.grid**2

    @property
    def width(self) -> int:
        """Of the last stage's states."""
        return self.widths[-1]


class Near(nn.Module):
    """An ordinary convolution (3 x 3) within a residual block.

    A ConvNeXt has none, but is one if its state holds nine copies of each number: then its first layer, which
    looks around in each channel by itself, can bring each copy from another neighbour. So here the nine
    neighbours are normalised together.
    """

    def __init__(self, width: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.down = nn.Linear(hidden, width)
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        mean, square = _mean_near(x), _mean_near(x.square())
        scale = (square - mean.square()).clamp(min=self._epsilon).rsqrt()
        of_mean = mean * self.around.weight.sum((1, 2, 3))
        h = (_convolved(self.around, x) - of_mean) * scale + self.bias
        return x + self.down(functional.gelu(h))


class Far(nn.Module):
    """Each channel looks around by itself (7 x 7), then the channels of each place are mixed."""

    def __init__(self, width: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(_convolved(self.around, x))
        return x + self.down(functional.gelu(self.up(h)))


class Stage(nn.Module):
    """Blocks, and before them what halves rows and columns, but in the first stage."""

    def __init__(self, shape: EyesShape, number: int) -> None:
        super().__init__()
        width, hidden = shape.widths[number], shape.hidden[number]
        self.norm: nn.LayerNorm | None = None
        self.halve: nn.Conv2d | None = None
        if number:
            before = shape.widths[number - 1]
            self.norm = nn.LayerNorm(before, shape.epsilon)
            self.halve = nn.Conv2d(before, width, 2, 2)
        kind = Far if number == len(shape.widths) - 1 else Near
        self.blocks = nn.ModuleList(
            kind(width, hidden, shape.epsilon) for _ in range(shape.blocks[number])
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(self.halved(x))

    def halved(self, x: Tensor) -> Tensor:
        """What comes into the blocks."""
        if self.norm is not None and self.halve is not None:
            x = _convolved(self.halve, self.norm(x))
        return x

    def mixed(self, x: Tensor) -> Tensor:
        """What comes out of them."""
        for block in self.blocks:
            x = block(x)
        return x


class Projector(nn.Module):
    """From states (rows, vectors, width) to vectors that stand where the guide's embeddings do."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(shape.vectors, shape.width))
        self.first = nn.Linear(shape.width, shape.projector)
        self.second = nn.Linear(shape.projector, shape.guide)

    def forward(self, states: Tensor) -> Tensor:
        vectors: Tensor = self.second(functional.gelu(self.first(states + self.place)))
        return vectors


class Eyes(nn.Module):
    """Pictures (rows, side, side, 3) from -1 to 1, to vectors (rows, vectors, guide)."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch = nn.Conv2d(3, shape.widths[0], shape.patch, shape.patch)
        self.norm = nn.LayerNorm(shape.widths[0], shape.epsilon)
        self.stages = nn.ModuleList(Stage(shape, number) for number in range(len(shape.widths)))
        self.projector = Projector(shape)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Near):
                nn.init.trunc_normal_(
                    module.around.weight, std=module.around.weight[0].numel() ** -0.5
                )
        for block in self.stages[-1].blocks:
            # Half of the channels begin with means, so that each place hears of all others.
            block.around.weight[::2] = 0.05

    def states(self, pictures: Tensor) -> Tensor:
        """Before the projector: (rows, vectors, width)."""
        states: Tensor = self.stages[-1].mixed(self.places(pictures)).flatten(1, 2)
        return states

    def places(self, pictures: Tensor) -> Tensor:
        """Before the last stage's blocks: (rows, grid, grid, width)."""
        x = self.norm(_convolved(self.patch, pictures))
        for stage in self.stages[:-1]:
            x = stage(x)
        places: Tensor = self.stages[-1].halved(x)
        return places

    def forward(self, pictures: Tensor) -> Tensor:
        vectors: Tensor = self.projector(self.states(pictures))
        return vectors


def _convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Of (rows, height, width, channels), which is how a processor's memory likes it best."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _mean_near(x: Tensor) -> Tensor:
    """Of all channels of a place and its eight neighbours; beyond the edge there are zeros."""
    mean = functional.avg_pool2d(x.mean(-1), 3, 1, 1)
    return mean[..., None]
