"""Bodies of requests: whose are read, how much of them there is room for, and what stays of them."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from rkllama.server.bodies import Bodies, Body
from tests.running import LIMIT, Server
from tests.server.test_hard_clients import resident
from tests.server.test_robustness import assert_healthy, raw, receive, status_of
from tests.virtual_npu import write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

MIB = 1 << 20
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def keyed(models: Path, npu: str) -> Iterator[Server]:
    """A server with a key."""
    write_model(models / "m.rkllm")
    with Server("--api-key", "secret") as running:
        yield running


# --- Whose are read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", 401),
        (b"Authorization: Bearer secre\r\n", 401),
        (b"Authorization: Bearer secret\r\nOrigin: https://evil.example\r\n", 403),
        (b"Authorization: Bearer secret\r\nOrigin: http://localhost@evil.example\r\n", 400),
    ],
)
@pytest.mark.parametrize(
    "body", [b"Content-Length: 30000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_who_may_not_call_is_told_when_the_header_is_complete(
    keyed: Server, lines: bytes, status: int, body: bytes
) -> None:
    answer = raw(keyed, CHAT + lines + body)
    assert status_of(answer) == status
    assert b"Connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_foreign_host_sends_no_body(server: Server) -> None:
    head = b"POST /generate HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 30000000\r\n\r\n"
    assert status_of(raw(server, head)) == 403


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/blobs/sha256:" + "0" * 64])
def test_no_path_reads_a_body_without_the_key(keyed: Server, path: str) -> None:
    answer = raw(
        keyed, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n".encode()
    )
    assert status_of(answer) in (200, 401, 404, 405)
    assert b"Connection: close" in answer


def test_a_body_that_is_not_read_is_no_request(keyed: Server) -> None:
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(keyed, CHAT + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden * 3)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status_of(answer) == 401


@pytest.mark.parametrize("size", [1, MIB, 40 * MIB])
def test_a_client_that_first_sends_everything_sees_why_it_is_refused(
    keyed: Server, size: int
) -> None:
    """As most do: without reading on, the system would reset the connection under them."""
    memory = resident(keyed)
    for headers, status in (({}, 401), ({"x-api-key": "secret"}, 413 if size > 32 * MIB else 400)):
        with closing(keyed.connect()) as connection:
            connection.request("POST", "/generate", b"x" * size, headers)
            assert connection.getresponse().status == status
    assert resident(keyed) - memory < 8 * MIB


def test_a_client_that_never_stops_sending_is_cut_off(keyed: Server) -> None:
    sent, block = 0, b"x" * (64 << 10)
    with socket.create_connection((keyed.host, keyed.port), timeout=LIMIT) as client:
        client.sendall(CHAT + b"Content-Length: 999999999999\r\n\r\n")
        while sent < 1 << 30 and not _is_reset(client, block):
            sent += len(block)
    assert sent < 128 * MIB
    assert keyed.get("/health").status == 200


def test_a_silent_client_that_was_refused_is_let_go(keyed: Server) -> None:
    with socket.create_connection((keyed.host, keyed.port), timeout=LIMIT) as client:
        client.sendall(CHAT + b"Content-Length: 1000\r\n\r\n")
        while receive(client):
            pass
        began = time.monotonic()
        until(lambda: _is_reset(client))
        assert time.monotonic() - began < 10


def _is_reset(client: socket.socket, data: bytes = b"x") -> bool:
    """Whether the server has closed both directions; if not, this is sent."""
    try:
        client.sendall(data)
    except ConnectionError:
        return True
    return False


# --- How much there is room for ----------------------------------------------------------------


def test_room_that_was_given_back_is_taken_again() -> None:
    room, small = Bodies(10), b" " * (64 << 10)
    one, other = Body(room), Body(room)
    one.append(small + b"12345")
    other.append(small)
    assert other.failure is None
    other.append(b"123456")
    assert one.failure is None
    assert other.failure is not None
    other.append(b"1")
    assert len(other) == len(small)  # nothing after a gap
    one.close()
    third = Body(room)
    third.append(small)
    third.append(b"1234567890")
    assert third.failure is None
    assert third.getfile().read() == small + b"1234567890"
    del third
    assert room.take(10)


def test_all_bodies_share_one_limit(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    body = b'{"model": "m", "messages": "hi"}' + b" " * MIB
    part = CHAT + b"Content-Length: %d\r\n\r\n" % (MIB - 1) + b" " * (MIB - 2)
    with Server(env={"RKLLAMA_MAX_BODY": str(MIB)}) as server:
        with ExitStack() as stack:
            answers = []

            def is_full() -> bool:
                client = socket.create_connection((server.host, server.port), timeout=LIMIT)
                stack.enter_context(closing(client))
                client.sendall(part)
                answers.append(server.post("/v1/chat/completions", body[:MIB]))
                return answers[-1].status == 503

            until(is_full)
            answer = answers[-1]
            assert answer.headers["retry-after"] == "5"
            assert "8388608" in answer.json["error"]["message"]
            assert server.post("/generate", body[:40]).status == 200
        until(lambda: server.post("/generate", body[:MIB]).status == 200)


def test_a_body_needs_no_room_on_the_disk(server: Server, models: Path) -> None:
    """waitress wrote it to the temporary directory, and on a full disk reset the connection."""
    write_model(models / "m.rkllm")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    body = b'{"model": "nothing", "messages": "hi"}' + b" " * (4 * MIB)
    assert server.post("/generate", body).status == 404


# --- What stays of them ------------------------------------------------------------------------


@pytest.mark.serial
def test_memory_is_given_back_after_large_bodies(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm")
    assert_healthy(server)
    before = resident(server)
    picture = "A" * (28 * MIB)
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi", "images": [picture]}]}
    ).encode()

    def ask() -> None:
        for _ in range(3):
            assert server.post("/api/chat", body).status == 400

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(LIMIT)
    until(lambda: resident(server) - before < 40 * MIB)
