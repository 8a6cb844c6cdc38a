"""The guide's questions and answers (tools/guide/data), and the file made from them."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
import typer.main

from rkllama import config, server
from rkllama.cli import app
from rkllama.models import guide
from tests.cases import cases
from tools.guide import corpus

pytestmark = pytest.mark.integration

CORPUS = corpus.load()
VARIABLES = {setting.variable for setting in config.SETTINGS}


def test_every_intent_has_an_answer_and_questions_in_both_languages() -> None:
    asked = Counter((question.intent, question.language) for question in CORPUS.questions)
    assert set(asked) == set(CORPUS.answers)
    for intent, _ in CORPUS.answers:
        for language in corpus.LANGUAGES:
            assert asked[intent, language] >= 40, (intent, language)


def test_the_field_is_covered_widely() -> None:
    assert len({intent for intent, _ in CORPUS.answers}) >= 80
    for language in corpus.LANGUAGES:
        outside = [q for q in CORPUS.questions if (q.intent, q.language) == ("outside", language)]
        assert len(outside) >= 300


def test_no_question_is_written_twice() -> None:
    counts = Counter(corpus.normalised(question.text) for question in CORPUS.questions)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_two_intents_share_an_answer() -> None:
    assert max(Counter(CORPUS.answers.values()).values()) == 1


def test_the_split_holds_out_a_tenth_of_every_intent_and_nothing_of_it_is_trained_on() -> None:
    training, held_out = corpus.split(CORPUS.questions)
    assert len(held_out) >= 0.1 * len(CORPUS.questions)
    assert {(q.intent, q.language) for q in held_out} == set(CORPUS.answers)
    shared = {corpus.normalised(q.text) for q in training} & {
        corpus.normalised(q.text) for q in held_out
    }
    assert shared == set()
    assert len(training) + len(held_out) == len(CORPUS.questions)


def test_the_split_does_not_depend_on_the_order() -> None:
    assert set(corpus.split(CORPUS.questions)[1]) == set(corpus.split(CORPUS.questions[::-1])[1])


def test_the_independent_questions_are_not_in_the_data() -> None:
    known = {corpus.normalised(question.text) for question in CORPUS.questions}
    questions = corpus.independent()
    assert len(questions) >= 300
    assert {(q.intent, q.language) for q in questions} <= set(CORPUS.answers)
    assert [q.text for q in questions if corpus.normalised(q.text) in known] == []


def _commands() -> dict[str, set[str]]:
    """Every command with its options, as the command line itself has them."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009 - click types it as a plain command
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        | {option for parameter in command.params for option in parameter.secondary_opts}
        for name, command in commands.items()
    }


@cases("key", sorted(CORPUS.answers), ids="-".join)
def test_an_answer_names_only_what_exists(key: tuple[str, str]) -> None:
    answer, commands = CORPUS.answers[key], _commands()
    for command, rest in re.findall(r"(?<!/)rkllama (\w+)([^`]*)", answer):
        assert command in commands, answer
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest):
            assert option in commands[command] | {"--help"}, answer
    options = set().union(*commands.values()) | {"--help", "--version", "--upgrade", "--now"}
    for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", answer):
        assert option in options, answer
    for variable in re.findall(r"RKLLAMA_[A-Z_]+", answer):
        assert variable in VARIABLES, answer


def test_endpoints_in_answers_exist() -> None:
    routes = _routes()
    text = "\n".join(CORPUS.answers.values())
    addressed = set(re.findall(r"localhost:8080(/[\w/.]*[\w/])", text))
    called = set(re.findall(r"`(?:GET|POST|DELETE) (/[\w/.]*)", text))
    assert addressed
    assert called
    assert addressed - {"/v1"} | called <= routes


def _routes() -> set[str]:
    folder = server.__path__[0]
    text = ""
    for name in os.listdir(folder):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                text += stream.read()
    return set(re.findall(r'"(/[^"]*)"', text))


def test_the_file_is_small_and_says_what_it_is() -> None:
    path = guide.FILE
    assert os.path.getsize(path) <= 6_000_000
    with open(path, "rb") as stream:
        head = stream.read(4096)
    assert head.startswith(b"GGUF")
    for words in (b"RKLLama guide", b"3M", b"Apache-2.0"):
        assert words in head
