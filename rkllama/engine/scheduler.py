"""Who may use which model, and when: pure decisions; no process is touched here.

A slot is a place for a model in memory. A request takes a ticket and waits until it holds the lease of its
model's slot; the holder alone loads, runs, evicts or closes, and so no state has two writers.

    slot:    (none) ──granted to a ticket──▶ held ⇄ idle ──closed by a holder──▶ (none)
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
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import QueueFull, ServerStopping
from ..service import LOCAL, Caller

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

    __slots__ = ("evicted", "expires", "held", "key", "last_used", "resident")

    def __init__(self, key: str) -> None:
        self.key = key
        self.resident: T | None = None
        self.held = True
        self.last_used = time.monotonic()
        self.expires: float | None = None
        """On the monotonic clock; None: stays."""
        self.evicted: Slot[T] | None = None
        """The slot whose place this one takes: its holder must close that model first, and then say so
        with `Scheduler.evicted_is_closed`."""


class _Ticket(Generic[T]):
    __slots__ = ("closing", "key", "passed", "since", "slot", "wake")

    def __init__(self, key: str, closing: bool = False) -> None:
        self.key = key
        self.closing = closing
        """Goes first, is not counted as waiting, and takes no new place."""
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

    def slots(self) -> list[Slot[T]]:
        """Return the slots now, least recently used first."""
        with self._lock:
            return sorted(self._slots.values(), key=lambda slot: slot.last_used)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        with self._lock:
            return sum(not ticket.closing for ticket in self._tickets)

    @contextlib.contextmanager
    def lease(self, key: str, *, caller: Caller = LOCAL) -> Iterator[Slot[T]]:
        """Hold the slot of model `key`, a new one if it has none.

        Raises QueueFull at once, Cancelled when the client hangs up while waiting. A slot
        that has no resident when its holder leaves is given up.
        """
        slot = self._acquire(_Ticket(key), caller)
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
            if self._closed:
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
                ticket.wake = os.eventfd(0, os.EFD_CLOEXEC)
            except OSError:
                # Out of file descriptors: a ticket without a waiter must not be granted.
                self._tickets.remove(ticket)
                raise
        try:
            waiting()
            if not caller.wait(ticket.wake, patience):
                overdue()
                caller.wait(ticket.wake)
        except BaseException:
            self._forget(ticket)
            raise
        finally:
            with self._lock:
                wake, ticket.wake = ticket.wake, -1
            os.close(wake)
        return ticket.slot

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
            slot.held = False
            slot.last_used = time.monotonic()
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
            slot.held = True
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

    def _dispatch(self) -> None:
        """Grant every ticket that can be served now."""
        blocked: _Ticket[T] | None = None
        for ticket in list(self._tickets):
            slot = self._slots.get(ticket.key)
            if ticket.key in self._leaving or (slot is not None and slot.held):
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
                slot.held = True
            ticket.slot = slot
            self._tickets.remove(ticket)
            self._notify(ticket)

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
            slot.evicted.held = True
            del self._slots[slot.evicted.key]
            self._leaving.add(slot.evicted.key)
        self._slots[key] = slot
        return slot

    def _bring_back(self, slot: Slot[T]) -> None:
        """A model whose place was to be taken by somebody who went: it stays as it was."""
        self._leaving.discard(slot.key)
        slot.held = False
        self._slots[slot.key] = slot

    @staticmethod
    def _notify(ticket: _Ticket[T]) -> None:
        if ticket.wake >= 0:
            os.eventfd_write(ticket.wake, 1)
