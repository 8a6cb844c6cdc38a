"""Home Assistant's own requests, through a real server and the virtual NPU: what is evaluated of them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.home_assistant import Body, recorded_calls, recorded_prompt
from tests.running import Server
from tests.virtual_npu import directive, library, read_prompts, read_trace, write_model

pytestmark = pytest.mark.integration

MODEL = "m-qwen2.5"
RULE = "home-assistant"
CLOCK = """
prompt_rules = [
    "home-assistant",
    {name = "clock", lines = ["It is * on *."]},
]
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    monkeypatch.setenv("RKLLAMA_STATE_BUDGET", "0")  # what is counted is the memory's
    monkeypatch.setenv("RKLLAMA_CONTEXT_LENGTH", "16384")  # the virtual NPU's tokens are short


@pytest.fixture
def trace(models: Path, tmp_path: Path) -> Path:
    path = tmp_path / "trace"
    write_model(models / f"{MODEL}.rkllm", tokens=3, trace=path, trace_prompt=1)
    return path


@contextmanager
def serving(home: Path, config: str, *arguments: str) -> Iterator[Server]:
    """A server with this configuration."""
    (home / "RKLLAMA" / "config.toml").write_text(config)
    with Server(*arguments) as server:
        yield server


def send(server: Server, path: str, body: Body, **headers: str) -> None:
    reply = server.request("POST", path, roomy(body), headers)
    assert reply.status == 200, reply.body


def roomy(body: Body) -> Body:
    """The request with the server's context length, for the same reason."""
    return {name: value for name, value in body.items() if name != "options"}


def send_recorded(server: Server, label: str) -> None:
    send(server, *recorded_prompt(label, MODEL))


def runs(trace: Path) -> list[dict[str, Any]]:
    return [event for event in read_trace(trace) if event["event"] == "run"]


def share_cached(trace: Path) -> float:
    """The share of the last run's prompt that was not evaluated."""
    run = runs(trace)[-1]
    return 1 - float(run["evaluated"]) / float(run["prompt_tokens"])


@pytest.mark.parametrize("agent", ["assist", "clock", "openai"])
def test_two_satellites_a_minute_apart_share_their_prompt(
    home: Path, trace: Path, agent: str
) -> None:
    with serving(home, CLOCK) as server:
        send_recorded(server, f"{agent} kitchen")
        send_recorded(server, f"{agent} bedroom")
        assert runs(trace)[-1]["prompt_tokens"] > 2000
        assert share_cached(trace) >= 0.95
        metrics = server.get("/metrics").body.decode()
    assert f'rkllama_prompt_rule_requests_total{{rule="{RULE}"}} 2' in metrics
    assert f'rkllama_prompt_rule_lines_total{{rule="{RULE}"}} 2' in metrics
    assert ('rule="clock"' in metrics) == (agent == "clock")


def test_without_a_rule_nothing_moves(home: Path, trace: Path) -> None:
    with serving(home, "") as server:
        send_recorded(server, "clock kitchen")
        send_recorded(server, "clock bedroom")
        metrics = server.get("/metrics").body.decode()
    assert share_cached(trace) < 0.1
    assert "rkllama_prompt_rule_requests_total{" not in metrics
    _, body = recorded_prompt("clock bedroom", MODEL)
    assert body["messages"][0]["content"] in read_prompts(trace)[-1]


def test_a_second_turn_evaluates_what_is_new(home: Path, trace: Path) -> None:
    with serving(home, CLOCK) as server:
        send_recorded(server, "clock kitchen")
        first = runs(trace)[-1]["prompt_tokens"]
        send_recorded(server, "clock kitchen second turn")
    last = runs(trace)[-1]
    assert last["evaluated"] <= last["prompt_tokens"] - first


def test_a_clock_that_runs_on_costs_one_turn_where_it_stands_before_the_last(
    home: Path, trace: Path
) -> None:
    rule = '[[prompt_rules]]\nname = "clock"\nlines = ["It is *"]\nbefore = "last"\n'
    messages = [{"role": "system", "content": "be kind " * 300 + "\nIt is 1"}]
    with serving(home, rule) as server:
        for turn in range(6):
            messages[0]["content"] = "be kind " * 300 + f"\nIt is {turn}"
            messages.append({"role": "user", "content": f"turn {turn} " * 20})
            send(server, "/api/chat", {"model": MODEL, "messages": messages, "stream": False})
            messages.append({"role": "assistant", "content": "word " * 20})
    evaluated = [run["evaluated"] for run in runs(trace)]
    assert max(evaluated[1:]) < 200  # two turns, not the six that there are
    assert evaluated[-1] <= evaluated[2] + 2


