"""Answers that are written together with a model that misbehaves: valid, or an honest failure."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from rkllama.engine.structured.guided import guided
from rkllama.schema.grammar import Grammar, compile_schema
from rkllama.types import Finished, TextDelta
from tests.schema.corners import CORNERS
from tests.schema.reference import Reference
from tests.schema.test_schemas import REAL
from tests.schema.walking import DeadEnd
from tests.structured.documents import document
from tests.structured.model import Model, Style, scalars

SCHEMAS: dict[str, Any] = {**REAL, **{name: corner.schema for name, corner in CORNERS.items()}}
RUNS = int(os.environ.get("RKLLAMA_GUIDED_RUNS", "1600"))
"""Answers in all; 5000 are the proof."""
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
        if text[start] != '"' and _goes_on(made.model, text[:end]):
            return False
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


def _goes_on(model: Model, text: str) -> bool:
    """Whether the model wrote more of a number than what was taken of it."""
    wholes = (before + wrote for before, wrote in model.log)
    rests = [whole[len(text) :] for whole in wholes if whole.startswith(text)]
    return any(re.match(r"[,_ ]?\d", rest) for rest in rests)


def _is_only(state: Any, token: str, written: list[int]) -> bool:
    """Whether a token is certain from a place on up to which the model has written it."""
    begun = 1 + max(written) if written else 0
    count, state = state.feed(token[:begun])
    forced: str = state.forced()
    return count == begun and f'{forced.lstrip(" ")}"'.startswith(token[begun:])


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


@dataclass
class Tally:
    """What came of many answers."""

    valid: int = 0
    failed: int = 0
    runs: int = 0
    values: int = 0
    evaluated: int = 0
    length: int = 0

    def add(self, name: str, got: Answer) -> None:
        """Count an answer, which is valid, with nothing in it that is made up, or says what is missing."""
        grammar, reference, _ = made(name)
        model = got.model
        about = f"{name}, seed {model.seed}, {model.document}: {got.text!r} {got.finished.error}"
        assert grammar.start().feed(got.text)[0] == len(got.text), about
        if got.finished.error is not None:
            assert "$" in got.finished.error, about
            self.failed += 1
            return
        assert reference.is_valid(got.text), about
        assert is_given(got, grammar), f"{about} {model.log} {model.replies}"
        self.valid += 1
        self.runs += model.runs
        self.values += max(1, len(list(scalars(json.loads(got.text)))))
        self.evaluated += model.read + model.wrote
        self.length += len(got.text)


def tally(count: int, rate: float, within: int = 0) -> Tally:
    total = Tally()
    for name, model in cases(count, rate):
        model.within = within
        total.add(name, answer(made(name)[0], model))
    return total


def test_there_are_schemas_enough() -> None:
    assert len([name for name in SCHEMAS if made(name)[2]]) >= 200


def test_a_good_model_always_gives_an_answer() -> None:
    good = tally(RUNS // 4, 0)
    assert good.failed == 0
    assert good.evaluated <= 1.1 * good.length
    assert good.runs <= 2 * good.values


def test_a_model_that_errs_costs_little() -> None:
    good, erring = tally(RUNS // 4, 0), tally(RUNS // 4, 0.1)
    assert erring.valid >= 0.98 * (erring.valid + erring.failed)
    assert erring.evaluated / erring.length <= 1.15 * good.evaluated / good.length
    assert erring.runs / erring.values <= 1 + good.runs / good.values


def test_a_model_that_errs_much_gives_an_answer_where_it_gives_each_value_in_three_tries() -> None:
    erring = tally(RUNS // 4, 0.3, within=3)
    assert erring.valid >= 0.97 * (erring.valid + erring.failed)
    assert erring.runs <= 2 * erring.values


def test_a_model_that_gives_some_values_never_fails_honestly() -> None:
    erring = tally(RUNS // 4, 0.6)
    assert erring.failed


DOCUMENT = {
    "name": 'Zoë "Z" Smith',
    "age": 42,
    "kind": "dog",
    "tags": ["a", "long tag", "c"],
    "price": 1200,
    "ok": True,
    "when": "2024-11-28",
    "pos": {"x": 1.5, "y": -2},
    "note": None,
}
_POSITION = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "price": {"type": "number"},
        "ok": {"type": "boolean"},
        "when": {"type": "string", "format": "date"},
        "pos": _POSITION,
        "note": {"type": ["string", "null"]},
    },
    "required": list(DOCUMENT),
    "additionalProperties": False,
}


@cache
def grammar_of(schema: str) -> Grammar:
    return compile_schema(json.loads(schema))


def ask(model: Model, schema: Any = SCHEMA) -> Answer:
    return answer(grammar_of(json.dumps(schema)), model)


@pytest.mark.parametrize("style", _STYLES)
def test_a_layout_is_taken_as_it_is(style: Style) -> None:
    """Whatever stands around it, and in whatever order the keys come."""
    got = ask(Model(DOCUMENT, style=style))
    assert got.finished.error is None
    assert json.loads(got.text) == DOCUMENT


def test_what_is_certain_is_not_asked_for() -> None:
    model = Model({"a": "x", "b": {"c": "only"}})
    schema = {
        "type": "object",
        "properties": {
            "a": {"const": "x"},
            "b": {"type": "object", "properties": {"c": {"enum": ["only"]}}, "required": ["c"]},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    schema["properties"]["b"]["additionalProperties"] = False  # type: ignore[index]
    assert ask(model, schema).text == '{"a": "x", "b": {"c": "only"}}'
    assert model.runs == 0


_PATHS = (
    "$.name",
    "$.age",
    "$.kind",
    "$.tags",  # it may be empty, so that no item is missing
    "$.tags[1]",
    "$.tags[2]",
    "$.price",
    "$.ok",
    "$.when",
    "$.pos.x",
    "$.pos.y",
    "$.note",
)


@pytest.mark.parametrize("number", range(len(_PATHS)))
@pytest.mark.parametrize("varies", [True, False])
def test_a_value_that_never_comes_is_named(number: int, varies: bool) -> None:
    """With all that was valid before it; and the model is not asked without end."""
    model = Model(DOCUMENT, never=frozenset({number}), varies=varies)
    got = ask(model)
    assert got.finished.error == f"the model gave no value that fits at {_PATHS[number]}"
    assert json.dumps(DOCUMENT, ensure_ascii=False).startswith(got.text)
    assert model.runs < 30


def test_what_was_sent_is_not_taken_back() -> None:
    for seed in range(40):
        got = ask(Model(DOCUMENT, 0.3, seed))
        assert all(got.deltas)
        if got.finished.error is None:
            json.loads(got.text)
        assert compile_schema(SCHEMA).start().feed(got.text)[0] == len(got.text)


def test_an_answer_is_sent_while_it_is_written() -> None:
    model = Model(DOCUMENT)
    events = guided(compile_schema(SCHEMA), model)
    next(events)
    assert model.wrote < 10
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(texts) > 10


def test_a_long_text_leaves_as_it_comes() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    got = ask(Model({"a": " ".join(map(str, range(200)))}), schema)
    assert len(got.deltas) > 100


@pytest.mark.parametrize("at", [5, 40, 80])
def test_an_answer_that_has_no_more_room_says_where_it_ends(at: int) -> None:
    got = ask(Model(DOCUMENT, limit=at))
    assert got.finished.reason == "length"
    assert "reached its limit of tokens at $." in (got.finished.error or "")
    assert json.dumps(DOCUMENT, ensure_ascii=False).startswith(got.text)


def test_an_answer_that_is_cancelled_just_ends() -> None:
    got = ask(Model(DOCUMENT, cancel_at=30))
    assert (got.finished.reason, got.finished.error) == ("cancelled", None)


@dataclass
class Says(Model):
    """A model that says given texts, one a run, and the last one again and again."""

    texts: tuple[str, ...] = ()

    def _characters(self, written: str) -> Iterator[str]:
        yield from self.texts[min(self.runs, len(self.texts)) - 1]


def says(value: Any, *texts: str, varies: bool = True) -> Answer:
    """What comes of texts for the value of `a`."""
    schema = {
        "type": "object",
        "properties": {"a": value},
        "required": ["a"],
        "additionalProperties": False,
    }
    return ask(Says({"a": None}, texts=texts, varies=varies), schema)


INTEGER, TEXT, NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}
TEXTS = {"type": "array", "items": TEXT}


@pytest.mark.parametrize(
    ("value", "texts", "given"),
    [
        (INTEGER, ("42 units",), 42),
        (INTEGER, ("42}\n```\nThat is all.",), 42),
        (INTEGER, ("1,200", "1200}"), 1200),
        (NUMBER, ("about 3", "3.5}"), 3.5),
        (INTEGER, ("4.5", "4}"), 4),
        (TEXT, ("Zoë", 'Zoë"'), "Zoë"),
        (TEXT, ("\u201cZoë\u201d", 'Zoë"'), "Zoë"),
        (TEXT, ('"caf\\u00e9"',), "café"),
        (TEXT, ('"\\ud83d\\ude00"',), "😀"),
        (TEXT, ('"a\\x41', 'b"'), "ab"),
        (TEXT, ('"",',), ""),
        (TEXTS, ('"a", "b",]',), ["a", "b"]),
        (TEXTS, ('"a", "b", ...]',), ["a", "b"]),
        (TEXTS, ('\n  "a",\n  "b",\n]}',), ["a", "b"]),
        ({"type": "array", "items": INTEGER}, ("1,200]",), [1, 200]),
        ({"enum": ["cat", "dog"]}, ('"dogs"', '"dog"'), "dog"),
        ({"enum": ["cat", "dog"]}, ("None", '"dog"'), "dog"),
        ({"type": "boolean"}, ("yes", "true"), True),
        ({"type": "boolean"}, ("True", "true}"), True),
        ({"type": ["string", "null"]}, ("None", "null"), None),
    ],
)
def test_a_value_is_taken_as_it_is_meant(value: Any, texts: tuple[str, ...], given: Any) -> None:
    got = says(value, *texts)
    assert got.finished.error is None, got.model.log
    assert json.loads(got.text) == {"a": given}


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (INTEGER, ("1,200",)),
        (INTEGER, ("twelve",)),
        (INTEGER, ("",)),
        (TEXT, ("",)),
        ({"type": "array", "items": INTEGER}, ('1, "x"]', '"x"]')),
        ({"enum": ["cat", "dog"]}, ('"bird"',)),
        ({"enum": ["cat", "dog"]}, ('"delta"',)),
        ({"type": "string", "pattern": "^[A-Z]-[0-9]+$"}, ('"A-"',)),
        ({"type": "string", "format": "date"}, ('"2024-02-30"',)),
        ({"type": "string", "minLength": 5}, ('"abc"',)),
    ],
)
@pytest.mark.parametrize("varies", [True, False])
def test_a_value_that_is_not_given_is_not_made_up(
    value: Any, texts: tuple[str, ...], varies: bool
) -> None:
    got = says(value, *texts, varies=varies)
    assert "the model gave no value that fits at $.a" in (got.finished.error or ""), got.text
    assert got.model.runs < 12


def test_a_choice_is_offered_when_the_model_does_not_make_it() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["cat", "dog"]}}, "required": ["a"]}
    model = Says({"a": "dog"}, texts=("a hound",))
    got = ask(model, {**schema, "additionalProperties": False})
    assert json.loads(got.text) == {"a": "dog"}
    assert model.replies == ['"dog"']
