"""Aids of the training: what can be read from the encoder's states without the guide."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .eyes import EyesShape
from .scenes import FEATURES


class Readers(nn.Module):
    """They read a scene's features: from the mean of all places at the end, and before the
    last stage's blocks from whichever place shows them most.
    """

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.end = nn.Linear(shape.width, sum(FEATURES))
        self.early = nn.Linear(shape.width, sum(FEATURES))

    def scores(self, states: Tensor) -> tuple[Tensor, ...]:
        """Of the encoder's states, per feature (rows, classes)."""
        return self.end(states.mean(1)).split(FEATURES, 1)

    def early_scores(self, places: Tensor) -> tuple[Tensor, ...]:
        """Of what comes into the last stage's blocks (rows, height, width, channels)."""
        return self.early(places.amax((1, 2))).split(FEATURES, 1)


def cross_entropy(scores: Sequence[Tensor], numbers: Tensor) -> Tensor:
    """The sum over the features; `numbers` are `Scene.numbers`, (rows, 4)."""
    losses = [functional.cross_entropy(each, numbers[:, at]) for at, each in enumerate(scores)]
    return torch.stack(losses).sum()
