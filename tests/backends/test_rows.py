"""Texts in runs of several: the places, the order, and texts that are too long."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from rkllama.backends.rows import Evaluation, Row, probability, sigmoid
from rkllama.errors import PromptTooLong, Unsupported

CONTEXT = 10


class Runtime:
    """Takes `n_batch` prompts a run; a token is a character."""

    def __init__(self, n_batch: int, *, counts: bool = True) -> None:
        self.n_batch = n_batch
        self.counts = counts
        self.runs: list[tuple[str, ...]] = []

    def run(self, prompts: Sequence[str]) -> list[Row]:
        assert len(prompts) == self.n_batch
        longest = max(map(len, prompts))
        if longest > CONTEXT:
            raise PromptTooLong(
                "too long",
                prompt_tokens=longest if self.counts else None,
                context_length=CONTEXT if self.counts else None,
            )
        self.runs.append(tuple(prompts))
        return [Row(prompt.encode(), len(prompt)) for prompt in prompts]

    def evaluate(self, *texts: str, truncate: bool = True) -> list[str]:
        evaluation = Evaluation(
            self.run, lambda text: f"<{text}>", n_batch=self.n_batch, truncate=truncate
        )
        return [row.data.decode() for row in evaluation.rows(texts)]


@pytest.mark.parametrize("n_batch", [1, 2, 3, 5, 8])
def test_every_text_has_the_row_that_it_has_alone(n_batch: int) -> None:
    runtime = Runtime(n_batch)
    assert runtime.evaluate("a", "bb", "", "dddd", "e") == ["<a>", "<bb>", "<>", "<dddd>", "<e>"]
    assert len(runtime.runs) == -(-5 // n_batch)


def test_places_without_a_text_are_filled() -> None:
    runtime = Runtime(3)
    runtime.evaluate("a", "b", "c", "d")
    assert runtime.runs == [("<a>", "<b>", "<c>"), ("<d>", " ", " ")]


@pytest.mark.parametrize("counts", [True, False])
def test_those_beside_a_text_that_is_too_long_are_not_cut(counts: bool) -> None:
    runtime = Runtime(3, counts=counts)
    first, long, third, fourth = runtime.evaluate("a", "x" * 40, "c", "d")
    assert (first, third, fourth) == ("<a>", "<c>", "<d>")
    assert 3 < len(long) <= CONTEXT
    assert [run[0] for run in runtime.runs] == ["<a>", long, "<c>", "<d>"]
    with pytest.raises(PromptTooLong):
        runtime.evaluate("a", "x" * 40, truncate=False)


def test_what_is_too_long_without_any_text_is_an_error() -> None:
    runtime = Runtime(1)
    evaluation = Evaluation(runtime.run, lambda text: "<" * 20 + text, n_batch=1, truncate=True)
    with pytest.raises(PromptTooLong):
        evaluation.rows(["a" * 100])


def test_a_probability_is_that_of_one_of_two_tokens() -> None:
    row = struct.pack("=4f", 99, 2, 0, 99)
    assert probability(row, 1, 2) == pytest.approx(0.8807970779778823)
    assert probability(row, 1, 2) + probability(row, 2, 1) == pytest.approx(1)
    with pytest.raises(Unsupported, match="4 tokens, but not 4") as caught:
        probability(row, 1, 4)
    assert "yes_token_id" in str(caught.value.hint)


def test_the_logistic_function_has_no_overflow() -> None:
    assert [sigmoid(x) for x in (-1e6, 0.0, 1e6)] == [0.0, 0.5, 1.0]
    assert sigmoid(float("nan")) != sigmoid(float("nan"))
