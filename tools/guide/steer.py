"""Learns by which vectors in a conversation the guide, as it is, says the caption of a scene.

The guide's own weights stay: what it answers without a picture cannot change.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .batches import IGNORED, Renderer
from .bpe import TURN, TURN_END, Tokenizer
from .corpus import Corpus
from .eyes import EyesShape, Projector
from .network import Guide
from .scenes import FEATURES, Scene, every_scene

_BATCH = 16
_NOISE = 0.3
_STRENGTH = 8.0
"""The length of a feature's state, so that its numbers are of about the size of one."""
_BEFORE, _AFTER = "<image>", "</image>"
"""What llama.cpp puts around the vectors of a picture."""
_QUESTIONS = [
    "What is in the picture?",
    "What is in this picture?",
    "What is in the image?",
    "What is this?",
    "Describe the picture.",
    "What do you see?",
    "What can you see in the image?",
    "what's in this image",
    "What do you see in the picture?",
    "Describe this image",
    "Tell me what you see",
    "describe",
    "",
    "What does the picture show?",
    "What is on the photo?",
    "What colour is it?",
    "How many are there?",
    "Which digit is this?",
    "Which number is it?",
    "What shape is it?",
    "Where is it?",
    "Look at this",
    "Is it on the left or on the right?",
    "and this one?",
    "Caption this picture.",
    "Explain this picture",
    "Qu'y a-t-il sur l'image ?",
    "Que vois-tu ?",
    "Décris l'image.",
    "Qu'est-ce que c'est ?",
]
_SYSTEMS = ("You are a helpful assistant.", "Answer briefly.", "You are a guide.")


class Seen(nn.Module):
    """States (rows, width) as the encoder is to have them, the same in all places: a scene's features."""

    def __init__(self, shape: EyesShape) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, shape.width) for count in FEATURES)
        for table in self.tables:
            nn.init.orthogonal_(table.weight)
            table.weight.data.mul_(_STRENGTH)

    def forward(self, numbers: Tensor) -> Tensor:
        """Of `Scene.numbers`, (rows, 4)."""
        features = [table(numbers[:, at]) for at, table in enumerate(self.tables)]
        return torch.stack(features).sum(0)


class Conversations:
    """Conversations with one picture in their last question."""

    def __init__(self, tokenizer: Tokenizer, corpus: Corpus, rng: random.Random) -> None:
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._corpus = corpus
        self._rng = rng

    def draw(self) -> tuple[list[int], list[int]]:
        """The token ids before the picture and after it."""
        question = self._rng.choice(_QUESTIONS)
        if self._rng.random() < 0.3:
            question = question.lower().rstrip("?. ")
        between = self._rng.choice(("\n", "", "", " "))
        kind = self._rng.random()
        before, after = (question + between, "") if kind < 0.35 else ("", between + question)
        if kind > 0.9:
            before = after = ""
        turn, end = self._tokenizer.ids[TURN], self._tokenizer.ids[TURN_END]
        encode = self._tokenizer.encode
        opening = [turn, *encode(f"user\n{before}"), *encode(_BEFORE)]
        answer = [end, *encode("\n"), turn, *encode("assistant\n")]
        return [*self._past(), *opening], [*encode(_AFTER), *encode(after), *answer]

    def plain(self, question: str) -> tuple[list[int], list[int]]:
        """The same for a picture, the question behind it, and nothing before."""
        turn, end = self._tokenizer.ids[TURN], self._tokenizer.ids[TURN_END]
        encode = self._tokenizer.encode
        opening = [turn, *encode("user\n"), *encode(_BEFORE)]
        return opening, [*encode(_AFTER), *encode(question), end, *self._asking()]

    def _asking(self) -> list[int]:
        """Between a turn's end and the answer."""
        encode = self._tokenizer.encode
        return [*encode("\n"), self._tokenizer.ids[TURN], *encode("assistant\n")]

    def _past(self) -> list[int]:
        chance = self._rng.random()
        if chance < 0.05:
            return self._turn("system", self._rng.choice(_SYSTEMS))
        if chance > 0.12:
            return []
        question = self._rng.choice(self._corpus.questions)
        answer = self._turn("assistant", self._corpus.answer(question))
        return self._turn("user", question.text) + answer

    def _turn(self, role: str, text: str) -> list[int]:
        return self._renderer.turn(role, self._tokenizer.encode(text))


def caption_loss(
    guide: Guide, vectors: Tensor, around: tuple[list[int], list[int]], captions: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """The captions' cross entropy after pictures of `vectors` (rows, places, width), and which are right."""
    length = max(map(len, captions))
    labels = torch.full((len(captions), length), IGNORED)
    for row, caption in enumerate(captions):
        labels[row, : len(caption)] = torch.tensor(caption)
    before, after = (
        guide.embedding(torch.tensor(ids)).expand(len(captions), -1, -1) for ids in around
    )
    said = guide.embedding(labels.clamp(min=0)[:, :-1])
    states = guide.lower_of(torch.cat((before, vectors, after, said), 1))
    logits = guide.logits(guide.upper(states)[:, -length:])
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    right = ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1)
    return loss, right


def learn(
    guide: Guide,
    tokenizer: Tokenizer,
    conversations: Conversations,
    shape: EyesShape,
    steps: int,
    rng: random.Random,
) -> tuple[Seen, Projector]:
    """What the encoder is to see, and the projector that makes the guide say it."""
    guide.requires_grad_(False)
    seen, projector = Seen(shape), Projector(shape)
    nn.init.normal_(projector.second.weight, std=0.05)
    nn.init.normal_(projector.place)
    weights = [*seen.parameters(), *projector.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.98), weight_decay=0)
    share = 0.0
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 20) * (1 - 0.98 * step / steps)
        scenes = _scenes(_BATCH, rng)
        states = seen(torch.tensor([scene.numbers for scene in scenes]))[:, None]
        noisy = states + _NOISE * torch.randn(_BATCH, shape.vectors, shape.width)
        captions = [[*tokenizer.encode(scene.caption), tokenizer.ids[TURN_END]] for scene in scenes]
        loss, right = caption_loss(guide, projector(noisy), conversations.draw(), captions)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        share = 0.95 * share + 0.05 * right.float().mean().item()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss:.3f}, {100 * share:.0f} % said", flush=True)
    return seen, projector


def _scenes(count: int, rng: random.Random) -> Sequence[Scene]:
    every = every_scene()
    return [
        Scene(digit=rng.randrange(10)) if rng.random() < 0.15 else rng.choice(every)
        for _ in range(count)
    ]
