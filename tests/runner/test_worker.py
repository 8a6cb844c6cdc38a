"""The parent's handle of a model's process, over the virtual NPU."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.base import GenerateSpec, LoadSpec, RunResult
from rkllama.errors import (
    DOCTOR,
    Cancelled,
    InvalidRequest,
    LoadFailed,
    PromptTooLong,
    RuntimeFailed,
    Unsupported,
    WorkerCrashed,
    WorkerHung,
)
from rkllama.runner import frames, lane, process, worker
from rkllama.runner import log as child_log
from rkllama.runner.child import Child
from rkllama.runner.lane import Piece, State
from rkllama.runner.worker import Worker
from rkllama.service import LOCAL, Caller
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration

Start = Callable[..., Worker]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker of a model with the given script; nothing of any is left at the end."""
    before = descriptors()
    gc.freeze()  # at the end only what the test itself has left is looked through
    started: list[Worker] = []

    def begin(loaded: bool = True, **config: Any) -> Worker:
        path = write_model(tmp_path / "m.rkllm", **config)
        child = Worker(str(path), str(tmp_path / "logs" / "m.log"))
        started.append(child)
        if loaded:
            load(child)
        return child

    yield begin
    for child in started:
        child.close()
        assert not os.path.exists(f"/proc/{child.pid}"), "a process is left"
    assert descriptors() == before


def state_of(child: Worker) -> State:
    """Asked anew each time: type checkers take an attribute to stay as it was."""
    return child.state


def load(child: Worker, timeout: float = LIMIT) -> None:
    spec = LoadSpec(path=child.path, context_length=4096, library=library("1.2.3"))
    child.load(spec, timeout=timeout)


def pieces_of(
    child: Worker, prompt: str, first: float = LIMIT, each: float = LIMIT, caller: Caller = LOCAL
) -> Any:
    return child.generate(GenerateSpec(prompt=prompt), first=first, each=each, caller=caller)


def ask(
    child: Worker, prompt: str, first: float = LIMIT, each: float = LIMIT
) -> tuple[str, RunResult]:
    pieces = list(pieces_of(child, prompt, first, each))
    return text_of(pieces), result_of(pieces)


