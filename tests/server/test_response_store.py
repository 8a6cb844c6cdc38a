"""What is kept of responses: bounded, apart for each owner, and whole as long as somebody goes on from it."""

from __future__ import annotations

from typing import Any

import pytest

from rkllama.api.common import dumps
from rkllama.errors import NoPreviousResponse, NotStored
from rkllama.server.response_store import OwnStore, ResponseStore


def item(name: str) -> dict[str, Any]:
    return {"id": name, "type": "message"}


def keep(own: OwnStore, number: int, previous: str | None = None, text: str = "") -> str:
    """Keep a response with one item in and one out."""
    if previous is not None:
        own.conversation(previous)
    response_id = f"resp_{number}"
    out = item(f"msg_{number}_0") | {"text": text}
    own.keep({"id": response_id, "output": [out]}, [item(f"item_{number}_i0")])
    return response_id


def names(items: list[Any]) -> list[str]:
    return [each["id"] for each in items]


def test_a_response_comes_back_as_it_was() -> None:
    own = ResponseStore().of(0)
    keep(own, 1)
    assert own.response("resp_1") == {"id": "resp_1", "output": [item("msg_1_0") | {"text": ""}]}
    assert names(own.inputs("resp_1")) == ["item_1_i0"]
    assert own.item("msg_1_0") == item("msg_1_0") | {"text": ""}
    assert own.item("item_1_i0") == item("item_1_i0")
    assert own.item("msg_1_7") is None
    assert own.item("elsewhere") is None


def test_a_conversation_is_what_its_turns_were() -> None:
    store = ResponseStore()
    keep(store.of(0), 1)
    keep(store.of(0), 2, "resp_1")
    expected = ["item_1_i0", "msg_1_0", "item_2_i0", "msg_2_0"]
    assert names(store.of(0).conversation("resp_2")) == expected
    assert names(store.of(0).inputs("resp_2")) == expected[:3]


def test_each_key_has_its_own() -> None:
    store = ResponseStore()
    keep(store.of(0), 1)
    other = store.of(1)
    with pytest.raises(NotStored):
        other.response("resp_1")
    with pytest.raises(NotStored):
        other.remove("resp_1")
    with pytest.raises(NoPreviousResponse):
        other.conversation("resp_1")
    assert other.item("msg_1_0") is None
    store.of(0).response("resp_1")


def test_a_deleted_response_is_gone_but_not_the_conversation_that_went_on() -> None:
    store = ResponseStore()
    keep(store.of(0), 1)
    keep(store.of(0), 2, "resp_1")
    store.of(0).remove("resp_1")
    with pytest.raises(NoPreviousResponse):
        store.of(0).conversation("resp_1")
    assert len(store.of(0).conversation("resp_2")) == 4


def test_the_one_that_was_not_used_for_longest_goes() -> None:
    store = ResponseStore(most=2)
    own = store.of(0)
    keep(own, 1)
    keep(own, 2)
    own.response("resp_1")
    keep(own, 3)
    with pytest.raises(NotStored):
        own.response("resp_2")
    own.response("resp_1")
    own.response("resp_3")


def test_a_long_conversation_goes_on_when_its_first_responses_are_gone() -> None:
    store = ResponseStore(most=2)
    last = None
    for number in range(5):
        last = keep(store.of(0), number, last)
    assert last is not None
    assert len(store.of(0).conversation(last)) == 10


def test_all_bytes_count_and_come_back() -> None:
    """A budget for a conversation of two turns: a third response takes their place, both turns at once."""
    own_size = len(dumps([item("item_1_i0")])) + len(dumps([item("msg_1_0") | {"text": "x" * 99}]))
    head = len(dumps({"id": "resp_1", "output": []}))
    store = ResponseStore(most_bytes=2 * (own_size + head))
    keep(store.of(0), 1, text="x" * 99)
    keep(store.of(0), 2, "resp_1", text="x" * 99)
    assert len(store.of(0).conversation("resp_2")) == 4
    keep(store.of(0), 3, text="x" * 99)
    store.of(0).response("resp_3")
    with pytest.raises(NotStored):
        store.of(0).response("resp_1")
    with pytest.raises(NotStored):  # its turn held the first one's bytes
        store.of(0).response("resp_2")
    keep(store.of(0), 4, text="x" * 99)
    assert len(store.of(0).conversation("resp_3")) == 2
    assert len(store.of(0).conversation("resp_4")) == 2


def test_what_is_larger_than_the_store_is_not_kept() -> None:
    own = ResponseStore(most_bytes=100).of(0)
    keep(own, 1, text="x" * 200)
    with pytest.raises(NotStored):
        own.response("resp_1")
