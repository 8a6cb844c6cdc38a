"""Structured answers that are written together with the model, beside what it writes when it is free.

The virtual NPU takes 4 ms for a token of a prompt and 60 ms for one of an answer. The model knows one
document for each schema; a free answer is that document as it is. With faults the model writes that share of
its keys and values wrong, and gives each value at the third try.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.running import Server
from tests.structured.chance import document
from tests.virtual_npu import directive, library, read_trace, write_model

Report = Callable[..., None]

_PREFILL_US, _TOKEN_US = 4_000, 60_000
_SCHEMAS = 12
_FAULTS = (0, 10, 30)


class _Cost(NamedTuple):
    """What an answer took, or several."""

    seconds: float
    """Without those of the prompt, which differ by the schema's text."""
    first: float
    """When its first text came, as a part of all its time with that of the prompt."""
    runs: int
    evaluated: int
    """Tokens of prompts."""
    generated: int
    valid: bool


def measure(report: Report) -> None:
    """Measure all, on one server."""
    with tempfile.TemporaryDirectory(prefix="rkllama-structured-") as folder:
        home = Path(folder)
        os.environ |= {
            "HOME": folder,
            "RKLLAMA_RKLLM_LIB": library("1.2.3"),
            "RKLLAMA_LOCK": str(home / "lock"),
            "RKLLAMA_HOST": "127.0.0.1:0",
            "RKLLAMA_STATE_BUDGET": "0",
        }
        write_model(
            home / "RKLLAMA/models/m-qwen2.5.rkllm",
            prefill_us=_PREFILL_US,
            token_us=_TOKEN_US,
            trace=home / "trace",
            toolkit="1.2.3",
        )
        with Server("--log-level", "warning") as server:
            server.post("/load_model", {"model_name": "m-qwen2.5"})
            _compare(server, home / "trace", report)


def _compare(server: Server, trace: Path, report: Report) -> None:
    free = [_ask(server, trace, seed, None) for seed in range(_SCHEMAS)]
    alone = [_ask(server, trace, seed, 0) for seed in range(_SCHEMAS)]
    for faults in _FAULTS:
        costs = [_ask(server, trace, seed, faults) for seed in range(_SCHEMAS)] if faults else alone
        name = f"structured, {faults} % faults:"
        valid = sum(cost.valid for cost in costs)
        report(f"{name} valid", f"{valid} of {len(costs)}", "all, or said")
        ratios = sorted(c.seconds / f.seconds for c, f in zip(costs, free, strict=True))
        report(f"{name} time / free answer's, median", f"{ratios[len(ratios) // 2]:.2f}", "<= 1.3")
        report(f"{name} the worst of them", f"{ratios[-1]:.2f}", "<= 1.3")
        total = sum(cost.seconds for cost in costs) / sum(cost.seconds for cost in free)
        report(f"{name} all of them together", f"{total:.2f}", "<= 1.3")
        tokens = _tokens(costs) / _tokens(alone) - 1
        report(f"{name} tokens more than without", f"{tokens:.1%}", "<= 15 % at 10 %")
        fewer = sum(c.generated for c in costs) / sum(f.generated for f in free)
        report(f"{name} tokens of answers / free answers'", f"{fewer:.2f}")
        values = sum(_values(document(seed)[1]) for seed in range(_SCHEMAS))
        extra = (sum(cost.runs for cost in costs) - len(costs)) / values
        report(f"{name} extra runs / value", f"{extra:.2f}", "<= 1")
        first = sorted(cost.first for cost in costs)
        report(f"{name} first byte / whole answer", f"{first[len(first) // 2]:.2f}", "< 1")


def _tokens(costs: list[_Cost]) -> int:
    return sum(cost.evaluated + cost.generated for cost in costs)


def _values(value: Any) -> int:
    """Return how many scalars a value has."""
    if isinstance(value, dict):
        return sum(map(_values, value.values()))
    return sum(map(_values, value)) if isinstance(value, list) else 1


def _ask(server: Server, trace: Path, seed: int, faults: int | None) -> _Cost:
    """Have one document written: free with None, which is asked for the schema in the prompt, too."""
    schema, value = document(seed)
    text = directive(
        reply=json.dumps(value, ensure_ascii=False),
        faults=faults or 0,
        fault_tries=2,
        seed=100 * seed + (faults or 0),  # tries of one seed are counted on from answer to answer
    )
    content = f"{json.dumps(schema)} {seed} {faults} {text}"
    body: dict[str, Any] = {
        "model": "m-qwen2.5",
        "messages": [{"role": "user", "content": content}],
    }
    if faults is not None:
        body["format"] = schema
    before = len(read_trace(trace))
    started = time.monotonic()
    lines = []
    first = 0.0
    with server.stream("/api/chat", body) as stream:
        assert stream.status() == 200
        for values in stream:
            if not first and values.get("message", {}).get("content"):
                first = time.monotonic() - started
            lines.append(values)
    seconds = time.monotonic() - started
    events = read_trace(trace)[before:]
    runs = [event for event in events if event["event"] == "run"]
    prefill = runs[0]["evaluated"] * _PREFILL_US / 1e6
    return _Cost(
        seconds - prefill,
        first / seconds,
        len(runs),
        sum(run["evaluated"] for run in runs) - runs[0]["evaluated"],
        sum(event["generated"] for event in events if event["event"] == "finish"),
        lines[-1].get("done_reason") == "stop",
    )
