"""Responses that clients refer to later: in memory, bounded in number and bytes, apart for each owner.

What falls out of the bounds is the one that was not used for the longest time. A response that goes on
from another keeps the conversation before it, whether that one is still there or not.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ..api.common import dumps
from ..api.responses_input import response_of_item
from ..errors import NoPreviousResponse, NotStored

MOST = 1000
MOST_BYTES = 64 << 20

Owner = int
"""The number of an API key, or -1 where there is none."""


@dataclass(slots=True)
class _Turn:
    """The items of one response as JSON, and the turn that it goes on from. `users` are the responses and
    turns that need it.
    """

    inputs: bytes
    outputs: bytes
    before: _Turn | None
    users: int = 0

    @property
    def size(self) -> int:
        return len(self.inputs) + len(self.outputs)


@dataclass(frozen=True, slots=True)
class _Kept:
    head: bytes
    """The response object without its output."""
    turn: _Turn


class ResponseStore:
    """All that is kept. Safe for many threads."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Owner, str], _Kept] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, owner: Owner) -> OwnStore:
        """Return what belongs to an owner."""
        return OwnStore(self, owner)

    def keep(
        self, owner: Owner, response: Mapping[str, Any], inputs: Sequence[Any], before: _Turn | None
    ) -> None:
        """Keep a response, and let go what is too much."""
        turn = _Turn(dumps(inputs), dumps(response["output"]), before)
        kept = _Kept(dumps({**response, "output": []}), turn)
        with self._lock:
            self._use(turn)
            self._bytes += len(kept.head)
            self._kept[owner, response["id"]] = kept
            while len(self._kept) > self._most or self._bytes > self._most_bytes:
                self._let_go(self._kept.popitem(last=False)[1])

    def find(self, owner: Owner, response_id: str) -> _Kept | None:
        """Return a response, which counts as used by that."""
        with self._lock:
            kept = self._kept.get((owner, response_id))
            if kept is not None:
                self._kept.move_to_end((owner, response_id))
            return kept

    def remove(self, owner: Owner, response_id: str) -> bool:
        """Forget a response; False where there is none."""
        with self._lock:
            kept = self._kept.pop((owner, response_id), None)
            if kept is not None:
                self._let_go(kept)
            return kept is not None

    def _use(self, turn: _Turn) -> None:
        """Count one more user. A turn that nobody used until now needs the one before it, and so on."""
        following: _Turn | None = turn
        while following is not None:
            following.users += 1
            if following.users > 1:
                return
            self._bytes += following.size
            following = following.before

    def _let_go(self, kept: _Kept) -> None:
        self._bytes -= len(kept.head)
        turn: _Turn | None = kept.turn
        while turn is not None:
            turn.users -= 1
            if turn.users:
                return
            self._bytes -= turn.size
            turn = turn.before


class OwnStore:
    """What one owner may see of a store, for one request: the memory that the dialect asks."""

    def __init__(self, store: ResponseStore, owner: Owner) -> None:
        self._store = store
        self._owner = owner
        self._before: _Turn | None = None

    def conversation(self, response_id: str) -> list[Any]:
        """Return the items up to a response, its own included. Raises NoPreviousResponse."""
        kept = self._store.find(self._owner, response_id)
        if kept is None:
            raise NoPreviousResponse(response_id)
        self._before = kept.turn
        return list(_items(kept.turn))

    def item(self, item_id: str) -> Any:
        """Return an item of any response, None where it is not kept."""
        kept = self._store.find(self._owner, response_of_item(item_id))
        found = () if kept is None else _own_items(kept.turn)
        return next((item for item in found if item.get("id") == item_id), None)

    def keep(self, response: Mapping[str, Any], inputs: Sequence[Any]) -> None:
        """Keep a response and the items that it answers, behind the conversation that was asked for."""
        self._store.keep(self._owner, response, inputs, self._before)

    def response(self, response_id: str) -> dict[str, Any]:
        """Return the response object. Raises NotStored."""
        kept = self._find(response_id)
        head: dict[str, Any] = json.loads(kept.head)
        return head | {"output": json.loads(kept.turn.outputs)}

    def inputs(self, response_id: str) -> list[Any]:
        """Return all items that a response answers. Raises NotStored."""
        turn = self._find(response_id).turn
        return [*_items(turn.before), *json.loads(turn.inputs)]

    def remove(self, response_id: str) -> None:
        """Forget a response; those that go on from it keep their conversation. Raises NotStored."""
        if not self._store.remove(self._owner, response_id):
            raise NotStored("response", response_id)

    def _find(self, response_id: str) -> _Kept:
        kept = self._store.find(self._owner, response_id)
        if kept is None:
            raise NotStored("response", response_id)
        return kept


def _own_items(turn: _Turn) -> list[Any]:
    return [*json.loads(turn.inputs), *json.loads(turn.outputs)]


def _items(last: _Turn | None) -> Iterable[Any]:
    """The items of a conversation, oldest first."""
    turns = []
    while last is not None:
        turns.append(last)
        last = last.before
    return (item for turn in reversed(turns) for item in _own_items(turn))