def text_of(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def result_of(pieces: Iterable[Piece]) -> RunResult:
    """That of the last piece; no other one has any."""
    *before, last = pieces
    assert not any(piece.result for piece in before)
    assert last.result is not None
    return last.result


# --- States ------------------------------------------------------------------------------------


def test_the_states_of_a_life(start: Start) -> None:
    child = start(loaded=False, tokens=3, token_us=100_000)
    assert state_of(child) is State.STARTING
    load(child)
    assert state_of(child) is State.READY
    answer = pieces_of(child, "hi")
    next(answer)
    assert state_of(child) is State.RUNNING
    while next(answer).result is None:
        pass
    assert state_of(child) is State.READY
    answer.close()
    answer = pieces_of(child, "hi " + directive(tokens=100, token_us=300_000))
    next(answer)
    answer.close()
    assert state_of(child) is State.DRAINING, "until the next token is due"
    assert ask(child, "hi " + directive(reply="after"))[0] == "after"
    assert state_of(child) is State.READY
    child.close()
    assert state_of(child) is State.DEAD
    assert not child.alive


def test_nothing_of_an_answer_given_up_reaches_the_next_one(start: Start) -> None:
    child = start()
    for number in range(20):
        answer = pieces_of(child, directive(tokens=5000))
        next(answer)
        answer.close()
        assert ask(child, directive(reply=f"only {number}"))[0] == f"only {number}"


def test_an_answer_given_up_at_its_last_text_has_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()
    read = child._read

    def read_all() -> list[tuple[int, int, bytes]]:
        batch = read()
        while not batch or batch[-1][0] < frames.RESULT:
            batch += read()
        return batch

    monkeypatch.setattr(child, "_read", read_all)
    for prompt in (directive(reply="short"), directive(tokens=2, error_at=1)):
        answer = pieces_of(child, prompt)
        next(answer)
        answer.close()
        assert state_of(child) is State.READY, "there is nothing left to wait for"


def test_an_error_of_the_runtime_leaves_the_process_ready(start: Start) -> None:
    child = start()
    with pytest.raises(RuntimeFailed):
        ask(child, "hi " + directive(run_error=1))
    assert state_of(child) is State.READY
    assert ask(child, "hi")[0] == "hi"


# --- Aborts ------------------------------------------------------------------------------------


def test_an_abort_ends_the_answer_as_cancelled(start: Start) -> None:
    child = start(tokens=100_000, token_us=1000)
    answer = pieces_of(child, "hi")
    next(answer)
    child.abort()
    assert result_of(answer).reason == "cancelled"


def test_an_abort_that_comes_before_its_command_is_heeded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(tokens=100_000, token_us=1000)
    send = child._send

    def abort_first(kind: int, run: int, payload: bytes = b"") -> None:
        if kind == frames.GENERATE:
            child.abort()
        send(kind, run, payload)

    monkeypatch.setattr(child, "_send", abort_first)
    text, result = ask(child, "hi")
    assert (text, result.reason) == ("", "cancelled")


def test_an_abort_that_comes_before_the_backend_has_begun_is_heeded() -> None:
    class Beginning:
        """A backend that, as all do, forgets an abort that came before its run."""

        def generate(self, _: GenerateSpec, *rest: Any) -> RunResult:
            run_lane._abort(1)
            return RunResult(reason="cancelled" if rest[-1]() else "stop")

        def abort(self) -> None:
            """There is nothing to abort yet."""

    commands, events = os.pipe()
    with open(commands, "rb"), open(events, "wb"):
        child = Child(((commands, events),))
        child.backend = Beginning()  # type: ignore[assignment]
        run_lane = child._lanes[commands]
        payload = frames.encode_generate(GenerateSpec(prompt="hi"))
        assert frames.decode_result(run_lane._generate(1, payload)).reason == "cancelled"
        run_lane._aborted = 0
        assert frames.decode_result(run_lane._generate(2, payload)).reason == "stop"


def test_an_abort_that_comes_too_late_harms_no_later_answer(start: Start) -> None:
    child = start()
    child.abort()
    assert ask(child, directive(reply="one"))[0] == "one"
    child._send(frames.ABORT, child._run)
    child._send(frames.ABORT, child._run - 1)
    text, result = ask(child, directive(reply="two"))
    assert (text, result.reason) == ("two", "stop")


def test_an_old_abort_does_not_undo_a_new_one(start: Start) -> None:
    child = start(tokens=100_000, token_us=1000)
    child._send(frames.ABORT, child._run + 1)
    child._send(frames.ABORT, child._run)
    assert ask(child, "hi")[1].reason == "cancelled"


def test_aborts_from_other_threads_never_mix_with_a_long_prompt(start: Start) -> None:
    """A prompt is longer than the pipe: an abort written between its parts would corrupt it."""
    child = start(reply="fine")
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            child._send(frames.ABORT, 0)  # for no run that there is

    tasks = [Task(disturb) for _ in range(2)]
    prompt = "x" * 500_000
    try:
        for _ in range(5):
            with pytest.raises(PromptTooLong):
                ask(child, prompt)
            assert ask(child, "hi")[0] == "fine"
    finally:
        stop.set()
        for task in tasks:
            task.result()


def test_an_abort_after_the_end_writes_to_nobody_elses_descriptor(start: Start) -> None:
    child = start()
    number = child._pipes._commands
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child.close()
        os.dup2(ours.fileno(), number)  # the number is in use again
        try:
            child._enter(State.RUNNING)  # as the other thread has read it just before
            child.abort()
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(100)
        finally:
            os.close(number)


def test_a_client_that_hangs_up_ends_the_wait(start: Start) -> None:
    child = start(prefill_us=100_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = Task(
            lambda: list(
                pieces_of(child, "a b c d e f g h i j k l", caller=Caller(theirs.fileno()))
            )
        )
        until(lambda: child.state is State.RUNNING)
        ours.close()
        with pytest.raises(Cancelled):
            task.result()
    assert state_of(child) is State.DRAINING, "it ended before the run did"
    child.settle()
    assert state_of(child) is State.READY


# --- Bytes -------------------------------------------------------------------------------------


_SEEING = """
from hashlib import sha256
from rkllama.backends.base import LoadedInfo, RunResult
from rkllama.runner import child

class Seeing:
    def load(self, spec):
        return LoadedInfo(context_length=1, runtime="none")

    def generate(self, spec, emit, *rest):
        emit(" ".join(sha256(image).hexdigest() for image in spec.images))
        return RunResult(reason="stop")

    def abort(self):
        pass

    def close(self):
        pass

class Kind:
    create = Seeing

child.kind_of = lambda *_, **__: Kind
child.main()
"""
"""The end of the child's program, with a backend that says what images it got."""


def test_images_reach_the_backend_as_they_are_and_no_later_run(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = process._CHILD.replace("from rkllama.runner.child import main\nmain()", _SEEING)
    monkeypatch.setattr(process, "_CHILD", program)
    child = start()
    images = (b"\x89PNG\r\n\x00", bytes(range(256)) * 10_000, b"")
    spec = GenerateSpec(prompt="hi", images=images)
    seen = text_of(child.generate(spec, first=LIMIT, each=LIMIT))
    assert seen.split() == [sha256(image).hexdigest() for image in images]
    assert ask(child, "hi")[0] == ""


@pytest.mark.parametrize("size", [0, 1, 2_000_000])
def test_a_backend_without_eyes_refuses_images_and_goes_on(start: Start, size: int) -> None:
    child = start(reply="fine")
    spec = GenerateSpec(prompt="hi", images=(b"x", bytes(size)))
    with pytest.raises(Unsupported, match="images"):
        list(child.generate(spec, first=LIMIT, each=LIMIT))
    assert ask(child, "hi")[0] == "fine"


def test_images_that_are_too_large_are_refused_before_anything_is_sent(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_BYTES", 10)
    child = start(reply="fine")
    spec = GenerateSpec(prompt="hi", images=(b"12345", b"678901"))
    with pytest.raises(InvalidRequest, match="11 bytes together, at most 10"):
        list(child.generate(spec, first=LIMIT, each=LIMIT))
    assert state_of(child) is State.READY
    assert ask(child, "hi")[0] == "fine"


# --- Crashes and hangs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ({"segv_at": 3}, -signal.SIGSEGV, "SIGSEGV"),
        ({"abort_at": 0}, -signal.SIGABRT, "GGML_ASSERT"),
        ({"exit_at": 2, "exit_code": 7}, 7, "exited with status 7"),
    ],
)
def test_a_crash_is_named(start: Start, fault: dict[str, int], status: int, words: str) -> None:
    child = start(tokens=10)
    with pytest.raises(WorkerCrashed, match=words) as caught:
        ask(child, "hi " + directive(**fault))
    assert caught.value.exit_status == status
    assert state_of(child) is State.DEAD
    assert caught.value.log


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "most likely the memory ran out"),
        (signal.SIGBUS, "a file that it reads is cut off"),
        (signal.SIGILL, "this build of the runtime does not fit this CPU"),
    ],
)
def test_a_signal_is_explained(start: Start, number: signal.Signals, words: str) -> None:
    child = start()
    os.kill(child.pid, number)
    with pytest.raises(WorkerCrashed, match=words) as caught:
        ask(child, "hi")
    assert f"Its log is {child._log.path}." in str(caught.value.hint)
    assert (DOCTOR in str(caught.value.hint)) == (number != signal.SIGBUS)


