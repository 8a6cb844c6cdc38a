"""A model's child process, as its parent sees it.

States, and who changes them (always the thread that holds the model's lease, see scheduler.py):

    STARTING ──load()──▶ READY ──generate(), embed()──▶ RUNNING ──RESULT/ERROR frame──▶ READY
        │                  │                              │  └─given up by its reader──▶ DRAINING ─┐
        │                  │                              │        next operation: READY ◀─RESULT──┤
        └──────────────────┴──────────────────────────────┴─ crash, hang, close() ──▶ DEAD ◀───────┘

The reader of an answer waits for the pipe and for its client's socket at once, in the thread that writes
the answer: no other thread, no polling. A reader that gives up sends ABORT and leaves; the frames that
still come are dropped by their run number, before the next operation starts.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from typing import NoReturn

from . import frames
from .backend import GenerateSpec, LoadedInfo, LoadSpec, RunResult
from .core import TokenLogprob
from .errors import Cancelled, LoadFailed, WorkerCrashed, WorkerHung

ABORT_GRACE = 60.0
"""Seconds that a runtime may take to heed an abort (a prefill cannot be interrupted)."""
CLOSE_GRACE = 5.0
"""Seconds that a runtime may take to free a model before its process is killed."""
_LOG_LIMIT = 4 << 20
_TAIL = 16 << 10

Piece = str | tuple[str, tuple[TokenLogprob, ...]]


class Worker:
    """One child process with one model. Not thread-safe but for `abort` and `kill`."""

    def __init__(self, path: str, log_path: str, *, inherit: tuple[int, ...] = ()) -> None:
        self.path = path
        self.log_path = log_path
        self.state = "STARTING"
        self.ended_because: str | None = None
        """Why `kill` was called, for the message to whoever is reading."""
        self._run = 0
        self._buffer = frames.FrameBuffer()
        self._log_start = _rotate(log_path)
        self._spawn(inherit)

    def _spawn(self, inherit: tuple[int, ...]) -> None:
        child_commands, self._commands = os.pipe()
        self._events, child_events = os.pipe()
        try:
            with open(self.log_path, "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "rkllama.child", str(child_commands), str(child_events)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(child_commands, child_events, *inherit),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the parent only
                )
        except OSError as error:
            os.close(self._commands)
            os.close(self._events)
            raise LoadFailed(f"cannot start a process for {self.path}: {error}") from None
        finally:
            os.close(child_commands)
            os.close(child_events)

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
            payload = self._call(frames.LOAD, frames.encode_spec(spec), timeout, -1)
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
        self.state = "READY"
        return frames.decode_loaded(payload)

    def generate(
        self, spec: GenerateSpec, *, first: float, each: float, gone: int = -1
    ) -> Generator[Piece | RunResult, None, None]:
        """The answer's text as it comes, then its RunResult. What queued up comes as one piece.

        `first` and `each` are the seconds that the runtime may take for the first and for every further
        token. Closing the iterator, or a hang-up on `gone`, aborts the run. Raises WorkerCrashed,
        WorkerHung, Cancelled, and what the backend raised.
        """
        run = self._begin(frames.GENERATE, frames.encode_spec(spec), gone)
        limit = first
        try:
            while True:
                batch = self._frames(run, limit, gone)
                limit = each
                yield from _pieces(batch)
                kind, _, payload = batch[-1]
                if kind == frames.RESULT:
                    self.state = "READY"
                    yield frames.decode_result(payload)
                    return
                if kind == frames.ERROR:
                    self.state = "READY"
                    raise frames.decode_error(payload)
        finally:
            self._give_up(run)

    def embed(
        self, texts: tuple[str, ...], truncate: bool, *, timeout: float, gone: int = -1
    ) -> tuple[list[bytes], int | None]:
        """The float32 vectors of the texts and their token count, None where it is not known."""
        vectors: list[bytes] = []
        payload = self._call(
            frames.EMBED, frames.encode([texts, truncate]), timeout, gone, vectors=vectors
        )
        return vectors, frames.decode(payload)["prompt_tokens"]

    def count_tokens(self, text: str, *, timeout: float, gone: int = -1) -> int | None:
        """How many tokens the text is; None where the runtime cannot tell."""
        count: int | None = frames.decode(self._call(frames.COUNT, text.encode(), timeout, gone))
        return count

    def abort(self) -> None:
        """Ask the running answer to end; safe from any thread, without one it does nothing."""
        if self.state in ("RUNNING", "DRAINING"):
            self._send(frames.ABORT, self._run)

    def kill(self, reason: str) -> None:
        """End the process at once; safe from any thread. Its reader gets WorkerCrashed with `reason`."""
        if self.ended_because is None:
            self.ended_because = reason
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def settle(self, gone: int = -1) -> None:
        """Wait until a run that its reader gave up has ended.

        Raises WorkerCrashed, WorkerHung, and Cancelled when the client goes first.
        """
        if self.state == "DRAINING":
            while self._frames(self._run, ABORT_GRACE, gone)[-1][0] < frames.RESULT:
                pass
            self.state = "READY"

    def close(self) -> None:
        """Free the model and end the process, by force after CLOSE_GRACE seconds."""
        if self._commands < 0:
            return
        if self.ended_because is None and self.state == "READY":
            self._send(frames.CLOSE, 0)
        else:
            self.kill("closed")
        try:
            self._process.wait(CLOSE_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.state = "DEAD"
        os.close(self._commands)
        os.close(self._events)
        self._commands = self._events = -1

    def log_tail(self) -> str:
        """The last lines that this process wrote to its log."""
        try:
            with open(self.log_path, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""

    # --- Frames --------------------------------------------------------------------------------

    def _call(
        self,
        kind: int,
        payload: bytes,
        timeout: float,
        gone: int,
        vectors: list[bytes] | None = None,
    ) -> bytes:
        run = self._begin(kind, payload, gone)
        try:
            while True:
                for got, _, answer in self._frames(run, timeout, gone):
                    if got == frames.RESULT:
                        self.state = "READY"
                        return answer
                    if got == frames.ERROR:
                        self.state = "READY"
                        raise frames.decode_error(answer)
                    if got == frames.VECTOR and vectors is not None:
                        vectors.append(answer)
        finally:
            self._give_up(run)

    def _begin(self, kind: int, payload: bytes, gone: int) -> int:
        self.settle(gone)
        self._run += 1
        self.state = "RUNNING"
        self._send(kind, self._run, payload)
        return self._run

    def _give_up(self, run: int) -> None:
        """Leave a run that has not ended: its last frames are dropped by `settle`."""
        if self.state == "RUNNING":
            self._send(frames.ABORT, run)
            self.state = "DRAINING"

    def _send(self, kind: int, run: int, payload: bytes = b"") -> None:
        # A child that is gone is noticed, and explained, by the end of its event pipe.
        with contextlib.suppress(BrokenPipeError):
            frames.write_frame(self._commands, kind, run, payload)

    def _frames(self, run: int, timeout: float, gone: int) -> list[tuple[int, int, bytes]]:
        """The next frames of `run`, at least one. RESULT or ERROR is always the last."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        if gone >= 0:
            poll.register(gone, select.POLLRDHUP)
        while True:
            left = deadline - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000) if left > 0 else []
            if not ready:
                self._hung(timeout)
            if any(fd == gone for fd, _ in ready):
                raise Cancelled
            if batch := [frame for frame in self._read() if frame[1] == run]:
                return batch

    def _read(self) -> list[tuple[int, int, bytes]]:
        data = os.read(self._events, 1 << 16)
        if not data:
            self._crashed()
        try:
            return self._buffer.feed(data)
        except frames.BrokenFrame:
            self.kill("it sent garbage, its memory is corrupt")
            self._crashed()

    def _hung(self, seconds: float) -> NoReturn:
        self.kill(f"it sent nothing for {seconds:.0f} s")
        self.state = "DEAD"
        raise WorkerHung(
            f"the runtime sent nothing for {seconds:.0f} s and was ended",
            seconds=seconds,
            hint="The next request loads the model again. If it happens often, raise "
            "RKLLAMA_TOKEN_TIMEOUT, or use a smaller model or prompt.",
        )

    def _crashed(self) -> NoReturn:
        """Explain the end of the event pipe."""
        try:
            status = self._process.wait(CLOSE_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self.state = "DEAD"
        from .npu_log import diagnose

        log = self.log_tail()
        known = diagnose(log) if self.ended_because is None else None
        message = f"the model's process {_ended(status)}"
        if self.ended_because is not None:
            message = f"the model's process was ended: {self.ended_because}"
        hint = f"Its log is {self.log_path}."
        if known is not None:
            message, hint = f"{message}: {known[0]}", known[1]
        raise WorkerCrashed(message, exit_status=status, hint=hint, log=log)


def _pieces(batch: list[tuple[int, int, bytes]]) -> Iterator[Piece]:
    """The text in some frames of one run: neighbouring TEXT frames as one string."""
    if len(batch) == 1 and batch[0][0] == frames.TEXT:
        yield batch[0][2].decode()
        return
    texts: list[bytes] = []
    for kind, _, payload in batch:
        if kind == frames.TEXT:
            texts.append(payload)
        elif kind == frames.LOGPROBS:
            yield frames.decode_logprobs(payload)
    if texts:
        yield b"".join(texts).decode()


def _ended(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


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
