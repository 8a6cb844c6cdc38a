"""Trains the guide's eyes: `python -m tools.guide.train_eyes` in the repository's root.

The guide stays as it is. First the vectors are learnt that make it say each caption (`steer.py`), then an
encoder that turns pictures into them. The best state so far is written every few minutes.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import bpe, corpus, export, export_eyes, gallery, steer
from .eyes import Eyes, EyesShape, Projector
from .gallery import Gallery
from .network import Guide, Shape
from .other_pictures import draw_all
from .scenes import FEATURES
from .train import PRODUCT, vocabulary_texts

EYES = PRODUCT.with_name("guide-mmproj.gguf")
HELD_OUT_SEED = 1000
OTHER_SEED = 11
_BATCH = 32
_RATE = 1e-3
_DIGIT = 7
"""The arrangement of a digit, which must not be mirrored."""


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    shape = EyesShape()
    rng = random.Random(arguments.seed)
    seen, projector = _steering(arguments, shape, rng)
    painted = _painted(arguments, shape)
    print(f"{len(painted.pictures)} pictures drawn", flush=True)
    trainer = Trainer(Eyes(shape), seen, projector, painted, arguments.output)
    if arguments.start is not None:
        export_eyes.read(arguments.start, trainer.eyes)
    trainer.run(arguments.minutes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=60000)
    parser.add_argument(
        "--steer", type=int, default=1500, help="steps that learn what to hand over"
    )
    parser.add_argument("--minutes", type=float, default=40, help="time for the encoder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="an encoder to go on with")
    parser.add_argument("--vectors", type=Path, help="where what was learnt to hand over is kept")
    parser.add_argument("--drawn", type=Path, help="where the drawn pictures are kept")
    parser.add_argument("--output", type=Path, default=EYES)
    return parser.parse_args()


def _steering(
    arguments: argparse.Namespace, shape: EyesShape, rng: random.Random
) -> tuple[steer.Seen, Projector]:
    """Learnt, or read where an earlier run kept it."""
    kept: Path | None = arguments.vectors
    if kept is not None and kept.exists():
        seen, projector = steer.Seen(shape), Projector(shape)
        states = torch.load(kept)
        seen.load_state_dict(states["seen"])
        projector.load_state_dict(states["projector"])
        return seen, projector
    guide, tokenizer, texts = load_guide()
    conversations = steer.Conversations(tokenizer, texts, rng)
    seen, projector = steer.learn(guide, tokenizer, conversations, shape, arguments.steer, rng)
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


class Readers(nn.Module):
    """Training aids: they read a scene's features from the states, of the last block and the one before."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.whole = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, sum(FEATURES)))
        self.near = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, sum(FEATURES)))

    def scores(self, states: Tensor) -> list[Tensor]:
        """From the mean of all patches: per feature (rows, classes)."""
        return list(self.whole[1](self.whole[0](states).mean(1)).split(FEATURES, 1))

    def local_scores(self, states: Tensor) -> list[Tensor]:
        """From whichever patch shows it."""
        return list(self.near(states).logsumexp(1).split(FEATURES, 1))


class Trainer:
    """Trains the encoder for a time, and writes its best state."""

    def __init__(
        self, eyes: Eyes, seen: steer.Seen, projector: Projector, painted: Gallery, output: Path
    ) -> None:
        self.eyes, self._seen, self._painted, self._output = eyes, seen, painted, output
        eyes.projector.load_state_dict(projector.state_dict())
        eyes.projector.requires_grad_(False)
        self._readers = Readers(eyes.shape)
        learnt = [weight for weight in eyes.parameters() if weight.requires_grad]
        self._weights = [*learnt, *self._readers.parameters()]
        self._optimiser = torch.optim.AdamW(
            self._weights, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.03, fused=True
        )
        self._held_out = gallery.paint(1000, HELD_OUT_SEED, eyes.shape.side, 1)
        self._other = gallery.of_files(draw_all(300, OTHER_SEED), eyes.shape.side)
        self._best = -1.0

    def run(self, minutes: float) -> None:
        """A warm-up, then ever smaller steps until the time is over."""
        started, step, progress = time.monotonic(), 0, 0.0
        while progress < 1:
            progress = (time.monotonic() - started) / 60 / minutes
            rate = _RATE * min(1, (step + 1) / 100) * max(0.01, 1 - progress**2)
            self._optimiser.param_groups[0]["lr"] = rate
            loss = self._step()
            step += 1
            if step % 250 == 0 or progress >= 1:
                print(f"step {step}, {progress * minutes:.1f} minutes: loss {loss:.3f}", end="; ")
                self._keep_best()

    def _step(self) -> float:
        rows = torch.randint(len(self._painted.pictures), (_BATCH,))
        pictures, numbers = varied(self._painted.pictures[rows], self._painted.numbers[rows])
        local = self.eyes.local(pictures)
        states = self.eyes.blocks[-1](local)
        loss = _cross_entropies(self._readers.scores(states), numbers, (0, 1, 2, 3))
        aid = _cross_entropies(self._readers.local_scores(local), numbers, (0, 1, 3))
        size = states.shape[-1:]
        wanted = functional.layer_norm(self._seen(numbers).detach(), size)
        distance = functional.mse_loss(functional.layer_norm(states, size), wanted)
        self._optimiser.zero_grad()
        (loss + 0.5 * aid + distance).backward()
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        return loss.item()

    def _keep_best(self) -> None:
        held_out, other = self._right(self._held_out), self._right(self._other)
        print(f"{held_out[-1]:.1%} of held-out pictures, {other[-1]:.1%} of the others;", end=" ")
        print(
            "colour, shape, arrangement, digit",
            " ".join(f"{r:.1%}" for r in held_out[:-1]),
            flush=True,
        )
        if held_out[-1] > self._best:
            self._best = held_out[-1]
            export_eyes.write(self._output, self.eyes)

    @torch.no_grad()
    def _right(self, pictures: Gallery) -> list[float]:
        """Shares: of each feature, and of all four together."""
        parts = gallery.scaled(pictures.pictures).split(100)
        scores = [self._readers.scores(self.eyes.states(part)) for part in parts]
        chosen = torch.cat([torch.stack([s.argmax(1) for s in each], 1) for each in scores])
        right = chosen == pictures.numbers
        return [*right.float().mean(0).tolist(), right.all(1).float().mean().item()]


def _cross_entropies(scores: list[Tensor], numbers: Tensor, features: tuple[int, ...]) -> Tensor:
    losses = [functional.cross_entropy(scores[at], numbers[:, at]) for at in features]
    return torch.stack(losses).sum()


def varied(pictures: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored, moved by up to two pixels, brighter or darker, each batch anew."""
    x, numbers = gallery.scaled(pictures), numbers.clone()
    arrangement = numbers[:, 2]
    mirrored = (torch.rand(len(x)) < 0.5) & (arrangement != _DIGIT)
    x[mirrored] = x[mirrored].flip(3)
    on_a_side = mirrored & ((arrangement == 1) | (arrangement == 2))
    numbers[on_a_side, 2] = 3 - arrangement[on_a_side]
    down, right = torch.randint(0, 5, (2,)).tolist()
    side = x.shape[-1]
    x = functional.pad(x, (2, 2, 2, 2), mode="replicate")
    x = x[:, :, down : down + side, right : right + side]
    gain, offset = 1 + 0.1 * torch.randn(len(x), 1, 1, 1), 0.05 * torch.randn(len(x), 1, 1, 1)
    return (x * gain + offset).clamp(-1, 1), numbers


if __name__ == "__main__":
    main()
