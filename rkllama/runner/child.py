"""The main program of a model's process: `main(COMMANDS, EVENTS)`, two inherited pipes.

The main thread runs the backend; a second thread reads the commands, so that an abort is seen during a
run. The end of the command pipe means that the parent is gone, however it died: the process ends at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from ..backends.base import Backend, RunResult
from ..backends.kinds import kind_of
from ..errors import Cancelled, LoadFailed, RKLLamaError, RuntimeFailed
from ..types import TokenLogprob
from . import frames


def main() -> NoReturn:
    """Serve commands until told to close or until the parent is gone."""
    commands, events = int(sys.argv[1]), int(sys.argv[2])
    faulthandler.enable()
    _prefer_for_oom_killer()
    _raise_file_limit()
    status = 0
    try:
        Child(commands, events).serve()
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
    """The command loop around one backend."""

    def __init__(self, commands: int, events: int) -> None:
        self._commands = commands
        self._events = events
        self._backend: Backend | None = None
        self._pending: queue.SimpleQueue[tuple[int, int, bytes]] = queue.SimpleQueue()
        self._parts: list[bytes] = []
        """The BYTES frames of the command that comes next."""
        self._lock = threading.Lock()
        self._running: int | None = None
        self._aborted = 0
        """The last run that was aborted."""

    def serve(self) -> None:
        """Run one command after the other; CLOSE ends it."""
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        operations: dict[int, Callable[[int, bytes], bytes]] = {
            frames.LOAD: self._load,
            frames.GENERATE: self._generate,
            frames.EMBED: self._embed,
            frames.COUNT: self._count,
            frames.RESTORE: self._restore,
        }
        while True:
            kind, run, payload = self._pending.get()
            if kind == frames.CLOSE:
                break
            if kind == frames.BYTES:
                self._parts.append(payload)
                continue
            self._execute(operations[kind], run, payload)
            self._parts.clear()
        if self._backend is not None:
            self._backend.close()

    def _read_commands(self) -> None:
        """Read commands. The process ends with this thread, as nobody else would notice the parent's end."""
        try:
            buffer = frames.FrameBuffer()
            while data := os.read(self._commands, 1 << 16):
                for kind, run, payload in buffer.feed(data):
                    if kind == frames.ABORT:
                        self._abort(run)
                    else:
                        self._pending.put((kind, run, payload))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # with all that it has started
        os._exit(0)

    def _abort(self, run: int) -> None:
        """Abort `run`, also one that has not begun; never a later one."""
        with self._lock:
            self._aborted = max(self._aborted, run)
            if self._running == run and self._backend is not None:
                try:
                    self._backend.abort()
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

    def _need_backend(self) -> Backend:
        if self._backend is None:
            raise LoadFailed("no model is loaded in this process")
        return self._backend

    def _load(self, _run: int, payload: bytes) -> bytes:
        spec = frames.decode_load(payload)
        backend = kind_of(spec.path, external=bool(spec.llama_server)).create()
        loaded = backend.load(spec)
        self._backend = backend
        return frames.encode_spec(loaded)

    def _generate(self, run: int, payload: bytes) -> bytes:
        backend, spec = self._need_backend(), frames.decode_generate(payload, tuple(self._parts))
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
                return frames.encode_spec(RunResult(reason="cancelled"))
            return frames.encode_spec(backend.generate(spec, emit, emit_logprobs, cancelled))

    @contextlib.contextmanager
    def _abortable(self, run: int) -> Iterator[Callable[[], bool]]:
        """Let an abort of `run` reach the backend; the value yielded tells of one that came before."""
        with self._lock:
            self._running = run
        try:
            yield lambda: self._aborted == run
        finally:
            with self._lock:
                self._running = None

    def _embed(self, run: int, payload: bytes) -> bytes:
        """Return one text at a time, so that an abort and the parent's limit are for one and not for all."""
        backend, (texts, truncate) = self._need_backend(), frames.decode(payload)
        tokens: list[int | None] = []
        for text in texts:
            if self._aborted == run:
                raise Cancelled("the model is being unloaded")
            result = backend.embed((text,), truncate)
            tokens.append(result.prompt_tokens)
            for vector in result.vectors:
                frames.write_frame(self._events, frames.VECTOR, run, vector)
        counts = [count for count in tokens if count is not None]
        return frames.encode(sum(counts) if len(counts) == len(tokens) else None)

    def _count(self, run: int, payload: bytes) -> bytes:
        backend = self._need_backend()
        with self._abortable(run) as cancelled:
            return frames.encode(backend.count_tokens(payload.decode(), cancelled))

    def _restore(self, _run: int, payload: bytes) -> bytes:
        path, tokens = frames.decode(payload)
        return frames.encode(self._need_backend().restore(path, tokens))
