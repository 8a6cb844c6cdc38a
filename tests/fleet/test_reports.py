"""What boards tell, right and wrong, and what `fleet doctor` makes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.fleet.balancer import Balancer, fingerprint_of, read_balancer
from rkllama.fleet.boards import Board, Fleet
from rkllama.fleet.checks import Fleetwide, examine_fleet
from rkllama.fleet.files import expected_configuration, update_files
from rkllama.fleet.reports import BoardModel, Report, ask_all, read_report, read_reports
from rkllama.server.status.wire import ready_body
from rkllama.types import DRAINING

HEALTHY: dict[str, Any] = {
    "/ready": {"status": "ready"},
    "/health": {"version": "1.0", "queue": 2, "models": [{"name": "qwen3-4b", "state": "busy"}]},
    "/api/tags": {
        "models": [
            {"name": "qwen3-4b:latest", "digest": "ab" * 32},
            {"name": "other:latest", "digest": "0" * 64},
            {"name": "chat:latest", "digest": "ab" * 32, "alias_of": "qwen3-4b"},
        ]
    },
    "/api/rkllama/board": {
        "soc": "rk3588",
        "npu": {"load_percent": [80, 60, 10]},
        "temperatures": [{"zone": "a", "celsius": 40.0}, {"zone": "b", "celsius": 61.5}],
        "throttled": False,
    },
    "/metrics": 'rkllama_prompt_tokens_total{model="a"} 300\nrkllama_prompt_tokens_total{model="b"} 100\n'
    'rkllama_cached_tokens_total{model="a"} 100\nrkllama_requests_running{model="a"} 1\n# HELP x y\n',
}


@contextmanager
def answering(answers: dict[str, Any], status: int = 200) -> Iterator[Board]:
    """A board that answers with these values: bytes as they are, else JSON; 404 for other paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = answers.get(self.path)
            body = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
            body = value.encode() if isinstance(value, str) else body
            code = 404 if value is None else answers.get(f"{self.path} status", status)
            self.send_response_only(code)
            self.send_header("Date", answers.get("date") or formatdate(usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Board(name="rk1", host="127.0.0.1", port=server.server_port)
        server.shutdown()
        thread.join()


def read(answers: dict[str, Any], status: int = 200) -> Report:
    with answering(answers, status) as board:
        return read_report(board, load_settings())


def test_a_board_tells_how_it_is() -> None:
    report = read(HEALTHY)
    assert report == Report(
        board=report.board,
        version="1.0",
        soc="rk3588",
        tells_ready=True,
        running=1,
        waiting=2,
        npu_load=50,
        celsius=61.5,
        throttled=False,
        models=(
            BoardModel(name="other"),
            BoardModel(name="qwen3-4b", digest="ab" * 32, loaded=True),
        ),
        aliases=("chat",),
        cached=0.25,
        clock=report.clock,
    )
    assert report.clock is not None
    assert abs(report.clock) < 5
    assert report.names == ("other", "qwen3-4b", "chat")


def test_an_older_release_tells_less() -> None:
    old = {path: HEALTHY[path] for path in ("/health", "/api/tags")}
    report = read(old)
    assert report.error is None
    assert not report.tells_ready
    assert (report.celsius, report.npu_load, report.cached, report.running) == (None,) * 4


def test_a_board_that_is_not_ready_says_why() -> None:
    answers = {
        **HEALTHY,
        "/ready": ready_body(DRAINING),
        "/ready status": 503,
    }
    assert read(answers).unready == DRAINING.text


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/health": b"not JSON"},
        {"/health": {"version": "1", "models": "x"}},
        {"/health": {"version": "a\nb", "models": []}},
        {"/health": b"["},
    ],
)
def test_a_stranger_is_no_board(answers: dict[str, Any]) -> None:
    assert read(answers).error == "another program is listening there"


def test_what_makes_no_sense_is_not_known() -> None:
    health = {"version": "1", "queue": "many", "models": [{"name": 5}, "x", {"name": "a\nb"}]}
    board = {"soc": ["x"], "npu": {"load_percent": "x"}, "temperatures": [1, {"celsius": 1e300}]}
    answers = {
        "/health": health,
        "/api/rkllama/board": board,
        "/api/tags": {
            "models": [
                {"name": "m\x1b[31m"},
                {"name": "good", "digest": 5},
                {"name": "a\nb", "alias_of": "good"},
            ]
        },
        "/metrics": b"\xff\xfe 5\nrkllama_cached_tokens_total ---\n",
    }
    report = read(answers)
    assert report.error is None
    assert report.names == ("good",)
    assert (report.soc, report.waiting, report.npu_load, report.celsius, report.cached) == (
        None,
    ) * 5


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/metrics", b"rkllama_requests_running 1e999\n"),
        ("/metrics", b"rkllama_requests_running nan\n"),
        ("/api/rkllama/board", b'{"npu": {"load_percent": [NaN, 1e999, %s]}}' % (b"9" * 400)),
        ("/api/rkllama/board", b'{"npu": {"load_percent": 5}}'),
    ],
)
def test_no_figure_is_too_large_to_be_unknown(path: str, answer: bytes) -> None:
    report = read({**HEALTHY, path: answer})
    assert report.error is None
    assert None in (report.running, report.npu_load)


def test_what_nobody_thought_of_is_told_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OverflowError

    monkeypatch.setattr("rkllama.fleet.reports._npu_load", fail)
    assert "OverflowError" in str(read(HEALTHY).error)


def test_a_board_with_another_key_is_told_apart() -> None:
    report = read({"/health": HEALTHY["/health"], "/api/tags": {}, "/api/tags status": 401})
    assert report.refused
    assert "API key" in str(report.error)


