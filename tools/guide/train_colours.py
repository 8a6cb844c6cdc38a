"""Trains the small encoder of the tests: `python -m tools.guide.train_colours VECTORS OUTPUT`.

It knows plain colours only. `VECTORS` is what `train_eyes --vectors` kept.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import export_eyes, steer
from .eyes import Eyes, EyesShape
from .pictures import shade_of
from .scenes import COLOURS, Scene

_STEPS = 750
_BATCH = 24


def main() -> None:
    torch.manual_seed(0)
    shape = EyesShape(layers=2)
    eyes, seen, rng = Eyes(shape), steer.Seen(shape), random.Random(1)
    kept = torch.load(Path(sys.argv[1]))
    seen.load_state_dict(kept["seen"])
    eyes.projector.load_state_dict(kept["projector"])
    numbers = [Scene(colour=colour, shape="square").numbers for colour in COLOURS]
    wanted = functional.layer_norm(seen(torch.tensor(numbers)).detach(), (shape.width,))
    weights = [w for name, w in eyes.named_parameters() if "projector" not in name]
    optimiser = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.98))
    for step in range(_STEPS):
        rate = 2e-3 * min(1, (step + 1) / 20) * max(0.02, 1 - step / _STEPS)
        optimiser.param_groups[0]["lr"] = rate
        chosen = [rng.randrange(len(COLOURS)) for _ in range(_BATCH)]
        states = functional.layer_norm(eyes.states(_plain(chosen, rng, shape)), (shape.width,))
        optimiser.zero_grad()
        functional.mse_loss(states, wanted[chosen]).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    export_eyes.write(Path(sys.argv[2]), eyes)


def _plain(chosen: list[int], rng: random.Random, shape: EyesShape) -> Tensor:
    """Pictures of one colour each, some with noise."""
    colours = torch.tensor([shade_of(COLOURS[number], rng) for number in chosen]).float()
    pictures = colours[:, :, None, None].expand(-1, 3, shape.side, shape.side) / 127.5 - 1
    noise = 0.1 * torch.randn(pictures.shape) * torch.rand(len(chosen), 1, 1, 1)
    return (pictures + noise).clamp(-1, 1)


if __name__ == "__main__":
    main()
