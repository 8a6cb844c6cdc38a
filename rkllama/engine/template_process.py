"""Renders the chat templates that come with models and requests, each in a process of its own.

Such a template is foreign code: it can loop forever, double a text sixty times, or compute with a number
of a million digits. A long operation in C holds the interpreter's lock, so that nothing inside this process
can end it, and a list of the operations that can become long is never complete. The kernel needs no list:
the child (`python -m rkllama.engine.template_process`) has limits of CPU time for each conversation and of
memory. What it may read is Jinja's sandbox's affair.

A child starts once for a template, in about the time that importing Jinja takes, and then serves one
conversation after the other; no two templates share one. A child that meets a limit is not used again.
"""

from __future__ import annotations

import atexit
import json
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from ..chat.renderer import BrokenTemplate, RenderError, TooCostly
from ..errors import RKLLamaError
from ..files import IMPORT_ROOT
from ..runner.environment import for_interpreter

if TYPE_CHECKING:
    from subprocess import Popen

MAX_SECONDS = 2.0
"""CPU time for one conversation."""
MAX_BYTES = 128 << 20
"""Memory of a child, the interpreter included."""
MAX_PROMPT = 16 << 20
"""Characters of a prompt: more than any model's context takes."""
_MAX_BUSY = 2
_MAX_IDLE = 2

_OUT_OF_MEMORY = 3
"""The exit status of a child that meets the limit of memory."""
_FAILURES = (BrokenTemplate, RenderError, TooCostly)
"""A reply begins with a byte: 0 for a text, n for the n-th of these."""

_places = threading.BoundedSemaphore(_MAX_BUSY)
_lock = threading.Lock()
_idle: list[_Child] = []
"""The children that wait for their next conversation, the one that was used last at the end."""


def render(source: str, variables: Mapping[str, Any]) -> str:
    """A Renderer for templates that cannot be trusted."""
    try:
        request = json.dumps(variables, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except RecursionError:
        raise RenderError("a value in the conversation is nested too deeply") from None
    with _places:
        child = _take(source)
        try:
            reply = child.ask(request)
        except BaseException:
            child.end()
            raise
        _put_back(child)
    text = reply[1:].decode("utf-8", "surrogatepass")
    if reply[0]:
        raise _FAILURES[reply[0] - 1](text)
    return text


def _take(source: str) -> _Child:
    with _lock:
        child = next((child for child in reversed(_idle) if child.source == source), None)
        if child is not None:
            _idle.remove(child)
    if child is not None and not child.is_alive():
        child.end()
        child = None
    try:
        return child or _Child(source)
    except OSError as error:
        raise RKLLamaError(f"no process can be started for a chat template: {error}") from None


def _put_back(child: _Child) -> None:
    with _lock:
        _idle.append(child)
        surplus = _idle[:-_MAX_IDLE]
        del _idle[:-_MAX_IDLE]
    for child in surplus:
        child.end()


@atexit.register
def end_idle() -> None:
    """End the children that have nothing to do."""
    with _lock:
        while _idle:
            _idle.pop().end()


class _Child:
    """The process for the template `source`."""

    def __init__(self, source: str) -> None:
        import subprocess

        self.source = source
        self._process: Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", __name__, str(MAX_SECONDS), str(MAX_BYTES), str(MAX_PROMPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=IMPORT_ROOT,  # where `-m` looks first
            env=for_interpreter(),
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent only
        )
        self._unsent = [source.encode("utf-8", "surrogatepass")]

    def ask(self, request: bytes) -> bytes:
        """The reply to a request. Raises TooCostly where the child meets a limit."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            for data in (*self._unsent, request):
                write_block(self._process.stdin, data)
            self._unsent = []
            return read_block(self._process.stdout)
        except (EOFError, BrokenPipeError):
            status = self._process.wait()
        if status == -signal.SIGPROF:
            raise TooCostly(f"it did not finish within {MAX_SECONDS:g} s")
        if status == _OUT_OF_MEMORY:
            raise TooCostly(f"it needs more than {MAX_BYTES >> 20} MB")
        if status in (-signal.SIGSEGV, -signal.SIGABRT):
            raise TooCostly("it crashes the process that renders it")
        raise RKLLamaError(f"the process that renders chat templates ended with status {status}")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # which closes the pipes and waits
            pass


def write_block(stream: IO[bytes], data: bytes) -> None:
    """Write bytes so that `read_block` finds their end."""
    stream.write(len(data).to_bytes(8, "big"))
    stream.write(data)
    stream.flush()


def read_block(stream: IO[bytes]) -> bytes:
    """What `write_block` wrote. Raises EOFError at the stream's end."""
    size = int.from_bytes(stream.read(8), "big")
    data = stream.read(size)
    if not data:
        raise EOFError
    return data


# --- In the child --------------------------------------------------------------------------------


def _main() -> None:
    import os
    import resource

    from ..chat import sandbox

    seconds, memory, longest = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with suppress(EOFError):
        source = read_block(sys.stdin.buffer).decode("utf-8", "surrogatepass")
        while request := read_block(sys.stdin.buffer):
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
            try:
                reply = _reply(sandbox.render, source, request, longest)
            except MemoryError:
                os._exit(_OUT_OF_MEMORY)
            signal.setitimer(signal.ITIMER_PROF, 0)
            write_block(sys.stdout.buffer, reply)


def _reply(render: Any, source: str, request: bytes, longest: int) -> bytes:
    try:
        text: str = render(source, json.loads(request))
        if len(text) > longest:
            raise TooCostly(f"it writes more than {longest} characters")
    except _FAILURES as error:
        return bytes([_FAILURES.index(type(error)) + 1]) + str(error).encode("utf-8", "replace")
    return b"\0" + text.encode("utf-8", "surrogatepass")


if __name__ == "__main__":
    _main()
