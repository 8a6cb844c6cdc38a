"""What a training run prints at its end: how many questions are answered right, and how fast."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from . import evaluate
from .bpe import Tokenizer
from .corpus import OUTSIDE, Corpus, Question
from .network import Guide

HISTORIES = (200, 400, 800)
"""Lengths of conversation, in tokens, after which questions are asked once more."""
SAMPLE = 100


def by_network(
    name: str,
    network: Guide,
    tokenizer: Tokenizer,
    corpus: Corpus,
    questions: Sequence[Question],
) -> None:
    """The figures of the network itself, before its weights are quantised."""
    _figures(
        f"{name}, network", questions, evaluate.by_network(network, tokenizer, corpus, questions)
    )


def by_file(
    path: Path,
    tokenizer: Tokenizer,
    corpus: Corpus,
    questions: Sequence[Question],
    *,
    mistakes: bool,
) -> None:
    """The figures of the file in llama.cpp, where xllamacpp is installed; with `mistakes` those too."""
    try:
        model = evaluate.LlamaCpp(path)
    except ImportError:
        print("xllamacpp is not installed: the file itself was not tried")
        return
    answers = [model.answer(question.text) for question in questions]
    right = [a == corpus.answer(q) for a, q in zip(answers, questions, strict=True)]
    _figures("the same, file in llama.cpp", questions, right)
    print(f"loaded in {model.load_seconds:.2f} s, {model.tokens / model.seconds:.0f} tokens/s")
    _after_talk(model, tokenizer, corpus, questions)
    written = [question.text for question in corpus.questions] + list(corpus.answers.values())
    alike = sum(model.tokenize(text) == tokenizer.encode(text) for text in written)
    print(f"llama.cpp splits {alike} of {len(written)} texts into the same tokens")
    if mistakes:
        _mistakes(corpus, questions, answers)


def _after_talk(
    model: evaluate.LlamaCpp, tokenizer: Tokenizer, corpus: Corpus, questions: Sequence[Question]
) -> None:
    for length in HISTORIES:
        rng = random.Random(length)
        right = [
            model.answer(question.text, evaluate.history(corpus, length, tokenizer, rng))
            == corpus.answer(question)
            for question in rng.sample(questions, min(len(questions), SAMPLE))
        ]
        print(f"after {length} tokens of other talk: {_percentage(right)}")


def _figures(name: str, questions: Sequence[Question], right: Sequence[bool]) -> None:
    pairs = list(zip(questions, right, strict=True))
    inside = [ok for question, ok in pairs if question.intent != OUTSIDE]
    outside = [ok for question, ok in pairs if question.intent == OUTSIDE]
    print(
        f"{name}: {_percentage(right)} right; "
        f"about RKLLama {_percentage(inside)}, from outside {_percentage(outside)}"
    )


def _percentage(right: Sequence[bool]) -> str:
    return f"{100 * sum(right) / max(1, len(right)):.1f} % ({sum(right)} of {len(right)})"


def _mistakes(corpus: Corpus, questions: Sequence[Question], answers: Sequence[str]) -> None:
    intents = {answer: intent for (intent, _), answer in corpus.answers.items()}
    for question, answer in zip(questions, answers, strict=True):
        if answer != corpus.answer(question):
            got = intents.get(answer, repr(answer))
            print(f"  {question.language} {question.intent} <- {got}: {question.text}")
