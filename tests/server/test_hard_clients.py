"""Clients that leave, do not read, or ask for two things at once: the model is free for the next one."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import MAX_PULLS, LocalService
from rkllama.errors import PullError
from rkllama.types import PullProgress
from tests.hub.loopback import Fault, LoopbackHub
from tests.running import LIMIT, Reply, Server
from tests.server.test_robustness import assert_healthy, open_files, receive
from tests.virtual_npu import directive, read_trace, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

# --- Clients that leave or do not read ---------------------------------------------------------


LONG = {"tokens": 900_000, "max_context": 1_000_000}
"""A model whose answer is at least 5 MB: more than all buffers take."""
LONG_ANSWER = {"model": "m", "messages": "hi", "stream": True, "options": {"num_ctx": 950_000}}


def ask_and_never_read(server: Server) -> socket.socket:
    """A connection with a request for a long answer, and next to no room for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(LIMIT)
    client.connect((server.host, server.port))
    body = json.dumps(LONG_ANSWER).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.serial
def test_a_client_that_never_reads_loses_its_answer_and_the_model_is_free(
    models: Path, npu: str
) -> None:
    write_model(models / "m.rkllm", **LONG)
    with Server(env={"RKLLAMA_SEND_TIMEOUT": "500ms"}) as server:
        short = {**LONG_ANSWER, "max_tokens": 1}
        assert server.post("/generate", short).status == 200
        memory, files = resident(server), open_files(server)
        with closing(ask_and_never_read(server)) as stalled:
            until(lambda: state(server) == "busy")
            began = time.monotonic()
            until(lambda: state(server) == "ready")
            assert time.monotonic() - began > 0.4
            assert server.post("/generate", short).status == 200
            assert resident(server) - memory < 8 << 20
            until(lambda: open_files(server) <= files)
            received = b""
            while part := receive(stalled):
                received += part
            assert received.startswith(b"HTTP/1.1 200")
            assert b'"finish_reason":"stop"' not in received
        assert any("does not read" in line for line in server.log)


