"""Connections that ask for nothing: they cost nobody else a place, nor time."""

from __future__ import annotations

import http.client
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.running import LIMIT, Server

pytestmark = pytest.mark.integration

GET = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """This process and its server may open what they need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(server: Server, stack: ExitStack, first: bytes = b"") -> socket.socket:
    client = socket.create_connection((server.host, server.port), timeout=LIMIT)
    stack.enter_context(closing(client))
    if first:
        client.sendall(first)
    return client


def ask(client: socket.socket, data: bytes = GET) -> int:
    """Send a request, or its last bytes; answers the status."""
    client.sendall(data)
    response = http.client.HTTPResponse(client)
    response.begin()
    assert response.read()
    return response.status


@pytest.mark.serial
@pytest.mark.parametrize("first", [b"", b"POST /generate HTTP/1.1\r\nHost"])
def test_a_thousand_idle_connections_keep_no_new_one_waiting(server: Server, first: bytes) -> None:
    assert server.get("/api/version").status == 200
    with ExitStack() as stack:
        took = []
        for number in range(1000):
            connect(server, stack, first)
            if number % 20 == 19:
                began = time.monotonic()
                assert server.get("/api/version").status == 200
                took.append(time.monotonic() - began)
        assert statistics.median(took) < 0.03
        assert sorted(took)[-3] < 0.1  # in fifty, another program may have had its turn
    assert sum("WARNING" in line or "ERROR" in line for line in server.log) == 0


@pytest.mark.serial
def test_the_longest_idle_connection_goes_first(server: Server) -> None:
    with ExitStack() as stack:
        first, used, last = (connect(server, stack) for _ in range(3))
        for client in (first, used):
            assert ask(client) == 200
        busy = connect(
            server, stack, b"POST /rm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{"
        )
        for number in range(900):
            connect(server, stack)
            if number % 10 == 0:
                assert ask(used) == 200
        assert ask(busy, b"}") == 400
        assert first.recv(1) == last.recv(1) == b""


def test_a_connection_without_a_first_byte_is_closed_in_seconds(server: Server) -> None:
    with ExitStack() as stack:
        silent = connect(server, stack)
        used = http.client.HTTPConnection(server.host, server.port, timeout=LIMIT)
        stack.enter_context(closing(used))
        used.request("GET", "/api/version")
        assert used.getresponse().read()
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert 2 < time.monotonic() - began < 15
        used.request("GET", "/api/version")  # it is kept, as it has been of use
        assert used.getresponse().read()
