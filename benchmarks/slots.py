"""Conversations on disk of a .gguf model on one slot: what is evaluated twice, and the time to a first token.

A token of a prompt is new if it was neither in the prompt of the turn before nor in its answer. What another
conversation drops from the slot, llama.cpp may have in memory, too; after `kill -9` only the disk has it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rkllama.models.gguf import read_header
from tests.running import Server

Report = Callable[..., None]

_CONTEXT = 4096
_WORDS = 700
"""Of a conversation's beginning; fewer in a short context."""
_TURNS = 5
_ANSWER = 20
_PATIENCE = 600.0
_NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")


def measure(model: str, report: Report) -> None:
    """Report what is evaluated with the file `model`, and how long a first token takes."""
    context = min(read_header(model).context_length or _CONTEXT, _CONTEXT)
    with tempfile.TemporaryDirectory(prefix="rkllama-slots-") as home:
        models = Path(home) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        (models / "model.gguf").symlink_to(os.path.abspath(model))
        os.environ |= {
            "HOME": home,
            "RKLLAMA_LOCK": f"{home}/lock",
            "RKLLAMA_HOST": "127.0.0.1:0",
            "RKLLAMA_PARALLEL": "1",
            "RKLLAMA_CONTEXT_LENGTH": str(context),
        }
        words = min(_WORDS, context // 6)
        one, two, other = (Talk(number, words) for number in range(3))
        with Server("--log-level", "warning") as server:
            _ready(server, models)
            for _ in range(_TURNS):
                for talk in (one, two):
                    talk.turn(server)
            _report_evaluated(report, "2 taking turns on 1 slot", (one, two))
            other.turn(server)  # takes the slot, so that both others are on the disk
            _settle(Path(home) / "RKLLAMA" / "states", 3)
            server.stop(signal.SIGKILL)
        for talk in (one, two):
            talk.reset()
        _after_kill(models, (one, two), words, report)


def _after_kill(models: Path, talks: tuple[Talk, Talk], words: int, report: Report) -> None:
    with Server("--log-level", "warning") as server:
        _ready(server, models)
        restored = statistics.median(talk.turn(server) for talk in talks)
        _report_evaluated(report, "first turns after kill -9", talks)
        # As long as the others are now, and as new as they were once.
        longer = words * talks[0].prompt_tokens // talks[0].first_tokens
        cold = statistics.median(Talk(number, longer).turn(server) for number in (7, 8))
    tokens = talks[0].prompt_tokens
    report(f"slots: first token of {tokens} tokens, cold", f"{cold:.2f} s")
    report(f"slots: first token of {tokens} tokens, restored", f"{restored:.2f} s")
    report("slots: restored beside cold", f"{restored / cold:.3f}", "<= 0.25")


def _report_evaluated(report: Report, what: str, talks: tuple[Talk, Talk]) -> None:
    evaluated, new = (sum(getattr(talk, name) for talk in talks) for name in ("evaluated", "new"))
    report(
        f"slots: {what}: evaluated / new", f"{evaluated} / {new} = {evaluated / new:.3f}", "<= 1.05"
    )


def _ready(server: Server, models: Path) -> None:
    """Load the model and have its digest: neither is to be measured."""
    server.get("/api/tags")
    server.post("/load_model", {"model_name": "model"})
    while not (models / ".rkllama" / "digests.json").exists():
        time.sleep(0.05)


def _settle(states: Path, count: int) -> None:
    """Wait until so many states are there, and each is whole."""
    while len([*states.glob("*.json")]) < count or len([*states.glob("*.kv")]) != count:
        time.sleep(0.05)


class Talk:
    """A conversation, and what of it was evaluated."""

    def __init__(self, number: int, words: int) -> None:
        text = " ".join(_NAMES[(i * i + number * i) % len(_NAMES)] for i in range(words))
        self._messages = [{"role": "system", "content": f"You are number {number}. {text}"}]
        self._known = 0
        self.prompt_tokens = self.first_tokens = 0
        self.evaluated = self.new = 0

    def reset(self) -> None:
        """Count from here."""
        self.evaluated = self.new = 0

    def turn(self, server: Server) -> float:
        """Have one more turn; return the seconds to its first token."""
        self._messages.append(
            {"role": "user", "content": f"Tell me about {_NAMES[self.new % 10]}."}
        )
        options = {"temperature": 0, "num_predict": _ANSWER}
        seconds, text, end = _chat(server, {"messages": self._messages, "options": options})
        self._messages.append({"role": "assistant", "content": text})
        self.prompt_tokens = end["prompt_eval_count"]
        self.first_tokens = self.first_tokens or self.prompt_tokens
        # A prompt that had to be counted first was evaluated for that, and its figures are not told.
        self.evaluated += self.prompt_tokens - end.get("cached_count", 0)
        self.new += self.prompt_tokens - self._known
        self._known = self.prompt_tokens + end["eval_count"] - 1  # the last one is not in the cache
        return seconds


def _chat(server: Server, body: dict[str, Any]) -> tuple[float, str, dict[str, Any]]:
    """Return the seconds to the first token, the text, and the last message of a streamed answer."""
    client = http.client.HTTPConnection(server.host, server.port, timeout=_PATIENCE)
    started, first, text = time.perf_counter(), 0.0, ""
    client.request("POST", "/api/chat", json.dumps({"model": "model", **body}))
    values: dict[str, Any] = {}
    for line in client.getresponse():
        values = json.loads(line)
        if content := values.get("message", {}).get("content"):
            first = first or time.perf_counter() - started
            text += content
    client.close()
    return first, text, values
