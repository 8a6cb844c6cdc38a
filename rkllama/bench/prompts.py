"""Prompts of an exact number of tokens, of which no two begin alike.

The texts are common words in random order, without a chat template. What each word costs a model's
tokenizer is learnt from the prompt tokens that its runtime reports.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

WORDS = (
    "river", "stone", "cloud", "light", "paper", "glass", "green", "winter", "water", "house", "night",
    "music", "the", "of", "and", "in", "to", "a", "is", "on", "for", "with",
)  # fmt: skip
"""Most tokenizers have a token for each of them with the space before it."""
_ENOUGH = 8
"""Words of one token that suffice."""
_TIMES = 4
"""How often a word is repeated to learn what it costs."""
_BASE = " ".join(("", *WORDS[:4]))

Count = Callable[[str], "int | None"]
"""Returns the tokens of a prompt; None where the runtime does not tell."""


class Prompt(NamedTuple):
    """A text for a model; `tokens` is how many it should have, None where that is not known."""

    text: str
    tokens: int | None


class PromptMaker:
    """Makes prompts for one model."""

    def __init__(self, costs: Mapping[str, int] | None = None, overhead: int = 0) -> None:
        """`costs` are tokens per word; None is not known, and then each word stands for a token.
        `overhead` are the tokens that the runtime adds to each prompt.
        """
        self.is_exact = costs is not None
        self._costs = dict(costs) if costs else dict.fromkeys(WORDS, 1)
        self._overhead = overhead
        self._random = random.Random()
        self._first = ""

    def make(self, tokens: int) -> Prompt:
        """Return a prompt of so many tokens, or as few below that as the words allow."""
        words: list[str] = []
        left = tokens - self._overhead
        while fitting := [word for word, cost in self._costs.items() if cost <= left]:
            if not words and len(fitting) > 1:
                fitting = [word for word in fitting if word != self._first]
            words.append(self._random.choice(fitting))
            left -= self._costs[words[-1]]
        self._first = words[0] if words else ""
        return Prompt(" ".join(("", *words)), tokens - left if self.is_exact else None)


def learn(count: Count) -> PromptMaker:
    """Return a maker of prompts for the model that `count` asks."""
    base = count(_BASE)
    if base is None:
        return PromptMaker()
    costs: dict[str, int] = {}
    for word in WORDS:
        tokens = count(_BASE + f" {word}" * _TIMES)
        if tokens is None:
            return PromptMaker()
        cost, rest = divmod(tokens - base, _TIMES)
        if cost > 0 and rest == 0:
            costs[word] = cost
        if sum(one == 1 for one in costs.values()) >= _ENOUGH:
            costs = {word: one for word, one in costs.items() if one == 1}
            break
    if not costs:
        return PromptMaker()
    word = min(costs, key=lambda one: costs[one])
    alone = count(f" {word}" * _TIMES)
    return PromptMaker(costs, max(0, (alone or 0) - _TIMES * costs[word]))
