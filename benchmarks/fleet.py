"""Several boards behind HAProxy: what is lost, what is cached, and what the balancer costs.

Each board is an unchanged `rkllama serve` over a virtual NPU that writes 100 tokens a second, as root in a
network namespace with an address of its own, else on a port of the loopback.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fleet.cluster import (
    Answer,
    Balancer,
    BoardProcess,
    Model,
    ask,
    namespaces,
    rkllama,
    running,
    wait_until,
)
from tests.virtual_npu import read_trace

Report = Callable[..., None]

_TOKEN_US = 10_000
_SHORT: Model = {"tokens": 10, "token_us": _TOKEN_US}
_CHATTY = "chat-qwen2.5"
"""A name that tells its template, so that conversations can be saved."""
_REQUESTS = 1000
_CLIENTS = 12


def measure(report: Report) -> None:
    """Measure all of it; some minutes."""
    with tempfile.TemporaryDirectory(prefix="rkllama-fleet-") as home:
        os.environ.update({"HOME": home, "RKLLAMA_HOST": "127.0.0.1:0"})
        for number, part in enumerate(_PARTS):
            part(Path(home) / str(number), report)


# --- Fleets ------------------------------------------------------------------------------------


@contextmanager
def _fleet(
    home: Path, models: Mapping[str, Mapping[str, Model]], **env: str
) -> Iterator[tuple[Balancer, list[BoardProcess]]]:
    """A fleet of boards with these models each, and its balancer."""
    with _places(list(models)) as places:
        boards = [
            BoardProcess(name, home / name, models[name], host=host, namespace=space, env=env)
            for name, (space, host) in zip(models, places, strict=True)
        ]
        with running(boards):
            names = [f"{board.name}={board.address}" for board in boards]
            with Balancer(home / "fleet", names) as balancer:
                yield balancer, boards


@contextmanager
def _places(names: Sequence[str]) -> Iterator[list[tuple[str | None, str]]]:
    if os.geteuid() != 0:
        yield [(None, "127.0.0.1") for _ in names]
        return
    with namespaces(names) as found:
        yield [(space, address) for space, address in found]


def _chat(
    text: str, *, stream: bool = False, model: str = "chat", **values: object
) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": model, "messages": [message], "stream": stream, **values}


class _Load:
    """Clients that ask until a number of requests has been sent; each gets its answer before its next."""

    def __init__(
        self, port: int, bodies: Iterator[dict[str, Any]], host: str = "127.0.0.1"
    ) -> None:
        self._port, self._bodies, self._host = port, bodies, host
        self._lock = threading.Lock()
        self.answers: list[tuple[dict[str, Any], Answer, float]] = []

    def __call__(self, clients: int = _CLIENTS) -> float:
        """Return the seconds that all of it took."""
        threads = [threading.Thread(target=self._work) for _ in range(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def _work(self) -> None:
        while True:
            with self._lock:
                body = next(self._bodies, None)
            if body is None:
                return
            started = time.perf_counter()
            answer = ask(self._port, "/api/chat", body, host=self._host)
            self.answers.append((body, answer, time.perf_counter() - started))

    @property
    def done(self) -> int:
        """How many have their answer, whole and with what ends it."""
        return sum(_is_whole(answer) for _, answer, _ in self.answers)

    def failures(self) -> Counter[str]:
        """What became of the others."""
        return Counter(
            f"{answer.status} {answer.body[-60:]!r}"
            for _, answer, _ in self.answers
            if not _is_whole(answer)
        )


def _is_whole(answer: Answer) -> bool:
    return answer.status == 200 and answer.whole and b'"done":true' in answer.body[-2000:]


def _runs(board: BoardProcess) -> int:
    return sum(event["event"] == "run" for event in read_trace(board.trace))


# --- What is measured --------------------------------------------------------------------------


def _throughput(home: Path, report: Report) -> None:
    with _fleet(home, {name: {"chat": _SHORT} for name in ("rk1", "rk2", "rk3")}) as (lb, boards):
        for board in boards:
            ask(board.port, "/api/chat", _chat("hello"), host=board.host)
        one = _Load(boards[0].port, iter([_chat(f"one {n}") for n in range(100)]), boards[0].host)
        three = _Load(lb.port, iter([_chat(f"three {n}") for n in range(300)]))
        alone = 100 / one()
        ratio = 300 / three() / alone
        assert one.done == 100
        assert three.done == 300, three.failures()
        report("3 boards, 12 clients: throughput to that of one", f"{ratio:.2f}", ">= 2.9")


def _outages(home: Path, report: Report) -> None:
    with _fleet(home, {name: {"chat": _SHORT} for name in ("rk1", "rk2", "rk3")}) as (lb, boards):
        load = _Load(lb.port, iter([_chat(f"question {n}") for n in range(_REQUESTS)]))

        def disturb() -> None:
            boards[0].restart(signal.SIGKILL)
            _await_up(lb, 3)
            boards[1].restart(signal.SIGTERM)
            _await_up(lb, 3)
            _roll(lb, boards)

        _beside(load, disturb)
        _report_lost(load, "requests over SIGKILL, SIGTERM and a rolling restart: lost", report)


def _streams(home: Path, report: Report) -> None:
    with _fleet(home, {name: {"chat": _SHORT} for name in ("rk1", "rk2", "rk3")}) as (lb, boards):
        bodies = [_chat(f"question {n}", stream=True) for n in range(_REQUESTS)]
        load = _Load(lb.port, iter(bodies))
        _beside(load, lambda: _roll(lb, boards))
        _report_lost(load, "streams over a rolling restart with drain: cut", report)


def _report_lost(load: _Load, what: str, report: Report) -> None:
    report(f"{_REQUESTS} {what}", str(_REQUESTS - load.done), "0")
    for failure, count in load.failures().items():
        report("    of these", f"{count} x {failure}")


def _roll(lb: Balancer, boards: Sequence[BoardProcess]) -> None:
    """Restart one board after the other, each when the one before is up again."""
    for board in boards:
        board.restart(signal.SIGTERM)
        _await_up(lb, len(boards))


def _await_up(lb: Balancer, count: int) -> None:
    wait_until(lambda: lb.ups() == count, "the board does not come back")


def _beside(load: _Load, disturb: Callable[[], None]) -> None:
    """Disturb the boards under load, beginning when the first answers are there."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            wait_until(lambda: len(load.answers) > 20, "no answers")
            disturb()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    load()
    thread.join()
    if failures:
        raise failures[0]
    assert len(load.answers) == _REQUESTS


