"""The end of the encoder's training: it learns by what the guide says to its own vectors."""

from __future__ import annotations

import math
import random
import time

import torch
from torch import Tensor, nn

from . import gallery
from .bpe import TURN_END, Tokenizer
from .eyes import Eyes
from .gallery import Gallery
from .network import Guide
from .readers import Readers, cross_entropy
from .scenes import every_scene
from .steer import Conversations, caption_loss

_BATCH = 16
_RATE = 1e-3
_STAGE = 0.4
"""The last stage's learning rate, as a share of the projector's."""
_KINDS = (3, 5, 8)
"""Digits, single things and several in a batch: several are the hardest."""
_USUAL = ("What is in the picture?", "What is in the picture?", "Qu'y a-t-il sur l'image ?")
_USUALLY = 0.58
"""The share of batches in which one of these is asked."""


class Speaker:
    """Teaches the projector and the last stage; all before it stays as it is, and so does the guide."""

    def __init__(
        self,
        guide: Guide,
        tokenizer: Tokenizer,
        conversations: Conversations,
        eyes: Eyes,
        painted: Gallery,
        readers: Readers,
        rng: random.Random,
    ) -> None:
        self._guide, self._conversations, self._eyes = guide, conversations, eyes
        self._painted, self._readers, self._rng = painted, readers, rng
        end = tokenizer.ids[TURN_END]
        self._captions = {
            scene.numbers: [*tokenizer.encode(scene.caption), end] for scene in every_scene()
        }
        arrangement = painted.numbers[:, 2]
        kinds = (arrangement == 7, arrangement < 3, (arrangement > 2) & (arrangement < 7))
        self._kinds = [kind.nonzero()[:, 0] for kind in kinds]
        for frozen in (guide, eyes, readers):
            frozen.requires_grad_(False)
        self._weights = [*eyes.projector.parameters(), *eyes.stages[-1].blocks.parameters()]
        for weight in self._weights:
            weight.requires_grad_(True)
        groups = [
            {"params": list(eyes.projector.parameters()), "share": 1.0},
            {"params": list(eyes.stages[-1].blocks.parameters()), "share": _STAGE},
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0)

    def run(self, steps: int) -> None:
        """A warm-up, then ever smaller steps."""
        started = time.monotonic()
        share = 0.0
        for step in range(1, steps + 1):
            falling = (1 + math.cos(math.pi * step / steps)) / 2
            for group in self._optimiser.param_groups:
                group["lr"] = _RATE * group["share"] * min(1, step / 20) * (0.01 + 0.99 * falling)
            loss, right = self._step()
            share = 0.97 * share + 0.03 * right
            if step % 100 == 0 or step == steps:
                minutes = (time.monotonic() - started) / 60
                told = f"loss {loss:.3f}, {share:.0%} said"
                print(f"speaking, step {step}, {minutes:.1f} minutes: {told}", flush=True)

    def _step(self) -> tuple[float, float]:
        pictures, rows = self._drawn()
        numbers = self._painted.numbers[rows]
        captions = [self._captions[tuple(each)] for each in numbers.tolist()]
        around = self._conversations.draw()
        if self._rng.random() < _USUALLY:
            around = self._conversations.plain(self._rng.choice(_USUAL))
        states = self._eyes.states(pictures)
        vectors = self._eyes.projector(states)
        loss, right = caption_loss(self._guide, vectors, around, captions)
        aid = cross_entropy(self._readers.scores(states), numbers)
        self._optimiser.zero_grad()
        (loss + 0.5 * aid).backward()
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        return loss.item(), right.float().mean().item()

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Pictures, each a little brighter or darker than drawn, and their places in the gallery."""
        parts = zip(self._kinds, _KINDS, strict=True)
        rows = torch.cat([kind[torch.randint(len(kind), (n,))] for kind, n in parts])
        gain, offset = 1 + 0.1 * torch.randn(_BATCH, 1, 1, 1), 0.05 * torch.randn(_BATCH, 1, 1, 1)
        return (gallery.scaled(self._painted.pictures[rows]) * gain + offset).clamp(-1, 1), rows