def test_calls_are_the_same_with_and_without_the_rule(home: Path, trace: Path) -> None:
    for body in recorded_calls(MODEL):
        assert len(body["messages"]) >= 4
    plain = call_all(home, "", recorded_calls(MODEL))
    before = read_prompts(trace)
    trace.unlink()
    moved = call_all(home, f'prompt_rules = "{RULE}"\n', recorded_calls(MODEL))
    assert moved == plain
    assert len(moved) == 30
    for old, new in zip(before, read_prompts(trace), strict=True):
        assert old != new
        assert sorted(old.split()) == sorted(new.split())
        assert tools_of(old) == tools_of(new)


def call_all(home: Path, config: str, bodies: list[Body]) -> list[Any]:
    """The calls that the server reads in what the model writes: as recorded."""
    answers = []
    with serving(home, config) as server:
        for body in bodies:
            calls = body["messages"][2]["tool_calls"]
            texts = (
                f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>" for call in calls
            )
            user = body["messages"][1]
            user["content"] += directive(reply="\n".join(texts))
            reply = server.request("POST", "/api/chat", {**roomy(body), "stream": False})
            read = [call["function"] for call in reply.json["message"]["tool_calls"]]
            for function in read:
                function.pop("index", None)
            assert read == [call["function"] for call in calls]
            answers.append(read)
    return answers


def tools_of(prompt: str) -> list[Any]:
    match = re.search(r"<tools>\n(.*?)\n</tools>", prompt, re.S)
    assert match
    return [json.loads(line) for line in match[1].splitlines()]


def test_a_rule_counts_for_the_key_that_it_names(home: Path, trace: Path) -> None:
    config = f"""
api_keys = ["ours", "theirs"]
[[prompt_rules]]
name = "{RULE}"
keys = ["ours"]
"""
    path, body = recorded_prompt("assist kitchen", MODEL)
    area = body["messages"][0]["content"].splitlines()[-1]
    with serving(home, config) as server:
        send(server, path, body, Authorization="Bearer theirs")
        send(server, path, body, Authorization="Bearer ours")
    theirs, ours = read_prompts(trace)
    assert theirs.index(area) < theirs.index("<tools>")
    assert ours.index(area) > ours.index("</tools>")


def test_a_modelfile_chooses_a_rule(home: Path, models: Path, trace: Path) -> None:
    path, body = recorded_prompt("assist kitchen", "assist")
    modelfile = f"FROM {MODEL}\nPARAMETER prompt_rules {RULE} missing\n"
    with serving(home, "") as server:
        send(server, "/api/create", {"model": "assist", "modelfile": modelfile, "stream": False})
        send(server, path, body)
        send(server, path, {**body, "model": MODEL})
        send(server, path, body)
    chosen, plain, again = read_prompts(trace)
    assert chosen == again != plain
    assert sum("names the prompt rule missing" in line for line in server.log) == 1


def test_shuffled_tools_and_keys_make_the_same_prompt(home: Path, trace: Path) -> None:
    path, body = recorded_prompt("assist kitchen", MODEL)
    with serving(home, "") as server:
        for seed in range(5):
            send(server, path, {**body, "tools": shuffled(body["tools"], random.Random(seed))})
    assert len(set(read_prompts(trace))) == 1
    assert [run["evaluated"] for run in runs(trace)][1:] == [1] * 4


def shuffled(value: Any, chance: random.Random, *, is_list: bool = True) -> Any:
    """A JSON value whose objects have another order, and the list itself."""
    if isinstance(value, list):
        items = [shuffled(item, chance, is_list=False) for item in value]
        return chance.sample(items, len(items)) if is_list else items
    if isinstance(value, dict):
        names = chance.sample(sorted(value), len(value))
        return {name: shuffled(value[name], chance, is_list=False) for name in names}
    return value
