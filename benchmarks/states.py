"""Conversations on disk: what is evaluated twice, what a switch costs, and that nothing wrong is used.

A token of a prompt is new if it is neither in the prompt of the turn before nor in the same place of another
conversation in memory. A state holds its turn's prompt, so the answer to it is new in the next one.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rkllama.states.disk import Disk
from tests.running import Server
from tests.states.killed import BUDGET, kill_writers
from tests.states.pairs import look_up, random_pairs
from tests.virtual_npu import library, read_trace, write_model

Report = Callable[..., None]

_PREFILL_US = 4000
_TOKENS = 2000
_TURNS = 10
_ANSWER = 20
_SMALL, _LARGE = 12 << 10, 112 << 10
"""Bytes of a token's KV: of Qwen2.5-0.5B, and of Qwen3-1.7B."""
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")


def measure(report: Report) -> None:
    """Measure all, each in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="rkllama-states-") as folder:
        disk = Disk(folder, None)
        disk.open()
        read, write = (speed / 1e6 for speed in disk.speeds)
        report("(this disk, read and written)", f"{read:.0f} and {write:.0f} MB/s")
    for release in ("1.2.3", "1.3.0"):
        _fresh(lambda home, release=release: _turns(home, release, report))  # type: ignore[misc]
    _fresh(lambda home: _without(home, report))
    _fresh(lambda home: _eight(home, report))
    _fresh(lambda home: _restart(home, report))
    _fresh(lambda home: _switch(home, report))
    with tempfile.TemporaryDirectory(prefix="rkllama-states-") as folder:
        used, wrong = random_pairs(Path(folder), 10_000)
        report("states: wrong reuses in 10,000 random pairs", f"{wrong} of {used} used", "0")
        seconds, size = look_up()
        report("states: look-up among 1000", f"{seconds * 1e3:.2f} ms", "<= 2 ms")
        report("states: memory of 1000", f"{size / 2**20:.2f} MB", "<= 5 MB")
        after = kill_writers(Path(folder, "killed"), 200)
        report("states: torn ones after 200 kills", f"{after.torn} of {after.loadable} loaded", "0")
        report(
            "states: most bytes after a kill, of the budget",
            f"{after.largest / BUDGET:.3f}",
            "<= 1",
        )


def _fresh(work: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="rkllama-states-") as home:
        work(Path(home))


class Bench:
    """A home with one model, and conversations with it."""

    def __init__(self, home: Path, release: str, kv_bytes: int) -> None:
        self.trace = home / "trace"
        os.environ |= {
            "HOME": str(home),
            "RKLLAMA_RKLLM_LIB": library(release),
            "RKLLAMA_LOCK": str(home / "lock"),
            "RKLLAMA_HOST": "127.0.0.1:0",
        }
        self._digests = home / "RKLLAMA/models/.rkllama/digests.json"
        write_model(
            home / "RKLLAMA/models/m-qwen2.5.rkllm",
            prefill_us=_PREFILL_US,
            kv_bytes=kv_bytes,
            tokens=_ANSWER,
            trace=self.trace,
            toolkit="1.2.3",
        )

    def server(self, **settings: str) -> Server:
        """A server that is to be started."""
        return Server("--log-level", "warning", env=settings)

    def ready(self, server: Server) -> None:
        """Load the model and have its digest: neither is to be measured."""
        server.get("/api/tags")
        server.post("/load_model", {"model_name": "m-qwen2.5"})
        while not self._digests.exists():
            time.sleep(0.01)

    def chat(self, server: Server, messages: list[dict[str, str]], words: int) -> dict[str, Any]:
        """One more turn of a conversation."""
        text = " ".join(_WORDS[i % len(_WORDS)] for i in range(words))
        messages.append({"role": "user", "content": f"{len(messages)}: {text}"})
        body = {"model": "m-qwen2.5", "messages": messages, "stream": False}
        reply = server.post("/api/chat", body)
        assert reply.status == 200, reply.body
        values: dict[str, Any] = reply.json
        messages.append(values["message"])
        return values

    def evaluated(self) -> int:
        """Prompt tokens that the NPU has evaluated so far."""
        return sum(e["evaluated"] for e in read_trace(self.trace) if e["event"] == "run")


def _beginning(number: int, tokens: int) -> list[dict[str, str]]:
    text = " ".join(_WORDS[(i * i + number * i) % len(_WORDS)] for i in range(tokens - 30))
    return [{"role": "system", "content": f"You are number {number}. {text}"}]


def _take_turns(
    bench: Bench, server: Server, conversations: list[list[dict[str, str]]], turns: int
) -> tuple[int, int, int]:
    """Let conversations take turns; the tokens evaluated, those that were new, and those of answers."""
    before, new, answers = bench.evaluated(), 0, 0
    lengths = [0] * len(conversations)
    for turn in range(turns):
        for index, conversation in enumerate(conversations):
            values = bench.chat(server, conversation, 40)
            new += values["prompt_eval_count"] - lengths[index]
            lengths[index] = values["prompt_eval_count"]
            answers += _ANSWER if turn else 0
    return bench.evaluated() - before, new, answers


def _turns(home: Path, release: str, report: Report) -> None:
    bench = Bench(home, release, _SMALL)
    with bench.server() as server:
        bench.ready(server)
        pair = [_beginning(1, _TOKENS), _beginning(2, _TOKENS)]
        evaluated, new, answers = _take_turns(bench, server, pair, _TURNS)
    name = f"states, {release}: 2 taking turns: evaluated / new"
    report(name, f"{evaluated / new:.3f}", "<= 1.05")
    report(f"{name}, answers not new", f"{evaluated / (new - answers):.3f}")


def _without(home: Path, report: Report) -> None:
    bench = Bench(home, "1.2.3", _SMALL)
    with bench.server(RKLLAMA_STATE_BUDGET="0") as server:
        pair = [_beginning(1, _TOKENS), _beginning(2, _TOKENS)]
        evaluated, new, _ = _take_turns(bench, server, pair, 3)
    report("no states: 2 taking turns, 3 each: evaluated / new", f"{evaluated / new:.3f}")


def _eight(home: Path, report: Report) -> None:
    bench = Bench(home, "1.2.3", _SMALL)
    room = int(4 * 1.12 * (_TOKENS + 10 * 70) * _SMALL)  # four as they are at the end
    with bench.server(RKLLAMA_STATE_BUDGET=str(room)) as server:
        bench.ready(server)
        conversations = [_beginning(number, _TOKENS) for number in range(8)]
        for conversation in conversations:
            bench.chat(server, conversation, 40)
        last = conversations[4:]
        evaluated, new, _ = _take_turns(bench, server, last, 5)
        beginnings = 4 * _first_length(bench)
        report(
            "states: 8 and room for 4, the last 4: evaluated / new",
            f"{evaluated / (new - beginnings):.3f}",
            "<= 1.05",
        )
        metrics = server.get("/metrics").body.decode()
    refused = next(x for x in metrics.splitlines() if x.startswith("rkllama_state_refused_total"))
    report("states: of them found not to fit", refused.split()[1], "0")


def _first_length(bench: Bench) -> int:
    """Tokens of a conversation's first prompt: they are not new in the turns that are measured."""
    return int(next(e for e in read_trace(bench.trace) if e["event"] == "run")["prompt_tokens"])


