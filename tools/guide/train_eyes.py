"""Trains the guide's eyes: `python -m tools.guide.train_eyes` in the repository's root.

The guide stays as it is. First the vectors are learnt that make it say each caption (`steer.py`), then an
encoder that turns pictures into them. In the end the encoder's last part learns by what the guide says to its
own vectors (`speaking.py`).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import bpe, corpus, export, export_eyes, gallery, steer
from .eyes import Eyes, EyesShape, Projector
from .gallery import Gallery
from .network import Guide, Shape
from .other_pictures import draw_all
from .readers import Readers, cross_entropy
from .speaking import Speaker
from .train import PRODUCT, vocabulary_texts

EYES = PRODUCT.with_name("guide-mmproj.gguf")
HELD_OUT_SEED = 1000
OTHER_SEED = 11
_BATCH = 32
_RATE = 3e-3
_COARSE = 0.3
"""The share of the steps at first that see pictures of half the size, and three times as many."""
_ALONE = 0.2
"""The share at first that sees single things only, which are larger."""
_SEVERAL = (3, 4, 5, 6)
"""Their arrangements."""
_DIGIT = 7
"""The arrangement of a digit, which must not be mirrored."""


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    shape = EyesShape()
    rng = random.Random(arguments.seed)
    guide, tokenizer, texts = load_guide()
    conversations = steer.Conversations(tokenizer, texts, rng)
    seen, projector = _steering(
        arguments.vectors,
        lambda: steer.learn(guide, tokenizer, conversations, shape, arguments.steer, rng),
        shape,
    )
    painted = _painted(arguments, shape)
    print(f"{len(painted.pictures)} pictures drawn", flush=True)
    eyes = Eyes(shape)
    eyes.projector.load_state_dict(projector.state_dict())
    trainer = Trainer(eyes, seen, painted)
    trainer.run(arguments.steps)
    speaker = Speaker(guide, tokenizer, conversations, eyes, painted, trainer.readers, rng)
    speaker.run(arguments.speak)
    export_eyes.write(arguments.output, eyes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=60000)
    parser.add_argument(
        "--steer", type=int, default=1500, help="steps that learn what to hand over"
    )
    parser.add_argument("--steps", type=int, default=8000, help="steps of the encoder")
    parser.add_argument(
        "--speak", type=int, default=1500, help="steps that learn by what the guide says"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="where what was learnt to hand over is kept")
    parser.add_argument("--drawn", type=Path, help="where the drawn pictures are kept")
    parser.add_argument("--output", type=Path, default=EYES)
    return parser.parse_args()


def _steering(
    kept: Path | None, learn: Callable[[], tuple[steer.Seen, Projector]], shape: EyesShape
) -> tuple[steer.Seen, Projector]:
    """Learnt, or read where an earlier run kept it."""
    if kept is not None and kept.exists():
        seen, projector = steer.Seen(shape), Projector(shape)
        states = torch.load(kept)
        seen.load_state_dict(states["seen"])
        projector.load_state_dict(states["projector"])
        return seen, projector
    seen, projector = learn()
    if kept is not None:
        torch.save({"seen": seen.state_dict(), "projector": projector.state_dict()}, kept)
    return seen, projector


def _painted(arguments: argparse.Namespace, shape: EyesShape) -> Gallery:
    """Drawn, or read where an earlier run kept them."""
    kept: Path | None = arguments.drawn
    if kept is not None and kept.exists():
        return Gallery(*torch.load(kept))
    painted = gallery.paint(arguments.pictures, arguments.seed, shape.side, arguments.threads)
    if kept is not None:
        torch.save((painted.pictures, painted.numbers), kept)
    return painted


def load_guide() -> tuple[Guide, bpe.Tokenizer, corpus.Corpus]:
    """The product's weights, its vocabulary and its questions."""
    texts = corpus.load()
    training, _ = corpus.split(texts.questions)
    tokenizer = bpe.Tokenizer(bpe.train(vocabulary_texts(texts, training), Shape().vocabulary))
    guide = Guide(Shape())
    export.read(PRODUCT, guide)
    return guide.eval(), tokenizer, texts


