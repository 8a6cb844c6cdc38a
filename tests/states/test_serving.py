"""Saved conversations through the whole house: real processes, the virtual NPU, a directory on this disk."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import WorkerCrashed
from rkllama.service import LOCAL, Caller
from rkllama.states.key import owner_of
from rkllama.types import ChatRequest, EmbeddingRequest, Finished, Message, Tool
from tests.running import Server
from tests.states.restarting import Start, restarting
from tests.test_cli import failure, output
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

MODEL = "m-qwen2.5"
_KEY = {"Authorization": "Bearer "}


@pytest.fixture(params=["1.2.3", "1.3.0"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library(request.param))
    return str(request.param)


@pytest.fixture
def trace(models: Path, tmp_path: Path) -> Path:
    """The trace of a model that takes 1 ms per prompt token."""
    path = tmp_path / "trace"
    write_model(
        models / f"{MODEL}.rkllm",
        tokens=10,
        prefill_us=1000,
        kv_bytes=512,
        trace=path,
        toolkit="1.2.3",
    )
    return path


@pytest.fixture
def start(trace: Path) -> Iterator[Start]:
    """Starts the service anew; the model's digest is known."""
    with restarting(MODEL) as start_service:
        yield start_service


class Conversation:
    """A conversation of some hundred tokens that grows."""

    def __init__(self, name: str, words: int = 300, system: str = "") -> None:
        self.messages = [Message.of("system", system or f"{name} " * words)]
        self._name = name

    def ask(self, service: LocalService, caller: Caller = LOCAL, **fields: Any) -> Finished:
        """The next turn."""
        self.messages.append(Message.of("user", f"{self._name} turn {len(self.messages)} " * 10))
        request = ChatRequest(model=MODEL, messages=tuple(self.messages), **fields)
        *events, end = service.stream(request, caller)
        assert isinstance(end, Finished)
        text = "".join(getattr(event, "text", "") for event in events)
        self.messages.append(Message.of("assistant", text))
        return end


def runs(trace: Path) -> list[dict[str, Any]]:
    """The runs of a trace, but for those of one token that were made for a state alone."""
    return [event for event in read_trace(trace) if event["event"] == "run"]


def evaluated(trace: Path) -> list[int]:
    return [run["evaluated"] for run in runs(trace)]


def saves(trace: Path) -> int:
    return sum(event["event"] == "save" for event in read_trace(trace))


def loads(trace: Path) -> list[int]:
    return [event["tokens"] for event in read_trace(trace) if event["event"] == "load"]


def figure(service: LocalService, name: str) -> float:
    """A figure of /metrics."""
    match = re.search(rf"^{name} (\S+)$", service.metrics(), re.M)
    assert match, name
    return float(match[1])


def test_conversations_take_turns(start: Start, release: str, trace: Path) -> None:
    service = start()
    conversations = [Conversation("one"), Conversation("two")]
    before, prompts = 0, [0, 0]
    for turn in range(4):
        for index, conversation in enumerate(conversations):
            end = conversation.ask(service)
            total = sum(evaluated(trace))
            prompt = end.usage.prompt_tokens or 0
            if turn:
                assert total - before == prompt - prompts[index]
                assert end.usage.cached_tokens == prompts[index]
            before, prompts[index] = total, prompt
    assert figure(service, "rkllama_state_hits_total") == 6
    assert figure(service, "rkllama_state_refused_total") == 0
    assert figure(service, "rkllama_state_saved_seconds_total") > 1
    assert figure(service, "rkllama_state_written_bytes_total") > 0


def test_a_conversation_goes_on_after_a_restart(start: Start, release: str, trace: Path) -> None:
    service, conversation = start(), Conversation("one")
    end = conversation.ask(service)
    assert (end.usage.prompt_tokens or 0) > 300
    service = start()
    again = conversation.ask(service)
    assert evaluated(trace)[-1] == (again.usage.prompt_tokens or 0) - (end.usage.prompt_tokens or 0)
    assert loads(trace) == [end.usage.prompt_tokens]


def test_the_last_turns_are_kept_at_the_unload_where_the_runtime_can(
    start: Start, release: str, trace: Path
) -> None:
    service, conversation = start(), Conversation("one")
    for _ in range(2):
        end = conversation.ask(service)
    service.unload()
    conversation.ask(service)
    if release == "1.3.0":
        assert loads(trace) == [end.usage.prompt_tokens]
        assert 1 in evaluated(trace)  # all that this took
    else:
        assert loads(trace)[0] < (end.usage.prompt_tokens or 0)


