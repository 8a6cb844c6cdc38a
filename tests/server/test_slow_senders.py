"""Connections whose request comes byte by byte: waitress, driven by hand so that no test waits a minute."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.errors import RKLLamaError
from rkllama.server.bodies import Bodies
from rkllama.server.routing import Reply
from rkllama.server.transport import Server

pytestmark = pytest.mark.integration

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"


def app(_environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class NoUploads:
    """A frontend to which nobody sends files."""

    bodies = Bodies(1 << 30)

    def error_reply(self, error: RKLLamaError, environ: Mapping[str, Any]) -> Reply:
        return Reply(body=error.text.encode(), status=error.status)

    def admits(self, environ: Mapping[str, Any]) -> bool:
        return True

    def open_upload(self, environ: Mapping[str, Any], size: int) -> None:
        return None


class Loop:
    """The server's loop, one turn at a time, with one client."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(app, self.listener, load_settings({}), NoUploads())
        self.client = socket.create_connection(self.listener.getsockname())

    def turn(self) -> None:
        self.server.asyncore.loop(timeout=5.0, map=self.server._map, use_poll=True, count=1)

    def send(self, data: bytes) -> None:
        """Send, and let the server read all of it."""
        self.client.sendall(data)
        while not self.server.active_channels or self.received < len(data):
            self.turn()

    @property
    def received(self) -> int:
        (channel,) = self.server.active_channels.values()
        request = channel.request
        return request.header_bytes_received + request.body_bytes_received if request else 0

    def look(self, seconds: float) -> bool:
        """Look for clients to cut off as if so much time had passed; whether this one is still served.

        Its last byte has just come, so it is never idle.
        """
        now = time.time() + seconds
        for channel in self.server.active_channels.values():
            channel.last_activity = now
        self.server.maintenance(now)
        (channel,) = self.server.active_channels.values()
        return bool(channel.connected)

    def close(self) -> None:
        self.client.close()
        self.server.task_dispatcher.shutdown()
        for channel in list(self.server.active_channels.values()):
            channel.handle_close()
        self.server.close()
        self.listener.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize("sent", [b"G", GET, POST, POST + b"{"])
def test_a_byte_now_and_then_keeps_no_connection(loop: Loop, sent: bytes) -> None:
    loop.send(sent)
    assert loop.look(50.0)
    assert not loop.look(100.0)
    loop.client.settimeout(5.0)
    assert loop.client.recv(1) == b""


def test_a_long_body_may_take_its_time(loop: Loop) -> None:
    loop.send(POST + b"x" * 500_000)
    assert loop.look(500.0)
    assert not loop.look(700.0)


def test_a_connection_between_two_requests_is_left_alone(loop: Loop) -> None:
    loop.client.sendall(GET + b"\r\n")
    loop.client.settimeout(0.05)
    answer = b""
    while not answer.endswith(b"ok"):
        loop.turn()
        try:
            answer += loop.client.recv(1 << 16)
        except TimeoutError:
            continue
    assert loop.look(1000.0)