def test_a_failure_of_the_runtime_names_the_log(start: Start) -> None:
    child = start()
    with pytest.raises(RuntimeFailed) as run:
        ask(child, "hi " + directive(run_error=1))
    assert f"Its log is {child._log.path}." in str(run.value.hint)
    failing = start(loaded=False, init_error=1, log="load")
    with pytest.raises(LoadFailed) as load_error:
        load(failing)
    assert f"Its log is {failing._log.path}." in str(load_error.value.hint)


def test_a_log_that_cannot_be_written_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    child = Worker(write_model(tmp_path / "m.rkllm"), str(tmp_path / "logs" / "m.log"))
    load(child)
    with pytest.raises(RuntimeFailed) as caught:
        ask(child, "hi " + directive(run_error=1))
    child.close()
    assert "Its log" not in caught.value.text


def test_a_models_process_may_open_as_many_files_as_the_system_lets(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        child = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    expected = 102_400 if hard == resource.RLIM_INFINITY else min(hard, 102_400)
    assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE)[0] == expected


def test_a_crash_while_a_long_prompt_is_sent_is_a_crash(start: Start) -> None:
    child = start()
    os.kill(child.pid, signal.SIGSTOP)  # reads nothing: the pipe is soon full
    task = Task(lambda: ask(child, "x" * 5_000_000))
    until(lambda: child.state is State.RUNNING and not task.done)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        task.result()


