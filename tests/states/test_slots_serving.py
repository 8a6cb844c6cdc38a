"""Saved conversations of .gguf models: the guide on llama.cpp, as a library and as a program of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import Cancelled
from rkllama.service import LOCAL, Caller
from rkllama.states.key import owner_of
from rkllama.types import ChatRequest, Finished, Message, SamplingParams, Tool
from tests.clients.common import GUIDE_FILE
from tests.llama_server import WHEEL, command
from tests.running import Server
from tests.states.restarting import Start, restarting
from tests.test_cli import output
from tests.waiting import Task, until

pytestmark = pytest.mark.integration

MODEL = "guide"
GREEDY = SamplingParams(temperature=0)
BINDING = "the binding"


@pytest.fixture(autouse=True)
def guide(models: Path) -> None:
    shutil.copy(GUIDE_FILE, models)


@pytest.fixture(autouse=True)
def quick_disk(home: Path) -> None:
    """The disk counts as quick, however busy this machine is: its speed is read instead of measured."""
    states = home / "RKLLAMA" / "states"
    states.mkdir(mode=0o700, parents=True)
    device = states.stat().st_dev
    known = {"version": 1, "device": device, "read": 1e9, "write": 1e9, "total": 0, "hours": []}
    (states / "disk").write_text(json.dumps(known))


@pytest.fixture(params=[BINDING, WHEEL])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """The setting of the llama-server that runs the model; none is the library."""
    return {} if request.param == BINDING else {"llama_server": command(WHEEL, tmp_path)}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the service anew, with one slot; the model's digest is known."""
    with restarting(MODEL, parallel=1) as start_service:
        yield start_service


class Conversation:
    """A conversation of some hundred tokens that grows; it knows what of its next prompt is not new."""

    def __init__(self, name: str, words: int = 60) -> None:
        self._name = name
        self.messages = [Message.of("system", f"{name} " * words)]
        self.prompt_tokens = self.tokens = 0

    def ask(self, service: LocalService, caller: Caller = LOCAL, **fields: Any) -> Finished:
        """The next turn."""
        self.messages.append(Message.of("user", f"{self._name} turn {len(self.messages)} "))
        values = {"sampling": GREEDY, "max_tokens": 8, **fields}
        request = ChatRequest(model=MODEL, messages=tuple(self.messages), **values)
        *events, end = service.stream(request, caller)
        assert isinstance(end, Finished)
        text = "".join(getattr(event, "text", "") for event in events)
        self.messages.append(Message.of("assistant", text))
        self.prompt_tokens = end.usage.prompt_tokens or 0
        self.tokens = self.prompt_tokens + (end.usage.completion_tokens or 0)
        return end

    def goes_on(self, service: LocalService, **fields: Any) -> Finished:
        """The next turn, of whose prompt only what is new is evaluated: an answer's last token is."""
        before = self.tokens
        end = self.ask(service, **fields)
        assert end.usage.cached_tokens is not None
        assert before - 2 <= end.usage.cached_tokens <= before
        return end


def figure(service: LocalService, name: str) -> float:
    """A figure of /metrics."""
    match = re.search(rf"^rkllama_state{name} (\S+)$", service.metrics(), re.M)
    assert match, name
    return float(match[1])


def test_conversations_go_on_after_another_an_unload_and_a_restart(
    start: Start, program: dict[str, object]
) -> None:
    service, one, two = start(**program), Conversation("one"), Conversation("two")
    assert one.ask(service).usage.cached_tokens == 0
    two.ask(service)
    one.goes_on(service)
    assert figure(service, "_hits_total") == 1
    service.unload()
    one.goes_on(service)
    two.goes_on(service)
    service = start(**program)
    two.goes_on(service)
    one.goes_on(service)
    assert figure(service, "_hits_total") == 2
    assert figure(service, "_refused_total") == 0
    assert {state["model"] for state in json.loads(output("cache", "list", "--json"))} == {MODEL}
    assert not [*Path(load_settings({}).states).glob("*.part")]


def test_a_prompt_that_had_to_be_counted_before(start: Start, program: dict[str, object]) -> None:
    """It is evaluated for that, but not by a llama-server, whose speed that does not tell."""
    service, one = start(**program), Conversation("one", words=300)
    end = one.ask(service, truncate=True)
    assert end.usage.cached_tokens == (0 if program else None)
    service = start(**program)
    one.goes_on(service, truncate=True)
    assert figure(service, "_hits_total") == 1


def test_what_conversations_begin_with_is_pinned(start: Start) -> None:
    service, system = start(), "be kind " * 150
    for name in ("a", "b", "c", "d"):
        conversation = Conversation(name)
        conversation.messages = [Message.of("system", system)]
        conversation.ask(service)
        Conversation("other").ask(service)
    assert [state["pinned"] for state in json.loads(output("cache", "list", "--json"))].count(
        True
    ) == 1
    service = start()
    conversation = Conversation("e")
    conversation.messages = [Message.of("system", system)]
    assert (conversation.ask(service).usage.cached_tokens or 0) > 280
    assert figure(service, "_hits_total") == 1


def test_an_answer_after_a_load_is_the_one_without(start: Start) -> None:
    """What is loaded is what was in memory, to the bit."""
    service, one = start(), Conversation("one")
    for _ in range(2):
        one.ask(service, max_tokens=40)
    in_memory = Conversation("one")
    in_memory.messages = list(one.messages)
    in_memory.ask(service, max_tokens=40)
    service.unload()  # of the turn before, the slot held as much
    service = start()
    one.ask(service, max_tokens=40)
    assert figure(service, "_hits_total") == 1
    assert one.messages == in_memory.messages