def _caches(home: Path, report: Report) -> None:
    """9 chats on 3 boards, 10 turns each, all with one system prompt; with affinity and without."""
    model: Model = {"prefill_us": 4000, "token_us": 1000, "tokens": 20, "kv_bytes": 4096}
    for affinity in (True, False):
        place = home / str(affinity)
        models = {name: {_CHATTY: model} for name in ("rk1", "rk2", "rk3")}
        with _fleet(place, models) as (lb, boards):
            for board in boards:
                _await_digest(board)
            if not affinity:
                _without_affinity(lb)
            prompt = cached = 0
            for result in _chats(lb.port, chats=9, turns=10):
                prompt += result[0]
                cached += result[1]
            evaluated = _evaluated(boards)
            report(
                f"9 chats on 3 boards, 10 turns, {'with' if affinity else 'without'} affinity: cached",
                f"{cached / prompt * 100:.1f} %",
                ">= 90 %" if affinity else "",
            )
            report("    tokens evaluated of all", f"{evaluated} of {prompt}")


def _await_digest(board: BoardProcess) -> None:
    """Wait until a board knows its model's sha256: before, it saves no conversation."""

    def known() -> bool:
        return bool(
            ask(board.port, "/api/tags", host=board.host).json["models"][0]["digest"].strip("0")
        )

    wait_until(known, "no digest")


def _without_affinity(lb: Balancer) -> None:
    path = lb.directory / "haproxy.cfg"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "stick " not in line))
    lb.__exit__()
    lb.start()


