"""One command, `python -m benchmarks`, measures everything of RKLLama that the user waits for.

It starts the server on a virtual NPU and drives it over loopback; a bare ctypes loop over the same library
runs in between, so that what counts is the ratio between the two. Absolute figures are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    board,
    cpu,
    fleet,
    page,
    slots,
    states,
    structured,
    structured_cpu,
    structured_tasks,
)
from rkllama.models import guide
from tests.running import Server
from tests.virtual_npu import directive, library, read_trace, write_model

_RUNS = 5
_TICKS = os.sysconf("SC_CLK_TCK")
_FAST = 15_000
_SETTLED = 2.5
"""Seconds after which a directory that has changed is looked at again only where it changes."""
_PACED = 300
_TOKEN_US = 10_000
_GREEDY = {"model": "guide", "options": {"temperature": 0}}
_REQUESTS = 200
_QUESTIONS = ("How do I download a model?", "Which boards are supported?", "What is a Modelfile?")


def main() -> None:
    """Run all measurements and print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--gguf", metavar="FILE", help="measure the CPU backend alone, with this model"
    )
    parser.add_argument(
        "--states",
        action="store_true",
        help="measure conversations on disk alone (some minutes); with --gguf those of this model",
    )
    parser.add_argument(
        "--fleet", action="store_true", help="measure boards behind HAProxy alone (some minutes)"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="measure answers in a browser's page alone (Chromium and playwright; some minutes)",
    )
    parser.add_argument(
        "--structured",
        action="store_true",
        help="measure structured answers alone (some minutes); with --gguf those of this model",
    )
    parser.add_argument(
        "--tasks",
        choices=structured_tasks.LISTS,
        default="known",
        help="the requests for --structured with --gguf (known)",
    )
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str]] = []

    def report(name: str, value: str, target: str = "") -> None:
        rows.append((name, value, target))
        if not arguments.json:
            sys.stdout.write(f"{name:<58} {value:>22}   {target}\n")
            sys.stdout.flush()

    if arguments.states:
        slots.measure(arguments.gguf or guide.FILE, report)
        if not arguments.gguf:
            states.measure(report)
    elif arguments.structured and arguments.gguf:
        structured_cpu.measure(arguments.gguf, report, structured_tasks.LISTS[arguments.tasks])
    elif arguments.gguf:
        cpu.measure(arguments.gguf, report)
    elif arguments.fleet:
        fleet.measure(report)
    elif arguments.page:
        page.measure(report)
    elif arguments.structured:
        structured.measure(report)
    else:
        with tempfile.TemporaryDirectory(prefix="rkllama-bench-") as home:
            Bench(Path(home), report).run()
    if arguments.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")


