"""When a server may end: decided over real connections, without a process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.errors import ConfigError
from rkllama.serve import _exit_when_idle
from rkllama.server.transport import Server

PATIENCE = 10.0


def _answer(_environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Idle:
    """A server whose loop turns when the test says so, and what decides about its end."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        frontend: Any = SimpleNamespace()
        self.server = Server(_answer, self.listener, load_settings(), frontend)
        self.stopping = threading.Event()
        self.models: list[str] = []
        service: Any = SimpleNamespace(loaded=lambda: self.models)
        self._look = _exit_when_idle(PATIENCE, self.server, service, self.stopping)

    def look(self, later: float) -> float:
        """Let it decide, so many seconds after the last use."""
        return self._look(self.server.last_used + later)

    def connect(self) -> socket.socket:
        """A client's connection, which the kernel has established."""
        return socket.create_connection(self.listener.getsockname())

    def turn(self) -> None:
        """One turn of the loop."""
        self.server.asyncore.loop(timeout=0.05, map=self.server._map, use_poll=True, count=1)

    def ask(self, client: socket.socket) -> None:
        """A request that is answered on a connection that stays open."""
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 5.0
        client.setblocking(False)
        answer = b""
        while not answer.endswith(b"ok") and time.monotonic() < deadline:
            self.turn()
            with contextlib.suppress(BlockingIOError):
                answer += client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        while not self.server.is_unused() and time.monotonic() < deadline:
            self.turn()


@pytest.fixture
def idle(home: Path) -> Iterator[Idle]:
    """A server without connections."""
    one = Idle()
    yield one
    one.server.shut_down()
    for channel in list(one.server.active_channels.values()):
        channel.handle_close()
    one.listener.close()


def test_it_ends_when_its_time_has_come(idle: Idle) -> None:
    assert idle.look(4.0) == pytest.approx(6.0)
    assert not idle.stopping.is_set()
    assert idle.look(10.0) == 0.0
    assert idle.stopping.is_set()


def test_a_model_in_memory_keeps_it(idle: Idle) -> None:
    idle.models.append("m")
    assert idle.look(1000.0) == PATIENCE
    assert not idle.stopping.is_set()
    idle.models.clear()
    idle.look(1000.0)
    assert idle.stopping.is_set()


def test_a_connection_that_the_loop_has_not_seen_yet_is_taken_first(idle: Idle) -> None:
    with idle.connect():
        assert idle.look(1000.0) == 0.0
        assert not idle.stopping.is_set()
        idle.turn()
        # Its first byte is waited for.
        assert idle.look(1000.0) == PATIENCE
        assert not idle.stopping.is_set()


def test_bytes_that_the_loop_has_not_read_yet_are_read_first(idle: Idle) -> None:
    with idle.connect() as client:
        idle.ask(client)
        assert idle.server.is_unused()
        client.sendall(b"GET / HT")
        assert idle.look(1000.0) == 0.0
        assert not idle.stopping.is_set()
        idle.turn()
        # Half of a request's line is more than a connection that is kept open.
        assert idle.look(1000.0) == PATIENCE
        assert not idle.stopping.is_set()


def test_a_connection_that_is_kept_open_does_not_keep_it(idle: Idle) -> None:
    with idle.connect() as client:
        idle.ask(client)
        assert idle.look(PATIENCE) == 0.0
        assert idle.stopping.is_set()


def test_a_request_keeps_it_until_its_end_has_been_noted(idle: Idle) -> None:
    """It leaves its connection's queue a moment before: in between nothing else tells of it."""
    began = idle.server.last_used
    channel: Any = object()
    with idle.server.serving(channel):
        assert idle.look(1000.0) == PATIENCE
        assert not idle.stopping.is_set()
    assert idle.server.last_used > began
    assert idle.server.is_unused()


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600.0), ("1", 1.0), ("-1", None), ("-5m", None), ("", None)]
)
def test_the_setting_is_a_time_or_never(home: Path, text: str, seconds: float | None) -> None:
    assert load_settings(environ={"RKLLAMA_EXIT_IDLE": text}).exit_idle == seconds


@pytest.mark.parametrize("text", ["0", "0.5", "25h", "soon", "inf"])
def test_other_times_are_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="RKLLAMA_EXIT_IDLE cannot be"):
        load_settings(environ={"RKLLAMA_EXIT_IDLE": text})
