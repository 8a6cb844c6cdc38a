"""Answers that are written together with a model that misbehaves: valid, or an honest failure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rkllama.engine.structured.guided import guided
from rkllama.schema.grammar import compile_schema
from rkllama.types import TextDelta
from tests.structured.model import Model, Style
from tests.structured.proof import STYLES, Tally, names, tally
from tests.structured.saying import (
    INTEGER,
    NUMBER,
    TEXT,
    TEXTS,
    Goes,
    Replies,
    RepliesPlainly,
    Says,
    ask,
    grammar_of,
    says,
)

_EVERY = 5
"""One of so many schemas is tried here; all of them in `python -m tests.structured.proof`."""
_ANSWERS = 120


def sample(rate: float, within: int = 0) -> Tally:
    total = tally(_ANSWERS, rate, within, _EVERY)
    assert not total.faults
    return total


FENCED = [
    ('```json\n"Boil"\n```, "b": 5}', '"Boil", "b": 5}'),
    ('"```json\nBoil"\n```, "b": 5}', '"Boil", "b": 5}'),
    ("```\n", "```\n", '"Boil", "b": 5}', "5}"),
]
"""What a model writes for a text, run by run."""


def test_there_are_schemas_enough() -> None:
    assert len(names()) >= 200


def test_a_good_model_always_gives_an_answer() -> None:
    good = sample(0)
    assert good.failed == 0
    assert good.tokens <= 1.1
    assert good.runs_each <= 2
    assert good.streamed == good.long > 10


def test_a_model_that_errs_costs_little() -> None:
    good, erring = sample(0), sample(0.1)
    assert erring.share >= 0.98
    assert erring.tokens <= 1.15 * good.tokens
    assert erring.runs_each <= 1 + good.runs_each


def test_a_model_that_errs_much_gives_an_answer_where_it_gives_each_value_in_three_tries() -> None:
    erring = sample(0.3, within=3)
    assert erring.share >= 0.97
    assert erring.runs_each <= 2


def test_a_model_that_gives_some_values_never_fails_honestly() -> None:
    assert sample(0.6).failed


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


@pytest.mark.parametrize("style", STYLES)
def test_a_layout_is_taken_as_it_is(style: Style) -> None:
    """Whatever stands around it, and in whatever order the keys come."""
    got = ask(Model(DOCUMENT, style=style), SCHEMA)
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
    got = ask(model, SCHEMA)
    assert got.finished.error == f"the model gave no value that fits at {_PATHS[number]}"
    assert json.dumps(DOCUMENT, ensure_ascii=False).startswith(got.text)
    assert model.runs < 30


def test_what_was_sent_is_not_taken_back() -> None:
    for seed in range(20):
        got = ask(Model(DOCUMENT, 0.3, seed), SCHEMA)
        assert all(got.deltas)
        if got.finished.error is None:
            json.loads(got.text)
        assert grammar_of(json.dumps(SCHEMA)).start().feed(got.text)[0] == len(got.text)


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
    got = ask(Model(DOCUMENT, limit=at), SCHEMA)
    assert got.finished.reason == "length"
    assert "reached its limit of tokens at $." in (got.finished.error or "")
    assert json.dumps(DOCUMENT, ensure_ascii=False).startswith(got.text)


def test_an_answer_that_is_cancelled_just_ends() -> None:
    got = ask(Model(DOCUMENT, cancel_at=30), SCHEMA)
    assert (got.finished.reason, got.finished.error) == ("cancelled", None)


@pytest.mark.parametrize(
    ("value", "texts", "given"),
    [
        (INTEGER, ("42 units",), 42),
        (INTEGER, ("42}\n```\nThat is all.",), 42),
        (INTEGER, ("1,200", "1200}"), 1200),
        (INTEGER, ('"42"}', "}"), 42),
        (TEXTS, ("[", 'a", "b"]}'), ["a", "b"]),
        (
            {"type": "array", "items": _POSITION},
            ('{"x": 1, "y": 2}, "z": 3}', '"z'),
            [{"x": 1, "y": 2}],
        ),
        (NUMBER, ("about 3", "3.5}"), 3.5),
        (INTEGER, ("4.5", "4}"), 4),
        (TEXT, ("Zoë", 'Zoë"'), "Zoë"),
        (TEXT, ("\u201cZoë\u201d", 'Zoë"'), "Zoë"),
        (TEXT, ('"caf\\u00e9"',), "café"),
        (TEXT, ('"\\ud83d\\ude00"',), "😀"),
        (TEXT, ('"a\\x41', 'b"'), "ab"),
        (TEXT, ('"",',), ""),
        (
            {"type": "string", "format": "date-time"},
            ('"2026-05-04 10:00', '10:00:00"', *['"'] * 5, 'Z"}'),
            "2026-05-04T10:00:00Z",
        ),
        (TEXTS, ('"a", "b",]',), ["a", "b"]),
        (TEXTS, ('"a", "b", ...]',), ["a", "b"]),
        (TEXTS, ('\n  "a",\n  "b",\n]}',), ["a", "b"]),
        ({"type": "array", "items": INTEGER}, ("1,200]",), [1, 200]),
        ({"enum": ["cat", "dog"]}, ('"dogs"', '"dog"'), "dog"),
        ({"enum": ["cat", "Dog"]}, ('"CAT"',), "cat"),
        ({"type": "string", "pattern": "^[A-Z]{2}-[a-z]$"}, ('"ab-C"',), "AB-c"),
        (TEXTS, ('"a" => "b"', "+", "+"), ["a"]),
        ({"enum": ["cat", "dog"]}, ("None", '"dog"'), "dog"),
        ({"type": "boolean"}, ("yes", "true"), True),
        ({"type": "boolean"}, ('"false"}', "}"), False),
        ({"type": "boolean"}, ("True", "true}"), True),
        ({"type": ["string", "null"]}, ("None", "null"), None),
        ({"type": ["string", "null"]}, ("{", "{", "{", 'text"}'), "text"),
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


def test_a_text_that_is_never_closed_ends() -> None:
    """Also where each run writes some more of it."""
    for varies in (True, False):
        got = says(TEXT, '"on and on', varies=varies)
        assert got.finished.error is None
        assert got.model.runs < 5


def test_a_choice_is_offered_when_the_model_does_not_make_it() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["cat", "dog"]}}, "required": ["a"]}
    model = Says({"a": "dog"}, texts=("a hound",))
    got = ask(model, {**schema, "additionalProperties": False})
    assert json.loads(got.text) == {"a": "dog"}
    assert model.replies == ['"dog"']


EMAIL = {"type": "string", "format": "email"}
KINDS = {"enum": ["cat", "dog"]}


@pytest.mark.parametrize(("reply", "ends"), [("No.", True), ("yes", False), ("null", False)])
def test_whether_a_list_goes_on_is_asked_where_no_item_fits(reply: str, ends: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "string", "format": "email"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    got = ask(Replies({}, texts=('"a@example.com", "Friday",', '"Friday"'), reply=reply), schema)
    assert (got.finished.error is None) is ends
    assert got.text.startswith('{"a": ["a@example.com"')


@pytest.mark.parametrize(
    ("value", "reply", "given"),
    [
        ({"type": "array", "items": KINDS}, "It is a dog.", ["dog"]),
        (INTEGER, "The number is 1,200.", 1200),
        (NUMBER, "-0.5", -0.5),
        ({"type": "integer", "maximum": 5}, "12", None),
        (INTEGER, "3 or 4", None),
        (INTEGER, "twelve", None),
        (INTEGER, '{"b": 7, "a": 5}', 5),
        ({"type": "boolean"}, '{"b": false, "a": "true"}', True),
        (INTEGER, ' "75.0", that is', 75),
        ({"type": "integer", "minimum": 5}, " 4}", None),
        ({"anyOf": [{"enum": ["up", "down"]}, INTEGER]}, "up", "up"),
        ({"anyOf": [{"enum": ["up", "down"]}, INTEGER]}, "It is 5.", 5),
        ({"type": "string", "format": "date"}, "The day is 2024-02-29.", "2024-02-29"),
        ({"type": "string", "format": "date"}, "2024-02-29 to 2024-03-01", None),
        ({"type": "array", "items": EMAIL, "minItems": 1}, "It is a@b.de.", ["a@b.de"]),
        (EMAIL, 'a@b.de", that is', "a@b.de"),
        (EMAIL, "a@b", None),
        (TEXT, "nothing", None),
        ({"type": ["string", "null"]}, "a text", None),
    ],
)
def test_a_value_is_asked_for_at_last(value: Any, reply: str, given: Any) -> None:
    schema = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    got = ask(Replies({}, texts=("", "", "", "]}"), reply=reply), schema)
    if given is None:
        assert got.finished.error == "the model gave no value that fits at $.a"
    else:
        assert json.loads(got.text) == {"a": given}


_SENTENCE = "The lamp in the kitchen is a lamp. "


@pytest.mark.parametrize(
    ("value", "text", "given"),
    [
        (TEXT, '"' + _SENTENCE * 50, _SENTENCE),
        (TEXTS, ('"lamp", "light", ' * 50), ["lamp", "light"]),
        ({"type": "array", "items": {"type": "object"}}, '{"x": 1, "y": {}}, ' * 50, None),
        (TEXTS, '"name", "type", "string", ' + '"type", ' * 90, ["name", "type", "string"]),
    ],
)
def test_what_goes_round_and_round_is_ended(value: Any, text: str, given: Any) -> None:
    got = says(value, text)
    assert got.finished.error is None, got.text
    found = json.loads(got.text)["a"]
    assert given is None or found[: len(given)] == given
    assert len(got.text) < 600
    assert got.model.wrote < 1200


def test_many_alike_in_a_list_are_no_circle() -> None:
    numbers = [0] * 20 + [1]
    got = says({"type": "array", "items": INTEGER}, f"{numbers}"[1:] + "}")
    assert json.loads(got.text) == {"a": numbers}


@pytest.mark.parametrize(("reply", "length"), [("No.", 16), ("yes", 30)])
def test_whether_a_list_that_counts_on_has_an_end_is_asked(reply: str, length: int) -> None:
    names = [f"page {number}" for number in range(30)]
    schema = {"type": "object", "properties": {"a": TEXTS}, "required": ["a"]}
    got = ask(Goes({}, spoken=json.dumps({"a": names})[1:], reply=reply), schema)
    assert json.loads(got.text) == {"a": names[:length]}


def test_a_list_is_ended_behind_an_object_of_which_a_key_was_dropped() -> None:
    texts = ('{"x": 1, "y": 2, "z": 3}]}', *['"z'] * 3, "\n}")
    got = says({"type": "array", "items": _POSITION}, *texts)
    assert json.loads(got.text) == {"a": [{"x": 1, "y": 2}]}
    assert got.model.runs < 10


RECURSIVE = {
    "type": "object",
    "properties": {"v": INTEGER, "all": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
    "additionalProperties": False,
}


def test_an_object_inside_itself_without_end_is_ended() -> None:
    got = ask(Says({}, texts=('"all": [{' * 20, *['"all": [{'] * 9, '"v": 1}')), RECURSIVE)
    assert got.finished.error is None, got.model.log
    assert got.text.count('"all"') == 7
    assert got.model.runs < 20


def test_some_objects_inside_each_other_are_taken() -> None:
    document: dict[str, Any] = {"v": 1}
    for number in range(6):
        document = {"v": number, "all": [document]}
    assert json.loads(ask(Model(document), RECURSIVE).text) == document


@pytest.mark.parametrize(
    ("value", "reply", "given"),
    [
        (INTEGER, "The a in what I said is 25 euros.", 25),
        (INTEGER, "25 or 30 euros", None),
        ({"enum": ["cat", "dog"]}, "It is the DOG.", "dog"),
        ({"enum": ["cat", "dog"]}, "cat or dog", None),
        (EMAIL, "Write to a@b.de.", "a@b.de"),
        (EMAIL, 'a.b@c.de", I think', "a.b@c.de"),
    ],
)
def test_a_value_is_asked_for_in_plain_words(value: Any, reply: str, given: Any) -> None:
    """Where the model's reply to the answer so far makes no sense."""
    schema = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    got = ask(RepliesPlainly({}, texts=("{", "{", "{", "}"), reply=reply), schema)
    if given is None:
        assert got.finished.error == "the model gave no value that fits at $.a"
    else:
        assert json.loads(got.text) == {"a": given}


