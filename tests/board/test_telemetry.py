"""How a board is doing, read from trees that stand in for boards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rkllama.api.native import board_body
from rkllama.board.telemetry import read_state
from rkllama.client.wire import board_state
from rkllama.types import BoardState, Memory, Temperature
from tests.boards import build_board, names

Write = Callable[[str, str], None]

_NPU = "/sys/class/devfreq/fdab0000.npu"
_DDR = "/sys/class/devfreq/dmc"
_CPU = "/sys/devices/system/cpu/cpufreq/policy4"
_THERMAL = "/sys/class/thermal"
_LOAD = "/sys/kernel/debug/rknpu/load"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An RK3588 where all is well."""
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    return root


@pytest.fixture
def write(board: Path) -> Write:
    """Writes one of the board's files."""

    def write(path: str, text: str) -> None:
        file = board / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_clocks_of_npu_memory_and_clusters(board: Path) -> None:
    state = read_state()
    assert [(clock.name, clock.current, clock.cores) for clock in state.clocks] == [
        ("npu", 1_000_000_000, ()),
        ("ddr", 2_112_000_000, ()),
        ("cpu0-3", 1_800_000_000, (0, 1, 2, 3)),
        ("cpu4-5", 2_352_000_000, (4, 5)),
        ("cpu6-7", 2_352_000_000, (6, 7)),
    ]
    assert [clock.governor for clock in state.clocks[:2]] == ["rknpu_ondemand", "performance"]
    assert all("performance" in clock.governors for clock in state.clocks)
    assert not any(clock.is_limited for clock in state.clocks)


def test_memory_and_what_of_it_the_kernel_keeps_for_devices(board: Path) -> None:
    assert read_state().memory == Memory(
        total=16218192 * 1024,
        available=14821180 * 1024,
        cma_total=262144 * 1024,
        cma_free=250112 * 1024,
    )


@pytest.mark.parametrize("name", names())
def test_every_board_is_told_and_arrives_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board(name, tmp_path)))
    state = read_state()
    arrived = board_state(json.loads(json.dumps(board_body(state))))
    assert board_body(arrived) == board_body(state)
    assert None not in (state.memory.total, state.memory.available)
    for clock in state.clocks:
        assert clock.current, f"{clock.name} of {name}"
        assert clock.highest
        assert clock.current <= clock.highest
        assert clock.governor
    throttled = {"rk3576-throttled": True, "laptop": None}
    if state.npu is not None and not name.startswith("container"):
        assert state.throttled is throttled.get(name, False)


def test_nothing_is_told_of_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(tmp_path))
    assert read_state() == BoardState()


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("NPU load:  Core0: 86%, Core1: 84%, Core2:  1%,\n", (86, 84, 1)),
        ("NPU load: 12%\n", (12,)),
        ("NPU load: 0%\n", (0,)),
        ("", ()),
    ],
)
def test_the_load_of_each_core(write: Write, text: str, load: tuple[int, ...]) -> None:
    write(_LOAD, text)
    assert read_state().npu_load == load


def test_without_root_the_npus_load_is_unknown(board: Path) -> None:
    """The `load` that its devfreq device has for everybody is 0 whatever it does."""
    assert (board / f"{_NPU}/load".lstrip("/")).exists()
    assert read_state().npu_load == ()


def test_the_load_of_the_memory_is_everybodys_to_read(write: Write) -> None:
    write(f"{_DDR}/load", "33@528000000Hz\n")
    ddr = read_state().ddr
    assert ddr is not None
    assert ddr.load == (33,)


def test_the_work_of_each_core_is_told_in_seconds(write: Write) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    write(
        "/proc/stat",
        f"cpu  9 9 9 9 9 9 9 9 9 9\n"
        f"cpu0 {3 * ticks} {ticks} {2 * ticks} {50 * ticks} {10 * ticks} 0 0 0 {ticks} 0\n"
        f"cpu2 0 0 0 {7 * ticks} 0 0 0 0 0 0\n"
        f"intr 1 2 3\n",
    )
    times = [(time.core, time.busy, time.idle) for time in read_state().core_times]
    assert times == [(0, 6.0, 60.0), (2, 0.0, 7.0)]


def test_a_sensor_that_is_switched_off_tells_nothing(write: Write) -> None:
    write(f"{_THERMAL}/thermal_zone0/temp", "0\n")
    write(f"{_THERMAL}/thermal_zone1/temp", "-273000\n")
    write(f"{_THERMAL}/thermal_zone2/temp", "-12500\n")
    sensors = {sensor.zone: sensor.celsius for sensor in read_state().temperatures}
    assert "soc-thermal" not in sensors
    assert "bigcore0-thermal" not in sensors
    assert sensors["bigcore1-thermal"] == -12.5


def test_zones_of_one_type_have_names_of_their_own(write: Write) -> None:
    for number in (1, 10):
        write(f"{_THERMAL}/thermal_zone{number}/type", "soc-thermal\n")
        write(f"{_THERMAL}/thermal_zone{number}/temp", "50000\n")
    zones = [sensor.zone for sensor in read_state().temperatures]
    assert zones[:2] == ["soc-thermal", "soc-thermal-1"]
    assert zones[-1] == "soc-thermal-10"
    assert read_state().hottest == Temperature(zone="soc-thermal-1", celsius=50.0)


# --- Throttling --------------------------------------------------------------------------------


def test_a_cooling_device_at_work_is_heat(write: Write) -> None:
    write(f"{_THERMAL}/cooling_device1/cur_state", "3\n")
    assert read_state().throttled is True


def test_a_fan_slows_nothing(write: Write) -> None:
    write(f"{_THERMAL}/cooling_device4/cur_state", "5\n")
    assert read_state().throttled is False


def test_a_lower_limit_on_a_cool_board_is_somebodys_setting(write: Write) -> None:
    write(f"{_CPU}/scaling_max_freq", "1200000\n")
    write(f"{_NPU}/max_freq", "600000000\n")
    state = read_state()
    assert [clock.name for clock in state.clocks if clock.is_limited] == ["npu", "cpu4-5"]
    assert state.throttled is False


def test_a_lower_limit_on_a_hot_board_may_be_either(write: Write) -> None:
    """The vendor's system monitor limits clocks by itself, without a cooling device."""
    write(f"{_THERMAL}/thermal_zone1/temp", "86000\n")
    assert read_state().throttled is False
    write(f"{_CPU}/scaling_max_freq", "1200000\n")
    assert read_state().throttled is None


def test_an_idle_clock_is_not_throttled(write: Write) -> None:
    write(f"{_CPU}/scaling_cur_freq", "408000\n")
    write(f"{_NPU}/cur_freq", "300000000\n")
    assert read_state().throttled is False


@pytest.mark.parametrize("state", ["-1\n", "\n", "unknown\n"])
def test_a_cooling_device_that_does_not_tell(write: Write, state: str) -> None:
    for number in range(4):
        write(f"{_THERMAL}/cooling_device{number}/cur_state", state)
    assert read_state().throttled is not True


def test_without_cooling_devices_nothing_tells(write: Write) -> None:
    for number in range(4):
        write(f"{_THERMAL}/cooling_device{number}/type", "something-else\n")
    assert read_state().throttled is None