class Bench:
    """A home directory with models, and the measurements in it."""

    def __init__(self, home: Path, report: Callable[..., None]) -> None:
        self._report = report
        self._home = home
        self._models = home / "RKLLAMA" / "models"
        self._trace = home / "trace"
        self._library = library("1.2.3")
        self._env = {
            "HOME": str(home),
            "RKLLAMA_RKLLM_LIB": self._library,
            "RKLLAMA_LOCK": str(home / "lock"),
            "RKLLAMA_HOST": "127.0.0.1:0",
        }
        os.environ.update(self._env)
        self._fast = write_model(self._models / "fast.rkllm", tokens=_FAST, max_context=65536)
        write_model(self._models / "one-qwen2.5.rkllm", tokens=1, token_us=0, prefill_us=0)
        write_model(
            self._models / "paced-qwen2.5.rkllm",
            tokens=_PACED,
            token_us=_TOKEN_US,
            prefill_us=1000,
            trace=self._trace,
            trace_tokens=1,
        )

    def run(self) -> None:
        """Measure everything, the quick things first."""
        self._start_up()
        board.measure(self._report)
        with Server("--log-level", "warning") as server:
            self._memory(server)
            self._throughput(server)
            self._first_token(server)
            self._pace(server)
            self._turns(server)
            self._model_list(server)
            self._guide(server)

    # --- Processes -----------------------------------------------------------------------------

    def _start_up(self) -> None:
        bare = _median(lambda: _run([sys.executable, "-c", "pass"]))
        for i in range(500):
            write_model(self._models / f"model-{i}-1.5B-rk3588-w8a8.rkllm")
        script = str(Path(sys.executable).with_name("rkllama"))
        for name, command, target in (
            ("start: rkllama list, 500 models", [script, "list"], "<= 3"),
            ("start: rkllama --help", [script, "--help"], "<= 8"),
        ):
            ratios = [_run(command) / _run([sys.executable, "-c", "pass"]) for _ in range(15)]
            self._report(name, f"{statistics.median(ratios):.2f} interpreters", target)
        ready = _median(self._until_first_answer)
        self._report(
            "start: rkllama serve to the first answer", f"{ready / bare:.1f} interpreters", "<= 25"
        )
        self._report("(a bare interpreter)", f"{bare * 1000:.1f} ms")

    @staticmethod
    def _until_first_answer() -> float:
        started = time.perf_counter()
        with Server("--log-level", "warning") as server:
            server.get("/")
            return time.perf_counter() - started

    def _memory(self, server: Server) -> None:
        server.get("/models")
        self._report("memory, idle", f"{_memory(server):.1f} MB", "<= 45 MB")
        _ask(server, "fast", max_tokens=1)
        self._report("memory, one model loaded", f"{_memory(server):.1f} MB", "<= 75 MB")

    # --- Answers -------------------------------------------------------------------------------

    def _throughput(self, server: Server) -> None:
        body = {"model": "fast", "messages": "hi", "stream": True, "max_tokens": _FAST}
        server.post("/generate", {**body, "options": {"num_ctx": 65536}})
        bare, ours = [], []
        for _ in range(_RUNS):
            command = [sys.executable, "-m", "benchmarks.bare", self._library, self._fast]
            bare.append(float(subprocess.check_output([*command, str(_FAST)]).split()[-1]))
            started = time.perf_counter()
            answer = server.post("/generate", body)
            seconds = time.perf_counter() - started
            ours.append(answer.lines[-1]["usage"]["completion_tokens"] / seconds)
        self._report("tokens/s, bare ctypes loop", f"{statistics.median(bare):,.0f}")
        self._report("tokens/s over HTTP", f"{statistics.median(ours):,.0f}", ">= 40,000")
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        self._report("tokens/s over HTTP, ratio to the loop", f"{ratio:.2f}")

    def _first_token(self, server: Server) -> None:
        """From a request, each on a connection of its own, to its first token, which the NPU has at once."""
        _ask(server, "one-qwen2.5", max_tokens=1)
        time.sleep(_SETTLED)  # until then the models directory counts as still changing
        seconds = sorted(_until_first_byte(server) for _ in range(_REQUESTS))
        self._report(
            "request to its first token, p50",
            f"{seconds[_REQUESTS // 2] * 1000:.2f} ms",
            "<= 1.5 ms",
        )
        self._report(
            "request to its first token, p90", f"{seconds[_REQUESTS * 9 // 10] * 1000:.2f} ms"
        )

    def _pace(self, server: Server) -> None:
        """Latency per token, CPU and the way to rkllm_run, at 100 tokens a second."""
        _ask(server, "paced-qwen2.5", max_tokens=1)
        added: list[float] = []
        starts: list[float] = []
        wholes: list[float] = []
        cpu = _cpu(server)
        for _ in range(_RUNS):
            arrivals, asked = _stream(server)
            events = read_trace(self._trace)
            tokens = [event["ns"] for event in events if event["event"] == "tokens"][-1]
            run = [event["ns"] for event in events if event["event"] == "run"][-1]
            starts.append((run - asked) / 1e6)
            pairs = zip(arrivals, tokens, strict=False)
            added += [(arrival - token) / 1e6 for arrival, token in pairs]
        used = (_cpu(server) - cpu) / (_RUNS * _PACED) * 1000
        for _ in range(_RUNS):
            started = time.perf_counter()
            _ask(server, "paced-qwen2.5")
            wholes.append((time.perf_counter() - started) / (_PACED * _TOKEN_US / 1e6) * 100 - 100)
        added.sort()
        self._report(
            "added latency per token, p50", f"{added[len(added) // 2]:.3f} ms", "<= 0.35 ms"
        )
        self._report(
            "added latency per token, p99", f"{added[len(added) * 99 // 100]:.3f} ms", "<= 2 ms"
        )
        self._report("CPU of all processes per 1000 tokens", f"{used:.3f} s", "<= 0.35 s")
        self._report(
            "request to rkllm_run, after a pause", f"{statistics.median(starts):.2f} ms", "<= 2 ms"
        )
        self._report(
            "whole answer above the sum of its token times",
            f"{statistics.median(wholes):+.2f} %",
            "<= +2 %",
        )

    def _turns(self, server: Server) -> None:
        """Time to the first token, and what of the prompt is evaluated, at turns 1 and 10."""
        messages: list[dict[str, Any]] = []
        for turn in range(1, 11):
            question = f"Question {turn}: what is the answer? {directive(tokens=20, token_us=0)}"
            messages.append({"role": "user", "content": question})
            body = {"model": "paced-qwen2.5", "messages": messages, "stream": False}
            started = time.perf_counter()
            values = server.post("/api/chat", body).json
            seconds = time.perf_counter() - started
            messages.append(values["message"])
            if turn in (1, 10):
                new = values["prompt_eval_count"] - values["cached_count"]
                self._report(
                    f"turn {turn}: prompt tokens evaluated of all",
                    f"{new} of {values['prompt_eval_count']}",
                    "the new ones" if turn == 10 else "",
                )
                self._report(
                    f"turn {turn}: answer of 20 tokens, 1 ms per prompt token",
                    f"{seconds * 1000:.1f} ms",
                )

    def _model_list(self, server: Server) -> None:
        server.get("/models")
        idle = _median(lambda: _timed(lambda: server.get("/models")), 30)
        self._report("GET /models, 500 models", f"{idle * 1000:.2f} ms", "<= 3 ms")
        with server.stream(
            "/generate", {"model": "paced-qwen2.5", "messages": "hi", "stream": True}
        ) as s:
            assert s.status() == 200
            next(iter(s))
            busy = _median(lambda: _timed(lambda: server.get("/models")), 30)
        self._report("the same while a generation runs", f"{busy * 1000:.2f} ms", "<= 5 ms")

    def _guide(self, server: Server) -> None:
        """Measure the bundled model on the CPU, the only real one here."""
        loads, rates = [], []
        for _ in range(_RUNS):
            loads.append(_timed(lambda: server.post("/load_model", {"model_name": "guide"})))
            started = time.perf_counter()
            answers = [server.post("/generate", _GREEDY | {"messages": q}) for q in _QUESTIONS]
            seconds = time.perf_counter() - started
            tokens = sum(answer.json["usage"]["completion_tokens"] for answer in answers)
            rates.append(tokens / seconds)
            server.post("/unload_model")
        self._report("guide: load", f"{statistics.median(loads):.2f} s", "< 1 s")
        self._report("guide: tokens/s over HTTP", f"{statistics.median(rates):,.0f}", "> 300")


