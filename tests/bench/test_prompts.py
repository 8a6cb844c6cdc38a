"""Prompts of an exact length for tokenizers that cut words in different ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from rkllama.bench.prompts import WORDS, PromptMaker, learn
from tests.cases import cases

Tokenizer = Callable[[str], int]


def by_words(text: str) -> int:
    """A token for each word, as most have it for common ones."""
    return len(text.split())


def with_begin(text: str) -> int:
    """The same, with a token before every prompt."""
    return 1 + len(text.split())


def by_length(text: str) -> int:
    """A token for every three letters: words cost one, two or three."""
    return sum(-(-len(word) // 3) for word in text.split())


def by_letters(text: str) -> int:
    """A token for each letter and for each space: no word costs one."""
    return len(text)


@cases("tokenizer", [by_words, with_begin, by_length])
@cases("tokens", [32, 128, 512, 2048])
def test_prompts_have_exactly_so_many_tokens(tokenizer: Tokenizer, tokens: int) -> None:
    maker = learn(tokenizer)
    assert maker.is_exact
    for _ in range(5):
        prompt = maker.make(tokens)
        assert prompt.tokens == tokens == tokenizer(prompt.text)


@pytest.mark.parametrize("tokens", [32, 128, 2048])
def test_where_words_do_not_fill_it_the_true_number_is_told(tokens: int) -> None:
    prompt = learn(by_letters).make(tokens)
    assert prompt.tokens == by_letters(prompt.text)
    assert tokens - 2 <= prompt.tokens <= tokens


def test_no_two_prompts_begin_alike() -> None:
    maker = learn(by_words)
    texts = [maker.make(128).text for _ in range(50)]
    assert all(one.split()[0] != other.split()[0] for one, other in itertools.pairwise(texts))
    assert len(set(texts)) == 50


def test_learning_takes_few_short_runs() -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return by_words(text)

    learn(count)
    assert len(asked) <= 10
    assert max(map(by_words, asked)) <= 8


@pytest.mark.parametrize("known", [0, 3])
def test_without_counts_a_word_stands_for_a_token_and_nothing_is_claimed(known: int) -> None:
    answers = iter([4, 8, 8][:known])
    maker = learn(lambda _: next(answers, None))
    prompt = maker.make(128)
    assert not maker.is_exact
    assert prompt.tokens is None
    assert len(prompt.text.split()) == 128


def test_a_word_that_is_cut_differently_each_time_is_left_out() -> None:
    def count(text: str) -> int:
        return by_words(text) + text.count("light light")

    maker = learn(count)
    assert " light" not in maker.make(512).text
    assert maker.make(512).tokens == 512


def test_a_context_smaller_than_a_word_gives_an_empty_prompt() -> None:
    assert PromptMaker({"the": 3}).make(2).tokens == 0


def test_the_words_are_different_ones() -> None:
    assert len(set(WORDS)) == len(WORDS)