def test_nobody_listening_is_told_without_advice_for_one_server() -> None:
    report = read_report(Board(name="a", host="127.0.0.1", port=1), load_settings())
    assert report.error == "Connection refused"


def test_all_are_asked_at_the_same_time_and_nobody_is_waited_for() -> None:
    boards = [Board(name=f"b{n}", host="127.0.0.1", port=n + 1) for n in range(10)]
    together, hang = threading.Barrier(10, timeout=10), threading.Event()

    def ask(board: Board) -> str:
        together.wait()
        if board.name == "b3":
            hang.wait()
        return board.name

    answers = ask_all(boards, ask, 1.0)
    hang.set()
    assert answers == [None if board.name == "b3" else board.name for board in boards]


def test_a_board_that_sends_byte_by_byte_is_late() -> None:
    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            gone.wait()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    gone = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        board = Board(name="rk1", host="127.0.0.1", port=server.server_port)
        started = time.monotonic()
        (report,) = read_reports([board], load_settings(), 0.3)
        assert report.error is not None
        assert time.monotonic() - started < 5
        gone.set()
        server.shutdown()
        thread.join()


def test_what_is_no_table_is_no_balancer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (200, 'pxname,svname\n"' + "x" * 200_000)
    monkeypatch.setattr("rkllama.fleet.balancer._get", lambda *_: answer)
    assert read_balancer(Fleet(boards=(ONE,))) is None


# --- The doctor --------------------------------------------------------------------------------

ONE, TWO = Board(name="rk1", host="10.0.0.1"), Board(name="rk2", host="10.0.0.2")
MODEL = BoardModel(name="m", digest="a" * 64)
GOOD = Report(
    board=ONE, version="1.0", soc="rk3588", tells_ready=True, models=(MODEL,), celsius=50, clock=0.2
)
GOOD_TOO = replace(GOOD, board=TWO)


def findings(
    directory: Path, *told: Report, up: bool = True, runs: str | None = None
) -> dict[str, tuple[str, str]]:
    """Status and text of what is wrong, by check."""
    fleet = Fleet(boards=(ONE, TWO))
    update_files(str(directory), fleet, [GOOD, GOOD_TOO])
    runs = runs or fingerprint_of((directory / "haproxy.cfg").read_text())
    balancer = Balancer(fingerprint=runs, up={"rk1": up, "rk2": up}, waiting=0)
    expected = expected_configuration(str(directory), fleet, told)
    subject = Fleetwide(str(directory), fleet, told, balancer, expected)
    return {
        entry.finding.check: (entry.finding.status, entry.finding.found)
        for entry in examine_fleet(subject)
        if entry.finding.status != "good"
    }


@pytest.fixture(autouse=True)
def _haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkllama.fleet.checks.find_haproxy", lambda: "/usr/sbin/haproxy")


def test_a_fleet_where_all_is_well(tmp_path: Path) -> None:
    assert findings(tmp_path, GOOD, GOOD_TOO) == {}


@pytest.mark.parametrize(
    ("change", "check", "status", "text"),
    [
        ({"error": "Connection refused"}, "board", "broken", "no answer: Connection refused"),
        ({"error": "asks for a key", "refused": True}, "board", "broken", "asks for a key"),
        ({"unready": "the queue is full"}, "board", "warning", "not ready: the queue is full"),
        ({"throttled": True}, "board", "warning", "slowed by heat, 50 °C"),
        ({"version": "0.9"}, "versions", "warning", "0.9 on rk2; 1.0 on rk1"),
        ({"tells_ready": False}, "ready", "warning", "no /ready on rk2"),
        ({"models": ()}, "models", "warning", "m is on rk1, and not on rk2"),
        ({"clock": -90.0}, "clocks", "warning", "rk2 is 90 s behind"),
        (
            {"models": (BoardModel(name="m", digest="b" * 64),)},
            "digests",
            "warning",
            "m: aaaaaaaaaaaa on rk1; bbbbbbbbbbbb on rk2",
        ),
    ],
)
def test_what_is_wrong_with_a_board(
    tmp_path: Path, change: dict[str, Any], check: str, status: str, text: str
) -> None:
    assert findings(tmp_path, GOOD, replace(GOOD_TOO, **change))[check] == (status, text)


def test_a_board_with_names_beyond_number_does_not_hide_the_other_findings(tmp_path: Path) -> None:
    many = tuple(BoardModel(name=f"m{number}") for number in range(10_000))
    fleet = Fleet(boards=(ONE, TWO))
    told = [GOOD, replace(GOOD_TOO, models=(MODEL, *many))]
    found = examine_fleet(Fleetwide(str(tmp_path), fleet, told, None, ""))
    assert len(found) < 40
    assert "9980 more are on some boards, and not on all" in [each.finding.found for each in found]


def test_other_socs_have_other_files(tmp_path: Path) -> None:
    other = replace(GOOD_TOO, soc="rk3576", models=(BoardModel(name="m", digest="b" * 64),))
    assert findings(tmp_path, GOOD, other) == {}


def test_a_balancer_that_does_not_reach_what_answers(tmp_path: Path) -> None:
    wrong = findings(tmp_path, GOOD, GOOD_TOO, up=False)
    assert wrong["haproxy"] == ("broken", "it does not reach rk2, which answers here")


def test_a_balancer_that_runs_what_was_before(tmp_path: Path) -> None:
    assert findings(tmp_path, GOOD, GOOD_TOO, runs="0" * 16)["haproxy"][0] == "warning"


def test_models_that_have_come_ask_for_an_update(tmp_path: Path) -> None:
    new = replace(GOOD_TOO, models=(MODEL, BoardModel(name="new")))
    assert findings(tmp_path, GOOD, new)["configuration"][0] == "warning"
