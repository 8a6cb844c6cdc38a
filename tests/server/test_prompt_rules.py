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

from tests.conftest import isolate
from tests.home_assistant import Body, recorded_calls, recorded_prompt
from tests.running import Server
from tests.virtual_npu import directive, library, read_trace, write_model

pytestmark = pytest.mark.integration

MODEL = "m-qwen2.5"
RULE = "home-assistant"
RULES = """
prompt_rules = [
    "home-assistant",
    {name = "clock", lines = ["It is * on *."]},
    {name = "time", lines = ["Time: *"], before = "last"},
]
"""


class House:
    """A server with a configuration, and what its model has run."""

    def __init__(self, server: Server, trace: Path) -> None:
        self.server = server
        self._trace = trace
        self._seen = 0

    def send(self, path: str, body: Body, **headers: str) -> Any:
        reply = self.server.request("POST", path, roomy(body), headers)
        assert reply.status == 200, reply.body
        return reply

    def send_recorded(self, label: str) -> None:
        self.send(*recorded_prompt(label, MODEL))

    def runs(self) -> list[dict[str, Any]]:
        """The runs since this was last asked."""
        runs = [event for event in read_trace(self._trace) if event["event"] == "run"]
        new, self._seen = runs[self._seen :], len(runs)
        return new

    def prompts(self) -> list[str]:
        """The same as texts."""
        return [run["prompt"] for run in self.runs()]

    def metrics(self) -> str:
        return self.server.get("/metrics").body.decode()


def roomy(body: Body) -> Body:
    """The request with the server's context length: the virtual NPU's tokens are shorter than real ones."""
    return {name: value for name, value in body.items() if name != "options"}