def _restart(home: Path, report: Report) -> None:
    bench = Bench(home, "1.2.3", _SMALL)
    pair = [_beginning(1, _TOKENS), _beginning(2, _TOKENS)]
    with bench.server() as server:
        bench.ready(server)
        for _ in range(2):
            lengths = [bench.chat(server, each, 40)["prompt_eval_count"] for each in pair]
        states = home / "RKLLAMA/states"
        while len([*states.glob("*.kv")]) != 2 or len([*states.glob("*.json")]) != 2:
            time.sleep(0.01)
        server.stop(signal.SIGKILL)
    with bench.server() as server:
        before, new = bench.evaluated(), 0
        for each, length in zip(pair, lengths, strict=True):
            new += bench.chat(server, each, 40)["prompt_eval_count"] - length
        report(
            "states: first turns after kill -9: evaluated / new",
            f"{(bench.evaluated() - before) / new:.3f}",
            "1",
        )


def _switch(home: Path, report: Report) -> None:
    """Time to the first token when a conversation of 2000 tokens comes back, and when it is new."""
    bench = Bench(home, "1.2.3", _LARGE)
    with bench.server(RKLLAMA_STATE_WRITES="100G") as server:
        bench.ready(server)
        pair = [_beginning(1, _TOKENS), _beginning(2, _TOKENS)]
        back: list[float] = []
        for turn in range(4):
            for each in pair:
                started = time.monotonic_ns()
                bench.chat(server, each, 10)
                events = read_trace(bench.trace)
                run = [event for event in events if event["event"] == "run"][-1]
                first = run["ns"] + run["evaluated"] * _PREFILL_US * 1000
                if turn:
                    back.append((first - started) / 1e9)
        whole = run["prompt_tokens"] * _PREFILL_US / 1e6
        loads = sum(event["event"] == "load" for event in events)
    report("states: loads of 2000 tokens of 112 KiB", str(loads), "6")
    report(
        "states: first token of a conversation that comes back",
        f"{sorted(back)[len(back) // 2]:.2f} s",
    )
    report(
        "states: the same beside its prefill",
        f"{sorted(back)[len(back) // 2] / whole:.3f}",
        "<= 0.25",
    )