def test_a_process_that_reads_no_command_is_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SEND_GRACE", 0.2)
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(WorkerCrashed, match="accepted no command"):
        ask(child, "x" * 5_000_000)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        frames.pack_header(3, frames.RESULT, 2) + b"{}}",
        frames.pack_header(2, frames.RESULT, 2) + b"[]",
        frames.pack_header(4, frames.ERROR, 2) + b"null",
        frames.pack_header(14, frames.RESULT, 2) + b'{"nonsense":1}',
    ],
)
def test_garbage_on_the_pipe_ends_the_process_with_a_clear_error(
    start: Start, garbage: bytes
) -> None:
    child = start(loaded=False)
    load(child)
    assert child._run == 1
    reader, writer = os.pipe()
    os.write(writer, garbage)
    os.dup2(reader, child._pipes.events)
    os.close(reader)
    task = Task(lambda: list(pieces_of(child, "hi")))
    until(lambda: child._process.kill_reason)
    os.close(writer)
    with pytest.raises(WorkerCrashed, match="it sent invalid data"):
        task.result()
    assert state_of(child) is State.DEAD


def test_text_that_is_no_utf8_is_shown_and_ends_nothing(start: Start) -> None:
    batch = [(frames.TEXT, 1, b"ab\xff"), (frames.TEXT, 1, b"c")]
    assert list(lane._pieces(batch)) == [Piece("ab\ufffdc")]
    assert list(lane._pieces(batch[:1])) == [Piece("ab\ufffd")]


@pytest.mark.parametrize("at", [0, 5])
def test_a_hang_is_ended_after_its_limit(start: Start, at: int) -> None:
    child = start(tokens=10)
    with pytest.raises(WorkerHung) as caught:
        ask(child, "hi " + directive(hang_at=at), first=0.2, each=0.1)
    assert f"Its log is {child._log.path}." in caught.value.text
    assert caught.value.seconds == (0.2 if at == 0 else 0.1)
    assert state_of(child) is State.DEAD
    assert not child.alive


def test_of_many_texts_each_has_its_own_limit(start: Start) -> None:
    child = start()
    texts = ("a", "b", "c " + directive(prefill_us=20_000_000), *"d" * 17)
    began = time.monotonic()
    with pytest.raises(WorkerHung) as caught:
        child.embed(texts, True, limits=[LIMIT, LIMIT, 0.2, *[LIMIT] * 17])
    assert caught.value.seconds == 0.2
    assert time.monotonic() - began < 5


def test_no_limit_is_too_long_for_the_system(start: Start) -> None:
    """poll() counts milliseconds in 31 bits."""
    child = start()
    assert len(child.embed(("a", "b"), True, limits=[1e9, 1e18]).vectors) == 2


def test_a_hang_has_the_cause_that_the_log_names(start: Start) -> None:
    child = start()
    script = directive(hang_at=0, run_log="E RKNN: failed to submit!, op id: 3")
    with pytest.raises(WorkerHung, match="was stopped: the NPU failed to compute") as caught:
        ask(child, "hi " + script, first=0.5)
    assert "driver 0.9.8" in caught.value.text