# --- Tools -------------------------------------------------------------------------------------


def _run(command: list[str]) -> float:
    return _timed(lambda: subprocess.run(command, check=True, capture_output=True))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _median(measure: Callable[[], float], runs: int = _RUNS) -> float:
    return statistics.median(measure() for _ in range(runs))


def _ask(server: Server, model: str, **fields: object) -> None:
    answer = server.post("/generate", {"model": model, "messages": "hi", **fields})
    assert answer.status == 200, answer.body


def _until_first_byte(server: Server) -> float:
    request = _request("one-qwen2.5")
    with socket.create_connection((server.host, server.port)) as client:
        started = time.perf_counter()
        client.sendall(request)
        client.recv(1 << 16)
        return time.perf_counter() - started


def _request(model: str) -> bytes:
    body = json.dumps({"model": model, "messages": "hi", "stream": True}).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _stream(server: Server) -> tuple[list[int], int]:
    """When each line of a streamed answer came, and when it was asked for; monotonic ns."""
    request = _request("paced-qwen2.5")
    with socket.create_connection((server.host, server.port)) as client:
        asked = time.monotonic_ns()
        client.sendall(request)
        arrivals = []
        while data := client.recv(1 << 16):
            now = time.monotonic_ns()
            arrivals += [now] * data.count(b'"finish_reason":null')
    return arrivals, asked


def _cpu(server: Server) -> float:
    """Return the CPU seconds of the server and its children so far."""
    total = 0
    for pid in (server.process.pid, *server.children()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _memory(server: Server) -> float:
    """Resident memory of the server and its children in MB; shared pages count once per process."""
    total = 0
    for pid in (server.process.pid, *server.children()):
        status = Path(f"/proc/{pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    return total / 1024


if __name__ == "__main__":
    main()