def _chats(port: int, chats: int, turns: int) -> list[tuple[int, int]]:
    """Return the prompt tokens of every turn, and how many of them came from a cache."""
    system = "You are a helpful assistant of a small workshop. " * 100
    found: list[tuple[int, int]] = []

    def talk(number: int) -> None:
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
        for turn in range(turns):
            text = f"Chat {number}, turn {turn}: " + "tell me more about the tools here. " * 2
            messages.append({"role": "user", "content": text})
            answer = ask(
                port, "/api/chat", {"model": _CHATTY, "messages": messages, "stream": False}
            )
            assert _is_whole(answer), answer
            values = answer.json
            messages.append(values["message"])
            found.append((values["prompt_eval_count"], values.get("cached_count") or 0))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(chats)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == chats * turns
    return found


def _evaluated(boards: Sequence[BoardProcess]) -> int:
    return sum(
        event["evaluated"]
        for board in boards
        for event in read_trace(board.trace)
        if event["event"] == "run"
    )


def _models(home: Path, report: Report) -> None:
    """Two boards with model A, one with B: all answered, and no model loaded twice."""
    models = {"rk1": {"a": _SHORT}, "rk2": {"a": _SHORT}, "rk3": {"b": _SHORT}}
    with _fleet(home, models) as (lb, boards):
        bodies = [_chat(f"question {n}", model="ab"[n % 2]) for n in range(120)]
        load = _Load(lb.port, iter(bodies))
        load()
        loads = [
            sum(event["event"] == "init" for event in read_trace(board.trace)) for board in boards
        ]
        report("A on two boards, B on one: answered of 120", str(load.done), "120")
        report("    loads of a model on each board", " ".join(map(str, loads)), "1 1 1")


