"""`rkllama top`: how the board, the models in memory and the requests are doing, live."""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from ..console.output import is_terminal
from ..errors import NoSuchRoute, ServerUnreachable
from .common import JSONFlag, models_option, print_json, settings_of

if TYPE_CHECKING:
    from rich.live import Live

    from ..client.remote import RemoteService
    from ..config import Settings
    from ..console.top import Snapshot
    from ..types import BoardState

_PACE = 1.0
"""Seconds between two readings. The kernel has no event for a clock or a temperature, and tells the NPU's
load once a second."""


def top(context: typer.Context, as_json: JSONFlag = False) -> None:
    """Show clocks, load, temperatures, models and requests, live.

    With --json, or where there is no terminal, it shows them once. On a terminal, q or Ctrl-C quits.
    """
    source = _Source(settings_of(context), alone=models_option(context) is not None)
    if as_json:
        print_json(_json(source.read()))
    elif is_terminal(sys.stdout):
        first = source.read()  # what cannot be reached from the start is an error
        with contextlib.suppress(KeyboardInterrupt):
            while _watch(source, first):
                # Ctrl-Z: the terminal is as it was before, and the shell has the word until `fg`.
                os.kill(os.getpid(), signal.SIGSTOP)
    else:
        from ..console.top import plain

        sys.stdout.write(plain(source.read()))


class _Source:
    """Where the figures come from: the running server, looked for until there is one, or this machine."""

    def __init__(self, settings: "Settings", *, alone: bool) -> None:
        """`alone`: a server is not asked."""
        self._settings = settings
        self._alone = alone
        self._service: RemoteService | None = None
        self._url = ""
        """Of the server that was asked last."""

    def read(self) -> "Snapshot":
        """Return how things are now. Raises ServerUnreachable where the user named a server, or it has
        just gone, and ConfigError where it asks for a key.
        """
        from ..console.top import Snapshot

        service = self._service = self._service or self._find()
        if service is None:
            from ..board.telemetry import read_state

            return Snapshot(read_state(), note=self._without_server())
        return Snapshot(
            _board_of(service),
            service.loaded(),
            service.queue_length(),
            note=f"Through the server at {self._url}",
        )

    def _find(self) -> "RemoteService | None":
        from ..client.discover import find_server
        from ..client.remote import RemoteService

        server = None if self._alone else find_server(self._settings)
        if server is None:
            return None
        self._url = server.url
        return RemoteService(server)

    def wait(self) -> "Snapshot":
        """Return how things are now; without the server that it is.

        That may be starting anew, so it is waited for.
        """
        from ..console.top import Snapshot
        from ..types import BoardState

        try:
            return self.read()
        except ServerUnreachable as error:
            self._service = None
            text = error.message[:1].upper() + error.message[1:]
            return Snapshot(BoardState(), note=f"{text}. Waiting for it.", failed=True)

    def _without_server(self) -> str:
        from ..board.lock import describe_holder, holder

        if self._url:
            return f"The server at {self._url} has gone. Waiting for it."
        owner = None if self._alone else holder(self._settings.lock)
        use = f" The NPU is in use by {describe_holder(owner)}." if owner else ""
        return "This machine, without a server." + use


def _board_of(service: "RemoteService") -> "BoardState":
    """Return a server's board; one of an older release does not tell."""
    from ..types import BoardState

    try:
        return service.board()
    except NoSuchRoute:
        return BoardState()


def _json(now: "Snapshot") -> dict[str, Any]:
    """Return a reading for programs; without a server it knows of no models and no requests."""
    from ..api.native import board_body

    values: dict[str, Any] = {"board": board_body(now.board)}
    if now.waiting is not None:
        values["models"] = [asdict(model) for model in now.models]
        values["requests"] = {"running": now.running, "waiting": now.waiting}
    return values


def _watch(source: _Source, first: "Snapshot") -> bool:
    """Draw until the user quits; return whether he only stopped it for a while (Ctrl-Z)."""
    from ..console.terminal import single_keys
    from ..console.top import live_screen

    with _signals() as signals, single_keys() as keys, live_screen() as live:
        return _draw_until(live, source, first, keys, signals)


def _draw_until(live: "Live", source: _Source, now: "Snapshot", keys: int, signals: int) -> bool:
    from ..console.top import draw

    before, due = None, 0.0
    while True:
        if time.monotonic() >= due:
            now, before, due = source.wait(), now, time.monotonic() + _PACE
        draw(live, now, before)
        files = [fd for fd in (keys, signals) if fd >= 0]
        ready, _, _ = select.select(files, [], [], max(0.0, due - time.monotonic()))
        if keys in ready:
            typed = os.read(keys, 64)
            if not typed or b"q" in typed.lower() or b"\x04" in typed:
                return False
        told = os.read(signals, 64) if signals in ready else b""
        if signal.SIGTSTP in told:
            return True
        if signal.SIGTERM in told or signal.SIGHUP in told:
            return False


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that brings the numbers of signals: for Ctrl-Z, for another size of the terminal, and for
    an end that leaves the terminal as it was.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    numbers = (signal.SIGTSTP, signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.signal(number, lambda *_: None) for number in numbers]
    waker = signal.set_wakeup_fd(write)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(waker)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