def test_a_runtime_that_heeds_no_abort_is_ended_in_bounded_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()
    child.kind = replace(child.kind, abort_grace=0.2)
    answer = pieces_of(child, "hi " + directive(tokens=10, hang_at=2))
    next(answer)
    with monkeypatch.context() as patch:
        patch.setattr(child, "_send", lambda *_: None)
        answer.close()
    assert state_of(child) is State.DRAINING
    with pytest.raises(WorkerHung, match="abort"):
        ask(child, "hi")


def test_tokens_that_go_on_after_an_abort_do_not_prolong_the_wait(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(tokens=1000, token_us=10_000)
    child.kind = replace(child.kind, abort_grace=0.3)
    answer = pieces_of(child, "hi")
    next(answer)
    send = child._send
    monkeypatch.setattr(child, "_send", lambda *_: None)  # the abort is lost
    answer.close()
    monkeypatch.setattr(child, "_send", send)
    with pytest.raises(WorkerHung, match="abort"):
        child.settle()  # long before the 10 s of the run are over


def test_an_earlier_runs_complaint_does_not_explain_a_later_crash(start: Start) -> None:
    child = start()
    with pytest.raises(PromptTooLong):
        ask(child, "word " * 6000)
    with pytest.raises(WorkerCrashed, match="SIGSEGV") as crash:
        ask(child, "hi " + directive(segv_at=0))
    assert "tokens" not in crash.value.message


# --- Loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"init_error": 1}, "could not be loaded"),
        ({"init_null": 1}, "could not be loaded"),
        ({"crash_in_init": 1}, "SIGSEGV"),
        ({"init_error": 1, "log": "malloc"}, "not have enough memory"),
    ],
)
def test_a_load_that_fails_leaves_no_process(
    start: Start, config: dict[str, object], words: str
) -> None:
    child = start(loaded=False, **config)
    with pytest.raises(LoadFailed, match=words):
        load(child)
    assert state_of(child) is State.DEAD


@pytest.mark.parametrize("config", [{"init_error": 1}, {"crash_in_init": 1}])
def test_a_file_shorter_than_its_name_promises_is_told_when_it_cannot_be_loaded(
    tmp_path: Path, config: dict[str, object]
) -> None:
    path = write_model(tmp_path / "Qwen2.5-1.5B-w8a8.rkllm", size=200_000_000, **config)
    child = Worker(path, str(tmp_path / "m.log"))
    with pytest.raises(LoadFailed) as caught:
        load(child)
    assert "Its file has 0.2 GB, less than its name promises" in caught.value.text
    assert f"Its log is {tmp_path / 'm.log'}." in caught.value.text


def test_a_load_that_hangs_names_its_own_setting(start: Start) -> None:
    child = start(loaded=False, hang_in_init=1)
    with pytest.raises(WorkerHung) as caught:
        load(child, timeout=1.0)
    assert "RKLLAMA_LOAD_TIMEOUT" in caught.value.text
    assert f"Its log is {child._log.path}." in caught.value.text
    assert state_of(child) is State.DEAD


def test_a_kill_ends_a_load_with_its_reason(start: Start) -> None:
    child = start(loaded=False, load_ms=20_000)
    task = Task(lambda: load(child))
    until(lambda: child.state is State.RUNNING)
    child.kill("nobody wants it any more")
    with pytest.raises(LoadFailed, match="nobody wants it any more"):
        task.result()


def test_a_process_that_cannot_be_started_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(LoadFailed, match="no python"):
        Worker("m.rkllm", str(tmp_path / "logs" / "m.log"))
    pipe, calls = os.pipe, iter([1])

    def one_pipe() -> tuple[int, int]:
        if next(calls, None) is None:
            raise OSError(24, "Too many open files")
        return pipe()

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", one_pipe)
        with pytest.raises(LoadFailed, match="Too many"):
            Worker("m.rkllm", str(tmp_path / "logs" / "m.log"))
    assert descriptors() == before


def test_the_current_directory_is_not_imported_from(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "rkllama").mkdir(parents=True)
    for name in ("json.py", "queue.py", "rkllama/__init__.py"):
        (here / name).write_text("raise SystemExit('imported from the current directory')")
    monkeypatch.chdir(here)
    assert ask(start(), "hi")[0] == "hi"


# --- The end -----------------------------------------------------------------------------------