class Trainer:
    """Teaches an encoder to make the states of `seen` from pictures."""

    def __init__(self, eyes: Eyes, seen: steer.Seen, painted: Gallery) -> None:
        self._eyes, self._seen, self._painted = eyes, seen, painted
        several = torch.isin(painted.numbers[:, 2], torch.tensor(_SEVERAL))
        self._single = (~several).nonzero()[:, 0]
        eyes.projector.requires_grad_(False)
        self.readers = Readers(eyes.shape)
        learnt = [weight for weight in eyes.parameters() if weight.requires_grad]
        self._weights = [*learnt, *self.readers.parameters()]
        groups = [
            {"params": [w for w in self._weights if w.dim() > 1], "weight_decay": 0.03},
            {"params": [w for w in self._weights if w.dim() < 2], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
        self._held_out = gallery.paint(1000, HELD_OUT_SEED, eyes.shape.side, 1)
        self._other = gallery.of_files(draw_all(300, OTHER_SEED), eyes.shape.side)

    def run(self, steps: int) -> None:
        """A warm-up, then ever smaller steps."""
        started = time.monotonic()
        for step in range(1, steps + 1):
            falling = (1 + math.cos(math.pi * step / steps)) / 2
            for group in self._optimiser.param_groups:
                group["lr"] = _RATE * min(1, step / 100) * (0.01 + 0.99 * falling)
            loss = self._step(step / steps)
            if step % 250 == 0 or step == steps:
                minutes = (time.monotonic() - started) / 60
                print(f"step {step}, {minutes:.1f} minutes: loss {loss:.3f}", end="; ")
                self._report()

    def _step(self, progress: float) -> float:
        coarse = progress < _COARSE
        rows = self._rows(_BATCH * 3 if coarse else _BATCH, progress < _ALONE)
        pictures, numbers = varied(self._painted.pictures[rows], self._painted.numbers[rows])
        places = self._eyes.places(halved(pictures) if coarse else pictures)
        states = self._eyes.stages[-1].mixed(places).flatten(1, 2)
        loss = cross_entropy(self.readers.scores(states), numbers)
        aid = cross_entropy(self.readers.early_scores(places), numbers)
        wanted = self._seen(numbers).detach()[:, None].expand_as(states)
        self._optimiser.zero_grad()
        (loss + 0.3 * aid + functional.mse_loss(states, wanted)).backward()
        nn.utils.clip_grad_norm_(self._weights, 2.0)
        self._optimiser.step()
        return loss.item()

    def _rows(self, count: int, single: bool) -> Tensor:
        if single or torch.rand(()) < 0.2:
            return self._single[torch.randint(len(self._single), (count,))]
        return torch.randint(len(self._painted.pictures), (count,))

    def _report(self) -> None:
        held_out, other = self._right(self._held_out), self._right(self._other)
        print(f"{held_out[-1]:.1%} of held-out pictures, {other[-1]:.1%} of the others;", end=" ")
        shares = " ".join(f"{right:.1%}" for right in held_out[:-1])
        print(f"colour, shape, arrangement, digit {shares}", flush=True)

    @torch.no_grad()
    def _right(self, pictures: Gallery) -> list[float]:
        """Shares: of each feature, and of all four together."""
        parts = gallery.scaled(pictures.pictures).split(100)
        scores = [self.readers.scores(self._eyes.states(part)) for part in parts]
        chosen = torch.cat([torch.stack([s.argmax(1) for s in each], 1) for each in scores])
        right = chosen == pictures.numbers
        return [*right.float().mean(0).tolist(), right.all(1).float().mean().item()]


def halved(pictures: Tensor) -> Tensor:
    """Half as many rows and columns."""
    smaller = functional.avg_pool2d(pictures.permute(0, 3, 1, 2), 2)
    return smaller.permute(0, 2, 3, 1).contiguous()


def varied(pictures: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored, turned, slanted, stretched, moved, brighter or darker, each batch anew; digits the most."""
    x, numbers = gallery.scaled(pictures), numbers.clone()
    arrangement = numbers[:, 2]
    mirrored = (torch.rand(len(x)) < 0.5) & (arrangement != _DIGIT)
    x[mirrored] = x[mirrored].flip(2)
    on_a_side = mirrored & ((arrangement == 1) | (arrangement == 2))
    numbers[on_a_side, 2] = 3 - arrangement[on_a_side]
    places = functional.affine_grid(
        _warps(arrangement == _DIGIT), [len(x), 3, *x.shape[1:3]], align_corners=False
    )
    x = functional.grid_sample(
        x.permute(0, 3, 1, 2), places, padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    gain, offset = 1 + 0.1 * torch.randn(len(x), 1, 1, 1), 0.05 * torch.randn(len(x), 1, 1, 1)
    return (x * gain + offset).clamp(-1, 1).contiguous(), numbers


def _warps(strongly: Tensor) -> Tensor:
    """Random affine maps (rows, 2, 3)."""
    share = torch.where(strongly, 1.0, 0.5)

    def within(most: float) -> Tensor:
        return (torch.rand(len(strongly)) * 2 - 1) * most * share

    angle, slant, wide, high = within(0.17), within(0.2), within(0.2).exp(), within(0.12).exp()
    across = torch.stack([angle.cos() * wide, angle.sin() * wide + slant, within(0.06)], 1)
    down = torch.stack([-angle.sin() * high, angle.cos() * high, within(0.06)], 1)
    return torch.stack([across, down], 1)


if __name__ == "__main__":
    main()
