"""A model's child process, as its parent sees it.

States, and who changes them (always the thread that holds the model's lease, see scheduler.py):

    STARTING ──load()──▶ READY ──generate(), embed()──▶ RUNNING ──RESULT/ERROR frame──▶ READY
        │                  │                              │  └─given up by its reader──▶ DRAINING ─┐
        │                  │                              │        next operation: READY ◀─RESULT──┤
        └──────────────────┴──────────────────────────────┴─ crash, hang, close() ──▶ DEAD ◀───────┘

`close()` alone frees the pipes and reaps the process; after a crash or a hang it is still due.

The reader of an answer waits for the pipe and for its client's socket at once, in the thread that writes
the answer: no other thread, no polling. A reader that gives up sends ABORT and leaves; the frames that
still come are dropped by their run number, before the next operation starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, NoReturn, TypeVar

from ..backends.base import GenerateSpec, LoadedInfo, LoadSpec, RunResult
from ..errors import LoadFailed, WorkerCrashed, WorkerHung
from ..files import IMPORT_ROOT
from ..service import LOCAL, Caller
from ..types import TokenLogprob
from . import frames

log = logging.getLogger("rkllama")
T = TypeVar("T")

ABORT_GRACE = 60.0
"""Seconds that a runtime may take to heed an abort (a prefill cannot be interrupted)."""
CLOSE_GRACE = 5.0
"""Seconds that a runtime may take to free a model before its process is killed."""
DRAIN_GRACE = 1.0
"""The same while an aborted run still goes on: a decode ends in time, a prefill may take minutes."""
KILL_GRACE = 5.0
"""Seconds that the kernel may take to end a killed process: inside a driver it can be stuck for good."""
SEND_GRACE = 30.0
"""Seconds that a process may take to read a command: it does so in a thread of its own."""
_LOG_LIMIT = 4 << 20
_TAIL = 16 << 10

_CHILD = """import sys
root = sys.argv.pop(1)
sys.path[:] = [path for path in sys.path if path]
root in sys.path or sys.path.insert(0, root)
from rkllama.runner.child import main
main()"""
"""The child's program. It runs this very package, and imports nothing from the current directory, which
may hold anything."""

Piece = str | tuple[str, tuple[TokenLogprob, ...]]


class Worker:
    """One child process with one model. Not thread-safe but for `abort`, `retire` and `kill`."""

    def __init__(
        self,
        path: str,
        log_path: str,
        *,
        inherit: tuple[int, ...] = (),
        abort_grace: float | None = None,
    ) -> None:
        """`abort_grace` instead of ABORT_GRACE, for a model that is loaded again sooner than that."""
        self.path = path
        self.log_path = log_path
        self._abort_grace = ABORT_GRACE if abort_grace is None else abort_grace
        self.state = "STARTING"
        self.ended_because: str | None = None
        """Why `kill` was called, for the message to whoever is reading."""
        self.retired = False
        """Whether it was told to end, so that its end is no accident."""
        self._run = 0
        self._sending = threading.Lock()
        """Held to write a command or to close their pipe: commands come from several threads."""
        self._buffer = frames.FrameBuffer()
        try:
            self._log_start = _rotate(log_path)
            self._spawn(inherit)
        except OSError as error:
            raise LoadFailed(f"cannot start a process for {path}: {error}") from None
        self._log_loaded = self._log_run = self._log_start
        """Where in the log the load ended, and where the last command began."""

    def _spawn(self, inherit: tuple[int, ...]) -> None:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            child_commands, self._commands = _pipe(theirs, ours)
            self._events, child_events = _pipe(ours, theirs)
            os.set_blocking(self._commands, False)
            pipes = (child_commands, child_events)
            with open(self.log_path, "ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, IMPORT_ROOT, *map(str, pipes)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(*pipes, *inherit),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the parent only
                )
            ours.pop_all()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a dead one is reaped by asking."""
        return self.state != "DEAD" and self._process.poll() is None

    def load(self, spec: LoadSpec, *, timeout: float) -> LoadedInfo:
        """Load the model. Raises LoadFailed, WorkerHung; the process has ended then."""
        try:
            payload = self._call(
                frames.LOAD,
                frames.encode_spec(spec),
                timeout,
                LOCAL,
                setting="RKLLAMA_LOAD_TIMEOUT",
            )
            loaded = self._decoded(frames.decode_loaded, payload)
        except WorkerCrashed as error:
            self.close()
            raise LoadFailed(
                f"{os.path.basename(self.path)} could not be loaded: {error.message}",
                hint=error.hint,
                log=error.log,
            ) from None
        except BaseException:
            self.kill("the load was given up")
            self.close()
            raise
        self._log_loaded = self._log_size()
        return loaded

    def generate(
        self, spec: GenerateSpec, *, first: float, each: float, caller: Caller = LOCAL
    ) -> Generator[Piece | RunResult, None, None]:
        """The answer's text as it comes, then its RunResult. What queued up comes as one piece.

        `first` and `each` are the seconds that the runtime may take for the first and for every further
        token. Closing the iterator, or a caller that hangs up, aborts the run. Raises WorkerCrashed,
        WorkerHung, Cancelled, and what the backend raised.
        """
        run = self._begin(frames.GENERATE, frames.encode_spec(spec), caller)
        limit = first
        try:
            while True:
                batch = self._frames(run, limit, caller)
                if not batch:
                    self._hung(f"sent nothing for {limit:g} s", limit, "RKLLAMA_TOKEN_TIMEOUT")
                limit = each
                kind, _, payload = batch[-1]
                if kind >= frames.RESULT:  # the reader may give up at the text before it
                    self.state = "READY"
                yield from _pieces(batch)
                if kind == frames.RESULT:
                    yield self._decoded(frames.decode_result, payload)
                    return
                if kind == frames.ERROR:
                    raise self._decoded(frames.decode_error, payload)
        finally:
            self._give_up(run)

    def embed(
        self, texts: tuple[str, ...], truncate: bool, *, timeout: float, caller: Caller = LOCAL
    ) -> tuple[list[bytes], int | None]:
        """The float32 vectors of the texts and their token count, None where it is not known.

        `timeout` are the seconds that the runtime may take for one text.
        """
        vectors: list[bytes] = []
        payload = self._call(
            frames.EMBED, frames.encode([texts, truncate]), timeout, caller, vectors=vectors
        )
        count: int | None = self._decoded(frames.decode, payload)
        return vectors, count

    def count_tokens(self, text: str, *, timeout: float, caller: Caller = LOCAL) -> int | None:
        """How many tokens the text is; None where the runtime cannot tell."""
        payload = self._call(frames.COUNT, text.encode("utf-8", "replace"), timeout, caller)
        count: int | None = self._decoded(frames.decode, payload)
        return count

    def abort(self) -> None:
        """Ask the running answer to end; safe from any thread, without one it does nothing."""
        if self.state in ("RUNNING", "DRAINING"):
            self._send(frames.ABORT, self._run)

    def retire(self) -> None:
        """Abort the running answer and every later one; safe from any thread."""
        self.retired = True
        self.abort()

    def kill(self, reason: str) -> None:
        """End the process at once; safe from any thread. Its reader gets WorkerCrashed with `reason`."""
        if self.ended_because is None:
            self.ended_because = reason
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def settle(self, caller: Caller = LOCAL) -> None:
        """Wait until a run that its reader gave up has ended.

        Raises WorkerCrashed, WorkerHung, and Cancelled when the client goes first.
        """
        deadline = time.monotonic() + self._abort_grace
        while self.state == "DRAINING":
            batch = self._frames(self._run, deadline - time.monotonic(), caller)
            if not batch:
                text = f"did not heed an abort for {self._abort_grace:g} s"
                self._hung(text, self._abort_grace, None)
            if batch[-1][0] >= frames.RESULT:
                self.state = "READY"

    def close(self) -> None:
        """Free the model and end the process, by force when it takes too long."""
        if self._commands < 0:
            return
        if self.ended_because is None and self.state in ("READY", "DRAINING"):
            self._send(frames.CLOSE, 0)
        else:
            self.kill("closed")
        self._end(DRAIN_GRACE if self.state == "DRAINING" else CLOSE_GRACE)
        self.state = "DEAD"
        with self._sending:
            os.close(self._commands)
            self._commands = -1
        os.close(self._events)
        self._events = -1

    def _end(self, patience: float) -> int | None:
        """Wait for the process to end, kill it after `patience` seconds; its exit status.

        None: even that did not end it.
        """
        if (status := self._wait_end(patience)) is None:
            self._process.kill()
            status = self._wait_end(KILL_GRACE)
        if status is None:
            log.error("process %d does not die: it may be stuck in the NPU's driver", self.pid)
        return status

    def _wait_end(self, seconds: float) -> int | None:
        """Its exit status; what it still sends, and may be stuck in sending, is dropped."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000) and not os.read(self._events, 1 << 16):
                break
        try:
            return self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def log_tail(self) -> str:
        """The last lines that the process wrote while it loaded and since the last command began.

        What earlier commands made it say does not explain what happens now.
        """
        try:
            with open(self.log_path, "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                parts = ((self._log_start, self._log_loaded), (self._log_run, size))
                return "".join(_part(stream, *part) for part in parts)
        except OSError:
            return ""

    def _log_size(self) -> int:
        try:
            return os.stat(self.log_path).st_size
        except OSError:
            return 0

    def _mark_log(self) -> None:
        """A command begins. A log over its limit starts anew: a process may live for years."""
        self._log_run = self._log_size()
        if self._log_run > _LOG_LIMIT:
            with contextlib.suppress(OSError):
                shutil.copyfile(self.log_path, self.log_path + ".1")
                os.truncate(self.log_path, 0)  # the process appends: it goes on at the new end
                self._log_start = self._log_loaded = self._log_run = 0

    # --- Frames --------------------------------------------------------------------------------

    def _call(
        self,
        kind: int,
        payload: bytes,
        timeout: float,
        caller: Caller,
        vectors: list[bytes] | None = None,
        setting: str = "RKLLAMA_TOKEN_TIMEOUT",
    ) -> bytes:
        """Run a command and give its RESULT; `setting` is what `timeout` comes from."""
        run = self._begin(kind, payload, caller)
        try:
            while True:
                batch = self._frames(run, timeout, caller)
                if not batch:
                    self._hung(f"sent nothing for {timeout:g} s", timeout, setting)
                for got, _, answer in batch:
                    if got == frames.RESULT:
                        self.state = "READY"
                        return answer
                    if got == frames.ERROR:
                        self.state = "READY"
                        raise self._decoded(frames.decode_error, answer)
                    if got == frames.VECTOR and vectors is not None:
                        vectors.append(answer)
        finally:
            self._give_up(run)

    def _begin(self, kind: int, payload: bytes, caller: Caller) -> int:
        self.settle(caller)
        if kind != frames.LOAD:  # what it said when it started belongs to the load
            self._mark_log()
        self._run += 1
        self.state = "RUNNING"
        self._send(kind, self._run, payload)
        if self.retired:
            self._send(frames.ABORT, self._run)
        return self._run

    def _give_up(self, run: int) -> None:
        """Leave a run that has not ended: its last frames are dropped by `settle`."""
        if self.state == "RUNNING":
            self.state = "DRAINING"
            self._send(frames.ABORT, run)

    def _send(self, kind: int, run: int, payload: bytes = b"") -> None:
        """Write a command whole, from any thread.

        A child that is gone, or that had to be ended for not reading, is noticed and explained by the
        end of its event pipe.
        """
        view = memoryview(frames.pack_header(len(payload), kind, run) + payload)
        with self._sending:
            try:
                while view and self._commands >= 0:
                    view = view[self._write(view) :]
            except BrokenPipeError:
                return
            except BaseException:  # half a command is none
                self.kill("a command to it was cut off")
                raise

    def _write(self, view: memoryview) -> int:
        """Bytes written; 0 when there was no room but is now. Raises BrokenPipeError."""
        try:
            return os.write(self._commands, view)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._commands, select.POLLOUT)
            if not poll.poll(SEND_GRACE * 1000):
                self.kill(f"it took no command for {SEND_GRACE:g} s")
                raise BrokenPipeError from None
            return 0

    def _frames(self, run: int, timeout: float, caller: Caller) -> list[tuple[int, int, bytes]]:
        """The next frames of `run`, none after `timeout` seconds. RESULT or ERROR is always the last."""
        deadline = time.monotonic() + timeout
        while caller.wait(self._events, deadline - time.monotonic()):
            if batch := [frame for frame in self._read() if frame[1] == run]:
                return batch
        return []

    def _read(self) -> list[tuple[int, int, bytes]]:
        data = os.read(self._events, 1 << 16)
        if not data:
            self._crashed()
        try:
            return self._buffer.feed(data)
        except frames.BrokenFrame:
            self._garbage()

    def _decoded(self, decode: Callable[[bytes], T], payload: bytes) -> T:
        try:
            return decode(payload)
        except (ValueError, TypeError, LookupError, AttributeError):
            self._garbage()

    def _garbage(self) -> NoReturn:
        self.kill("it sent garbage, its memory is corrupt")
        self._crashed()

    def _hung(self, what: str, seconds: float, setting: str | None) -> NoReturn:
        self.kill(f"it {what}")
        self.state = "DEAD"
        raise WorkerHung(
            f"the runtime {what} and was ended",
            seconds=seconds,
            hint="The next request loads the model again. If it happens often, "
            + (f"raise {setting}, or " if setting else "")
            + "use a smaller model or prompt.",
        )

    def _crashed(self) -> NoReturn:
        """Explain the end of the event pipe."""
        status = self._end(CLOSE_GRACE)
        self.state = "DEAD"
        from ..rkllm.log import diagnose

        tail = self.log_tail()
        known = diagnose(tail) if self.ended_because is None else None
        message = f"the model's process {_ended(status)}"
        if self.ended_because is not None:
            message = f"the model's process was ended: {self.ended_because}"
        hint = f"Its log is {self.log_path}."
        if known is not None:
            message, hint = f"{message}: {known[0]}", known[1]
        raise WorkerCrashed(message, exit_status=status, hint=hint, log=tail)


def _pieces(batch: list[tuple[int, int, bytes]]) -> Iterator[Piece]:
    """The text in some frames of one run: neighbouring TEXT frames as one string."""
    if len(batch) == 1 and batch[0][0] == frames.TEXT:
        yield batch[0][2].decode("utf-8", "replace")
        return
    texts: list[bytes] = []
    for kind, _, payload in batch:
        if kind == frames.TEXT:
            texts.append(payload)
        elif kind == frames.LOGPROBS:
            yield frames.decode_logprobs(payload)
    if texts:
        yield b"".join(texts).decode("utf-8", "replace")


def _ended(status: int | None) -> str:
    if status is None:
        return "cannot be ended"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose two ends are closed with `reader` and `writer`."""
    ends = os.pipe()
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _part(stream: BinaryIO, start: int, end: int) -> str:
    """What a file holds between two places, of much the end."""
    start = max(start, end - _TAIL)
    stream.seek(start)
    return stream.read(max(0, end - start)).decode("utf-8", "replace")


def _rotate(path: str) -> int:
    """Keep the log below its limit; the size from which this process's lines start."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        size = os.path.getsize(path)
        if size > _LOG_LIMIT:
            os.replace(path, path + ".1")
            return 0
        return size
    except FileNotFoundError:
        return 0
