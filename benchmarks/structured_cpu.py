"""Structured answers of a real model on the CPU: written together with it, as on the NPU, beside llama.cpp's
grammar.

The same model and the same requests, once with the grammar of the CPU backend switched off, so that it
is left to the driver for runtimes that cannot be constrained, and once as the CPU backend does it. Whether an
answer is valid is said by the jsonschema package.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.structured_tasks import Task
from rkllama.config import load_settings
from rkllama.engine.generation import Generation
from rkllama.engine.service import LocalService
from rkllama.types import ChatRequest, Finished, Message, SamplingParams, TextDelta
from tests.schema.reference import Reference

Report = Callable[..., None]

_MAX_TOKENS = 400


class _Answer(NamedTuple):
    """One answer; `error` is what it says of itself."""

    text: str
    seconds: float
    tokens: int
    error: str | None
    valid: bool


def measure(model: str, report: Report, tasks: Sequence[Task]) -> None:
    """Report how many of the answers are valid and how long they take, in both ways."""
    ways = {"written with the model": False, "llama.cpp's grammar": True}
    found: dict[str, list[_Answer]] = {}
    for name, constrained in ways.items():
        with _service(model) as service, _grammar(constrained):
            found[name] = [_ask(service, task) for task in tasks]
        _tell(name, found[name], report)
    driven, held = found.values()
    pairs = zip(driven, held, strict=True)
    ratio = statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)
    report("CPU: time, written with the model / grammar, median", f"{ratio:.2f}")


def _tell(name: str, answers: list[_Answer], report: Report) -> None:
    valid = sum(answer.valid for answer in answers)
    honest = sum(not answer.valid and answer.error is not None for answer in answers)
    report(f"CPU: {name}: valid", f"{valid} of {len(answers)}", ">= 99 %")
    report(f"CPU: {name}: not valid, and said so", f"{honest} of {len(answers) - valid}", "all")
    seconds = [answer.seconds for answer in answers]
    tokens = sum(answer.tokens for answer in answers)
    report(f"CPU: {name}: time of an answer, median", f"{statistics.median(seconds):.2f} s")
    report(f"CPU: {name}: tokens/s", f"{tokens / sum(seconds):.1f}")


@contextmanager
def _service(model: str) -> Iterator[LocalService]:
    with tempfile.TemporaryDirectory(prefix="rkllama-structured-") as home:
        models = Path(home) / "models"
        models.mkdir()
        (models / "model.gguf").symlink_to(os.path.abspath(model))
        environment = {"RKLLAMA_HOME": home, "RKLLAMA_LOCK": f"{home}/lock"}
        environment |= {"RKLLAMA_STATE_BUDGET": "0", "RKLLAMA_PARALLEL": "1"}
        with mock.patch.dict(os.environ, environment):
            service = LocalService(load_settings(), "benchmark")
            try:
                service.load("model")
                yield service
            finally:
                service.close()


@contextmanager
def _grammar(enforced: bool) -> Iterator[None]:
    """Let the engine use the backend's grammar, or take it for one that has none."""
    if enforced:
        yield
        return
    with mock.patch.object(Generation, "constrains", False):
        yield


def _ask(service: LocalService, task: Task) -> _Answer:
    request = ChatRequest(
        model="model",
        messages=(Message.of("user", task.request),),
        format=task.schema,
        max_tokens=_MAX_TOKENS,
        sampling=SamplingParams(temperature=0.0),
    )
    started = time.perf_counter()
    *events, end = service.stream(request)
    seconds = time.perf_counter() - started
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert isinstance(end, Finished)
    tokens = end.usage.completion_tokens or 0
    valid = end.error is None and _is_valid(text, task.schema)
    return _Answer(text, seconds, tokens, end.error, valid)


def _is_valid(text: str, schema: Any) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return Reference(schema).is_valid(text)
