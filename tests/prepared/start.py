"""Processes of `python -m rkllama` that start in a tenth of the time: half of what tests take is imports.

A process beside the tests (parent.py) has imported the modules, and does nothing else but to fork. What comes
of that is a process like one that was started anew: a child of the test, with its own descriptors,
environment, directory, limits and session, which runs `rkllama/__main__.py` and ends as Python does. Only an
import that a module has forgotten is not missed in it. With RKLLAMA_TEST_WHOLE_STARTS set nothing is
prepared, nor in tests marked `serial`, which measure time, nor where a test says more of a start than is
known here.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

RKLLAMA = [sys.executable, "-m", "rkllama"]
_whole = "RKLLAMA_TEST_WHOLE_STARTS" in os.environ
_UNUSUAL = {"preexec_fn", "pass_fds", "executable", "shell", "uid", "gid", "gids"}


class Popen(subprocess.Popen[Any]):
    """Python's Popen; `terminal` makes the standard input the terminal that controls the process."""

    def __init__(self, command: Sequence[Any], *, terminal: bool = False, **options: Any) -> None:
        self._terminal = terminal
        super().__init__(command, **options)

    def _execute_child(self, *arguments: Any) -> None:
        asked = _signature().bind(self, *arguments).arguments
        env = os.environ if asked["env"] is None else asked["env"]
        if not _can_be_prepared(asked, env):
            if self._terminal:
                asked["preexec_fn"] = _take_terminal
            super()._execute_child(*[*asked.values()][1:])  # type: ignore[misc]
            return
        request = {
            "arguments": [os.fsdecode(word) for word in asked["args"][3:]],
            "directory": os.path.abspath(asked["cwd"] or os.getcwd()),
            "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
            "session": bool(asked["start_new_session"]),
            "terminal": self._terminal,
            "umask": _umask(),
            "limits": [(one, resource.getrlimit(one)) for one in _LIMITS],
        }
        given = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        self.pid = _parent().fork(
            request, [number if fd == -1 else fd for number, fd in enumerate(given)]
        )
        self._child_created = True
        self._close_pipe_fds(*map(asked.__getitem__, _PIPES))  # type: ignore[attr-defined]


def _umask() -> int:
    with open("/proc/self/status") as stream:  # os.umask would change it for a moment
        return next(int(line.split()[1], 8) for line in stream if line.startswith("Umask"))


_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


@contextmanager
def whole() -> Iterator[None]:
    """Prepare nothing meanwhile."""
    global _whole
    before, _whole = _whole, True
    try:
        yield
    finally:
        _whole = before


def run(
    command: Sequence[Any],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Python's run."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            said, complained = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, said, complained)
    if check:
        done.check_returncode()
    return done


class _Parent:
    """The process that forks."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.prepared.parent", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "HOME": "/nonexistent", **_OWN},
                pass_fds=[theirs.fileno()],
                cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            )
        self.pid = self._process.pid
        self._answers = self._socket.makefile("rb")
        atexit.register(self.end)

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Have a process made; answers its id."""
        body = json.dumps(request).encode()
        socket.send_fds(self._socket, [len(body).to_bytes(4, "big")], streams)
        self._socket.sendall(body)
        return int(self._answers.readline())

    def end(self) -> None:
        """Close the connection, which ends the process, and wait for that."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._answers.close()
        self._socket.close()
        self._process.wait()


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def own_processes() -> set[int]:
    """The process that forks, once something has been started by it: a child of whoever runs the tests."""
    return {_parent().pid} if _parent.cache_info().currsize else set()


@functools.cache
def _signature() -> inspect.Signature:
    return inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C works


def _can_be_prepared(asked: Mapping[str, Any], env: Mapping[Any, Any]) -> bool:
    if _whole or any(asked[name] for name in _UNUSUAL & asked.keys()) or not asked["close_fds"]:
        return False
    if "_RKLLAMA_COMPLETE" in env:  # it takes a package away that must not have been imported
        return False
    return [*map(str, asked["args"][:3])] == RKLLAMA and _pythons_own(env) == _OWN


def _pythons_own(env: Mapping[Any, Any]) -> dict[str, str]:
    """The variables that Python reads at its start."""
    decoded = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
    return {name: decoded[name] for name in decoded if name.startswith(("PYTHON", "LC_", "LANG"))}


_OWN = _pythons_own(os.environ)