def test_a_server_that_was_killed_goes_on_where_it_was() -> None:
    messages: list[dict[str, str]] = [{"role": "system", "content": "one " * 60}]

    def chat(server: Server) -> tuple[int, int]:
        """A turn: the tokens of the prompt, and those that came from the cache."""
        messages.append({"role": "user", "content": f"turn {len(messages)}"})
        body = {"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0}
        reply = server.post("/v1/chat/completions", body)
        assert reply.status == 200, reply.body
        messages.append(reply.json["choices"][0]["message"])
        usage = reply.json["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    home = Path(os.environ["HOME"], "RKLLAMA")
    with Server() as server:
        server.get("/api/tags")
        until((home / "models/.rkllama/digests.json").exists)
        first, _ = chat(server)
        until(lambda: list((home / "states").glob("*.json")))
        server.stop(signal.SIGKILL)
    with Server() as server:
        _, cached = chat(server)
        assert first < cached <= first + 8
        assert "rkllama_state_hits_total 1\n" in server.get("/metrics").body.decode()


@pytest.mark.parametrize("change", ["context", "slots", "model", "damage", "short", "off", "key"])
def test_a_state_is_for_what_it_was_made_of(start: Start, models: Path, change: str) -> None:
    service, one = start(), Conversation("one")
    one.ask(service)
    service.close()
    [file] = Path(load_settings({}).states).glob("*.kv")
    flags: dict[str, object] = {}
    caller = LOCAL
    if change == "context":
        flags["context_length"] = 512
    elif change == "slots":  # llama.cpp refuses a file of another number of them
        flags["parallel"] = 2
    elif change == "model":
        (models / GUIDE_FILE.name).write_bytes(GUIDE_FILE.read_bytes() + b"\0")
    elif change == "damage":
        data = file.read_bytes()
        file.write_bytes(data[:-100] + bytes(100))
    elif change == "short":  # which would end llama.cpp
        os.truncate(file, file.stat().st_size // 2)
    elif change == "off":
        flags["state_budget"] = 0
    else:
        caller = Caller(owner=owner_of("other"))
    service = start(**flags)
    assert one.ask(service, caller).usage.cached_tokens == 0
    if change != "off":
        assert figure(service, "_hits_total") == 0


def test_a_seed_asks_for_the_same_answer_so_nothing_is_reused(start: Start) -> None:
    service, one = start(), Conversation("one")
    one.ask(service)
    service = start()
    end = one.ask(service, sampling=SamplingParams(temperature=1.0, seed=3))
    assert end.usage.cached_tokens == 0
    assert figure(service, "s") == 1
    assert figure(service, "_refused_total") == 0


def test_ways_to_end_and_what_a_conversation_may_have(start: Start) -> None:
    """Stop strings, demanded shapes and tools leave a slot that can be used."""
    service, one, other = start(), Conversation("one"), Conversation("other")
    ways: tuple[dict[str, Any], ...] = (
        {"stop": ("e", "a", " ")},
        {"format": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}},
        {"tools": (Tool(name="get_weather", description="weather"),)},
        {},
    )
    for way in ways:
        one.ask(service, max_tokens=30, **way)
        other.ask(service)
    before = one.prompt_tokens
    assert (one.ask(service).usage.cached_tokens or 0) >= before - 8
    assert figure(service, "_refused_total") == 0
    assert figure(service, "_hits_total") > 2


def test_who_leaves_leaves_a_prompt_that_is_not_evaluated_again(start: Start) -> None:
    service, one = start(), Conversation("one", words=300)
    schema = {"type": "string", "minLength": 2000}
    one.messages.append(Message.of("user", "hello"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = ChatRequest(model=MODEL, messages=tuple(one.messages), format=schema)
        events = service.stream(request, Caller(theirs.fileno()))
        begun = next(events)
        ours.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Cancelled):
            list(events)
    one.messages.append(Message.of("assistant", getattr(begun, "text", "")))
    Conversation("other").ask(service)
    service = start()
    end = one.ask(service)
    assert (end.usage.cached_tokens or 0) > 300
    assert figure(service, "_hits_total") == 1


def test_several_conversations_at_a_time(start: Start, program: dict[str, object]) -> None:
    """Each has its slot, and what was written while others ran is whole."""
    service = start(parallel=3, **program)
    all_of_them = [Conversation(name) for name in ("one", "two", "three", "four", "five")]
    for _ in range(3):
        for task in [Task(lambda c=c: c.ask(service)) for c in all_of_them]:  # type: ignore[misc]
            task.result()
    assert figure(service, "_refused_total") == 0
    service = start(parallel=3, **program)
    for conversation in all_of_them:
        before = conversation.prompt_tokens
        assert (conversation.ask(service).usage.cached_tokens or 0) >= before - 32
    assert figure(service, "_refused_total") == 0


def test_two_conversations_that_begin_alike_keep_their_slots(start: Start) -> None:
    service, system = start(parallel=2), "be kind " * 60
    one, two = Conversation("one"), Conversation("two")
    for each in (one, two):
        each.messages = [Message.of("system", system)]
        each.ask(service)
    written = figure(service, "_written_bytes_total")
    loaded = figure(service, "_loaded_bytes_total")
    for _ in range(2):
        one.ask(service)
        two.goes_on(service)
    one.goes_on(service)
    assert figure(service, "_loaded_bytes_total") - loaded <= written
