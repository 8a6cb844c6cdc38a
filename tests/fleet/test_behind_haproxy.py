"""Real boards behind a real HAProxy, with the configuration that `rkllama fleet init` writes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rkllama.fleet.boards import Fleet, checked, parse_boards
from rkllama.fleet.files import find_haproxy, update_files
from rkllama.fleet.reports import BoardModel, Report
from tests.boards import build_board
from tests.conftest import isolate
from tests.fleet.cluster import (
    Answer,
    Balancer,
    BoardProcess,
    ask,
    rkllama,
    running,
    wait_until,
)
from tests.hub.loopback import LoopbackHub
from tests.virtual_npu import directive, read_trace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_haproxy() is None, reason="HAProxy is not installed"),
]

KEY = {"Authorization": "Bearer secret"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two boards: both have the model `chat` and the alias `same`, the second one `only`, too."""

    balancer: Balancer
    boards: Sequence[BoardProcess]
    hub: LoopbackHub
    env: Mapping[str, str]
    """Of boards and commands."""

    def ask(self, path: str, body: object = None, **headers: str) -> Answer:
        return self.balancer.ask(path, body, {**KEY, **headers})

    def fleet(
        self, command: str, *arguments: str, expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        directory = f"--directory={self.balancer.directory}"
        return rkllama("fleet", command, directory, *arguments, expect=expect, env=self.env)

    def runs(self) -> list[int]:
        """How many prompts each board has evaluated."""
        return [
            sum(event["event"] == "run" for event in read_trace(board.trace))
            for board in self.boards
        ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, LoopbackHub() as hub:
        base = tmp_path_factory.mktemp("fleet")
        isolate(patch, base)
        env = {
            "RKLLAMA_API_KEY": "secret",
            "RKLLAMA_ALIASES": "same=chat",
            "HF_ENDPOINT": hub.endpoint,
        }
        chat = {"chat": {"tokens": 5}}
        boards = [
            BoardProcess(name, base / name, models, env={**env, **_on(soc, base)})
            for name, soc, models in (
                ("rk1", "rk3588", chat),
                ("rk2", "rk3576", {**chat, "only": {"tokens": 5}}),
            )
        ]
        names = [f"{board.name}={board.address}" for board in boards]
        with running(boards), Balancer(base / "balancer", names, env) as balancer:
            yield Cluster(balancer, boards, hub, env)


def _on(soc: str, base: Path) -> dict[str, str]:
    return {"RKLLAMA_SYSROOT": str(build_board(soc, base)), "RKLLAMA_RKLLM_ABI": "1.3.0"}


def chat(text: str, model: str = "chat", *, stream: bool = False) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
        "max_tokens": 5,
    }


def difference(after: Sequence[int], before: Sequence[int]) -> list[int]:
    return [now - then for now, then in zip(after, before, strict=True)]


# --- HAProxy reads it --------------------------------------------------------------------------


def _certificate(directory: Path) -> str:
    path = directory / "fleet.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=fleet "
        f"-keyout {path} -out {path}.crt && cat {path}.crt >> {path}"
    )
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    return str(path)


@pytest.mark.parametrize(
    ("boards", "values"),
    [
        (["10.0.0.1"], {}),
        (["a=10.0.0.1", "b=[fe80::1]:9000", "c=board.invalid"], {"listen": ":8090"}),
        ([f"rk{number}=10.0.1.{number}" for number in range(1, 101)], {}),
        (["10.0.0.1", "10.0.0.2"], {"certificate": "yes"}),
    ],
    ids=["one", "addresses", "hundred", "https"],
)
def test_haproxy_accepts_it(tmp_path: Path, boards: list[str], values: dict[str, str]) -> None:
    if "certificate" in values:
        values = {"certificate": _certificate(tmp_path)}
    fleet = checked(Fleet(boards=parse_boards(boards), **values))
    names = ("m", "Ümläut:4b", "with space", "#hash")
    reports = [
        Report(
            board=board,
            tells_ready=True,
            models=tuple(BoardModel(name=name) for name in names[: number % 5]),
        )
        for number, board in enumerate(fleet.boards)
    ]
    written = update_files(str(tmp_path), fleet, reports)
    program = find_haproxy()
    assert program is not None
    done = subprocess.run(
        [program, "-c", "-f", written.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert all("could not resolve address 'board.invalid'" in line for line in warnings)


# --- Requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", chat("hello")),
        ("/api/chat", chat("hello", stream=True)),
        ("/api/generate", {"model": "chat", "prompt": "hello", "stream": False}),
        ("/v1/chat/completions", chat("hello")),
        ("/v1/chat/completions", chat("hello", stream=True)),
        ("/v1/responses", {"model": "chat", "input": "hello"}),
        ("/v1/messages", chat("hello")),
        ("/v1/messages", chat("hello", stream=True)),
        ("/generate", {"model": "chat", "messages": "hello"}),
        ("/v1/messages/count_tokens", chat("hello")),
        ("/api/show", {"model": "only"}),
        ("/v1/models", None),
        ("/api/tags", None),
    ],
)
def test_every_dialect_is_served(cluster: Cluster, path: str, body: Any) -> None:
    answer = cluster.ask(path, body)
    assert (answer.status, answer.whole) == (200, True), answer


