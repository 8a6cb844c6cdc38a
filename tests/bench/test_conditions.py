"""What would spoil the figures, and the facts of fixture boards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.bench.conditions import busy_cpus, server_spoilers, spoilers
from rkllama.bench.facts import board_facts, file_digest, moment_of, read_load_average
from rkllama.bench.results import Moment, TemperatureFacts
from rkllama.board.soc import read_driver
from rkllama.board.telemetry import read_state
from rkllama.types import CoreTime, ModelInfo
from tests.bench.reports import MOMENT
from tests.boards import build_board


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An RK3588 on which all is well."""
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    return root


def write(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def warnings(*, uses_npu: bool = True, busy: float | None = 0.0) -> list[str]:
    """What is told of the board as it is now."""
    found = [*spoilers(moment_of(read_state(), read_load_average()), busy, uses_npu=uses_npu)]
    assert all(len(f"Note: {text}") <= 80 for text in found)
    return found


NPU = "/sys/class/devfreq/fdab0000.npu"
POLICY = "/sys/devices/system/cpu/cpufreq/policy0"


def test_a_board_that_is_set_up_for_speed_has_no_warning(board: Path) -> None:
    write(board, f"{NPU}/governor", "performance")
    assert warnings() == []


def test_governors_that_change_clocks(board: Path) -> None:
    assert warnings() == [], "the vendor's governor holds the NPU at its highest clock"
    write(board, f"{NPU}/cur_freq", "600000000")
    advice = "`rkllama doctor` tells how to raise the clocks."
    assert warnings() == ["The governor of the NPU is rknpu_ondemand, not performance.", advice]
    assert warnings(uses_npu=False) == [], "the CPU backend does not use the NPU"
    write(board, f"{POLICY}/scaling_governor", "ondemand")
    (warning, last) = warnings(uses_npu=False)
    assert warning == "The governor of cpu0-3 is ondemand, not performance."
    assert last == advice


def test_clocks_that_are_held_down(board: Path) -> None:
    write(board, f"{NPU}/governor", "performance")
    write(board, f"{NPU}/max_freq", "600000000")
    assert warnings() == ["The clock of the NPU is held below the highest: 600 MHz of 1000 MHz."]


def test_heat(board: Path) -> None:
    write(board, f"{NPU}/governor", "performance")
    write(board, "/sys/class/thermal/thermal_zone0/temp", "81000")
    (warning,) = warnings()
    assert warning == "The board is hot: soc-thermal has 81 °C."
    write(board, "/sys/class/thermal/cooling_device9/type", "thermal-cpufreq-9")
    write(board, "/sys/class/thermal/cooling_device9/cur_state", "2")
    assert "The board is throttled: heat holds its clocks down." in warnings()


def test_other_programs(board: Path) -> None:
    write(board, f"{NPU}/governor", "performance")
    assert warnings(busy=0.2) == []
    assert warnings(busy=1.92) == ["Other programs keep 1.9 CPUs busy. Measure on a quiet board."]
    write(board, "/proc/loadavg", "1.52 0.9 0.5 1/200 1234")
    assert warnings(busy=0.0) == [], "the load average tells of a minute ago"
    assert warnings(busy=None) == [
        "Other programs are busy (load average 1.52). Measure on a quiet board."
    ]


def test_busy_cpus_are_counted_between_two_readings() -> None:
    first = [CoreTime(core=0, busy=10.0, idle=90.0), CoreTime(core=1, busy=0.0, idle=100.0)]
    second = [CoreTime(core=0, busy=10.5, idle=90.0), CoreTime(core=1, busy=0.25, idle=100.25)]
    assert busy_cpus(first, second) == pytest.approx(1.5)
    assert busy_cpus(first, first) is None
    assert busy_cpus([], second) is None


def test_what_else_a_server_does() -> None:
    assert [*server_spoilers((), 0)] == []
    assert [*server_spoilers(("qwen",), 1)] == [
        "The server is answering others: qwen is in use.",
        "1 request of others waits in the server's queue.",
    ]
    assert [*server_spoilers((), 2)] == ["2 requests of others wait in the server's queue."]


def test_a_machine_that_tells_nothing_has_no_warning() -> None:
    bare = Moment(
        clocks=(), temperatures=(), throttled=None, memory_available=None, load_average=None
    )
    assert [*spoilers(bare, None, uses_npu=True)] == []


# --- Facts -------------------------------------------------------------------------------------


def test_the_facts_of_a_board(board: Path) -> None:
    hot = replace(
        MOMENT, temperatures=(TemperatureFacts(zone="soc-thermal", celsius=91.0),), throttled=True
    )
    facts = board_facts((MOMENT, hot, MOMENT), read_state(), here=True)
    assert facts is not None
    assert (facts.board, facts.soc) == ("Orange Pi 5 Plus", "RK3588")
    assert (facts.kernel, facts.npu_driver) == ("6.1.84-vendor-rk35xx", "0.9.8")
    assert (facts.cpus, facts.memory) == (8, 16218192 * 1024)
    assert (facts.before, facts.after) == (MOMENT, MOMENT)
    assert (facts.hottest, facts.throttled) == (91.0, True), "also what was in between"


def test_the_moment_of_a_board(board: Path) -> None:
    moment = moment_of(read_state(), None)
    clocks = {clock.name: clock for clock in moment.clocks}
    assert list(clocks) == ["npu", "ddr", "cpu0-3", "cpu4-5", "cpu6-7"]
    assert clocks["npu"].current == 1_000_000_000
    assert clocks["npu"].governor == "rknpu_ondemand"
    assert clocks["cpu4-5"].highest == 2_352_000_000
    assert moment.memory_available == 14821180 * 1024
    assert any(one.zone == "npu-thermal" for one in moment.temperatures)


def test_of_another_machine_only_what_its_server_tells_is_told(board: Path) -> None:
    state = replace(read_state(), soc="RK3576")
    facts = board_facts((MOMENT,), state, here=False)
    assert facts is not None
    assert facts.soc == "RK3576"
    own = (facts.board, facts.kernel, facts.npu_driver, facts.architecture, facts.cpus)
    assert own == (None,) * 5, "these are files of this machine"
    assert board_facts((), None, here=False) is None


def test_a_pc_is_named_after_its_cpu(board: Path) -> None:
    (board / "proc/device-tree/model").unlink()
    write(board, "/proc/cpuinfo", "processor\t: 0\nmodel name\t: Some   CPU @ 2 GHz\n")
    facts = board_facts((MOMENT,), read_state(), here=True)
    assert facts is not None
    assert facts.board == "Some CPU @ 2 GHz"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/sys/module/rknpu/version", "0.9.8"),
        ("/sys/kernel/debug/rknpu/version", "RKNPU driver: v0.9.8"),
        ("/proc/rknpu/version", "RKNPU driver: v0.9.8"),
    ],
)
def test_the_driver_tells_its_release_in_several_places(
    path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(tmp_path))
    assert read_driver() is None
    write(tmp_path, path, text)
    assert read_driver() == ("0.9.8", path)


def test_the_digest_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "models" / "m.gguf"
    write(tmp_path, "models/m.gguf", "abc")
    info = ModelInfo(
        name="m",
        file="m.gguf",
        path=str(path),
        format="gguf",
        size=3,
        modified=0.0,
        digest="0" * 64,
    )
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(info, str(tmp_path / "models")) == digest
    path.write_text("abd")
    assert file_digest(info, str(tmp_path / "models")) != digest
    assert file_digest(replace(info, path="/nowhere/m.gguf"), str(tmp_path / "models")) is None