def _slow(home: Path, report: Report) -> None:
    """One board of three is slower by a factor of 4."""
    shares: dict[bool, tuple[list[int], float]] = {}
    for slow in (False, True):
        keys: Model = {**_SHORT, "token_us": 4 * _TOKEN_US if slow else _TOKEN_US}
        models = {"rk1": {"chat": _SHORT}, "rk2": {"chat": _SHORT}, "rk3": {"chat": keys}}
        with _fleet(home / str(slow), models) as (lb, boards):
            for board in boards:
                ask(board.port, "/api/chat", _chat("hello"), host=board.host)
            load = _Load(lb.port, iter([_chat(f"question {n}") for n in range(200)]))
            load(3)
            assert load.done == 200, load.failures()
            runs = [_runs(board) - 1 for board in boards]
            fast = sorted(s for _, a, s in load.answers if a.headers["x-rkllama-board"] != "rk3")
            shares[slow] = runs, fast[len(fast) * 95 // 100]
    runs, p95 = shares[True]
    report("a board slower by 4: requests of each", " ".join(map(str, runs)), "4 : 4 : 1")
    change = p95 / shares[False][1] * 100 - 100
    report("    p95 of the others, with it and without", f"{change:+.1f} %", "<= +10 %")


def _latency(home: Path, report: Report) -> None:
    """What HAProxy adds to each token of one stream at 100 tokens a second."""
    model: Model = {"tokens": 300, "token_us": _TOKEN_US, "trace_tokens": 1}
    with _fleet(home, {"rk1": {"chat": model}}) as (lb, boards):
        board = boards[0]
        added: dict[str, list[float]] = {"directly": [], "through HAProxy": []}
        runs = 0
        for turn in range(7):
            for how, (host, port) in {
                "directly": (board.host, board.port),
                "through HAProxy": ("127.0.0.1", lb.port),
            }.items():
                answer = ask(port, "/api/chat", _chat(f"{how} {turn}", stream=True), host=host)
                assert _is_whole(answer), answer
                runs += 1
                tokens = _tokens_of_run(board, runs)
                if turn:  # the first one loads the model
                    added[how] += _delays(answer, tokens)
        direct, through = (statistics.median(each) for each in added.values())
        report("latency per token, p50: directly", f"{direct:.3f} ms")
        report("    what HAProxy adds", f"{through - direct:.3f} ms", "<= 0.3 ms")


def _delays(answer: Answer, tokens: Sequence[int]) -> Iterator[float]:
    """Yield the milliseconds from each token to the line that brought it, which may bring several."""
    count = 0
    for moment, line in zip(answer.moments, answer.body.splitlines(), strict=True):
        words = json.loads(line)["message"]["content"].split()
        if words:
            count += len(words)
            yield moment * 1000 - tokens[count - 1] / 1e6


def _tokens_of_run(board: BoardProcess, number: int) -> list[int]:
    """Return when the tokens of a board's run were made, in ns; that is written after its answer."""

    def events() -> list[list[int]]:
        return [event["ns"] for event in read_trace(board.trace) if event["event"] == "tokens"]

    wait_until(lambda: len(events()) >= number, "the run is not traced")
    return events()[number - 1]


def _many(home: Path, report: Report) -> None:
    """100 boards whose answers are made up: the configuration loads, and how long `fleet status` takes."""
    home.mkdir(parents=True)
    with simulated(100) as names:
        with Balancer(home / "fleet", names) as lb:
            assert lb.ups() == 100
            size = sum(1 for _ in (lb.directory / "haproxy.cfg").open())
            seconds, used = [], []
            for _ in range(5):
                started, before = time.perf_counter(), os.times()
                rkllama("fleet", "status", f"--directory={lb.directory}")
                seconds.append(time.perf_counter() - started)
                after = os.times()
                used.append(
                    after.children_user
                    + after.children_system
                    - before.children_user
                    - before.children_system
                )
            memory = _memory(lb.process.pid)
        report("100 boards: lines of the configuration, all up", str(size))
        report("    fleet status", f"{statistics.median(seconds):.2f} s", "<= 2 s")
        report("    processor time of that", f"{statistics.median(used):.2f} s")
        report("    memory of HAProxy", f"{memory:.0f} MB")


@contextmanager
def simulated(count: int) -> Iterator[list[str]]:
    """Boards whose answers are made up, in a process of their own; their names for `fleet init`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet", str(count)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        yield [f"rk{number}=127.0.0.1:{port}" for number, port in enumerate(ports, 1)]
    finally:
        process.kill()
        process.communicate()


def _memory(pid: int) -> float:
    """Return the proportional memory of a process and its children in MB."""
    total = 0
    with open(f"/proc/{pid}/task/{pid}/children") as stream:
        pids = [pid, *map(int, stream.read().split())]
    for each in pids:
        with open(f"/proc/{each}/smaps_rollup") as stream:
            total += next(int(line.split()[1]) for line in stream if line.startswith("Pss:"))
    return total / 1024


_PARTS = (_throughput, _outages, _streams, _caches, _models, _slow, _latency, _many)


# --- Boards that are simulated -----------------------------------------------------------------


_MODEL = {"name": "qwen3-4b:latest", "model": "qwen3-4b:latest", "digest": "1" * 64, "size": 1}
_ANSWERS: dict[str, object] = {
    "/ready": {"status": "ready"},
    "/health": {
        "status": "ok", "version": "0.1.0", "queue": 0, "models": [{"name": "qwen3-4b", "state": "ready"}],
    },
    "/api/tags": {"models": [_MODEL]},
    "/v1/models": {"object": "list", "data": [{"id": "qwen3-4b"}]},
    "/api/rkllama/board": {
        "soc": "rk3588", "npu": {"load_percent": [50, 50, 50]}, "throttled": False,
        "temperatures": [{"zone": "npu-thermal", "celsius": 51.2}],
    },
    "/metrics": "rkllama_prompt_tokens_total 100\n",
}  # fmt: skip


class _Simulated(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        value = _ANSWERS.get(self.path, {})
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a check ends with the connection
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _simulate(count: int) -> None:
    ports = []
    for _ in range(count):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Simulated)
        ports.append(str(server.server_port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(" ".join(ports) + "\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    _simulate(int(sys.argv[1]))
