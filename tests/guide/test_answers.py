"""The guide, asked: questions that it was not trained on, through the server, each with one right answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rkllama.models.guide import FILE
from tests.conftest import isolate
from tests.running import Server
from tools.guide import corpus

pytestmark = pytest.mark.integration

CORPUS = corpus.load()
EVERY = 14
"""Of the held-out questions one in so many is asked, through all topics: 120, in a few seconds."""
SHARE = 0.8
"""Of them that has to be answered right; tools/guide/README.md has the figures for all: 90 %."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an empty home: the guide is there for whoever names it."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("answers"))
        with Server() as running:
            yield running


def answer(server: Server, question: str) -> str:
    """The likeliest answer."""
    body = {
        "model": "guide",
        "messages": [{"role": "user", "content": question}],
        "options": {"temperature": 0},
        "stream": False,
    }
    told = server.post("/api/chat", body)
    assert told.status == 200, told.body
    text: str = told.json["message"]["content"]
    return text


def sample() -> list[corpus.Question]:
    """The same questions every time: of each language, and of those that are not about RKLLama."""
    held_out = corpus.split(CORPUS.questions)[1]
    return sorted(held_out, key=lambda q: (q.intent == corpus.OUTSIDE, q.language))[::EVERY]


def test_most_questions_get_their_answer_to_the_last_character(server: Server) -> None:
    questions = sample()
    asked = {(q.language, q.intent == corpus.OUTSIDE) for q in questions}
    assert asked == {("en", False), ("en", True), ("fr", False), ("fr", True)}
    wrong = [q for q in questions if answer(server, q.text) != CORPUS.answer(q)]
    assert 1 - len(wrong) / len(questions) >= SHARE, f"{FILE} is wrong about {wrong}"


@pytest.mark.parametrize(
    ("question", "language"),
    [("Hi", "en"), ("Hi!", "en"), ("hello", "en"), ("Bonjour", "fr"), ("salut", "fr")],
)
def test_what_people_say_first_is_answered(server: Server, question: str, language: str) -> None:
    assert answer(server, question) == CORPUS.answers["hello", language]


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("What is the capital of France?", "en"),
        ("Who wrote Hamlet?", "en"),
        ("Quelle est la capitale de l'Italie ?", "fr"),
        ("Combien font douze fois douze ?", "fr"),
    ],
)
def test_what_is_not_about_rkllama_is_left_to_others(
    server: Server, question: str, language: str
) -> None:
    assert answer(server, question) == CORPUS.answers[corpus.OUTSIDE, language]
