"""A lane to a model's process: commands in, pieces of a completion out, one run at a time.

States; `Lane._enter` alone changes them, always in the thread that holds the lane (see
engine/memory/scheduler.py):

    STARTING ──load()──▶ READY ──generate(), embed(), …──▶ RUNNING ──RESULT/ERROR frame──▶ READY
        │                  │                              │  └─given up by its reader──▶ DRAINING ─┐
        │                  │                              │        next operation: READY ◀─RESULT──┤
        └──────────────────┴──────────────────────────────┴─ crash, hang, close() ──▶ DEAD ◀───────┘

`close()` alone frees the pipes and reaps the process; after a crash or a hang it is still due.

The reader of a completion waits for the pipe and for its client's socket at once, in the thread that writes
the reply: no other thread, no polling. A reader that gives up sends ABORT and leaves; the frames that
still come are dropped by their run number, before the next operation starts.
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, NoReturn, TypeVar

from ..backends.base import EmbedResult, GenerateSpec, RankResult, RerankSpec, RunResult
from ..backends.kinds import Kind
from ..errors import (
    InvalidRequest,
    LoadFailed,
    RKLLamaError,
    WorkerCrashed,
    WorkerError,
    WorkerHung,
    see_doctor,
)
from ..service import LOCAL, Caller
from ..types import Diagnosis, FailureCause, TokenLogprob
from . import frames
from .log import ChildLog
from .process import Pipes, Process, exit_in_words

T = TypeVar("T")
Wait = Callable[[float], bool]
"""Waits so many seconds for the process to send something; see Caller.waiter."""

CLOSE_GRACE = 5.0
"""Seconds that a runtime may take to free a model before its process is killed."""

_SIGNALS: dict[int, Diagnosis] = {
    signal.SIGKILL: Diagnosis(
        message="most likely the memory ran out",
        hint=see_doctor("Use a smaller model or a shorter context, or end other programs."),
        cause="memory",
    ),
    signal.SIGBUS: Diagnosis(
        message="most likely a file that it reads is cut off, or its disk failed",
        hint="Download the model again, and look for errors of the disk in `dmesg`.",
    ),
    signal.SIGILL: Diagnosis(
        message="this build of the runtime does not fit this CPU",
        hint=see_doctor("Install another release of the runtime; the newest is not always right."),
        cause="runtime",
    ),
}
"""What the signals mean that end a process before it can write anything."""


class Piece(NamedTuple):
    """New text of a completion, with its tokens' figures where they were asked for.

    The last piece of a run has its `result`, and no text.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    result: RunResult | None = None


class State(Enum):
    """What a worker does; the transitions are drawn at the top of this module."""

    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    DRAINING = "draining"
    """A run that nobody reads any more has not ended yet."""
    DEAD = "dead"


