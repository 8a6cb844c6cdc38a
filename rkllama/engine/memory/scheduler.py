"""Who may use which model, and when: pure decisions; no process is touched here.

A slot is a place for a model in memory. A request takes a ticket and waits until it holds the lease of its
model's slot; a holder who is alone loads, runs, evicts or closes, and so no state has two writers. Where the
model can do several runs at a time, he may `share` the slot: then others join him, who only run.

    slot:    (none) ──granted to a ticket──▶ held ⇄ idle ──closed by a holder──▶ (none)
                                            share ⇅ all have left
                                             shared
                                                      └─its place is taken──▶ leaving ──closed──▶ (none)
                                                      idle ◀──the taker went before it was closed──┘

Tickets are served first come, first served. One whose model is busy or leaving lets later ones for other
models pass. One that needs a place lets those pass for whose model it would have to go, since loading takes
longer than an answer; but only so many, and only so long, so that it cannot starve.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ...errors import QueueFull, ServerStopping
from ...service import LOCAL, Caller

T = TypeVar("T")

_MOST_PASSING = 8
"""Requests for models in memory that go before an earlier one that needs a place."""
_LONGEST_PASSING = 30.0
"""Seconds for which they do."""
_SWAPS = 4
"""So often in a minute models take each other's place before that is told."""
_TOLD_EVERY = 300.0
_MAX_CLOSING = 8
"""How many may wait to close a model: they hold a thread each, until a prefill has ended."""


class Slot(Generic[T]):
    """A model's place. `resident` is what occupies it (None: nothing is loaded yet)."""

    __slots__ = ("evicted", "expires", "holders", "key", "last_used", "places", "resident")

    def __init__(self, key: str) -> None:
        self.key = key
        self.resident: T | None = None
        self.holders = 0
        """How many leases of it are held."""
        self.places = 1
        """How many may be held now; 1: its holder is alone."""
        self.last_used = time.monotonic()
        self.expires: float | None = None
        """On the monotonic clock; None: stays."""
        self.evicted: Slot[T] | None = None
        """The slot whose place this one takes: its holder must close that model first, and then say so
        with `Scheduler.evicted_is_closed`."""

    @property
    def held(self) -> bool:
        """Whether somebody holds it."""
        return self.holders > 0

    @property
    def has_room(self) -> bool:
        """Whether it can be held by one more now."""
        return self.holders < self.places

    @property
    def shared(self) -> bool:
        """Whether others may join its holders, or could."""
        return self.places > 1


class _Ticket(Generic[T]):
    __slots__ = ("alone", "before", "closing", "key", "passed", "since", "slot", "wake", "watched")

    def __init__(
        self, key: str, closing: bool = False, alone: bool = False, watched: bool = False
    ) -> None:
        self.key = key
        self.alone = alone or closing
        """Joins no other holder."""
        self.closing = closing
        """Goes first, is not counted as waiting, and takes no new place."""
        self.watched = watched
        """Is woken, too, when there are fewer or more before it."""
        self.before = 0
        """How many requests are before it, as its waiter knows."""
        self.slot: Slot[T] | None = None
        self.wake = -1
        self.since = time.monotonic()
        self.passed = 0
        """How many later ones went before it."""

    def lets_pass(self) -> bool:
        """Whether others may still go before it."""
        waited = time.monotonic() - self.since
        return self.passed < _MOST_PASSING and waited < _LONGEST_PASSING


