"""What a server tells systemd of itself: sd_notify(3) and sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger("rkllama")

_SHORTEST = 0.1
"""Seconds: signs of life that are wanted more often would be all that a server does."""
_LONGEST = (1 << 53) - 1
"""Microseconds; systemd writes larger ones for never."""
_PATIENCE = 5.0
"""Seconds that a message waits where systemd reads none."""


class Notifier:
    """Messages to the service manager that started this process; without one it does nothing."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the manager's variables out of `environ`: no child is to speak in this process's name."""
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = _watchdog(environ)
        """Seconds within which the manager wants a sign of life, again and again; None: it wants none."""

    def ready(self, status: str) -> None:
        """Say that requests are answered; `status` is what the manager shows of this service."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say what the manager is to show of this service now."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Give the sign of life."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """Say that this process is about to end."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def _send(self, message: str) -> None:
        if not self._address.startswith(("/", "\0")):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_PATIENCE)
                channel.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", message.partition("\n")[0], error)


class Heartbeat:
    """The sign of life, twice in the time within which the manager wants one.

    The loop that serves calls it in each turn; nobody else may, for then it would prove nothing.
    """

    def __init__(self, notifier: Notifier, watchdog: float) -> None:
        self._notifier = notifier
        self._interval = watchdog / 2
        self._due = 0.0

    def __call__(self, now: float) -> float:
        """Give the sign if it is due at `now`, of time.monotonic(); return the seconds until the next."""
        if now >= self._due:
            self._notifier.alive()
            self._due = now + self._interval
        return self._due - now


def _watchdog(environ: MutableMapping[str, str]) -> float | None:
    microseconds = environ.pop("WATCHDOG_USEC", "")
    pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
    with contextlib.suppress(ValueError):
        if pid == str(os.getpid()) and 0 < int(microseconds) <= _LONGEST:
            return max(_SHORTEST, int(microseconds) / 1e6)
    return None
