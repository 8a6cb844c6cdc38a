"""The CLI's HTTP client, against sockets that answer whatever a test tells them to, and waitress."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import waitress.server

from rkllama.client import http as http1
from rkllama.errors import InvalidRequest, ServerUnreachable
from rkllama.files import IMPORT_ROOT
from tests.cases import cases

Serve = Callable[..., int]


class Scripted:
    """A server that reads one request, sends the given pieces and hangs up."""

    def __init__(self, *pieces: bytes, host: str = "127.0.0.1", read_body: bool = True) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.request = b""
        self.hung_up = threading.Event()
        self.go_on = threading.Event()
        self._pieces = pieces
        self._read_body = read_body
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            self._read_request(connection)
            for piece in self._pieces:
                if piece == WAIT:
                    assert self.go_on.wait(10)
                elif piece == UNTIL_GONE:
                    connection.settimeout(10)
                    if connection.recv(1) == b"":
                        self.hung_up.set()
                else:
                    connection.sendall(piece)

    def _read_request(self, connection: socket.socket) -> None:
        while b"\r\n\r\n" not in self.request:
            self.request += connection.recv(65536)
        head, _, body = self.request.partition(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        while self._read_body and length and len(body) < int(length[0][16:]):
            body += connection.recv(65536)
        self.request = head + b"\r\n\r\n" + body

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


WAIT = b"<wait>"
UNTIL_GONE = b"<until gone>"
OK = b"HTTP/1.0 200 OK\r\n"


def ask(server: Scripted, path: str = "/", **values: Any) -> http1.Response:
    return http1.request("127.0.0.1", server.port, "GET", path, **values)


def test_the_request_as_it_goes_out() -> None:
    server = Scripted(OK + b"Content-Length: 2\r\n\r\nhi")
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
    with http1.request(
        "127.0.0.1", server.port, "POST", "/api/x?a=b", b'{"a":1}', headers
    ) as found:
        assert found.read() == b"hi"
    server.join()
    assert server.request.split(b"\r\n") == [
        b"POST /api/x?a=b HTTP/1.0",
        b"Host: 127.0.0.1:%d" % server.port,
        b"Content-Type: application/json",
        b"Authorization: Bearer key",
        b"Content-Length: 7",
        b"Connection: close",
        b"",
        b'{"a":1}',
    ]


def test_status_and_headers() -> None:
    server = Scripted(b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a:2 \r\nEmpty:\r\n\r\n", b"no")
    with ask(server) as response:
        assert response.status == 404
        assert response.headers == {"x-a": "1, 2", "empty": ""}
        assert response.read() == b"no"
    server.join()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    server = Scripted(OK + b"\r\n", b"one ", b"two")
    with ask(server) as response:
        assert response.read() == b"one two"


def test_what_follows_the_announced_length_is_not_the_body() -> None:
    server = Scripted(OK + b"Content-Length: 3\r\n\r\nonemore", b"and more")
    with ask(server) as response:
        assert response.read() == b"one"
        assert response.read() == b""


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(status: int) -> None:
    server = Scripted(b"HTTP/1.0 %d None\r\nContent-Length: 5\r\n\r\n" % status)
    with ask(server) as response:
        assert response.read() == b""


def test_interim_answers_are_passed_over() -> None:
    server = Scripted(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"\r\nx"
    )
    with ask(server) as response:
        assert (response.status, response.headers, response.read()) == (200, {}, b"x")


def test_lines_arrive_one_by_one_however_they_are_cut() -> None:
    server = Scripted(OK + b"\r\n{1}\n{", b"2", b"}\r\n\n{3}\n", WAIT, b"{4}")
    with ask(server) as response:
        lines = iter(response)
        assert [next(lines), next(lines), next(lines)] == [b"{1}", b"{2}", b"{3}"]
        server.go_on.set()  # only now: the first three did not wait for the rest
        assert list(lines) == [b"{4}"]


def test_many_lines_in_one_piece() -> None:
    expected = [b'{"n":%d}' % n for n in range(20_000)]
    server = Scripted(OK + b"\r\n" + b"\n".join(expected) + b"\n")
    with ask(server) as response:
        assert list(response) == expected


@pytest.mark.parametrize("use", [list, http1.Response.read])
def test_a_truncated_body_is_an_error(use: Callable[[http1.Response], object]) -> None:
    server = Scripted(OK + b"Content-Length: 100\r\n\r\n{1}\n{2")
    with ask(server) as response, pytest.raises(ServerUnreachable, match=r"94 bytes .* missing"):
        use(response)


@cases(
    ("answer", "reason"),
    [
        (b"", "without a response"),
        (b"HTTP/1.0 200 OK\r\nA: b", "without a response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 abc\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 999 Odd\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 200 OK\r\nno colon\r\n\r\n", "malformed header"),
        (b"HTTP/1.0 200 OK\r\nA: b\r\n folded\r\n\r\n", "malformed header"),
        (b"HTTP/1.0 200 OK\r\nA : b\r\n\r\n", "malformed header"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed length"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "malformed length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "is chunked"),
        (b"HTTP/1.0 200 OK\r\nA: " + b"b" * 200_000, "does not speak HTTP"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, reason: str) -> None:
    with pytest.raises(ServerUnreachable, match=reason):
        ask(Scripted(answer))


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINE_LIMIT", 100_000)
    server = Scripted(OK + b"\r\n", b"x" * 300_000, UNTIL_GONE)
    with ask(server) as response, pytest.raises(ServerUnreachable, match="line of more than"):
        list(response)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerUnreachable, match="refused") as caught:
        http1.request("127.0.0.1", port, "GET", "/")
    assert caught.value.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "a..b"])
def test_a_host_that_does_not_exist(host: str) -> None:
    with pytest.raises(ServerUnreachable):
        http1.request(host, 80, "GET", "/")


def test_a_silent_server_is_given_up_when_a_limit_was_set() -> None:
    server = Scripted(UNTIL_GONE)
    with pytest.raises(ServerUnreachable, match=r"nothing for 0\.05 seconds"):
        ask(server, timeout=0.05)
    assert server.hung_up.wait(10)


def test_silence_inside_the_body() -> None:
    server = Scripted(OK + b"\r\nx", UNTIL_GONE)
    with (
        ask(server, timeout=0.05) as response,
        pytest.raises(ServerUnreachable, match="nothing for"),
    ):
        response.read()


def test_closing_hangs_up() -> None:
    server = Scripted(OK + b"\r\n{1}\n", UNTIL_GONE)
    response = ask(server)
    assert next(iter(response)) == b"{1}"
    response.close()
    assert server.hung_up.wait(10)
    response.close()  # a second time does no harm


def test_closing_ends_another_threads_wait() -> None:
    server = Scripted(OK + b"\r\n{1}\n", UNTIL_GONE)
    response = ask(server)
    lines = iter(response)
    next(lines)
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(list(lines))
        except ServerUnreachable as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    response.close()
    waiting.join(10)
    assert len(outcome) == 1


def test_a_refusal_before_the_whole_body_is_read_is_heard() -> None:
    refusal = b"HTTP/1.0 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    server = Scripted(refusal, UNTIL_GONE, read_body=False)
    with http1.request("127.0.0.1", server.port, "POST", "/", b"x" * 100_000) as response:
        assert (response.status, response.read()) == (413, b"no")


def test_ipv6() -> None:
    try:
        server = Scripted(OK + b"\r\nsix", host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with http1.request("::1", server.port, "GET", "/") as response:
        assert response.read() == b"six"
    server.join()
    assert b"\r\nHost: [::1]:%d\r\n" % server.port in server.request
    with pytest.raises(ServerUnreachable, match=r"http://\[::1\]:"):
        http1.request("::1", server.port, "GET", "/")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/é", {}),
        ("/", {"Authorization": "Bearer a\r\nX: y"}),
        ("/", {"Authorization": "Bearer é"}),
        ("/", {"A\0": "b"}),
    ],
)
def test_nothing_can_be_smuggled_into_a_request(path: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        http1.request("127.0.0.1", 9, "GET", path, headers=headers)


@pytest.fixture
def waitress_port() -> Iterator[int]:
    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/stream":
            start_response("200 OK", [("Content-Type", "application/x-ndjson")])
            return (b'{"n":%d}\n' % n for n in range(3))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return iter([body])

    server = waitress.server.create_server(app, host="127.0.0.1", port=0)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            server.asyncore.loop(timeout=30, map=server._map, count=1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(server.effective_port)
    # Nothing is closed before those who use it have ended.
    stopping.set()
    server.pull_trigger()
    thread.join(10)
    server.task_dispatcher.shutdown()
    for channel in list(server.active_channels.values()):
        channel.handle_close()
    server.close()


def test_waitress_streams_and_answers(waitress_port: int) -> None:
    with http1.request("127.0.0.1", waitress_port, "GET", "/stream") as response:
        assert list(response) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    body = b"x" * 3_000_000
    with http1.request("127.0.0.1", waitress_port, "POST", "/echo", body) as response:
        assert response.read() == body


@pytest.mark.integration
def test_it_imports_next_to_nothing() -> None:
    code = f"import sys; sys.path.insert(0, {IMPORT_ROOT!r}); import rkllama.client.http; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "rkllama.client.http" in output
    assert not {"http.client", "email", "ssl", "dataclasses", "inspect"} & set(output)
