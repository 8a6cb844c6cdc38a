"""Answers that are written together with a model that misbehaves: valid, or an honest failure."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from rkllama.engine.structured.guided import TRIES, guided
from rkllama.schema.grammar import Grammar, compile_schema
from rkllama.types import Finished, TextDelta
from tests.schema.corners import CORNERS
from tests.schema.reference import Reference
from tests.schema.test_schemas import REAL
from tests.schema.walking import DeadEnd
from tests.structured.documents import document
from tests.structured.model import Model, Style, scalars

SCHEMAS: dict[str, Any] = {**REAL, **{name: corner.schema for name, corner in CORNERS.items()}}
RATES = (0.0, 0.1, 0.3)
RUNS = int(os.environ.get("RKLLAMA_GUIDED_RUNS", "800"))
"""Answers of all schemas and rates together; 5000 are the proof, and take two minutes."""
_STYLES = (
    Style(),
    Style(indent="  "),
    Style(gap=""),
    Style(before="Sure, here it is:\n\n```json\n", behind="\n```\nI hope that helps."),
    Style(ascii=True),
    Style(shuffles=True),
)


@cache
def made(name: str) -> tuple[Grammar, Reference, tuple[Any, ...]]:
    """A schema's grammar, what others say of it, and documents that meet it."""
    grammar, reference = compile_schema(SCHEMAS[name]), Reference(SCHEMAS[name])
    documents = [json.loads(text) for text in CORNERS[name].valid] if name in CORNERS else []
    for number in range(2):
        try:
            documents.append(document(grammar, random.Random(f"{name} {number}")))
        except DeadEnd:
            assert not grammar.decided_by_prefix
    return grammar, reference, tuple(documents)


@dataclass
class Answer:
    """What came of a run."""

    model: Model
    deltas: list[str]
    finished: Finished

    @property
    def text(self) -> str:
        return "".join(self.deltas)


def answer(grammar: Grammar, model: Model) -> Answer:
    *events, finished = guided(grammar, model)
    assert isinstance(finished, Finished)
    deltas = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(deltas) == len(events)
    return Answer(model, deltas, finished)


def is_given(made: Answer, grammar: Grammar) -> bool:
    """Whether each scalar of an answer is the document's, what the model wrote there, or the only one."""
    wanted = dict(scalars(made.model.document))
    text = made.text
    written: set[int] = set()
    for before, wrote in made.model.log:
        for out in (wrote, wrote.lstrip(" ")):
            whole = before + out
            at = len(before)
            if not text.startswith(before):
                continue
            while at < len(whole) and at < len(text) and whole[at] == text[at]:
                written.add(at)
                at += 1
    for path, value, start, end in spans(text):
        if path in wanted and wanted[path] == value and type(wanted[path]) is type(value):
            continue
        said = range(start + 1, end - 1) if text[start] == '"' else range(start, end)
        if said and all(at in written for at in said):
            continue
        if not said and start in written | {start for start in written if start + 1 in written}:
            continue
        if any(str(value).casefold() in reply.casefold() for reply in made.model.replies):
            continue
        state = grammar.start().feed(text[:start])[1]
        if _is_only(state, text[start:end], [at - start for at in said if at in written]):
            continue
        return False
    return True


def _is_only(state: Any, token: str, written: list[int]) -> bool:
    """Whether a token is certain from a place on up to which the model has written it."""
    begun = 1 + max(written) if written else 0
    count, state = state.feed(token[:begun])
    return count == begun and (state.forced().lstrip(" ") + '"').startswith(token[begun:])


def spans(text: str) -> Iterator[tuple[Any, Any, int, int]]:
    """Yield path, value, begin and end of each scalar of a JSON text."""
    decoder = json.JSONDecoder()
    at = 0

    def blank() -> None:
        nonlocal at
        while at < len(text) and text[at] in " \n\r\t":
            at += 1

    def value(path: tuple[Any, ...]) -> Iterator[tuple[Any, Any, int, int]]:
        nonlocal at
        blank()
        if text[at] in "{[":
            closing = "}" if text[at] == "{" else "]"
            at += 1
            index = 0
            while True:
                blank()
                if text[at] == closing:
                    at += 1
                    return
                if text[at] == ",":
                    at += 1
                    continue
                key: Any = index
                if closing == "}":
                    key, at = decoder.raw_decode(text, at)
                    blank()
                    at += 1
                yield from value((*path, key))
                index += 1
        start = at
        found, at = decoder.raw_decode(text, at)
        yield path, found, start, at

    return value(())


def cases(count: int, rate: float) -> Iterator[tuple[str, Model]]:
    """Yield models over all schemas in turn, with other documents, styles and seeds."""
    names = [name for name in SCHEMAS if made(name)[2]]
    for number in range(count):
        name = names[number % len(names)]
        documents = made(name)[2]
        round_ = number // len(names)
        style = _STYLES[(number + round_) % len(_STYLES)]
        yield name, Model(documents[round_ % len(documents)], rate, number, style=style)


def test_there_are_schemas_enough() -> None:
    assert len([name for name in SCHEMAS if made(name)[2]]) >= 200


@pytest.mark.parametrize("rate", RATES)
def test_an_answer_is_valid_or_an_honest_failure(rate: float) -> None:
    valid = failed = runs = values = evaluated = length = 0
    for name, model in cases(RUNS // len(RATES), rate):
        grammar, reference, _ = made(name)
        got = answer(grammar, model)
        about = f"{name}, seed {model.seed}, {model.document}: {got.text!r} {got.finished.error}"
        if got.finished.error is None:
            assert reference.is_valid(got.text), about
            assert is_given(got, grammar), f"{about} {model.log} {model.replies}"
            valid += 1
            runs += model.runs
            values += max(1, len(list(scalars(json.loads(got.text)))))
            evaluated += model.read + model.wrote
            length += len(got.text)
        else:
            assert "$" in got.finished.error, about
            count, _state = grammar.start().feed(got.text)
            assert count == len(got.text), about
            failed += 1
    print(
        f"{rate}: {valid} valid, {failed} failed, {runs / values:.2f} runs a value, "
        f"{evaluated / length:.3f} characters evaluated a character"
    )
    assert valid >= (valid + failed) * (1 if rate == 0 else 0.9)