def test_closing_frees_the_model_in_order(start: Start, tmp_path: Path) -> None:
    child = start(trace=tmp_path / "trace")
    ask(child, "hi")
    child.close()
    child.close()
    assert read_trace(tmp_path / "trace")[-1]["event"] == "destroy"


def test_closing_after_an_abort_lets_the_run_end_first(start: Start, tmp_path: Path) -> None:
    child = start(trace=tmp_path / "trace", tokens=100_000)
    answer = pieces_of(child, "hi")
    next(answer)
    answer.close()
    assert state_of(child) is State.DRAINING  # and its pipe is full of tokens that nobody reads
    child.close()
    assert read_trace(tmp_path / "trace")[-1]["event"] == "destroy"


def test_closing_in_a_long_prefill_does_not_wait_for_it(start: Start, tmp_path: Path) -> None:
    child = start(prefill_us=2_000_000, trace=tmp_path / "trace")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = Task(
            lambda: list(pieces_of(child, "a b c d e f g h", caller=Caller(theirs.fileno())))
        )
        until(lambda: any(event["event"] == "run" for event in read_trace(tmp_path / "trace")))
        ours.close()
        with pytest.raises(Cancelled):
            task.result()
    child.close()
    assert child._process._popen.returncode == -signal.SIGKILL, (
        "the prefill of 16 s came to its end"
    )


@pytest.mark.serial
def test_closing_a_hung_process_takes_bounded_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CLOSE_GRACE", 0.2)
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    began = time.monotonic()
    child.close()
    assert time.monotonic() - began < 3
    assert child._process._popen.returncode == -signal.SIGKILL


def test_a_process_that_even_the_kernel_cannot_end_is_left_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "CLOSE_GRACE", 0.1)
    monkeypatch.setattr(process, "KILL_GRACE", 0.1)
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(child._process, "_kill_group", lambda: None)
        child.close()
    assert str(child.pid) in caplog.text
    child._process._popen.kill()
    child._process._popen.wait(LIMIT)


def test_kills_and_aborts_from_everywhere_while_it_is_closed(start: Start) -> None:
    for _ in range(5):
        child = start(tokens=100_000)
        answer = pieces_of(child, "hi")
        next(answer)
        others = [Task(lambda: child.kill("enough")), Task(child.abort), Task(child.abort)]  # noqa: B023
        with closing(answer):
            pass
        child.close()
        for other in others:
            other.result()
        assert state_of(child) is State.DEAD


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", tokens=100_000)
    program = f"""
import sys
from rkllama.runner.worker import Worker
from rkllama.backends.base import LoadSpec, GenerateSpec
child = Worker({str(path)!r}, {str(tmp_path / "m.log")!r})
child.load(LoadSpec(path={str(path)!r}, context_length=512, library={library("1.2.3")!r}), timeout=30)
answer = child.generate(GenerateSpec(prompt="hi"), first=30, each=30)
next(answer)
print(child.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        handle = os.pidfd_open(pid)
        try:
            parent.kill()
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            assert poll.poll(1000), "it outlived its parent by a second"
        finally:
            os.close(handle)


# --- The log -----------------------------------------------------------------------------------


def test_a_log_over_its_limit_is_put_aside_when_a_process_starts(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_log, "LIMIT", 1000)
    log = tmp_path / "logs" / "m.log"
    log.parent.mkdir()
    log.write_text("old\n" * 300)
    start()
    assert "old" not in log.read_text()
    assert (tmp_path / "logs" / "m.log.1").read_text() == "old\n" * 300


def test_a_log_over_its_limit_starts_anew_while_the_process_lives(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()
    log = tmp_path / "logs" / "m.log"
    with log.open("a") as stream:
        stream.write("talkative\n" * 300)
    monkeypatch.setattr(child_log, "LIMIT", 2000)
    assert ask(child, "hi")[0] == "hi"
    assert "talkative" in (tmp_path / "logs" / "m.log.1").read_text()
    assert log.stat().st_size < 2000
    with pytest.raises(WorkerCrashed, match="GGML_ASSERT"):
        ask(child, "hi " + directive(abort_at=0))