def test_keys_are_passed_through(cluster: Cluster) -> None:
    assert cluster.balancer.ask("/api/chat", chat("hello")).status == 401
    assert cluster.balancer.ask("/ready").status == 200


def test_a_conversation_stays_on_its_board(cluster: Cluster) -> None:
    for text in ("first", "second"):  # one on each board
        before = cluster.runs()
        messages: list[Any] = [{"role": "system", "content": "Be brief."}]
        for turn in range(4):
            messages.append({"role": "user", "content": f"{text} {turn}"})
            answer = cluster.ask(
                "/api/chat", {"model": "chat", "messages": messages, "stream": False}
            )
            messages.append(answer.json["message"])
        assert sorted(difference(cluster.runs(), before)) == [0, 4]


def test_a_session_hint_counts_more_than_the_first_message(cluster: Cluster) -> None:
    before = cluster.runs()
    session = cluster.ask("/api/chat", chat("What is your hint?")).headers["x-rkllama-session"]
    for number in range(3):
        cluster.ask("/api/chat", chat(f"other {number}"), **{"x-rkllama-session": session})
    assert sorted(difference(cluster.runs(), before)) == [0, 4]


def test_a_model_that_one_board_has_is_answered_there(cluster: Cluster) -> None:
    before = cluster.runs()
    for number in range(4):
        answer = cluster.ask("/v1/chat/completions", chat(f"new {number}", "ONLY:latest"))
        assert answer.status == 200
    assert difference(cluster.runs(), before) == [0, 4]


def test_an_alias_is_a_name_like_others(cluster: Cluster) -> None:
    assert cluster.ask("/api/chat", chat("hello", "same")).status == 200
    assert "same boards\n" in (cluster.balancer.directory / "models.map").read_text()


def test_who_waits_is_served_by_an_idle_board_and_lists_do_not_wait(cluster: Cluster) -> None:
    before = cluster.runs()
    text = "crowd " + directive(tokens=60, token_us=10_000)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cluster.ask("/api/chat", chat(text))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(difference(cluster.runs(), before)) >= 2, "nobody is served")
    assert cluster.ask("/v1/models").status == 200
    assert len(answers) < 8  # it did not wait for them
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 8
    # All are one conversation by their first message, and would have waited for one board.
    assert min(difference(cluster.runs(), before)) >= 2


