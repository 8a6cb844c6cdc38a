"""What is measured: prompts of these sizes, answers of this length, so many rounds."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = (128, 512, 2048)
"""Tokens of the prompts."""
QUICK_SIZES = (128, 512)
ANSWER = 64
"""Tokens of the answers."""
ROUNDS, QUICK_ROUNDS = 5, 3
_SPARE = 8
"""Tokens of the context that a runtime may keep for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One measurement. A round is a load, and a cold and a warm run of each size.

    Cold: nothing of the prompt is in the KV cache. Warm: the same prompt once more, which is.
    """

    sizes: tuple[int, ...] = SIZES
    answer_tokens: int = ANSWER
    rounds: int = ROUNDS
    context_length: int | None = None
    """The context to load the model with; None: the one that it is used with here."""

    @property
    def least_answer(self) -> int:
        """Tokens from which on an answer's speed counts: a model may end one early."""
        return self.answer_tokens // 2

    def obstacle(self, size: int, context_length: int | None) -> str | None:
        """Return why prompts of a size cannot be measured in a context; None where they can."""
        needed = size + self.answer_tokens + _SPARE
        if context_length is None or needed <= context_length:
            return None
        return (
            f"{size} tokens in and {self.answer_tokens} out do not fit into its context of "
            f"{context_length}"
        )


def make_plan(*, quick: bool, rounds: int | None, context_length: int | None) -> Plan:
    """Return the plan for what the user asks for."""
    usual = QUICK_ROUNDS if quick else ROUNDS
    return Plan(
        sizes=QUICK_SIZES if quick else SIZES,
        rounds=usual if rounds is None else rounds,
        context_length=context_length,
    )