@contextmanager
def serving(directory: Path, config: str) -> Iterator[House]:
    """A server with this configuration, in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, directory) / "RKLLAMA"
        (home / "models").mkdir(parents=True)
        (home / "config.toml").write_text(config)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
        patch.setenv("RKLLAMA_STATE_BUDGET", "0")  # what is counted is the memory's
        patch.setenv("RKLLAMA_CONTEXT_LENGTH", "32768")
        model, trace = home / "models" / f"{MODEL}.rkllm", directory / "trace"
        write_model(model, tokens=3, trace=trace, trace_prompt=1, max_context=32768)
        with Server() as server:
            yield House(server, trace)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("ruled"), RULES) as house:
        yield house


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("plain"), "") as house:
        yield house


def share_cached(runs: list[dict[str, Any]]) -> float:
    """The share of the last prompt that was not evaluated."""
    return 1 - float(runs[-1]["evaluated"]) / float(runs[-1]["prompt_tokens"])


@pytest.mark.parametrize("agent", ["assist", "clock", "openai"])
def test_two_satellites_a_minute_apart_share_their_prompt(ruled: House, agent: str) -> None:
    before = moved(ruled)
    ruled.send_recorded(f"{agent} kitchen")
    ruled.send_recorded(f"{agent} bedroom")
    runs = ruled.runs()
    assert runs[-1]["prompt_tokens"] > 2000
    assert share_cached(runs) >= 0.95
    clock = 2 if agent == "clock" else 0
    assert moved(ruled) == {RULE: before[RULE] + 2, "clock": before["clock"] + clock}


def moved(house: House) -> dict[str, int]:
    """How many lines have moved by each rule; as many requests had one."""
    counts = {}
    for name in (RULE, "clock"):
        lines, requests = (
            re.search(rf'^rkllama_prompt_rule_{what}_total{{rule="{name}"}} (\d+)', text, re.M)
            for text in [house.metrics()]
            for what in ("lines", "requests")
        )
        assert (lines and lines[1]) == (requests and requests[1])
        counts[name] = int(lines[1]) if lines else 0
    return counts


def test_without_a_rule_nothing_moves(plain: House) -> None:
    plain.send_recorded("clock kitchen")
    plain.send_recorded("clock bedroom")
    assert moved(plain) == {RULE: 0, "clock": 0}
    runs = plain.runs()
    assert share_cached(runs) < 0.1
    _, body = recorded_prompt("clock bedroom", MODEL)
    assert body["messages"][0]["content"] in runs[-1]["prompt"]


def test_a_second_turn_evaluates_what_is_new(ruled: House) -> None:
    ruled.send_recorded("clock kitchen")
    first = ruled.runs()[-1]["prompt_tokens"]
    ruled.send_recorded("clock kitchen second turn")
    last = ruled.runs()[-1]
    assert last["evaluated"] <= last["prompt_tokens"] - first


def test_a_clock_that_runs_on_costs_a_turn_where_it_stands_before_the_last(ruled: House) -> None:
    messages = [{"role": "system", "content": ""}]
    for turn in range(6):
        messages[0]["content"] = "be kind " * 300 + f"\nTime: 12:0{turn}"
        messages.append({"role": "user", "content": f"turn {turn} " * 20})
        ruled.send("/api/chat", {"model": MODEL, "messages": messages, "stream": False})
        messages.append({"role": "assistant", "content": "word " * 20})
    evaluated = [run["evaluated"] for run in ruled.runs()]
    assert max(evaluated[1:]) < 200  # two turns, not the six that there are
    assert evaluated[-1] <= evaluated[2] + 2


def test_calls_are_the_same_with_and_without_the_rule(plain: House, ruled: House) -> None:
    assert len(recorded_calls(MODEL)) == 30
    plain.runs(), ruled.runs()
    assert call_all(ruled) == call_all(plain)
    for old, new in zip(plain.prompts(), ruled.prompts(), strict=True):
        assert old != new
        assert sorted(old.split()) == sorted(new.split())
        assert tools_of(old) == tools_of(new)


def call_all(house: House) -> list[Any]:
    """The calls that the server reads in what the model writes: as recorded."""
    answers = []
    for body in recorded_calls(MODEL):
        calls = [call["function"] for call in body["messages"][2]["tool_calls"]]
        texts = (f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
        body["messages"][1]["content"] += directive(reply="\n".join(texts))
        message = house.send("/api/chat", {**body, "stream": False}).json["message"]
        read = [call["function"] for call in message["tool_calls"]]
        assert [(call["name"], call["arguments"]) for call in read] == [
            (call["name"], call["arguments"]) for call in calls
        ]
        answers.append(read)
    return answers


def tools_of(prompt: str) -> list[Any]:
    match = re.search(r"<tools>\n(.*?)\n</tools>", prompt, re.S)
    assert match
    return [json.loads(line) for line in match[1].splitlines()]


def test_a_rule_counts_for_the_key_that_it_names(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = f"""
api_keys = ["ours", "theirs"]
[[prompt_rules]]
name = "{RULE}"
keys = ["ours"]
"""
    path, body = recorded_prompt("assist kitchen", MODEL)
    area = body["messages"][0]["content"].splitlines()[-1]
    with serving(tmp_path_factory.mktemp("keys"), config) as house:
        house.send(path, body, Authorization="Bearer theirs")
        house.send(path, body, Authorization="Bearer ours")
        theirs, ours = house.prompts()
    assert theirs.index(area) < theirs.index("<tools>")
    assert ours.index(area) > ours.index("</tools>")


def test_a_modelfile_chooses_a_rule(plain: House) -> None:
    path, body = recorded_prompt("assist kitchen", "assist")
    modelfile = f"FROM {MODEL}\nPARAMETER prompt_rules {RULE} missing\n"
    plain.send("/api/create", {"model": "assist", "modelfile": modelfile, "stream": False})
    plain.runs()
    for model in ("assist", MODEL, "assist"):
        plain.send(path, {**body, "model": model})
    chosen, usual, again = plain.prompts()
    assert chosen == again != usual
    assert sum("names the prompt rule missing" in line for line in plain.server.log) == 1


def test_shuffled_tools_and_keys_make_the_same_prompt(plain: House) -> None:
    path, body = recorded_prompt("assist kitchen", MODEL)
    plain.runs()
    for seed in range(5):
        tools = shuffled(body["tools"], random.Random(seed), is_list=True)
        plain.send(path, {**body, "tools": tools})
    runs = plain.runs()
    assert len({run["prompt"] for run in runs}) == 1
    assert [run["evaluated"] for run in runs][1:] == [1] * 4


def shuffled(value: Any, chance: random.Random, *, is_list: bool = False) -> Any:
    """A JSON value whose objects have another order, and the list itself."""
    if isinstance(value, list):
        items = [shuffled(item, chance) for item in value]
        return chance.sample(items, len(items)) if is_list else items
    if isinstance(value, dict):
        names = chance.sample(sorted(value), len(value))
        return {name: shuffled(value[name], chance) for name in names}
    return value
