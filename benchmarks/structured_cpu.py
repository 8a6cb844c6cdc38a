"""Structured answers of a real model on the CPU: written together with it, as on the NPU, beside llama.cpp's
grammar.

The same model and the same fifty requests, once with the grammar of the CPU backend switched off, so that it
is left to the driver for runtimes that cannot be constrained, and once as the CPU backend does it. Whether an
answer is valid is said by the jsonschema package.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from rkllama.config import load_settings
from rkllama.engine.generation import Generation
from rkllama.engine.service import LocalService
from rkllama.types import ChatRequest, Finished, Message, SamplingParams, TextDelta
from tests.schema.reference import Reference
from tests.schema.tools import ALL

Report = Callable[..., None]

_MAX_TOKENS = 400
_TASKS = {
    "home: HassTurnOn": "Turn on the lamp in the kitchen.",
    "home: HassLightSet": "Set the desk light in the office to 40 percent.",
    "home: HassLightColor": "Make the bedroom light blue.",
    "home: HassClimateSetTemperature": "Heat the living room to 21.5 degrees.",
    "home: HassSetPosition": "Open the blinds in the study halfway.",
    "home: HassSetVolume": "Set the volume of the radio to 30.",
    "home: HassSetVolumeRelative": "Make the television a bit louder.",
    "home: HassMediaSearchAndPlay": "Play the album Kind of Blue in the living room.",
    "home: HassListAddItem": "Put milk on the shopping list.",
    "home: HassStartTimer": "Set a timer for ten minutes for the pasta.",
    "home: HassFanSetSpeed": "Run the bathroom fan at 75 percent.",
    "home: HassBroadcast": "Tell everybody that dinner is ready.",
    "home: HassGetState": "Is the garage door open?",
    "home: calendar_get_events": "What is on my work calendar today?",
    "home: forecast": "What is the weather going to be hour by hour?",
    "mcp: read_text_file": "Show me the first 20 lines of /etc/hosts.",
    "mcp: read_multiple_files": "Read notes.txt and todo.txt.",
    "mcp: write_file": "Write hello world to /tmp/hello.txt.",
    "mcp: edit_file": "In main.py replace foo with bar.",
    "mcp: search_files": "Find all Python files below /home/anna but not in node_modules.",
    "mcp: create_entities": "Remember that Anna is a person who likes tea.",
    "mcp: create_relations": "Remember that Anna works at Contoso.",
    "mcp: fetch": "Get the page https://www.example.com/news.",
    "mcp: convert_time": "What is 14:30 in Berlin in Tokyo time?",
    "mcp: git_log": "Show the last five commits of /home/anna/project.",
    "mcp: create_issue": "Open an issue in octo/cat: the login page is blank.",
    "mcp: list_issues": "List the open issues of octo/cat, the newest first.",
    "mcp: create_pull_request_review": "Approve pull request 12 of octo/cat.",
    "mcp: brave_web_search": "Search the web for cheap flights to Lisbon, five results.",
    "mcp: maps_directions": "How do I walk from Alexanderplatz to the Reichstag?",
    "mcp: sequentialthinking": "Think step by step about how to move a piano.",
    "mcp: browser_click": "Double-click the button Save, ref e12.",
    "mcp: kubectl_get": "List the pods in the namespace web.",
    "mcp: query_prometheus": "Give the rate of requests from noon to one on 2026-03-01, per minute.",
    "mcp: create_event": "Meet bob@example.com on 2026-05-04 from 10:00 to 11:00 UTC about the budget.",
    "mcp: send_email": "Write to bob@example.com that the meeting is moved to Friday.",
    "body: order": "Order two of pet 7, placed, to be shipped on 2026-06-01 at noon.",
    "body: user": "Anna Berg, user annab, anna@example.com, phone 555-0101.",
    "body: charge": "Charge 25 euros to card tok_visa.",
    "body: invoice": "Invoice INV-2041 of 2026-02-03: two hours of work at 80 euros.",
    "body: customer": "Bo Li, bo@example.com, 12 Hill Road, Leeds, LS1 4DY.",
    "body: network": "The address is 192.168.1.20, the gateway 192.168.1.1, the prefix 24.",
    "body: webhook": "Call https://example.com/hook at each push and each release.",
    "class: math steps": "Solve 8x + 7 = -23.",
    "class: person": "Jason is 25 years old.",
    "class: country": "Tell me about Canada.",
    "class: friends": "I have two friends: Ollama, 22 years old and busy, and Alonso, 23, who is at home.",
    "class: sentiment": "I love this phone, the battery lasts for days!",
    "class: constrained": "The code is ABC and the number is 25.",
    "class: extraction": "Tim Cook visited Paris for Apple on Monday.",
}


class _Answer(NamedTuple):
    """One answer; `error` is what it says of itself."""

    text: str
    seconds: float
    tokens: int
    error: str | None
    valid: bool


def measure(model: str, report: Report, *, temperature: float = 0.0) -> None:
    """Report how many of the answers are valid and how long they take, in both ways."""
    ways = {"written with the model": False, "llama.cpp's grammar": True}
    found: dict[str, list[_Answer]] = {}
    for name, constrained in ways.items():
        with _service(model) as service, _grammar(constrained):
            found[name] = [_ask(service, task, temperature) for task in _TASKS]
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


def _ask(service: LocalService, task: str, temperature: float) -> _Answer:
    schema = ALL[task]
    request = ChatRequest(
        model="model",
        messages=(Message.of("user", _TASKS[task]),),
        format=schema,
        max_tokens=_MAX_TOKENS,
        sampling=SamplingParams(temperature=temperature),
    )
    started = time.perf_counter()
    *events, end = service.stream(request)
    seconds = time.perf_counter() - started
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert isinstance(end, Finished)
    tokens = end.usage.completion_tokens or 0
    valid = end.error is None and _is_valid(text, schema)
    return _Answer(text, seconds, tokens, end.error, valid)


def _is_valid(text: str, schema: Any) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return Reference(schema).is_valid(text)
