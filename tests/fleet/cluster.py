"""A fleet on this machine: boards that are an unchanged `rkllama serve`, and a real HAProxy before them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rkllama.fleet.balancer import read_balancer
from rkllama.fleet.boards import Fleet, read_fleet
from rkllama.fleet.files import find_haproxy
from tests import prepared
from tests.running import free_port
from tests.virtual_npu import library, write_model
from tests.waiting import until

LIMIT = 60.0
_SUBNET = "10.77.13"
_BRIDGE = "rkfleet0"

Model = Mapping[str, Any]
"""Keys of the virtual NPU."""


class BoardProcess:
    """One board: `rkllama serve` over a virtual NPU, with a home and a lock of its own."""

    def __init__(
        self,
        name: str,
        home: Path,
        models: Mapping[str, Model],
        *,
        host: str = "127.0.0.1",
        namespace: str | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.home, self.host = name, home, host
        self.port = free_port() if namespace is None else 8080
        self.trace = home / "trace"
        self._within = ["ip", "netns", "exec", namespace] if namespace else []
        self._arguments = arguments
        self._env = dict(env or {})
        self.log = ""
        for model, keys in models.items():
            write_model(home / "RKLLAMA" / "models" / f"{model}.rkllm", **keys)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        self.process = prepared.Popen(
            [
                *self._within,
                *(sys.executable, "-m", "rkllama", "serve"),
                *("--host", self.host, "--port", str(self.port)),
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "HOME": str(self.home),
                "RKLLAMA_HOME": str(self.home / "RKLLAMA"),
                "RKLLAMA_LOCK": str(self.home / "lock"),
                "RKLLAMA_RKLLM_LIB": library("1.3.0"),
                "RKLLAMA_BOARD_NAME": self.name,
                "RKLLAMA_DRAIN_TIMEOUT": "60s",
                "VNPU_TRACE": str(self.trace),
                **self._env,
            },
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if "listens on" in line:
                break
        else:
            raise AssertionError(f"{self.name} did not start: {self.log}")
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stderr:
                self.log += line

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the server by a signal, and wait until it has ended."""
        self.process.send_signal(number)
        status = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End it, and start it anew."""
        self.end(number)
        self.start()


@contextmanager
def running(boards: Sequence[BoardProcess]) -> Iterator[Sequence[BoardProcess]]:
    """Run boards until the block ends."""
    try:
        for board in boards:
            board.start()
        yield boards
    finally:
        for board in boards:
            process = getattr(board, "process", None)
            if process is not None and process.poll() is None:
                board.end(signal.SIGKILL)


@contextmanager
def namespaces(names: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Network namespaces with an address each, on a bridge of this machine; needs root.

    Yields the name and the address of each.
    """

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with ExitStack() as stack:
        ip("link", "add", _BRIDGE, "type", "bridge")
        stack.callback(ip, "link", "delete", _BRIDGE)
        ip("address", "add", f"{_SUBNET}.1/24", "dev", _BRIDGE)
        ip("link", "set", _BRIDGE, "up")
        found = []
        for number, name in enumerate(names):
            space, here, there = f"rkfleet-{name}", f"rkf-{number}", f"rkp-{number}"
            ip("netns", "add", space)
            stack.callback(ip, "netns", "delete", space)
            ip("link", "add", here, "type", "veth", "peer", "name", there)
            stack.callback(ip, "link", "delete", here)  # that of its namespace comes later
            ip("link", "set", here, "master", _BRIDGE, "up")
            ip("link", "set", there, "netns", space)
            address = f"{_SUBNET}.{10 + number}"
            ip("-n", space, "address", "add", f"{address}/24", "dev", there)
            ip("-n", space, "link", "set", there, "up")
            ip("-n", space, "link", "set", "lo", "up")
            found.append((space, address))
        yield found


class Balancer:
    """A HAProxy with the configuration that `rkllama fleet init` writes."""

    def __init__(
        self, directory: Path, boards: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        """`boards` are as on the command line: NAME=HOST:PORT; `env` is that of commands."""
        self._env = env
        self.directory = directory
        self._boards = boards
        self.port = free_port()

    def __enter__(self) -> Balancer:
        self.prepare()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def prepare(self) -> None:
        """Write the files, with ports that are free."""
        directory = f"--directory={self.directory}"
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "boards.toml").write_text(
            f'statistics = "127.0.0.1:{free_port()}"\npeers = "127.0.0.1:{free_port()}"\n'
            '[[board]]\naddress = "127.0.0.1:1"\n'
        )
        listen = f"--listen=127.0.0.1:{self.port}"
        rkllama("fleet", "init", directory, listen, *self._boards, env=self._env)

    def start(self) -> None:
        """Start HAProxy, and wait until it has seen all boards that are there."""
        program = find_haproxy()
        assert program is not None
        self.process = subprocess.Popen(
            [program, "-Ws", "-f", str(self.directory / "haproxy.cfg")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log = ""
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        wait_until(lambda: self.ups() == len(self._boards), "not all boards are up")

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log += line

    @property
    def fleet(self) -> Fleet:
        """What is configured."""
        return read_fleet(str(self.directory))

    def ups(self) -> int:
        """How many boards get requests."""
        state = read_balancer(self.fleet)
        return 0 if state is None else sum(state.up.values())

    def reload(self) -> None:
        """Have HAProxy read its configuration again, as systemd does."""
        self.process.send_signal(signal.SIGUSR2)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    # --- Requests --------------------------------------------------------------------------------

    def ask(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request whose answer is read whole; a GET without a body."""
        return ask(self.port, path, body, headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a request: the status, the body, and when each line of it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    """Whether the connection ended as HTTP has it."""
    moments: tuple[float, ...] = ()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(
    port: int,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """Send a request; one that breaks off is an answer that is not whole."""
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT * 4)
    data, moments = b"", []
    try:
        try:
            if body is None:
                connection.request("GET", path, headers=dict(headers or {}))
            else:
                named = {"Content-Type": "application/json", **(headers or {})}
                connection.request("POST", path, json.dumps(body), named)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {}, repr(error).encode(), whole=False)
        names = {name.lower(): value for name, value in response.getheaders()}
        try:
            while line := response.readline():
                data += line
                moments.append(time.perf_counter())
        except (OSError, http.client.HTTPException):
            return Answer(response.status, names, data, whole=False)
        return Answer(response.status, names, data, whole=True, moments=tuple(moments))
    finally:
        connection.close()


def rkllama(
    *arguments: str, expect: int = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, as a user does, with `env` besides the environment of the test."""
    done = prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == expect, f"{done.stdout}{done.stderr}"
    return done


wait_until = partial(until, seconds=LIMIT, each=0.05)
"""Each look is a request or a command."""
