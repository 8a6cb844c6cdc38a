"""The end of the encoder's training: it learns by what the guide says to its own vectors.

To the picture itself, and to what is asked after it: else the vectors of a picture would confuse the guide
for the rest of a conversation.
"""

from __future__ import annotations

import math
import random
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import gallery
from .batches import IGNORED
from .bpe import TURN_END, Tokenizer
from .eyes import Eyes
from .gallery import Gallery
from .network import Guide
from .scenes import every_scene
from .steer import Conversations, caption_loss

Said = tuple[Tensor, Tensor]
"""A loss, and which answers are right."""

_BATCH = 16
_RATE = 2e-3
_STAGE = 0.15
"""The last stage's learning rate, as a share of the projector's."""
_KINDS = (3, 5, 8)
"""Digits, single things and several in a batch: several are the hardest."""
_USUAL = ("What is in the picture?", "What is in the picture?", "Qu'y a-t-il sur l'image ?")
"""What is asked in more than half of the batches."""
_FOLLOWED = 0.22
"""The share of batches in which the guide answers the question after the picture's."""
_FOLLOWING = 7
"""The pictures of these: their conversations are long."""
_LIMITS = (16, 16, 40)
"""Tokens of a further answer that are learnt."""


class Speaker:
    """Teaches the projector and the last stage; all before it stays as it is, and so does the guide."""

    def __init__(
        self,
        guide: Guide,
        tokenizer: Tokenizer,
        conversations: Conversations,
        eyes: Eyes,
        painted: Gallery,
        rng: random.Random,
    ) -> None:
        self._guide, self._conversations, self._eyes = guide, conversations, eyes
        self._painted, self._rng = painted, rng
        end = tokenizer.ids[TURN_END]
        self._captions = {
            scene.numbers: [*tokenizer.encode(scene.caption), end] for scene in every_scene()
        }
        arrangement = painted.numbers[:, 2]
        kinds = (arrangement == 7, arrangement < 3, (arrangement > 2) & (arrangement < 7))
        self._kinds = [kind.nonzero()[:, 0] for kind in kinds]
        for frozen in (guide, eyes):
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
        shares = {"said": 0.0, "said to the next question": 0.0}
        for step in range(1, steps + 1):
            falling = (1 + math.cos(math.pi * step / steps)) / 2
            for group in self._optimiser.param_groups:
                group["lr"] = _RATE * group["share"] * min(1, step / 20) * (0.01 + 0.99 * falling)
            kind, right = self._step()
            shares[kind] = 0.97 * shares[kind] + 0.03 * right
            if step % 100 == 0 or step == steps:
                minutes = (time.monotonic() - started) / 60
                told = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
                print(f"speaking, step {step}, {minutes:.1f} minutes: {told}", flush=True)

    def _step(self) -> tuple[str, float]:
        pictures, captions = self._drawn()
        if self._rng.random() < _FOLLOWED:
            kind, (loss, right) = "said to the next question", self._followed(pictures, captions)
        else:
            kind, around = "said", self._conversations.draw()
            if self._rng.random() < 0.58:
                around = self._conversations.plain(self._rng.choice(_USUAL))
            loss, right = caption_loss(self._guide, self._eyes(pictures), around, captions)
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        return kind, right.float().mean().item()

    def _followed(self, pictures: Tensor, captions: list[list[int]]) -> Said:
        """What is said to the question after the picture's."""
        rows = torch.randperm(len(captions))[:_FOLLOWING].tolist()
        turns = [self._conversations.follow_up(captions[row]) for row in rows]
        limit = self._rng.choice(_LIMITS)
        around = self._conversations.plain(self._rng.choice(_USUAL))
        vectors = self._eyes(pictures[rows])
        return follow_up_loss(
            self._guide, vectors, around, [(asked, said[:limit]) for asked, said in turns]
        )

    def _drawn(self) -> tuple[Tensor, list[list[int]]]:
        """Pictures, each a little brighter or darker than drawn, and what is to be said to them."""
        parts = zip(self._kinds, _KINDS, strict=True)
        rows = torch.cat([kind[torch.randint(len(kind), (n,))] for kind, n in parts])
        gain, offset = 1 + 0.1 * torch.randn(_BATCH, 1, 1, 1), 0.05 * torch.randn(_BATCH, 1, 1, 1)
        x = (gallery.scaled(self._painted.pictures[rows]) * gain + offset).clamp(-1, 1)
        numbers = self._painted.numbers[rows].tolist()
        return x, [self._captions[tuple(each)] for each in numbers]


def follow_up_loss(
    guide: Guide,
    vectors: Tensor,
    around: tuple[list[int], list[int]],
    turns: list[tuple[list[int], list[int]]],
) -> Said:
    """The cross entropy of what is said at the end of conversations that begin with pictures of `vectors`
    (rows, places, width); of each turn what was asked, and what is to be said.
    """
    before, after = (guide.embedding(torch.tensor(ids)) for ids in around)
    rows = []
    for vector, (asked, said) in zip(vectors, turns, strict=True):
        words = guide.embedding(torch.tensor([*asked, *said[:-1]]))
        rows.append(torch.cat((before, vector, after, words)))
    wanted = nn.utils.rnn.pad_sequence(
        [
            torch.tensor([IGNORED] * (len(row) - len(said)) + said)
            for row, (_, said) in zip(rows, turns, strict=True)
        ],
        batch_first=True,
        padding_value=IGNORED,
    )
    states = guide.upper(guide.lower_of(nn.utils.rnn.pad_sequence(rows, batch_first=True)))
    learnt = wanted != IGNORED
    logits = guide.logits(states[learnt])
    loss = functional.cross_entropy(logits, wanted[learnt])
    right = torch.ones(len(rows), dtype=torch.bool)
    right[learnt.nonzero()[:, 0][logits.argmax(-1) != wanted[learnt]]] = False
    return loss, right
