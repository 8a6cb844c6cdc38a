"""llama-server as a process: found, started, waited for, asked over HTTP, and never left behind.

It listens on a unix socket that nobody else can open, where its build knows such (`--host FILE.sock`),
else on a loopback port that the kernel chooses; both ask for a random key. It ends with the process that
started it, however that ends, and that process ends with it, in the same way: so its end is explained,
counted and mended where a runtime's is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import http.client
import os
import re
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import BackendMissing, LoadFailed, RuntimeFailed
from .llama_http import Client

_POLL = 0.02
"""Seconds between two questions whether it is ready; its end is noticed at once."""
_STOP_GRACE = 2.0
"""Seconds that it may take to end by itself."""
_CRASH_GRACE = 5.0
"""Seconds in which a process whose connection broke has ended, if it was that."""
_NOT_PASSED = re.compile(r"(RKLLAMA|HF|HUGGING_?FACE|LLAMA)_", re.IGNORECASE)
"""Variables that the program does not get: ours, and what would set its arguments. Secrets are not even in
this process's environment; see runner.environment."""

# PR_SET_PDEATHSIG outlasts the exec. Its parent may have ended before it was set.
_LAUNCH = """import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


class Ended(Exception):
    """The program ended before it was ready; `status` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it ended with {status}")
        self.status = status


def find_program(name: str) -> str:
    """Return the path of the program that `name` means. Raises BackendMissing."""
    if name.startswith("-"):
        raise BackendMissing(
            "the Modelfile has arguments for llama-server, but no program is set",
            hint="Set llama_server (RKLLAMA_LLAMA_SERVER), or begin the parameter with a program.",
        )
    path = os.path.expanduser(name)
    if (found := shutil.which(path)) is not None:
        return os.path.abspath(found)
    problem = "is not executable" if os.path.isfile(path) else "is not there"
    raise BackendMissing(
        f"llama-server cannot be started: {path} {problem}",
        hint="Set llama_server (RKLLAMA_LLAMA_SERVER, or in the model's Modelfile) to the path of one, or "
        "unset it to run the model on the CPU.",
    )


def read_help(program: str) -> str:
    """Return what the program says about its arguments. Raises LoadFailed where it cannot run here."""
    done = subprocess.run(
        _launching(program, ["--help"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        check=False,
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        said = (text.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise LoadFailed(
            f"{program} does not run here: {said}",
            hint="Use a llama-server that was built for this machine, with its libraries.",
            log=text[-4096:],
        )
    return text


def _launching(program: str, arguments: Sequence[str]) -> list[str]:
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
    return [*launcher, program, *arguments]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not _NOT_PASSED.match(name)}


class LlamaServer:
    """A running llama-server; `client` asks it."""

    def __init__(self, program: str, help_text: str, arguments: Sequence[str]) -> None:
        """Start it; its output goes where this process's goes. Raises LoadFailed."""
        self._address = _Socket() if ".sock" in help_text else _Port()
        self._key = secrets.token_urlsafe(32)
        self.client = Client(lambda: self._address.connect(self._popen.pid), self._key)
        self._guarded = self._stopping = False
        self._ended = threading.Event()
        try:
            self._start(program, arguments)
        except OSError as error:
            self._address.forget()
            raise LoadFailed(f"{program} cannot be started: {error}") from None
        threading.Thread(target=self._watch, name="llama-server", daemon=True).start()

    def _start(self, program: str, arguments: Sequence[str]) -> None:
        """Start the process. Its key is in a file without a name: a command line is for all to read."""
        key_file = os.memfd_create("key")
        try:
            os.write(key_file, f"{self._key}\n".encode())
            own = [*self._address.arguments, "--api-key-file", f"/dev/fd/{key_file}"]
            self._popen = subprocess.Popen(
                _launching(program, [*own, *arguments]),
                stdin=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=(key_file,),
            )
        finally:
            os.close(key_file)

    # --- Its life ------------------------------------------------------------------------------

    def wait_ready(self) -> None:
        """Wait until the model is loaded, however long it takes. Raises Ended."""
        try:
            while not self._is_ready():
                if self._ended.wait(_POLL):
                    raise Ended(self._popen.returncode)
        finally:
            self._address.forget()

    def _is_ready(self) -> bool:
        try:
            with self.client.request("GET", "/health") as response:
                return response.status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def guard(self) -> None:
        """From now on end this process when the program ends: nothing is left that it could do."""
        self._guarded = True
        if self._ended.is_set():
            end_like(self._popen.returncode)

    def _watch(self) -> None:
        status = self._popen.wait()
        self._ended.set()
        if self._guarded and not self._stopping:
            end_like(status)

    def stop(self) -> None:
        """End it, by force where it takes too long."""
        self._stopping = True
        self._address.forget()
        self._popen.terminate()
        if not self._ended.wait(_STOP_GRACE):
            self._popen.kill()
            self._ended.wait(_STOP_GRACE)

    # --- Requests ------------------------------------------------------------------------------

    def ask(self, path: str, body: object = None) -> dict[str, Any]:
        """Return the JSON that answers a GET, with a `body` a POST. Raises RuntimeFailed."""
        try:
            return self.client.fetch(path, body)
        except (OSError, http.client.HTTPException) as error:
            self.lost(error)

    def lost(self, error: Exception | None = None) -> NoReturn:
        """A connection broke. Raises RuntimeFailed, unless the program ended, and this process with it."""
        if self._ended.wait(_CRASH_GRACE):
            end_like(self._popen.returncode)
        raise RuntimeFailed(
            f"llama-server broke an answer off ({error or 'without a reason'})",
            hint="Its log may tell why; another build of it may do better.",
        )


def end_like(status: int) -> NoReturn:
    """End this process as another one ended: by the same signal, or with the same exit status."""
    if status < 0:
        faulthandler.disable()
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        os.kill(os.getpid(), -status)
    os._exit(max(1, status))


# --- Where it listens --------------------------------------------------------------------------


class _Socket:
    """A unix socket. Its name goes as soon as it is there: only who holds the file can connect then."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="rkllama-")
        self._path = os.path.join(self._directory, "s.sock")
        self._file: int | None = None

    @property
    def arguments(self) -> list[str]:
        """What tells llama-server to listen on it."""
        return ["--host", self._path]

    def connect(self, _pid: int) -> socket.socket:
        """Return a connection. Raises OSError."""
        if self._file is None:
            self._file = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
            self.forget()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"/proc/self/fd/{self._file}")
        except BaseException:
            connection.close()
            raise
        return connection

    def forget(self) -> None:
        """Remove its name."""
        shutil.rmtree(self._directory, ignore_errors=True)


class _Port:
    """A port of the loopback that the kernel chooses, for builds before March 2025."""

    arguments = ("--host", "127.0.0.1", "--port", "0")

    def __init__(self) -> None:
        self._port: int | None = None

    def connect(self, pid: int) -> socket.socket:
        """Return a connection. Raises OSError."""
        if self._port is None:
            self._port = _listening_port(pid)
        return socket.create_connection(("127.0.0.1", self._port))

    def forget(self) -> None:
        """Nothing lies anywhere."""


def _listening_port(pid: int) -> int:
    """Return the loopback port on which a process listens. Raises OSError where there is none."""
    sockets = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    with open(f"/proc/{pid}/net/tcp") as stream:
        for line in stream.readlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                return int(fields[1].rpartition(":")[2], 16)
    raise ConnectionRefusedError(f"process {pid} does not listen yet")