@contextlib.contextmanager
def under_load(cluster: Cluster, *, stream: bool) -> Iterator[list[Answer]]:
    """Four clients that ask until the block has ended."""
    answers: list[Answer] = []
    done = threading.Event()
    text = directive(tokens=20, token_us=2_000)

    def work(client: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            answers.append(
                cluster.ask("/api/chat", chat(f"{client} {number} {text}", stream=stream))
            )

    threads = [threading.Thread(target=work, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answers) > 8, "no answers")
        yield answers
        count = len(answers)
        wait_until(lambda: len(answers) > count + 8, "no answers afterwards")
    finally:
        done.set()
        for thread in threads:
            thread.join()


def is_whole(answer: Answer) -> bool:
    if not answer.whole or answer.status != 200:
        return False
    return json.loads(answer.body.splitlines()[-1])["done"] is True


def is_watched(board: BoardProcess) -> bool:
    """Whether a board knows that a balancer asks for its readiness: it has asked twice."""
    told = ask(board.port, "/metrics", headers={"Authorization": "Bearer secret"}).body.decode()
    asked = re.search(r'rkllama_requests_total\{path="/ready",status="200"\} (\d+)', told)
    return asked is not None and int(asked[1]) >= 2


@pytest.mark.parametrize(
    ("number", "stream"),
    [(signal.SIGKILL, False), (signal.SIGTERM, True)],
    ids=["killed", "drained"],
)
def test_no_answer_is_lost_when_a_board_goes(
    cluster: Cluster, number: signal.Signals, stream: bool
) -> None:
    """A board that is killed loses streams that have begun; one that drains does not."""
    wait_until(lambda: is_watched(cluster.boards[0]), "the balancer does not ask")
    with under_load(cluster, stream=stream) as answers:
        cluster.boards[0].restart(number)
        wait_until(lambda: cluster.balancer.ups() == 2, "the board does not come back")
    assert [answer for answer in answers if not is_whole(answer)] == []


# --- Commands ----------------------------------------------------------------------------------


def test_status_fits_a_terminal_and_tells_all(cluster: Cluster) -> None:
    lines = cluster.fleet("status").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == [
        "BOARD",
        "STATE",
        "QUEUE",
        "NPU",
        "TEMP",
        "CACHED",
        "VERSION",
        "MODELS",
    ]
    assert [line.split()[:2] for line in lines[1:]] == [["rk1", "ready"], ["rk2", "ready"]]


def test_status_as_json(cluster: Cluster) -> None:
    values = json.loads(cluster.fleet("status", "--json").stdout)
    assert [board["soc"] for board in values["boards"]] == ["RK3588", "RK3576"]
    assert values["balancer"]["up"] == {"rk1": True, "rk2": True}
    assert "secret" not in json.dumps(values)


def test_the_doctor_finds_what_differs_and_nothing_broken(cluster: Cluster) -> None:
    told = json.loads(cluster.fleet("doctor", "--json").stdout)["findings"]
    wrong = [(f["check"], f["found"]) for f in told if f["status"] != "good"]
    assert ("models", "only is on rk2, and not on rk1") in wrong
    assert {check for check, _ in wrong} <= {"models", "digests"}


def test_nothing_is_written_where_nothing_has_changed(cluster: Cluster) -> None:
    """Nor is HAProxy told to read again what it has read: a timer may run this."""
    assert cluster.fleet("update").stderr == "Nothing has changed.\n"
    assert cluster.fleet("update", "--reload").stderr == "Nothing has changed.\n"


def test_each_board_pulls_the_file_for_its_soc(cluster: Cluster) -> None:
    files = {f"Tiny-{soc}-w8a8.rkllm": f"model for {soc}".encode() for soc in ("rk3588", "rk3576")}
    cluster.hub.add("user/Tiny-1B-rkllm", files, tags=("rkllm",))
    done = cluster.fleet("pull", "user/Tiny-1B-rkllm").stderr
    assert done.count("done") == 2
    for board, soc in zip(cluster.boards, ("rk3588", "rk3576"), strict=True):
        found = [path.name for path in board.home.rglob("Tiny*.rkllm")]
        assert found == [f"Tiny-{soc}-w8a8.rkllm"]
    assert "2 of 2 boards have it" in cluster.fleet("pull", "user/Tiny-1B-rkllm").stderr


def test_a_pull_that_fails_on_a_board_says_on_which(cluster: Cluster) -> None:
    cluster.hub.add("user/Only-1B-rkllm", {"Only-1B-rk3588-w8a8.rkllm": b"x"}, tags=("rkllm",))
    told = cluster.fleet("pull", "user/Only-1B-rkllm", expect=1).stderr
    assert "Error: rk2: " in told
    assert "1 of 2 boards have it" in told


def test_haproxy_accepts_what_the_document_has(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    (block,) = re.findall(r"<!-- haproxy -->\n```text\n(.*?)```", text, re.S)
    (tmp_path / "tier.cfg").write_text(block)
    program = find_haproxy()
    assert program is not None
    subprocess.run([program, "-c", "-f", str(tmp_path / "tier.cfg")], check=True)