@pytest.mark.serial
def test_a_server_stops_at_once_though_a_client_does_not_read(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", **LONG)
    with Server() as server, closing(ask_and_never_read(server)):
        until(lambda: state(server) == "busy")
        (child,) = server.children()
        until(lambda: 0 < ticks(child) == ticks(child, after=0.2))
        assert state(server) == "busy"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10  # the client may stall for 30 s


def state(server: Server) -> str:
    """Of the one model; "" while none is in memory."""
    found = server.get("/health").json["models"]
    return str(found[0]["state"]) if found else ""


def ticks(pid: int, after: float = 0.0) -> int:
    """The processor time of a process: it stands still while nobody takes what it says."""
    threading.Event().wait(after)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident(server: Server) -> int:
    """Bytes of memory that the server's own process holds."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_leaves_ends_its_download_though_it_reads_no_progress(
    models: Path, npu: str
) -> None:
    fault = Fault(hold_after=2 << 20)
    part = models / "file" / "file.rkllm.part"
    with LoopbackHub() as hub:
        hub.add("user/repo", {"file.rkllm": b"model" * (6 << 20)})
        hub.fail("file.rkllm", fault)
        with Server(env={"HF_ENDPOINT": hub.endpoint}) as server:
            body = {"model": "hf/user/repo/file.rkllm", "stream": False}
            with server.stream("/api/pull", body):
                until(lambda: part.exists() and part.stat().st_size > 0)
            fault.released.set()
            until(lambda: any("/api/pull" in line and "499" in line for line in server.log))
            assert part.stat().st_size < 30 << 20
            assert server.get("/models").json == {"models": []}


def test_a_slow_reader_gets_every_word(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", **{**LONG, "tokens": 40_000})
    with Server() as server, server.stream("/generate", LONG_ANSWER) as stream:
        assert stream.status() == 200
        lines = []
        for line in stream:
            lines.append(line)
            if len(lines) % 1000 == 0:
                assert server.get("/health").status == 200
        assert lines[-1]["choices"][0]["finish_reason"] == "stop"
        assert lines[-1]["usage"]["completion_tokens"] == 40_000


def test_a_client_that_leaves_during_the_load_is_not_answered(
    server: Server, models: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(models / "m.rkllm", load_ms=500, trace=trace, trace_prompt=1)
    with server.stream("/generate", {"model": "m", "messages": "left", "stream": True}):
        until(lambda: server.get("/api/ps").json["models"])
    assert_healthy(server)
    assert "left" not in trace_text(trace)


def trace_text(trace: Path) -> str:
    return str([event for event in read_trace(trace) if "prompt" in event])


@pytest.mark.serial
def test_a_client_that_leaves_in_prefill_frees_its_place_at_once(
    server: Server, models: Path
) -> None:
    write_model(models / "m.rkllm")
    assert_healthy(server)
    prompt = "a b c d e f g h " + directive(prefill_us=300_000)
    with server.stream("/generate", {"model": "m", "messages": prompt, "stream": True}):
        until(lambda: state(server) == "busy")
    left = time.monotonic()
    until(lambda: state(server) == "ready")
    assert time.monotonic() - left < 1  # of the more than 2 s that the prefill takes
    assert_healthy(server)


# --- Loading and unloading at once -------------------------------------------------------------


def at_once(*calls: Callable[[], Reply]) -> list[Reply]:
    """The answers of calls made at the same time."""
    answers: dict[int, Reply] = {}
    barrier = threading.Barrier(len(calls))

    def run(number: int) -> None:
        barrier.wait(LIMIT)
        answers[number] = calls[number]()

    running = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(LIMIT)
    return [answers[number] for number in range(len(calls))]


def test_of_two_loads_at_once_one_is_told_that_a_model_is_loaded(
    server: Server, models: Path
) -> None:
    for name in "ab":
        write_model(models / f"{name}.rkllm", load_ms=200)
    for second in "ba":
        answers = at_once(
            lambda: server.post("/load_model", {"model_name": "a"}),
            lambda second=second: server.post("/load_model", {"model_name": second}),  # type: ignore[misc]
        )
        assert sorted(answer.status for answer in answers) == [200, 400]
        assert len(server.children()) == 1
        assert server.post("/unload_model").status == 200


def test_an_unload_during_a_load_ends_it(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", load_ms=20_000)
    results: list[Reply] = []
    loading = threading.Thread(
        target=lambda: results.append(server.post("/load_model", {"model_name": "m"}))
    )
    loading.start()
    until(lambda: server.get("/api/ps").json["models"])
    assert server.post("/unload_model").status == 200
    loading.join(LIMIT)
    assert results[0].status == 500
    assert server.get("/current_model").status == 404
    assert server.children() == []


def test_removing_a_model_that_generates_ends_its_answer(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with server.stream("/generate", {"model": "m", "messages": "hi", "stream": True}) as stream:
        assert stream.status() == 200
        lines = iter(stream)
        next(lines)
        assert server.request("DELETE", "/rm", {"model": "m"}).status == 200
        *_, last = lines
        assert last["choices"][0]["finish_reason"] == "cancelled"
    assert server.get("/models").json == {"models": []}
    assert server.children() == []


def test_what_rm_refuses_stays_loaded(server: Server, models: Path) -> None:
    write_model(models / "model-one.rkllm")
    assert server.post("/load_model", {"model_name": "model-one"}).status == 200
    assert server.request("DELETE", "/rm", {"model": "model"}).status == 404
    assert server.post("/api/copy", {"source": "model-one", "destination": "other"}).status == 200
    assert server.request("DELETE", "/rm", {"model": "model-one"}).status == 400
    assert server.get("/current_model").json == {"model_name": "model-one"}


@pytest.mark.serial
def test_unloads_by_the_hundred_keep_nobody_else_waiting(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm")
    assert_healthy(server)
    prompt = " ".join("abcdefghij") + directive(prefill_us=400_000)
    with server.stream("/generate", {"model": "m", "messages": prompt, "stream": True}):
        until(lambda: state(server) == "busy")
        with ExitStack() as stack:
            for _ in range(100):
                client = stack.enter_context(
                    closing(socket.create_connection((server.host, server.port)))
                )
                client.sendall(b"POST /unload_model HTTP/1.1\r\nHost: localhost\r\n\r\n")
            began = time.monotonic()
            assert server.get("/models").status == 200
            assert time.monotonic() - began < 5
    until(lambda: server.children() == [])


def test_requests_during_the_shutdown_end_too(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with Server() as server:
        body = {"model": "m", "messages": "hi", "stream": True}
        with ExitStack() as stack:
            running = stack.enter_context(server.stream("/generate", body))
            assert running.status() == 200
            queued = [stack.enter_context(server.stream("/generate", body)) for _ in range(9)]
            until(lambda: server.get("/health").json["queue"] == 9)
            assert server.stop() == 0
            assert [stream.status() for stream in queued] == [503] * 9
            *_, last = running
        assert last["choices"][0]["finish_reason"] == "cancelled"


def test_downloads_cannot_take_every_thread(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_reference: str, _models: str, **_: object) -> Iterator[PullProgress]:
        while True:
            yield PullProgress(status="resolving", file="x")

    monkeypatch.setattr("rkllama.hub.pull.pull", endless)
    with closing(LocalService(load_settings(), "test")) as service:
        running = [service.pull("u/r/f.rkllm") for _ in range(MAX_PULLS)]
        for steps in running:
            next(steps)
        with pytest.raises(PullError, match=str(MAX_PULLS)):
            next(service.pull("u/r/f.rkllm"))
        running.pop().close()
        running.append(service.pull("u/r/f.rkllm"))
        next(running[-1])
        for steps in running:
            steps.close()
