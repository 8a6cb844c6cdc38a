"""How the board is doing, told over HTTP: as JSON, to our own client, and to Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.api.native import board_body
from rkllama.board.telemetry import read_state
from rkllama.client.discover import ServerAddress
from rkllama.client.remote import RemoteService
from rkllama.client.wire import board_state
from rkllama.config import load_settings
from rkllama.engine.metrics import Metrics
from rkllama.types import BoardState, Clock, Memory
from tests.boards import build_board
from tests.running import Server


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An RK3588 under load, as root sees it."""
    root = build_board("rk3588", tmp_path)
    (root / "sys/kernel/debug/rknpu").mkdir(parents=True)
    (root / "sys/kernel/debug/rknpu/load").write_text(
        "NPU load:  Core0: 86%, Core1:  4%, Core2: 0%,"
    )
    (root / "proc/stat").write_text("cpu  1 2 3\ncpu0 100 0 50 900 50 0 0 0 0 0\n")
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    return root


@pytest.fixture
def served(board: Path, models: Path, npu: str) -> Iterator[Server]:
    """A server on that board."""
    with Server() as running:
        yield running


def without_paths(state: BoardState) -> BoardState:
    """A state as it is told: where a governor is set is this machine's own affair."""

    def told(clock: Clock | None) -> Clock | None:
        return clock and replace(clock, governor_file="")

    cpus = tuple(replace(clock, governor_file="") for clock in state.cpus)
    return replace(state, npu=told(state.npu), ddr=told(state.ddr), cpus=cpus)


def samples(state: BoardState) -> dict[str, str]:
    """The lines of the board in the exposition, with their values."""
    lines = Metrics().exposition(0, 0, [], state).splitlines()
    counted = set(Metrics().exposition(0, 0, [], BoardState()).splitlines())
    mine = [line for line in lines if line not in counted and not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in mine)


@pytest.mark.integration
def test_the_board_as_json(served: Server) -> None:
    answer = served.get("/api/rkllama/board")
    assert answer.status == 200
    body = answer.json
    assert body["soc"] == "RK3588"
    assert body["npu"] == {
        "name": "npu",
        "current_hz": 1_000_000_000,
        "highest_hz": 1_000_000_000,
        "limit_hz": 1_000_000_000,
        "governor": "rknpu_ondemand",
        "governors": body["npu"]["governors"],
        "load_percent": [86, 4, 0],
    }
    assert body["ddr"]["load_percent"] == [2]
    assert [(cpu["name"], cpu["cores"]) for cpu in body["cpus"]][1] == ("cpu4-5", [4, 5])
    assert body["core_times"][0]["core"] == 0
    assert body["temperatures"][6] == {"zone": "npu-thermal", "celsius": 45.307}
    assert body["throttled"] is False
    assert body["memory"]["available_bytes"] == 14821180 * 1024


@pytest.mark.integration
def test_our_client_reads_what_the_server_reads(served: Server) -> None:
    remote = RemoteService(ServerAddress(load_settings(), served.url))
    assert remote.board() == without_paths(read_state())
    assert remote.queue_length() == 0


@pytest.mark.integration
def test_the_board_is_for_those_with_a_key(board: Path, models: Path, npu: str) -> None:
    with Server("--api-key", "secret") as server:
        assert server.get("/api/rkllama/board").status == 401
        assert server.get("/api/rkllama/board", Authorization="Bearer secret").status == 200


@pytest.mark.integration
def test_prometheus_gets_the_board(served: Server) -> None:
    text = served.get("/metrics").body.decode()
    assert 'rkllama_clock_hertz{clock="cpu6-7"} 2352000000\n' in text
    assert f"rkllama_memory_available_bytes {14821180 * 1024}\n" in text


def test_what_is_not_known_is_absent() -> None:
    assert board_body(BoardState()) == {"memory": {}}
    assert board_state({"memory": {}}) == BoardState()
    state = BoardState(npu=Clock(name="npu", current=5), memory=Memory(available=7))
    assert board_body(state) == {
        "npu": {"name": "npu", "current_hz": 5},
        "memory": {"available_bytes": 7},
    }


def test_zero_and_no_are_known() -> None:
    state = BoardState(
        npu=Clock(name="npu", current=0, load=(0,)),
        throttled=False,
        memory=Memory(available=0),
    )
    body = json.loads(json.dumps(board_body(state)))
    assert body["npu"] == {"name": "npu", "current_hz": 0, "load_percent": [0]}
    assert (body["throttled"], body["memory"]) == (False, {"available_bytes": 0})
    assert board_state(body) == state


def test_metrics_are_in_base_units(board: Path) -> None:
    told = samples(read_state())
    assert told['rkllama_npu_load_ratio{core="0"}'] == "0.86"
    assert told['rkllama_npu_load_ratio{core="2"}'] == "0"
    assert told["rkllama_memory_bus_load_ratio"] == "0.02"
    assert told['rkllama_clock_hertz{clock="ddr"}'] == "2112000000"
    assert told['rkllama_clock_limit_hertz{clock="cpu0-3"}'] == "1800000000"
    assert told['rkllama_temperature_celsius{zone="npu-thermal"}'] == "45.307"
    assert told["rkllama_throttled"] == "0"
    assert told["rkllama_cma_free_bytes"] == str(250112 * 1024)


def test_metrics_of_nothing_are_none() -> None:
    text = Metrics().exposition(0, 0, [], BoardState())
    for name in ("npu", "clock", "temperature", "throttled", "memory_a", "cma"):
        assert f"rkllama_{name}" not in text
