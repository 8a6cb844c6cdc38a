"""The main program of a model's process. Its arguments are the inherited pipes: COMMANDS EVENTS, as often
as there may be runs at a time.

The main thread runs the backend, with a further thread for each further pair of pipes; another one reads
the commands, so that an abort is seen during a run. The end of a command pipe means that the parent is
gone, however it died: the process ends at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import resource
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

from ..backends.base import Backend, RunResult
from ..backends.kinds import kind_of
from ..errors import Cancelled, LoadFailed, RKLLamaError, RuntimeFailed
from ..types import TokenLogprob
from . import frames


def main() -> NoReturn:
    """Serve commands until told to close or until the parent is gone."""
    fds = list(map(int, sys.argv[1:]))
    faulthandler.enable()
    _prefer_for_oom_killer()
    _raise_file_limit()
    status = 0
    try:
        Child(tuple(zip(fds[::2], fds[1::2], strict=True))).serve()
    except BrokenPipeError:  # the parent is gone
        pass
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        os._exit(status)  # the library's own exit handlers have been seen to crash


def _prefer_for_oom_killer() -> None:
    """Let the kernel end this process rather than the server when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as stream:
        stream.write("500")


_FILES = 102_400
"""Open files that the vendor's own server allows itself."""


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets: the runtime has one for each of its buffers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Child:
    """The backend, and the lanes over which it is driven: the first one in the main thread."""

    def __init__(self, pipes: Sequence[tuple[int, int]]) -> None:
        self.backend: Backend | None = None
        self.n_batch = 1
        """How many texts the backend takes at once."""
        self._lanes = {
            commands: _Lane(self, events, index) for index, (commands, events) in enumerate(pipes)
        }

    def serve(self) -> None:
        """Run commands until CLOSE."""
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        first, *others = self._lanes.values()
        for lane in others:
            lane.start()
        first.serve()
        # What runs on another lane would have the model freed under it; the end of the process frees all.
        if self.backend is not None and not any(lane.running for lane in others):
            self.backend.close()

    def need_backend(self) -> Backend:
        """Return the backend. Raises LoadFailed without one."""
        if self.backend is None:
            raise LoadFailed("no model is loaded in this process")
        return self.backend

    def _read_commands(self) -> None:
        """Read commands. The process ends with this thread, as nobody else would notice the parent's end."""
        try:
            poll = select.poll()
            for fd in self._lanes:
                poll.register(fd, select.POLLIN)
            while all(self._read(fd) for fd, _ in poll.poll()):
                pass
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # with all that it has started
        os._exit(0)

    def _read(self, commands: int) -> bool:
        """Take what has come; return whether there may be more."""
        data = os.read(commands, 1 << 16)
        if data:
            self._lanes[commands].take(data)
        return bool(data)