class Lane:
    """A way into a model's process, for one run at a time. Not thread-safe but for `abort`."""

    def __init__(
        self, process: Process, pipes: Pipes, kind: Kind, log: ChildLog, index: int = 0
    ) -> None:
        self.index = index
        """Which of its process's lanes it is, and of the backend's slots, where those are kept apart."""
        self.kind = kind
        self._process = process
        self._pipes = pipes
        self._log = log
        self._state = State.STARTING
        self._cause: FailureCause = "other"
        """Why the process died, as far as is known."""
        self._run = 0
        self._command = frames.CLOSE
        """Which command is run, or was last."""
        self.dropped: RunResult | None = None
        """What came of a generation that was given up, where it has ended and nothing was run since."""
        self._buffer = frames.FrameBuffer()

    @property
    def state(self) -> State:
        """What it does."""
        return self._state

    def _enter(self, state: State) -> None:
        self._state = state

    def generate(
        self, spec: GenerateSpec, *, first: float, each: float, caller: Caller = LOCAL
    ) -> Generator[Piece, None, None]:
        """The completion as it comes; what queued up comes as one piece. The last one has the result.

        `first` and `each` are the seconds that the runtime may take for the first and for every further
        token. Closing the iterator, or a caller that hangs up, aborts the run. Raises WorkerCrashed,
        WorkerHung, Cancelled, InvalidRequest for images that are too large, and what the backend raised.
        """
        _check_size(spec.images)
        run = self._begin(frames.GENERATE, frames.encode_generate(spec), caller, spec.images)
        limit, wait = first, caller.waiter(self._pipes.events)
        try:
            while True:
                batch = self._frames(run, limit, wait)
                if not batch:
                    self._hung(f"sent nothing for {limit:g} s", limit, "RKLLAMA_TOKEN_TIMEOUT")
                limit = each
                kind, _, payload = batch[-1]
                if kind >= frames.RESULT:  # the reader may give up at the text before it
                    self._enter(State.READY)
                yield from _pieces(batch)
                if kind == frames.RESULT:
                    yield Piece("", result=self._decoded(frames.decode_result, payload))
                    return
                if kind == frames.ERROR:
                    raise self._error(payload)
        finally:
            self._give_up(run)

    def embed(
        self,
        texts: tuple[str, ...],
        truncate: bool,
        *,
        limits: Sequence[float],
        caller: Caller = LOCAL,
    ) -> EmbedResult:
        """One vector per text. `limits` are the seconds that the runtime may take for each text, and then to
        end; the last one holds for what is beyond them.

        Raises what `generate` raises.
        """
        command = frames.encode([texts, truncate])
        vectors, count = self._vectors(frames.EMBED, command, limits, caller)
        return EmbedResult(vectors=tuple(vectors), prompt_tokens=count)

    def rerank(
        self, spec: RerankSpec, *, limits: Sequence[float], caller: Caller = LOCAL
    ) -> RankResult:
        """One score per document; `limits` as for `embed`. Raises what `generate` raises."""
        vectors, count = self._vectors(frames.RERANK, frames.encode(spec), limits, caller)
        return RankResult(scores=tuple(array("f", b"".join(vectors))), prompt_tokens=count)

    def _vectors(
        self, kind: int, command: bytes, limits: Sequence[float], caller: Caller
    ) -> tuple[list[bytes], int | None]:
        """Run a command that gives vectors: these, and the tokens that were evaluated for them."""
        vectors: list[bytes] = []

        def limit() -> float:
            return limits[min(len(vectors), len(limits) - 1)]

        payload = self._call(kind, command, limit, caller, vectors=vectors)
        count: int | None = self._decoded(frames.decode, payload)
        return vectors, count

    def count_tokens(self, text: str, *, timeout: float, caller: Caller = LOCAL) -> int | None:
        """Return how many tokens the text is; None where the runtime cannot tell."""
        data = text.encode("utf-8", "replace")
        payload = self._call(frames.COUNT, data, lambda: timeout, caller)
        count: int | None = self._decoded(frames.decode, payload)
        return count

    def restore(self, path: str, tokens: int, *, timeout: float, caller: Caller = LOCAL) -> bool:
        """Load a file that a run has saved, see Backend.restore; return whether it is in the cache."""
        payload = self._call(frames.RESTORE, frames.encode([path, tokens]), lambda: timeout, caller)
        taken: bool = self._decoded(frames.decode, payload)
        return taken

    def save(self, path: str, *, timeout: float, caller: Caller = LOCAL) -> int | None:
        """Write the lane's slot to a file, see Backend.save; return the tokens that it holds."""
        payload = self._call(frames.SAVE, frames.encode(path), lambda: timeout, caller)
        tokens: int | None = self._decoded(frames.decode, payload)
        return tokens

    def abort(self) -> None:
        """Ask the running answer to end; safe from any thread, without one it does nothing."""
        if self._state in (State.RUNNING, State.DRAINING):
            self._send(frames.ABORT, self._run)

    def settle(self, caller: Caller = LOCAL) -> None:
        """Wait until a run that its reader gave up has ended.

        Raises WorkerCrashed, WorkerHung, and Cancelled when the client goes first.
        """
        if not self.settles(caller):
            grace = self.kind.abort_grace
            self._hung(f"did not react to an abort for {grace:g} s", grace, None)

    def settles(self, caller: Caller = LOCAL) -> bool:
        """Return whether a run that was given up ends in time. Raises WorkerCrashed, Cancelled."""
        deadline = time.monotonic() + self.kind.abort_grace
        wait = caller.waiter(self._pipes.events)
        while self._state is State.DRAINING:
            batch = self._frames(self._run, deadline - time.monotonic(), wait)
            if not batch:
                return False
            if batch[-1][0] >= frames.RESULT:
                self._enter(State.READY)
                if (batch[-1][0], self._command) == (frames.RESULT, frames.GENERATE):
                    self.dropped = self._decoded(frames.decode_result, batch[-1][2])
        return True

    # --- Frames --------------------------------------------------------------------------------

    def _call(
        self,
        kind: int,
        payload: bytes,
        limit: Callable[[], float],
        caller: Caller,
        vectors: list[bytes] | None = None,
        setting: str = "RKLLAMA_TOKEN_TIMEOUT",
    ) -> bytes:
        """Run a command and give its RESULT. `limit` tells the seconds that the next frame may take;
        `setting` is what they come from.
        """
        run, wait = self._begin(kind, payload, caller), caller.waiter(self._pipes.events)
        try:
            while True:
                seconds = limit()
                batch = self._frames(run, seconds, wait)
                if not batch:
                    self._hung(f"sent nothing for {seconds:g} s", seconds, setting)
                for got, _, answer in batch:
                    if got == frames.RESULT:
                        self._enter(State.READY)
                        return answer
                    if got == frames.ERROR:
                        self._enter(State.READY)
                        raise self._error(answer)
                    if got == frames.VECTOR and vectors is not None:
                        vectors.append(answer)
        finally:
            self._give_up(run)

    def _begin(
        self, kind: int, payload: bytes, caller: Caller, parts: tuple[bytes, ...] = ()
    ) -> int:
        """Send a command, after the bytes that belong to it; its run number."""
        self.settle(caller)
        if kind != frames.LOAD:  # what it said when it started belongs to the load
            self._log.mark_command()
        self._run += 1
        self._command, self.dropped = kind, None
        self._enter(State.RUNNING)
        for part in parts:
            self._send(frames.BYTES, self._run, part)
        self._send(kind, self._run, payload)
        if self._process.retired:
            self._send(frames.ABORT, self._run)
        return self._run

    def _give_up(self, run: int) -> None:
        """Abandon a run that has not ended: `settle` drops its last frames."""
        if self._state is State.RUNNING:
            self._enter(State.DRAINING)
            self._send(frames.ABORT, run)

    def _send(self, kind: int, run: int, payload: bytes = b"") -> None:
        """Write a command whole, from any thread; see Pipes.send."""
        self._pipes.send(frames.pack_header(len(payload), kind, run) + payload)

    def _frames(self, run: int, timeout: float, wait: Wait) -> list[tuple[int, int, bytes]]:
        """Return the next frames of `run`, none after `timeout` seconds. RESULT or ERROR is always the
        last.
        """
        deadline = time.monotonic() + timeout
        while wait(deadline - time.monotonic()):
            if batch := [frame for frame in self._read() if frame[1] == run]:
                return batch
        return []

    def _read(self) -> list[tuple[int, int, bytes]]:
        data = self._pipes.read()
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

    def _error(self, payload: bytes) -> RKLLamaError:
        """Return what the backend raised; where it failed, its hint names the log."""
        error = self._decoded(frames.decode_error, payload)
        if isinstance(error, LoadFailed | WorkerError):
            error.hint = self._with_log(error.hint) or None
        return error

    def _with_log(self, hint: str | None) -> str:
        """Return the hint of a failure, with the place of the log where there is one."""
        where = f"Its log is {self._log.path}." if self._log.path != os.devnull else ""
        return " ".join(filter(None, (hint, where)))

    def _garbage(self) -> NoReturn:
        self._process.kill("it sent invalid data, so its memory is corrupt")
        self._crashed()

    def _hung(self, what: str, seconds: float, setting: str | None) -> NoReturn:
        self._process.kill(f"it {what}")
        self._enter(State.DEAD)
        remedy = "use a smaller model or prompt."
        if setting is not None:
            remedy = f"raise {setting}, or {remedy}"
        message = f"the runtime {what} and was stopped"
        hint = f"The next request loads the model again. If it happens often, {remedy}"
        if cause := self.kind.diagnose(self._log.tail()):
            message, hint = f"{message}: {cause.message}", f"{cause.hint} {hint}"
        raise WorkerHung(message, seconds=seconds, hint=self._with_log(hint))

    def _crashed(self) -> NoReturn:
        """Explain the end of the event pipe."""
        status = self._process.end(CLOSE_GRACE, (self._pipes,))
        self._enter(State.DEAD)
        tail, reason = self._log.tail(), self._process.kill_reason
        message, found = f"the model's process {exit_in_words(status)}", []
        if reason is not None:
            message = f"the model's process was stopped: {reason}"
        else:
            causes = (_SIGNALS.get(-(status or 0)), self.kind.diagnose(tail))
            found = [cause for cause in causes if cause is not None]
            message = ": ".join([message, *(cause.message for cause in found)])
        hint = self._with_log(found[0].hint if found else "")
        self._cause = next((one.cause for one in found if one.cause != "other"), "other")
        raise WorkerCrashed(message, exit_status=status, hint=hint, log=tail)


def _check_size(images: tuple[bytes, ...]) -> None:
    size = sum(map(len, images))
    if size > frames.MAX_BYTES:
        raise InvalidRequest(
            f"the images have {size} bytes together, at most {frames.MAX_BYTES} are taken",
            param="images",
            hint="Send fewer or smaller ones.",
        )


def _pieces(batch: list[tuple[int, int, bytes]]) -> Iterator[Piece]:
    """The text in some frames of one run: that of all TEXT frames as one piece."""
    if len(batch) == 1 and batch[0][0] == frames.TEXT:
        yield Piece(batch[0][2].decode("utf-8", "replace"))
        return
    texts: list[bytes] = []
    for kind, _, payload in batch:
        if kind == frames.TEXT:
            texts.append(payload)
        elif kind == frames.LOGPROBS:
            text, logprobs = frames.decode_logprobs(payload)
            yield Piece(text, logprobs)
    if texts:
        yield Piece(b"".join(texts).decode("utf-8", "replace"))
