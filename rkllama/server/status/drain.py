"""How a server ends without an answer being lost: it takes nothing new, and waits for what it has taken.

Where a balancer asks for its readiness, it goes on taking requests until that has been told often enough to
send no more: what is refused in between could be lost, and a server that refuses quickly looks like the one
with the least to do.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ...service import Caller, ServerService

DEFAULT_TIMEOUT = 600.0
"""Seconds that running and waiting requests have where nobody says how long."""
_NOTICE, _TIMES = 10.0, 3
"""A balancer notices when it was told so often, or has had so many seconds."""
_LATELY = 20.0
"""Who has asked twice within so many seconds is a balancer, and not somebody who looks once."""
_BALANCERS = 64
"""How many are known by their addresses."""


class Connections(Protocol):
    """What the transport tells of its connections."""

    def busy(self) -> int:
        """Return on how many connections a request is coming, being answered, or not sent whole yet."""

    def has_news(self) -> bool:
        """Return whether something has come that is not looked at yet."""


class Drain:
    """A server's draining. `begin` is called by any thread, `look` by the loop that serves."""

    def __init__(self, service: ServerService, patience: float | None = None) -> None:
        """`patience` is how many seconds requests have where nobody says; None: DEFAULT_TIMEOUT."""
        self._service = service
        self._patience = patience or DEFAULT_TIMEOUT
        self._mutex = threading.Lock()
        self._deadline: float | None = None
        self._waiters: set[int] = set()
        self._done = False
        self._over = False
        """Whether the time is over: who comes to wait now is not woken any more."""
        self._asked: dict[str, tuple[float, float]] = {}
        """When each address asked for the last time but one, and for the last time."""
        self._untold: dict[str, int] = {}
        """How often each has to be told before nothing is taken any more,"""
        self._takes_until = 0.0
        """and until when that is waited for."""
        self._closed = False
        """Whether nothing is taken any more."""
        self.ends = False
        """Whether a loop looks at it, and the server ends then; else it is another program's to end."""
        self.on_begin: Callable[[], object] = lambda: None
        """Wakes the loop, which has to `look` from now on."""

    @property
    def begun(self) -> bool:
        """Whether the server drains."""
        return self._deadline is not None

    @property
    def done(self) -> bool:
        """Whether all requests were answered before the time was over."""
        return self._done

    @property
    def left(self) -> float:
        """The seconds that requests still have."""
        return max(0.0, (self._deadline or 0.0) - time.monotonic())

    def begin(self, timeout: float | None = None) -> None:
        """Begin to drain; the requests that are here have `timeout` seconds, or less if an earlier call has
        said so.
        """
        now = time.monotonic()
        timeout = self._patience if timeout is None and not self.begun else timeout
        with self._mutex:
            if timeout is not None:
                self._deadline = min(now + timeout, self._deadline or now + timeout)
            if not self._untold and not self._closed and self.ends:
                twice = [each for each, (then, _) in self._asked.items() if now - then <= _LATELY]
                self._untold = dict.fromkeys(twice, _TIMES)
                self._takes_until = now + min(_NOTICE, (timeout or 0.0) / 2)
        self._close_when_noticed(now)
        self.on_begin()

    def note_question(self, address: str) -> bool:
        """Note that a balancer at `address` asks whether the server is ready; return whether it drains."""
        with self._mutex:
            _, last = self._asked.pop(address, (-math.inf, -math.inf))
            if len(self._asked) >= _BALANCERS:
                self._asked.pop(next(iter(self._asked)))
            self._asked[address] = last, time.monotonic()
            if self.begun and address in self._untold:
                self._untold[address] -= 1
        return self.begun

    def _close_when_noticed(self, now: float) -> None:
        """Take nothing any more if every balancer has noticed, or has had its time."""
        with self._mutex:
            noticed = now >= self._takes_until or all(n <= 0 for n in self._untold.values())
            if self._closed or not noticed:
                return
            self._closed = True
        self._service.drain()

    def look(self, connections: Connections, now: float) -> float | None:
        """Return the seconds until the drain is over whatever goes on; None: it is over. Who waits in `wait`
        is told first, and is answered before the server ends.
        """
        if self._deadline is None:
            return float("inf")
        left = self._deadline - now
        self._close_when_noticed(now)
        if not self._closed:
            return min(left, self._takes_until - now)
        busy = connections.busy()
        with self._mutex:
            self._done = self._done or busy <= len(self._waiters)
            self._over = left <= 0
            if self._done or left <= 0:
                for waiter in self._waiters:
                    os.eventfd_write(waiter, 1)
        if left <= 0 or (busy == 0 and not connections.has_news()):
            return None
        return left

    def wait(self, caller: Caller) -> bool:
        """Wait until nothing else is being answered, or the time is over; return whether all was answered.

        Raises Cancelled.
        """
        if not self.ends:
            return True
        waiter = os.eventfd(0, os.EFD_CLOEXEC)
        with self._mutex:
            self._waiters.add(waiter)
            if self._over:
                os.eventfd_write(waiter, 1)
        try:
            self.on_begin()
            caller.wait(waiter)
        finally:
            with self._mutex:
                self._waiters.discard(waiter)
            os.close(waiter)
        return self._done
