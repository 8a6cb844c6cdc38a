"""Keys of objects: those that the model means are written, and no others but what has to be there."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest

from tests.schema.tools import many
from tests.structured.saying import INTEGER, TEXT, Goes, Replies, Says, ask

OPEN = {
    "type": "object",
    "properties": {"a": INTEGER, "b": TEXT},
    "required": ["b"],
}


@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize(
    ("texts", "given"),
    [
        (('"type": "object"', '"type"', '"type"', '"x"}'), {"b": "x"}),
        (('"b": "x", "type": 1', 'type": 1', "1"), {"b": "x"}),
        (('"a": 1, "type": 1', 'type"', '"type"', '"x"}'), {"a": 1, "b": "x"}),
    ],
)
def test_a_key_that_nobody_has_named_is_none(
    texts: tuple[str, ...], given: Any, varies: bool
) -> None:
    """Models copy the schema into an object that it leaves open: what has to come is written then."""
    got = ask(Says({}, texts=texts if varies else (texts[0], texts[-1]), varies=varies), OPEN)
    assert got.finished.error is None, got.model.log
    assert json.loads(got.text) == given


def test_a_key_that_is_asked_for_is_taken() -> None:
    schema = {"type": "object", "additionalProperties": INTEGER, "properties": {"a": INTEGER}}
    assert json.loads(ask(Says({}, texts=('"a": 1, "b": 2}',)), schema).text) == {"a": 1, "b": 2}


def optional(*required: str, **properties: Any) -> dict[str, Any]:
    """An object that has no other keys than these."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


EMAIL = {"type": "string", "format": "email"}
CLOSED = optional(temperature=INTEGER, text=TEXT)


@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize(
    ("schema", "text", "given"),
    [
        ({"type": "object", "properties": {"ab": {}}}, '"b": 2}', {}),
        (CLOSED, '"type": "object"}', {}),
        (CLOSED, '"temp": 5}', {}),
        (CLOSED, '"text": "x", "temp": 5}', {"text": "x"}),
        (optional("b", a=INTEGER, b=TEXT), '"c": "x"}', None),
    ],
)
def test_a_key_that_the_model_has_not_written_is_not_written_for_it(
    schema: Any, text: str, given: Any, varies: bool
) -> None:
    """But where the object has to have it: then its value is asked for, and may be missing."""
    got = ask(Says({}, texts=(text,), varies=varies), schema)
    if given is None:
        assert got.text.startswith('{"b": ')
    else:
        assert got.finished.error is None, got.model.log
        assert json.loads(got.text) == given


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ('"temperatures": 5}', {"temperature": 5}),
        ('"temperatur": 5}', {"temperature": 5}),
        ('"temperaturee": 5}', {"temperature": 5}),
    ],
)
def test_a_key_that_is_all_but_right_is_put_right(text: str, given: Any) -> None:
    got = ask(Says({}, texts=(text, "5}")), CLOSED)
    assert json.loads(got.text) == given, got.model.log


PERSON = optional("street", "city", street=EMAIL, city=INTEGER)


@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize(
    ("schema", "text", "given"),
    [
        (optional("a", a=INTEGER, b=EMAIL), '"a": 1, "b": "N/A"}', {"a": 1}),
        (optional(b=EMAIL, c=INTEGER), '"b": "N/A"}', {}),
        (optional("c", b=EMAIL, c={"const": 5}), '"b": "N/A"}', {"c": 5}),
        (optional("a", a=INTEGER, b=PERSON), '"a": 1, "b": {"street": "N/A"}}', {"a": 1}),
        (optional("a", a=INTEGER, b=many(EMAIL)), '"a": 1, "b": ["N/A"]}', {"a": 1}),
        ({**OPEN, "properties": {"a": EMAIL, "b": INTEGER}}, '"b": 1, "a": N/A}', {"b": 1}),
    ],
)
def test_a_key_without_a_value_is_left_out(
    schema: Any, text: str, given: Any, varies: bool
) -> None:
    """Where its object can do without it, and nothing of its value has left."""
    got = ask(Goes({}, spoken=text, varies=varies), schema)
    assert got.finished.error is None, got.model.log
    assert json.loads(got.text) == given
    assert got.model.runs < 20


@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize(
    ("schema", "text", "path"),
    [
        (optional("b", a=INTEGER, b=EMAIL), '"a": 1, "b": "N/A"}', "$.b"),
        (optional(b=PERSON), '"b": {"street": "a@example.com", "city": "N/A"}', "$.b.city"),
        (optional(b=many(EMAIL, minItems=2)), '"b": ["a@example.com", "N/A"]', "$.b[1]"),
        ({**optional(b=EMAIL), "minProperties": 1}, '"b": "N/A"}', "$.b"),
    ],
)
def test_a_value_that_has_to_be_there_is_missed(
    schema: Any, text: str, path: str, varies: bool
) -> None:
    got = ask(Goes({}, spoken=text, varies=varies), schema)
    assert got.finished.error == f"the model gave no value that fits at {path}"


def test_a_key_that_was_left_out_may_be_followed_by_others() -> None:
    texts = ('"a": 1, "b": "N/A"}', *['"N/A"'] * 3, '"c": 2}')
    got = ask(Says({}, texts=texts), optional(a=INTEGER, b=EMAIL, c=INTEGER))
    assert json.loads(got.text) == {"a": 1, "c": 2}, got.model.log


def test_a_key_leaves_with_its_value() -> None:
    """It could not be taken back any more. What the object has to have leaves at once."""
    schema = optional("b", a=EMAIL, b=EMAIL)
    got = ask(Goes({}, spoken='"a": "x@example.com", "b": "y@example.com"}'), schema)
    sent = list(accumulate(got.deltas))
    assert not any(text.endswith('"a": ') for text in sent)
    assert any(text.endswith('"b": ') for text in sent)


@pytest.mark.parametrize(("reply", "given"), [('text": "x"', {"text": "x"}), ('other"', {})])
def test_the_model_is_asked_with_which_key_an_object_begins(reply: str, given: Any) -> None:
    got = ask(Replies({}, texts=(*['"type"'] * 3, '"x"}'), reply=reply), CLOSED)
    assert json.loads(got.text) == given
