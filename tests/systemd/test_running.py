"""The real server as systemd runs it: a socket handed over, readiness, signs of life, an end when idle."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import LIMIT, Server
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration


class Manager:
    """The socket on which a service tells how it is."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(LIMIT)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def next(self, timeout: float = LIMIT) -> str | None:
        """The first line of the next message; None where none comes in time."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(4096).decode().partition("\n")[0]
        except TimeoutError:
            return None

    def forget(self) -> None:
        """Drop what has come."""
        while self.next(0.001) is not None:
            pass


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager."""
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


class Activated:
    """A listening socket that outlives the servers on it, as one of systemd's does."""

    def __init__(self, *arguments: str, manager: Manager | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._arguments = arguments
        self._env = {"NOTIFY_SOCKET": manager.path} if manager else {}

    def start(self) -> subprocess.Popen[str]:
        """A server that is handed the socket over."""
        fd = self.listener.fileno()
        program = (
            f"import os; os.dup2({fd}, 3); os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(os.sys.executable, [os.sys.executable, '-m', 'rkllama', 'serve', "
            f"*{self._arguments!r}])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=(fd, *({3} - {fd})),
            env={**os.environ, "LISTEN_FDS": "1", **self._env},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> socket.socket:
        """A connection with a request on it, which nobody may have accepted yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        connection.sendall(
            b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        return connection


def status(connection: socket.socket) -> bytes:
    """The status line of the answer."""
    with connection, connection.makefile("rb") as stream:
        return stream.readline()


def test_what_came_before_the_start_is_answered(models: Path, manager: Manager) -> None:
    activated = Activated(manager=manager)
    with activated.listener:
        early = [activated.ask() for _ in range(5)]
        server = activated.start()
        assert manager.next() == "READY=1"
        assert [status(connection) for connection in early] == [b"HTTP/1.1 200 OK\r\n"] * 5
        server.terminate()
        assert manager.next() == "STOPPING=1"
        said = server.communicate(timeout=LIMIT)[1]
        assert server.returncode == 0
    assert f"RKLLama listens on http://127.0.0.1:{activated.port}\n" in said
    # The environment of tests has port 0.
    assert (
        f"listening on http://127.0.0.1:{activated.port}, as the socket unit of systemd says, and not on "
        "127.0.0.1:0, as the setting host does" in said
    )


def test_the_address_that_was_asked_for_is_no_news(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activated = Activated("--exit-idle", "1s")
    monkeypatch.setenv("RKLLAMA_HOST", f"localhost:{activated.port}")
    with activated.listener:
        assert "as the socket unit" not in activated.start().communicate(timeout=LIMIT)[1]


def test_what_comes_once_a_server_has_decided_to_end_is_the_next_ones(models: Path) -> None:
    activated = Activated("--exit-idle", "1s")
    with activated.listener:
        ending = activated.start()
        assert ending.stderr is not None
        for line in ending.stderr:
            if "the server ends" in line:
                break
        late = [activated.ask() for _ in range(5)]
        ending.communicate(timeout=LIMIT)
        assert ending.returncode == 0
        server = activated.start()
        assert [status(connection) for connection in late] == [b"HTTP/1.1 200 OK\r\n"] * 5
        server.terminate()
        server.communicate(timeout=LIMIT)


def test_a_server_without_requests_ends(models: Path) -> None:
    with Server("--exit-idle", "1s") as server:
        assert server.process.wait(LIMIT) == 0
    assert any("no request for 1 s: the server ends" in line for line in server.log)


def test_connections_that_are_kept_open_do_not_keep_it(models: Path) -> None:
    with Server("--exit-idle", "1s") as server:
        connection = server.connect()
        connection.request("GET", "/api/tags")
        connection.getresponse().read()
        assert server.process.wait(LIMIT) == 0
        connection.close()


def test_a_model_in_memory_keeps_it(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    with Server("--exit-idle", "1s", "--keep-alive", "3s") as server:
        assert server.post("/api/generate", {"model": "m", "prompt": "hi"}).status == 200
        began = time.monotonic()
        assert server.process.wait(LIMIT) == 0
        assert time.monotonic() - began > 2.9  # until the model went, and not a second long
    assert [line for line in server.log if "unloaded m" in line]


def test_a_model_that_stays_for_ever_keeps_it_for_ever(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    with Server("--exit-idle", "1s", "--keep-alive", "-1") as server:
        assert server.post("/api/generate", {"model": "m", "prompt": "hi"}).status == 200
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(3.0)
        assert server.post("/api/generate", {"model": "m", "keep_alive": 0}).status == 200
        assert server.process.wait(LIMIT) == 0


def test_an_answer_that_takes_longer_keeps_it(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=6, token_us=400_000)
    with Server("--exit-idle", "1s", "--keep-alive", "0") as server:
        with server.stream("/api/generate", {"model": "m", "prompt": "hi"}) as stream:
            assert stream.status() == 200
            assert [*stream][-1]["eval_count"] == 6
        assert server.process.wait(LIMIT) == 0


def test_a_request_that_comes_slowly_keeps_it(models: Path) -> None:
    with Server("--exit-idle", "1s") as server:
        with socket.create_connection((server.host, server.port), timeout=LIMIT) as connection:
            connection.sendall(
                b"POST /api/show HTTP/1.0\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"
            )
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(3.0)
            connection.sendall(b'"model":"x"}')
            assert connection.recv(12) == b"HTTP/1.0 404"
        assert server.process.wait(LIMIT) == 0


def test_signs_of_life_come_until_the_loop_stands_still(models: Path, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    with Server(env=env) as server:
        assert manager.next() == "WATCHDOG=1" or manager.next() == "WATCHDOG=1"
        assert manager.next() == "WATCHDOG=1"
        server.process.send_signal(signal.SIGSTOP)
        manager.forget()
        assert manager.next(2.0) is None
        server.process.send_signal(signal.SIGCONT)
        assert manager.next() == "WATCHDOG=1"
        assert server.stop() == 0


_HANGING = """
import os, sys, threading, time
from rkllama import serve
from rkllama.config import load_settings
from rkllama.server.app import Application

# Called by the loop before the body of a request is read.
Application.admits = lambda self, environ: time.sleep(3600)
serve.serve(load_settings(), ready=lambda url: print(url, flush=True))
"""


def test_a_loop_that_hangs_in_a_request_gives_none(models: Path, manager: Manager) -> None:
    """All other threads live on: a sign of life from one of them would prove nothing."""
    env = {**os.environ, "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    server = subprocess.Popen(
        [sys.executable, "-c", _HANGING], stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        assert manager.next() == "READY=1"
        assert manager.next() == "WATCHDOG=1"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(
                b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
            )
            while manager.next(2.0) is not None:
                pass
            assert manager.next(1.0) is None
    finally:
        server.kill()
        server.communicate(timeout=LIMIT)


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd's tools")
def test_systemd_itself_hands_the_socket_over(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}"]
    for name in ("HOME", "RKLLAMA_LOCK", "RKLLAMA_HOST"):
        command += [f"--setenv={name}={os.environ[name]}"]
    server = subprocess.Popen(
        [*command, sys.executable, "-m", "rkllama", "serve", "--exit-idle", "1s"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    assert "Listening on" in server.stderr.readline()
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        connection.sendall(b"GET /api/tags HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.0 200 OK"
    server.communicate(timeout=LIMIT)
    assert server.returncode == 0