def test_a_number_that_was_asked_for_is_whole() -> None:
    schema = {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}
    got = ask(Replies({}, texts=("{", "{", "{", "0119}", "}"), reply="10"), schema)
    assert json.loads(got.text) == {"a": 10}, got.model.log


def test_no_letter_is_written_into_a_word() -> None:
    """As a T is, between a date and a time."""
    got = says(EMAIL, '"grace hopper"', *["@example.com"] * 9, '"}')
    assert "graceT" not in got.text + str(got.model.log)


def test_a_text_behind_which_the_model_ends_twice_is_whole() -> None:
    got = says(TEXT, '"That is it.', "", " And more")
    assert json.loads(got.text) == {"a": "That is it."}


@pytest.mark.parametrize("texts", FENCED)
def test_a_code_fence_is_no_part_of_a_text(texts: tuple[str, ...]) -> None:
    schema = {"type": "object", "properties": {"a": TEXT, "b": INTEGER}, "required": ["a", "b"]}
    got = ask(Says({}, texts=texts), schema)
    assert (got.text, got.finished.error) == ('{"a": "Boil", "b": 5}', None)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("It is 5.", "5"),
        ('{"b": 5}', "5"),
        ('{"a": 5, "c": 7}', "5"),
        ('{"n": {"c": 7, "a": 5', "5"),
        ('{"a": "enough", "c": 7}', None),
        ('{"a": "enough", "c": [7]}', None),
        ('{"c": 7, "d": 8}', None),
        ('{"c": [7', None),
        ('[{"a": 5}, {"a": 6}]', None),
    ],
)
def test_what_a_reply_says_of_another_value_is_not_taken(reply: str, value: str | None) -> None:
    schema = {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}
    got = ask(Replies({}, texts=("many",), reply=reply), schema)
    if value is None:
        assert got.finished.error == "the model gave no value that fits at $.a"
    else:
        assert (json.loads(got.text), got.finished.error) == ({"a": json.loads(value)}, None)
