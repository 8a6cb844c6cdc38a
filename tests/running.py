"""A real `rkllama serve` in a process of its own, and requests to it over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import prepared

LIMIT = 30.0
"""Seconds after which a test fails instead of hanging."""


def free_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]


def _renders_templates(pid: int) -> bool:
    """Whether a child of a server is the process that renders chat templates."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return b"rkllama.engine.template_process" in stream.read()
    except OSError:
        return False


class Server:
    """`rkllama serve` on a free port; the environment is the test's own."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._env = env
        self.log: list[str] = []

    def __enter__(self) -> Server:
        self.environment = {**os.environ, **(self._env or {})}
        self.process = prepared.Popen(
            [sys.executable, "-m", "rkllama", "serve", "--port", "0", *self._arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"listens on http://(\S+):(\d+)", line):
                self.host, self.port = found[1].strip("[]"), int(found[2])
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(self.log)}")
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        return self

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._reader.join(LIMIT)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server by a signal; answers its exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}:{self.port}"

    def children(self) -> list[int]:
        """The process ids of the models in memory."""
        task = f"/proc/{self.process.pid}/task"
        found = []
        for thread in os.listdir(task):
            with (
                contextlib.suppress(FileNotFoundError),  # the thread has ended meanwhile
                open(f"{task}/{thread}/children") as stream,
            ):
                found += [int(pid) for pid in stream.read().split()]
        return [pid for pid in found if not _renders_templates(pid)]

    def connect(self) -> http.client.HTTPConnection:
        """A connection; close it."""
        return http.client.HTTPConnection(self.host, self.port, timeout=LIMIT)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = self.connect()
        try:
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """A GET."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: object = None, **headers: str) -> Reply:
        """A POST."""
        return self.request("POST", path, {} if body is None else body, headers)

    def stream(self, path: str, body: object) -> Stream:
        """A POST whose answer is read line by line, as it comes."""
        return Stream(self, path, body)


def models_of(server: Server) -> Path:
    """The models directory of a server."""
    return Path(server.get("/api/version").json["models"])


class Stream:
    """An answer that is being read; closing it is the client going away."""

    def __init__(self, server: Server, path: str, body: object) -> None:
        data = json.dumps(body).encode()
        self.socket = socket.create_connection((server.host, server.port), timeout=LIMIT)
        self.socket.sendall(
            f"POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> int:
        """Wait for the header; answers the status."""
        status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass
        return status

    def __iter__(self) -> Iterator[Any]:
        for line in self._file:
            if line.strip():
                yield json.loads(line)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()