class Swaps:
    """How often models took each other's place lately."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._told = -_TOLD_EVERY

    def note(self, now: float) -> int | None:
        """Count one at `now`; return how many there were in a minute, where that is worth a word."""
        self._times = [*(then for then in self._times if then > now - 60), now]
        if len(self._times) < _SWAPS or now < self._told + _TOLD_EVERY:
            return None
        self._told = now
        return len(self._times)


class Scheduler(Generic[T]):
    """Slots and tickets under one lock."""

    def __init__(self, max_loaded: int, max_queue: int) -> None:
        self._max_loaded = max_loaded
        self._max_queue = max_queue
        self._lock = threading.Condition(threading.Lock())
        self._slots: dict[str, Slot[T]] = {}
        self._leaving: set[str] = set()
        self._tickets: list[_Ticket[T]] = []
        self._closed = False
        self._draining = False

    def slots(self) -> list[Slot[T]]:
        """Return the slots now, least recently used first."""
        with self._lock:
            return sorted(self._slots.values(), key=lambda slot: slot.last_used)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        with self._lock:
            return len(self._waiting())

    def waiting_by_key(self) -> dict[str, int]:
        """Return how many requests wait for each model that is waited for."""
        with self._lock:
            return dict(Counter(ticket.key for ticket in self._waiting()))

    def is_full(self, key: str | None = None) -> bool:
        """Return whether a request for model `key`, or for any that suits best, would be sent away now: it
        would have to wait, and as many wait as may.
        """
        with self._lock:
            if len(self._waiting()) < self._max_queue:
                return False
            slots = list(self._slots.values())
            if key in self._slots:
                return not self._slots[key].has_room
            place = len(slots) < self._max_loaded or not all(slot.held for slot in slots)
            return not (place or (key is None and any(slot.has_room for slot in slots)))

    @property
    def places(self) -> int:
        """How many requests can have their turn at the same time now."""
        with self._lock:
            free = max(0, self._max_loaded - len(self._slots))
            return free + sum(slot.places for slot in self._slots.values())

    @property
    def draining(self) -> bool:
        """Whether nobody is taken any more."""
        return self._draining or self._closed

    def drain(self) -> None:
        """Send away everybody who comes from now on; those who wait keep their turn."""
        self._draining = True

    @contextlib.contextmanager
    def lease(self, key: str, *, alone: bool = False, caller: Caller = LOCAL) -> Iterator[Slot[T]]:
        """Hold the slot of model `key`, a new one if it has none; unless `alone`, together with others where
        it is shared.

        Raises QueueFull and ServerStopping at once, Cancelled when the client hangs up while waiting. A slot
        that has no resident when its holder leaves is given up.
        """
        ticket: _Ticket[T] = _Ticket(key, alone=alone, watched=caller.watching)
        slot = self._acquire(ticket, caller)
        if slot is None:
            raise ServerStopping
        try:
            yield slot
        finally:
            self._release(slot)

    @contextlib.contextmanager
    def lease_to_close(
        self,
        key: str,
        *,
        waiting: Callable[[], object] = lambda: None,
        patience: float | None = None,
        overdue: Callable[[], object] = lambda: None,
    ) -> Iterator[Slot[T] | None]:
        """Hold the slot of model `key` ahead of everybody who waits; return None if it no longer has one.

        `waiting` is called where its holder has to leave first, when nobody can come in between any
        more; `overdue` when that has not left after `patience` seconds. Raises QueueFull.
        """
        slot = self._acquire(_Ticket(key, closing=True), LOCAL, waiting, patience, overdue)
        try:
            yield slot
        finally:
            if slot is not None:
                self._release(slot)

    def share(self, slot: Slot[T], places: int) -> None:
        """Let others join the only holder of a slot, up to `places` in all, until all have left."""
        with self._lock:
            slot.places = places
            self._dispatch()

    def be_alone(self, slot: Slot[T]) -> bool:
        """Return whether a holder is the only one, and let nobody join him any more if he is."""
        with self._lock:
            if slot.holders > 1:
                return False
            slot.places = 1
            return True

    def evicted_is_closed(self, slot: Slot[T]) -> None:
        """Let those who wait for the model that `slot` replaced load it again."""
        with self._lock:
            if slot.evicted is not None:
                self._leaving.discard(slot.evicted.key)
                slot.evicted = None
            self._dispatch()

    def _acquire(
        self,
        ticket: _Ticket[T],
        caller: Caller,
        waiting: Callable[[], object] = lambda: None,
        patience: float | None = None,
        overdue: Callable[[], object] = lambda: None,
    ) -> Slot[T] | None:
        with self._lock:
            # Who wants to be alone had a turn before.
            if self._closed or (self._draining and not ticket.alone):
                return None
            self._tickets.insert(0 if ticket.closing else len(self._tickets), ticket)
            self._dispatch()
            if ticket not in self._tickets:
                return ticket.slot
            limit = _MAX_CLOSING if ticket.closing else self._max_queue
            if sum(other.closing == ticket.closing for other in self._tickets) > limit:
                self._tickets.remove(ticket)
                raise QueueFull(limit)
            try:
                ticket.wake = os.eventfd(int(ticket.watched), os.EFD_CLOEXEC)
            except OSError:
                # Out of file descriptors: a ticket without a waiter must not be granted.
                self._tickets.remove(ticket)
                raise
        try:
            waiting()
            wait = caller.waiter(ticket.wake, lambda: self._before(ticket))
            if not wait(patience):
                overdue()
                wait(None)
            if ticket.watched:
                self._keep_told(ticket, caller, wait)
        except BaseException:
            self._forget(ticket)
            raise
        finally:
            with self._lock:
                wake, ticket.wake = ticket.wake, -1
            os.close(wake)
        return ticket.slot

    def _keep_told(
        self, ticket: _Ticket[T], caller: Caller, wait: Callable[[float | None], bool]
    ) -> None:
        """Tell a caller how many requests are before its own whenever that has changed, 0 at the end."""
        while True:
            os.eventfd_read(ticket.wake)
            before = self._before(ticket)
            caller.tell(before)
            if not before:
                return
            wait(None)

    def _before(self, ticket: _Ticket[T]) -> int:
        """Return how many requests are before one: of those that wait, and one that has what it waits for; 0
        when it has been granted.
        """
        with self._lock:
            ticket.before = self._place(ticket)
            return ticket.before

    def _forget(self, ticket: _Ticket[T]) -> None:
        """Drop a ticket whose client is gone; it may have been granted in the same moment."""
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._dispatch()
        if ticket.slot is not None:
            self._release(ticket.slot)

    def _release(self, slot: Slot[T]) -> None:
        with self._lock:
            slot.holders -= 1
            slot.last_used = time.monotonic()
            if slot.holders:
                self._dispatch()
                return
            slot.places = 1
            if slot.resident is None and self._slots.get(slot.key) is slot:
                del self._slots[slot.key]
            if slot.evicted is not None:
                self._bring_back(slot.evicted)
                slot.evicted = None
            self._dispatch()
            self._lock.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no slot is held; return whether that happened within `timeout` seconds."""
        with self._lock:
            return self._lock.wait_for(
                lambda: not any(slot.held for slot in self._slots.values()), timeout
            )

    def take_idle(self, wanted: Callable[[Slot[T]], bool]) -> Slot[T] | None:
        """Hold the least recently used idle slot that is `wanted`; give it back with `put_back`."""
        with self._lock:
            idle = [slot for slot in self._slots.values() if not slot.held and wanted(slot)]
            if not idle:
                return None
            slot = min(idle, key=lambda slot: slot.last_used)
            slot.holders = 1
            return slot

    def put_back(self, slot: Slot[T]) -> None:
        """End the hold of `take_idle`."""
        self._release(slot)

    def close(self) -> None:
        """Send away everybody who is waiting, and everybody who comes later."""
        with self._lock:
            self._closed = True
            tickets, self._tickets = self._tickets, []
            for ticket in tickets:
                self._notify(ticket)

    # --- Under the lock ------------------------------------------------------------------------

    def _waiting(self) -> list[_Ticket[T]]:
        """Return the tickets of requests, in their order: not those of who is to close a model."""
        return [ticket for ticket in self._tickets if not ticket.closing]

    def _dispatch(self) -> None:
        """Grant every ticket that can be served now, and wake those whose place has changed."""
        if not self._tickets:
            return
        blocked: _Ticket[T] | None = None
        for ticket in list(self._tickets):
            slot = self._slots.get(ticket.key)
            if ticket.key in self._leaving or (
                slot and slot.held and not self._joins(ticket, slot)
            ):
                continue
            if slot is None and not ticket.closing:
                if blocked is None:
                    slot = self._new_slot(ticket)
                if slot is None:
                    blocked = blocked or ticket
                    continue
            elif blocked is not None:
                blocked.passed += 1
            if slot is not None:
                slot.holders += 1
            ticket.slot = slot
            self._tickets.remove(ticket)
            self._notify(ticket)
        for place, ticket in enumerate(self._waiting(), 1):
            if ticket.watched and place != ticket.before:
                self._notify(ticket)

    def _place(self, ticket: _Ticket[T]) -> int:
        """Return how many requests are before one; see `_before`."""
        if ticket not in self._tickets:
            return 0
        earlier = self._tickets[: self._tickets.index(ticket)]
        return 1 + sum(not other.closing for other in earlier)

    def _joins(self, ticket: _Ticket[T], slot: Slot[T]) -> bool:
        """Return whether a ticket may join the holders of a slot: not before an earlier one that wants to be
        alone there.
        """
        if ticket.alone or slot.holders >= slot.places:
            return False
        earlier = self._tickets[: self._tickets.index(ticket)]
        return not any(other.alone and other.key == ticket.key for other in earlier)

    def _new_slot(self, ticket: _Ticket[T]) -> Slot[T] | None:
        """Return a new place, taken from the least recently used idle model when all are taken: one for which
        nobody waits, as long as the ticket lets others pass.
        """
        key = ticket.key
        slot: Slot[T] = Slot(key)
        if len(self._slots) >= self._max_loaded:
            wanted = {other.key for other in self._tickets} if ticket.lets_pass() else set()
            idle = [o for o in self._slots.values() if not o.held and o.key not in wanted]
            if not idle:
                return None
            slot.evicted = min(idle, key=lambda other: other.last_used)
            slot.evicted.holders = 1
            del self._slots[slot.evicted.key]
            self._leaving.add(slot.evicted.key)
        self._slots[key] = slot
        return slot

    def _bring_back(self, slot: Slot[T]) -> None:
        """A model whose place was to be taken by somebody who went: it stays as it was."""
        self._leaving.discard(slot.key)
        slot.holders = 0
        self._slots[slot.key] = slot

    @staticmethod
    def _notify(ticket: _Ticket[T]) -> None:
        if ticket.wake >= 0:
            os.eventfd_write(ticket.wake, 1)
