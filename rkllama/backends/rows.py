"""The last row that a runtime computes of a text (hidden states, logits), of one or several texts a run."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import PromptTooLong, Unsupported

_FLOAT = struct.Struct("=f")
_FILLER = " "
"""What takes the places in a run for which there is no text."""


class Row(NamedTuple):
    """The last row of a text: float32 bytes in native order, and how many tokens the text had."""

    data: bytes
    tokens: int | None


def probability(data: bytes, yes: int, no: int) -> float:
    """Return, from a row of logits, how likely the token `yes` is where the other choice is `no`.

    Raises Unsupported for a token that the row does not have.
    """
    if max(yes, no) >= len(data) // _FLOAT.size:
        raise Unsupported(
            f"the model's vocabulary has {len(data) // _FLOAT.size} tokens, but not {max(yes, no)}",
            hint="yes_token_id and no_token_id in its Modelfile, or the tokenizer.json beside it, are "
            "another model's.",
        )
    ahead = (
        _FLOAT.unpack_from(data, yes * _FLOAT.size)[0]
        - _FLOAT.unpack_from(data, no * _FLOAT.size)[0]
    )
    return sigmoid(ahead)


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)); far from 0 it is 0 or 1, and NaN for NaN."""
    return 0.5 + 0.5 * math.tanh(value / 2)


def shortened(text: str, tokens: int | None, context_length: int | None) -> str:
    """Return as much of a text as may fit in a context, by the tokens that it has with what comes with it;
    half of it where these are not known. The margin is for a ratio that differs along the text.
    """
    share = 0.5
    if tokens and context_length:
        share = min(0.95, 0.95 * context_length / tokens)
    return text[: int(len(text) * share)]


class Evaluation:
    """How texts are evaluated. `run` takes as many prompts as `n_batch` says, and gives a row for each;
    `prompt` makes a prompt of a text. With `truncate` a text that is too long is cut until it fits.
    """

    def __init__(
        self,
        run: Callable[[Sequence[str]], list[Row]],
        prompt: Callable[[str], str],
        *,
        n_batch: int,
        truncate: bool,
    ) -> None:
        self._run = run
        self._prompt = prompt
        self._n_batch = n_batch
        self._truncate = truncate

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Return a row for each text, in their order. Raises PromptTooLong, and what `run` raises."""
        rows: list[Row] = []
        for start in range(0, len(texts), self._n_batch):
            rows += self._together(texts[start : start + self._n_batch])
        return rows

    def _together(self, texts: Sequence[str]) -> list[Row]:
        if len(texts) > 1:
            try:
                return self._filled([self._prompt(text) for text in texts])
            except PromptTooLong:  # which of them it is, the runtime does not tell
                pass
        return [self._fitting(text) for text in texts]

    def _filled(self, prompts: list[str]) -> list[Row]:
        fillers = [_FILLER] * (self._n_batch - len(prompts))
        return self._run(prompts + fillers)[: len(prompts)]

    def _fitting(self, text: str) -> Row:
        while True:
            try:
                return self._filled([self._prompt(text)])[0]
            except PromptTooLong as error:
                if not self._truncate or not text:
                    raise
                text = shortened(text, error.prompt_tokens, error.context_length)