def test_what_conversations_begin_with_is_pinned(
    start: Start, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    service, system = start(), "be kind " * 200
    for name in ("a", "b", "c"):
        before = len(runs(trace))
        end = Conversation(name, system=system).ask(service)
        if len(runs(trace)) == before + 2:  # what the first of them has evaluated is not cached
            assert end.usage.cached_tokens is None
    Conversation("other").ask(service)
    before = len(runs(trace))
    Conversation("d", system=system).ask(service)
    assert len(runs(trace)) == before + 1
    assert evaluated(trace)[-1] < 60
    [pinned] = [entry for entry in service.pool._loader._states._index if entry.header.pinned]
    assert pinned.header.tokens > 400


def test_a_run_that_ends_by_an_abort_leaves_no_state(
    start: Start, release: str, trace: Path
) -> None:
    service, conversation = start(), Conversation("one")
    request = ChatRequest(
        model=MODEL,
        messages=(
            *conversation.messages,
            Message.of("user", "x" + directive(tokens=500, token_us=2000)),
        ),
    )
    events = service.stream(request)
    next(events)
    events.close()
    conversation.ask(service, stop=("word",))
    assert figure(service, "rkllama_states") <= 1
    service.close()
    states = Path(load_settings({}).states)
    assert not list(states.glob("*.part"))
    service = start()
    conversation.ask(service)
    assert figure(service, "rkllama_state_refused_total") == 0


@pytest.mark.parametrize("change", ["context", "model", "release", "damage", "mode", "link", "off"])
def test_a_state_is_for_what_it_was_made_of(
    start: Start, trace: Path, models: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
    service, conversation = start(), Conversation("one")
    conversation.ask(service)
    service.close()
    [file] = Path(load_settings({}).states).glob("*.kv")
    flags: dict[str, object] = {}
    if change == "context":
        flags["context_length"] = 2048
    elif change == "model":
        write_model(
            models / f"{MODEL}.rkllm",
            tokens=11,
            prefill_us=1000,
            kv_bytes=512,
            trace=trace,
            toolkit="1.2.3",
        )
    elif change == "release":
        monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    elif change == "damage":
        data = file.read_bytes()
        file.write_bytes(data[:-100] + bytes(100))
    elif change == "mode":
        file.chmod(0o640)
    elif change == "link":
        file.rename(file.with_suffix(".real"))
        file.symlink_to(file.with_suffix(".real"))
    else:
        flags["state_budget"] = 0
    service = start(**flags)
    end = conversation.ask(service)
    assert evaluated(trace)[-1] == end.usage.prompt_tokens
    assert loads(trace) == []


def test_without_the_digest_nothing_is_kept(trace: Path, npu: str) -> None:
    service = LocalService(load_settings({}), "test")
    service.store._digests.close()  # never computed
    Conversation("one").ask(service)
    assert saves(trace) == 0
    service.close()


def test_the_digest_comes_by_itself(trace: Path, npu: str) -> None:
    service, conversation = LocalService(load_settings({}), "test"), Conversation("one")
    conversation.ask(service)
    assert service.store.settle(20.0)
    conversation.ask(service)
    assert saves(trace) == 1
    service.close()


def test_clients_with_other_keys_have_their_own(start: Start, trace: Path, npu: str) -> None:
    service, mine = start(), Caller(owner=owner_of("mine"))
    conversation = Conversation("one")
    conversation.ask(service, mine)
    service.unload()
    yours = Conversation("one")
    yours.messages = list(conversation.messages)
    end = yours.ask(service, Caller(owner=owner_of("yours")))
    assert evaluated(trace)[-1] == end.usage.prompt_tokens
    service.unload()
    conversation.ask(service, mine)
    assert evaluated(trace)[-1] < 100


def test_a_runtime_that_dies_of_it_is_not_asked_again(start: Start, npu: str, trace: Path) -> None:
    service = start()
    for _ in range(2):
        dying = Conversation("one")
        dying.messages.append(Message.of("assistant", directive(segv_at=0)))
        with pytest.raises(WorkerCrashed):
            dying.ask(service)
    Conversation("two").ask(service)
    assert saves(trace) == 0
    service = start()
    Conversation("two").ask(service)
    assert saves(trace) == 0
    output("cache", "clear")
    service = start()
    Conversation("two").ask(service)
    assert saves(trace) == 1


def test_the_command_lists_and_clears(start: Start, npu: str) -> None:
    service, conversation = start(), Conversation("secret")
    end = conversation.ask(service)
    service.close()
    listed = output("cache", "list")
    assert MODEL in listed
    assert f"{end.usage.prompt_tokens}" in listed
    assert "secret" not in listed
    [row] = json.loads(output("cache", "list", "--json"))
    assert (row["model"], row["tokens"], row["pinned"]) == (MODEL, end.usage.prompt_tokens, False)
    assert "no conversation of other is saved" in failure("cache", "clear", "other")
    output("cache", "clear", MODEL)
    assert json.loads(output("cache", "list", "--json")) == []
    states = Path(load_settings({}).states)
    assert not [*states.glob("*.kv"), *states.glob("*.json")]


def test_other_work_between_turns_costs_nothing_wrong(
    start: Start, release: str, trace: Path
) -> None:
    service, conversation = start(), Conversation("one")
    first = conversation.ask(service)
    service.embed(EmbeddingRequest(model=MODEL, inputs=("some text",)))
    second = conversation.ask(service)
    assert evaluated(trace)[-1] == (second.usage.prompt_tokens or 0) - (
        first.usage.prompt_tokens or 0
    )
    assert loads(trace) == [first.usage.prompt_tokens]


def test_a_model_that_evaluates_faster_than_the_disk_reads(
    models: Path, npu: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace = tmp_path / "trace"
    write_model(models / f"{MODEL}.rkllm", tokens=10, kv_bytes=4096, trace=trace)
    caplog.set_level("INFO", "rkllama")
    service = LocalService(load_settings({}), "test")
    service.digest(service.store.resolve(MODEL).info)
    assert service.store.settle(20.0)
    for name in ("one", "two", "three"):
        Conversation(name).ask(service)
    assert saves(trace) <= 1
    assert figure(service, "rkllama_states") == 0
    assert sum("too slow" in record.getMessage() for record in caplog.records) == 1
    service.close()


# --- A server ----------------------------------------------------------------------------------


def chat(server: Server, messages: list[dict[str, str]], key: str = "") -> dict[str, Any]:
    """A turn over HTTP; the answer is put to the conversation."""
    messages.append({"role": "user", "content": f"turn {len(messages)} " * 10})
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": MODEL, "messages": messages, "stream": False}
    reply = server.request("POST", "/api/chat", body, headers)
    assert reply.status == 200, reply.body
    values: dict[str, Any] = reply.json
    messages.append(values["message"])
    return values


def beginning(name: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": f"{name} " * 300}]


def know_digest(server: Server) -> None:
    """Wait until the model's digest is there."""
    server.get("/api/tags")
    home = Path(os.environ["HOME"])
    until((home / "RKLLAMA/models/.rkllama/digests.json").exists)


def test_a_server_that_was_killed_goes_on_where_it_was(release: str, trace: Path) -> None:
    one, two = beginning("one"), beginning("two")
    with Server() as server:
        know_digest(server)
        chat(server, one)
        before = chat(server, two)
        states = Path(os.environ["HOME"], "RKLLAMA/states")
        until(lambda: len(list(states.glob("*.json"))) == 2)
        server.stop(signal.SIGKILL)
    with Server() as server:
        after = chat(server, two)
        assert evaluated(trace)[-1] == after["prompt_eval_count"] - before["prompt_eval_count"]
        chat(server, one)
        assert evaluated(trace)[-1] < 100
        assert "rkllama_state_hits_total 2\n" in server.get("/metrics").body.decode()


@pytest.mark.parametrize("shared", [False, True])
def test_api_keys_and_saved_conversations(
    trace: Path, npu: str, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setenv("RKLLAMA_API_KEY", "alice,bob")
    monkeypatch.setenv("RKLLAMA_SHARE_STATES", str(shared))
    one = beginning("one")
    with Server() as server:
        server.request("GET", "/api/tags", headers={"Authorization": "Bearer alice"})
        home = Path(os.environ["HOME"])
        until((home / "RKLLAMA/models/.rkllama/digests.json").exists)
        chat(server, one, "alice")
        chat(server, beginning("two"), "alice")
        chat(server, [*one], "bob")
        assert (len(loads(trace)) == 1) is shared
        chat(server, beginning("three"), "alice")
        chat(server, one, "alice")
        assert evaluated(trace)[-1] < 100


def test_a_prompt_alone_is_no_conversation(start: Start, npu: str, trace: Path) -> None:
    service, prompt = start(), "some words " * 200 + "\n"
    *_, first = service.stream(ChatRequest(model=MODEL, prompt=prompt, raw=True))
    assert saves(trace) == 0
    *_, second = service.stream(ChatRequest(model=MODEL, prompt=f"{prompt}more", raw=True))
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert (first.usage.prompt_tokens or 0) > 400
    assert saves(trace) == 1  # it continues one


def test_tools_are_part_of_it(start: Start, npu: str, trace: Path) -> None:
    service, tools = start(), (Tool(name="get_weather", description="weather " * 600),)
    conversation = Conversation("one", words=10)
    first = conversation.ask(service, tools=tools)
    Conversation("two").ask(service)
    second = conversation.ask(service, tools=tools)
    assert loads(trace) == [first.usage.prompt_tokens]
    assert evaluated(trace)[-1] == (second.usage.prompt_tokens or 0) - (
        first.usage.prompt_tokens or 0
    )