class _Lane:
    """The runs that come over one pair of pipes, one after the other."""

    def __init__(self, child: Child, events: int, index: int) -> None:
        self._child = child
        self._events = events
        self._index = index
        self._buffer = frames.FrameBuffer()
        self._pending: queue.SimpleQueue[tuple[int, int, bytes]] = queue.SimpleQueue()
        self._parts: list[bytes] = []
        """The BYTES frames of the command that comes next."""
        self._lock = threading.Lock()
        self.running: int | None = None
        """The run that can be aborted now."""
        self._aborted = 0
        """The last run that was aborted."""

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self._serve_until_end, name="lane", daemon=True).start()

    def _serve_until_end(self) -> None:
        try:
            self.serve()
        except BrokenPipeError:  # the parent is gone, which ends the process
            pass
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def serve(self) -> None:
        """Run one command after the other; CLOSE ends it."""
        operations: dict[int, Callable[[int, bytes], bytes]] = {
            frames.LOAD: self._load,
            frames.GENERATE: self._generate,
            frames.EMBED: self._embed,
            frames.RERANK: self._rerank,
            frames.COUNT: self._count,
            frames.RESTORE: self._restore,
            frames.SAVE: self._save,
        }
        while True:
            kind, run, payload = self._pending.get()
            if kind == frames.CLOSE:
                return
            if kind == frames.BYTES:
                self._parts.append(payload)
                continue
            self._execute(operations[kind], run, payload)
            self._parts.clear()

    def take(self, data: bytes) -> None:
        """Take what has come over the command pipe: an abort is heeded at once."""
        for kind, run, payload in self._buffer.feed(data):
            if kind == frames.ABORT:
                self._abort(run)
            else:
                self._pending.put((kind, run, payload))

    def _abort(self, run: int) -> None:
        """Abort `run`, also one that has not begun; never a later one."""
        with self._lock:
            self._aborted = max(self._aborted, run)
            if self.running == run and self._child.backend is not None:
                try:
                    self._child.backend.abort(self._index)
                except Exception:  # the run goes on, and so must the reading of commands
                    traceback.print_exc()

    def _execute(self, operation: Callable[[int, bytes], bytes], run: int, payload: bytes) -> None:
        """Run one command and send its RESULT or ERROR."""
        try:
            kind, result = frames.RESULT, operation(run, payload)
        except RKLLamaError as error:
            kind, result = frames.ERROR, frames.encode_error(error)
        except Exception as error:  # a bug; the server must live and the log must tell
            traceback.print_exc()
            text = f"internal error in the model's process: {type(error).__name__}: {error}"
            kind, result = frames.ERROR, frames.encode_error(RuntimeFailed(text))
        frames.write_frame(self._events, kind, run, result)

    def _load(self, _run: int, payload: bytes) -> bytes:
        spec = frames.decode_load(payload)
        backend = kind_of(spec.path, external=bool(spec.llama_server)).create()
        loaded = backend.load(spec)
        self._child.backend, self._child.n_batch = backend, loaded.n_batch
        return frames.encode(loaded)

    def _generate(self, run: int, payload: bytes) -> bytes:
        backend, spec = (
            self._child.need_backend(),
            frames.decode_generate(payload, tuple(self._parts), self._index),
        )
        events, write, pack, kind = self._events, os.write, frames.pack_header, frames.TEXT

        def emit(text: str) -> None:
            data = text.encode()
            if len(data) < 4000:  # a pipe takes up to PIPE_BUF bytes whole
                write(events, pack(len(data), kind, run) + data)
            else:
                frames.write_frame(events, kind, run, data)

        def emit_logprobs(text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
            frames.write_frame(events, frames.LOGPROBS, run, frames.encode_logprobs(text, logprobs))

        with self._abortable(run) as cancelled:
            if cancelled():
                return frames.encode(RunResult(reason="cancelled"))
            return frames.encode(backend.generate(spec, emit, emit_logprobs, cancelled))

    @contextlib.contextmanager
    def _abortable(self, run: int) -> Iterator[Callable[[], bool]]:
        """Let an abort of `run` reach the backend; the value yielded tells of one that came before."""
        with self._lock:
            self.running = run
        try:
            yield lambda: self._aborted == run
        finally:
            with self._lock:
                self.running = None

    def _embed(self, run: int, payload: bytes) -> bytes:
        backend, (texts, truncate) = self._child.need_backend(), frames.decode(payload)

        def evaluate(texts: Sequence[str]) -> tuple[Sequence[bytes], int | None]:
            result = backend.embed(tuple(texts), truncate)
            return result.vectors, result.prompt_tokens

        return self._in_runs(run, texts, evaluate)

    def _rerank(self, run: int, payload: bytes) -> bytes:
        backend, spec = self._child.need_backend(), frames.decode_rerank(payload)

        def evaluate(documents: Sequence[str]) -> tuple[Sequence[bytes], int | None]:
            result = backend.rerank(replace(spec, documents=tuple(documents)))
            return [frames.pack_score(score) for score in result.scores], result.prompt_tokens

        return self._in_runs(run, spec.documents, evaluate)

    def _in_runs(
        self,
        run: int,
        texts: Sequence[str],
        evaluate: Callable[[Sequence[str]], tuple[Sequence[bytes], int | None]],
    ) -> bytes:
        """Send a vector for each text and return their tokens: as many texts at a time as the backend takes
        at once, so that an abort and the parent's limit are for these and not for all.
        """
        tokens: list[int | None] = []
        size = self._child.n_batch
        for start in range(0, len(texts), size):
            if self._aborted == run:
                raise Cancelled("the model is being unloaded")
            vectors, count = evaluate(texts[start : start + size])
            tokens.append(count)
            for vector in vectors:
                frames.write_frame(self._events, frames.VECTOR, run, vector)
        counts = [count for count in tokens if count is not None]
        return frames.encode(sum(counts) if len(counts) == len(tokens) else None)

    def _count(self, run: int, payload: bytes) -> bytes:
        backend = self._child.need_backend()
        with self._abortable(run) as cancelled:
            return frames.encode(backend.count_tokens(payload.decode(), cancelled, self._index))

    def _restore(self, _run: int, payload: bytes) -> bytes:
        path, tokens = frames.decode(payload)
        return frames.encode(self._child.need_backend().restore(path, tokens, self._index))

    def _save(self, _run: int, payload: bytes) -> bytes:
        return frames.encode(self._child.need_backend().save(frames.decode(payload), self._index))
