"""What all dialects share: JSON in, JSON out, typed fields, the fold over an answer's events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.api.common import Fields, clean_text, dump_text, dumps, fold, load_json, new_id, sse
from rkllama.errors import InvalidRequest
from rkllama.types import TextDelta
from tests import dialects
from tests.cases import cases


@given(st.text(st.characters(codec=None)))
def test_strings_are_one_line_of_utf8_and_come_back(text: str) -> None:
    data = dump_text(text)
    assert data == dumps(text)
    assert len(data.decode().splitlines()) == 1
    assert json.loads(data) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_text_that_no_backend_can_take_is_cleaned() -> None:
    assert clean_text("a\0b\ud800c é") == "a\ufffdb\ufffdc é"


def test_sse_frames() -> None:
    assert sse({"a": "é"}) == 'data: {"a":"é"}\n\n'.encode()
    assert sse([1], "ping") == b"event: ping\ndata: [1]\n\n"


def test_new_ids_differ() -> None:
    ids = {new_id("msg_") for _ in range(10)}
    assert len(ids) == 10
    assert all(made.startswith("msg_") and len(made) == 28 for made in ids)


@pytest.mark.parametrize("value", [None, 1, -1.5, "é", [[]], {"a": [1, {"b": None}]}])
def test_json_that_is_read(value: Any) -> None:
    assert load_json(json.dumps(value).encode()) == value


@cases(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"-1e999",
        b"\xff",
        b'"\xe9"',
        b"9" * 5000,
        b"[" * 129 + b"]" * 129,
        b"[" * 100_000,
        b'{"a":' * 129 + b"1" + b"}" * 129,
    ],
)
def test_json_that_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        load_json(data)


def test_nesting_up_to_the_limit_is_read_and_written() -> None:
    data = b"[" * 128 + b"]" * 128
    assert dumps(load_json(data)) == data


def test_fold() -> None:
    answer = fold(iter([*dialects.THINKING[:3], *dialects.TOOLS[1:]]))
    assert (answer.reasoning, answer.text) == ("Two and two.", "Four.")
    assert [call.name for call in answer.tool_calls] == ["weather", "clock"]
    assert answer.finished.reason == "tool_calls"
    assert len(fold(dialects.SCORED).logprobs) == 2


def test_events_without_an_end_are_a_fault() -> None:
    with pytest.raises(RuntimeError):
        fold([TextDelta("a")])


FIELDS = Fields({"a": 1, "b": "x\0", "c": [1], "d": {"e": 2.0}, "f": True, "g": None}, "at.")


def test_fields_of_the_right_type() -> None:
    assert FIELDS.integer("a") == 1
    assert FIELDS.text("b") == "x\ufffd"
    assert FIELDS.items("c") == [1]
    assert FIELDS.flag("f") is True
    inner = FIELDS.object("d")
    assert inner is not None
    assert inner.integer("e") == 2
    assert "g" not in FIELDS
    assert FIELDS.text("g") is FIELDS.text("h") is None


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a", FIELDS.text),
        ("a", FIELDS.flag),
        ("a", FIELDS.items),
        ("a", FIELDS.mapping),
        ("b", FIELDS.number),
        ("f", FIELDS.integer),
        ("c", FIELDS.texts),
    ],
)
def test_fields_of_the_wrong_type_are_named(name: str, read: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(name)
    assert raised.value.param == f"at.{name}"
    assert f"'at.{name}'" in raised.value.message


def test_required_fields() -> None:
    assert FIELDS.need("a", FIELDS.integer) == 1
    with pytest.raises(InvalidRequest, match=r"'at\.g' is required"):
        FIELDS.need("g", FIELDS.text)
