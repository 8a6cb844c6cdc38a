"""A child process and the pipes to it, as its parent holds them: start, send, read, end.

    commands: parent ──▶ child, written without blocking      events: child ──▶ parent

A process that can do several runs at a time has several pairs of these. Standard output and standard
error of the child go to its log file; its pipes are its own, so that whatever a library prints mixes with
no frame.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from ..files import IMPORT_ROOT, private
from .environment import without_secrets

log = logging.getLogger("rkllama")

KILL_GRACE = 5.0
"""Seconds that the kernel may take to end a killed process: inside a driver it can be stuck for good."""
SEND_GRACE = 30.0
"""Seconds that a process may take to read a command: it does so in a thread of its own."""
_READ_SIZE = 1 << 16

_CHILD = """import sys
root = sys.argv.pop(1)
sys.path[:] = [path for path in sys.path if path]
if root not in sys.path:
    sys.path.insert(0, root)
from rkllama.runner.child import main
main()"""
"""The child's program. It runs this very package, and imports nothing from the current directory, which
may hold anything."""


class Pipes:
    """A pair of pipes to a child: commands go in, events come out. One run at a time goes over it."""

    def __init__(self, commands: int, events: int, kill: Callable[[str], object]) -> None:
        """`kill` ends the process, for the reason that it is called with."""
        os.set_blocking(commands, False)
        self._commands = commands
        self.events = events
        """The descriptor that its events are read from."""
        self._kill = kill
        self._sending = threading.Lock()
        """Held to write a command or to close their pipe: commands come from several threads."""

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._commands < 0

    def send(self, data: bytes) -> None:
        """Write a command whole, from any thread.

        A child that is gone, or had to be stopped because it did not read, is noticed and explained at
        the end of its event pipe.
        """
        view = memoryview(data)
        with self._sending:
            try:
                while view and not self.closed:
                    view = view[self._write(view) :]
            except BrokenPipeError:
                return
            except BaseException:  # half a command is useless
                self._kill("a command could not be sent to it in full")
                raise

    def _write(self, view: memoryview) -> int:
        """Return bytes written; 0 when there was no room but is now. Raises BrokenPipeError."""
        try:
            return os.write(self._commands, view)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._commands, select.POLLOUT)
            if not poll.poll(SEND_GRACE * 1000):
                self._kill(f"it accepted no command for {SEND_GRACE:g} s")
                raise BrokenPipeError from None
            return 0

    def read(self) -> bytes:
        """What the child has sent, in part; waits for some. b"" at the end: it is gone."""
        return os.read(self.events, _READ_SIZE)

    def close(self) -> None:
        """Close the pipes; the process has ended, or cannot be ended."""
        with self._sending:
            os.close(self._commands)
            self._commands = -1
        os.close(self.events)
        self.events = -1


class Process:
    """One child process and the pipes to it. Not thread-safe but for `kill`."""

    def __init__(self, log_path: str, *, inherit: tuple[int, ...] = (), pairs: int = 1) -> None:
        """Start it; it inherits the descriptors `inherit`. Raises OSError."""
        self.kill_reason: str | None = None
        """Why `kill` was called, for the message to whoever is reading; None: it was not."""
        self.retired = False
        """Whether it was told to end, so that its end is expected."""
        self.pipes: tuple[Pipes, ...] = ()
        self._spawn(log_path, inherit, pairs)

    def _spawn(self, log_path: str, inherit: tuple[int, ...], pairs: int) -> None:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            inherited: list[int] = []
            own: list[tuple[int, int]] = []
            for _ in range(pairs):
                child_commands, commands = _pipe(theirs, ours)
                events, child_events = _pipe(ours, theirs)
                inherited += (child_commands, child_events)
                own.append((commands, events))
            with open(log_path, "ab", opener=private) as output:
                self._popen = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, IMPORT_ROOT, *map(str, inherited)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=without_secrets(),
                    pass_fds=(*inherited, *inherit),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the parent only
                )
            ours.pop_all()
        self.pipes = tuple(Pipes(*ends, self.kill) for ends in own)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs; a dead one is reaped by asking."""
        return self._popen.poll() is None

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self.pipes[0].closed

    def kill(self, reason: str) -> None:
        """End it at once; safe from any thread."""
        if self.kill_reason is None:
            self.kill_reason = reason
        if self._popen.poll() is None:
            self._kill_group()

    def _kill_group(self) -> None:
        """End it and all that it has started: it is the first of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self, patience: float, drained: Sequence[Pipes]) -> int | None:
        """Wait for it to end, kill it after `patience` seconds; its exit status.

        What comes through the pipes `drained` is dropped: those that nobody else reads. None means that even
        this did not end it.
        """
        if (status := self._wait(patience, drained)) is None:
            self._kill_group()
            status = self._wait(KILL_GRACE, drained)
        self._kill_group()  # what it has left behind
        if status is None:
            log.error("process %d cannot be killed: it may be stuck in the NPU's driver", self.pid)
        return status

    def _wait(self, seconds: float, drained: Sequence[Pipes]) -> int | None:
        """Return its exit status; what it still sends, and may be blocked in sending, is dropped."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        unread = {pipes.events: pipes for pipes in drained}
        for fd in unread:
            poll.register(fd, select.POLLIN)
        while unread and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if not unread[fd].read():
                    poll.unregister(fd)
                    del unread[fd]
        try:
            return self._popen.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Close the pipes; the process has ended, or cannot be ended."""
        for pipes in self.pipes:
            pipes.close()


def exit_in_words(status: int | None) -> str:
    """An exit status as a predicate: "was killed by SIGSEGV"; None is a process that cannot be ended."""
    if status is None:
        return "cannot be stopped"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Return a pipe whose two ends are closed with `reader` and `writer`."""
    ends = os.pipe()
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends
