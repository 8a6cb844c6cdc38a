"""`rkllama top`: the picture in every width, and the command on a terminal, with servers that come and go."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rkllama.console.top import Snapshot, picture, plain, summary
from rkllama.types import (
    BoardState,
    Clock,
    CoreTime,
    LoadedModel,
    Memory,
    ModelInfo,
    Temperature,
)
from tests import prepared
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, CTRL_Z, Terminal
from tests.virtual_npu import write_model
from tests.waiting import until

NAME = "Qwen2.5-1.5B-Instruct-w8a8-rk3588"
MODEL = LoadedModel(
    info=ModelInfo(
        name=NAME, file="f.rkllm", path="/m/f.rkllm", format="rkllm", size=2 * 10**9, modified=0
    ),
    state="busy",
    memory=1_900_000_000,
    tokens_per_second=16.72,
)
BOARD = BoardState(
    soc="RK3588",
    npu=Clock(name="npu", current=10**9, highest=10**9, limit=10**9, load=(86, 84, 1)),
    ddr=Clock(
        name="ddr",
        current=528 * 10**6,
        highest=2112 * 10**6,
        limit=528 * 10**6,
        governor="dmc_ondemand",
        load=(33,),
    ),
    cpus=(Clock(name="cpu4-5", current=2352 * 10**6, highest=2352 * 10**6, cores=(4, 5)),),
    core_times=(CoreTime(core=4, busy=10, idle=90), CoreTime(core=5, busy=5, idle=5)),
    temperatures=(
        Temperature(zone="soc-thermal", celsius=46.2),
        Temperature(zone="npu-thermal", celsius=61.5),
    ),
    throttled=True,
    memory=Memory(total=16 * 10**9, available=12 * 10**9),
)
NOW = Snapshot(BOARD, (MODEL,), 2, "Through the server at http://127.0.0.1:8080")


def drawn(now: Snapshot, before: Snapshot | None = None, columns: int = 80) -> str:
    """A picture as text."""
    console = Console(file=io.StringIO(), width=columns, color_system=None)
    with console.capture() as capture:
        console.print(picture(now, before, columns))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def test_the_picture() -> None:
    assert drawn(NOW) == (
        """\
Through the server at http://127.0.0.1:8080

CLOCK   LOAD       NOW       MAX                GOVERNOR
NPU     86 84 1 %  1000 MHz  1000 MHz           -
DDR     33 %       528 MHz   528 MHz (limited)  dmc_ondemand
cpu4-5  -          2352 MHz  2352 MHz           -

SoC        RK3588
Degrees C  soc 46  npu 62
Memory     12.0 GB free of 16.0 GB
Heat       slows the clocks

MODEL                              STATE  SIZE    TOKENS/S  UNTIL
Qwen2.5-1.5B-Instruct-w8a8-rk3588  busy   1.9 GB  16.7      in use

Requests: 1 running, 2 waiting
"""
    )


@pytest.mark.parametrize("columns", [30, 40, 59, 60, 80, 200])
def test_it_fits_every_width(columns: int) -> None:
    lines = drawn(NOW, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("NPU") for line in lines)


def test_a_narrow_terminal_cuts_the_models_name_and_nothing_else() -> None:
    lines = drawn(NOW, columns=40).splitlines()
    model = next(line for line in lines if line.startswith("Qwen"))
    assert re.fullmatch(r"Qwen\S+…  busy   in use", model)
    assert "NPU     86 84 1 %  1000 MHz" in lines


def test_the_cpus_load_is_the_difference_of_two_readings() -> None:
    later = replace(
        BOARD,
        core_times=(CoreTime(core=4, busy=10.5, idle=90.5), CoreTime(core=5, busy=6, idle=5)),
    )
    assert "cpu4-5  75 %" in drawn(NOW._replace(board=later), NOW)


@pytest.mark.parametrize(
    "before",
    [
        (),
        (CoreTime(core=7, busy=1, idle=1),),
        (CoreTime(core=4, busy=10, idle=90),),  # no time has passed
        (CoreTime(core=4, busy=900, idle=900),),  # the board has been started anew
    ],
)
def test_without_a_difference_there_is_no_load(before: tuple[CoreTime, ...]) -> None:
    text = drawn(NOW, NOW._replace(board=replace(BOARD, core_times=before)))
    assert "cpu4-5  -  " in text


def test_the_many_clocks_of_a_pc_are_told_together() -> None:
    cpus = [
        Clock(name=f"cpu{n}", current=n * 10**8, highest=4 * 10**9, cores=(n,)) for n in range(12)
    ]
    cpus[3:6] = [replace(clock, highest=3 * 10**9) for clock in cpus[3:6]]
    text = drawn(Snapshot(BoardState(cpus=tuple(cpus))))
    assert re.search(r"cpu0-2,6-11 +- +1100 MHz +4000 MHz", text)
    assert re.search(r"cpu3-5 +- +500 MHz +3000 MHz", text)
    assert text.count("cpu") == 2


def test_a_board_that_tells_nothing_is_no_error() -> None:
    assert drawn(Snapshot(BoardState(), note="This machine.")).split() == ["This", "machine."]


def test_what_others_named_cannot_command_the_terminal() -> None:
    evil = replace(MODEL, info=replace(MODEL.info, name="\x1b]0;x\x07m[bold]\x1b[31m"))
    hot = replace(BOARD, temperatures=(Temperature(zone="\x1b[2Jz", celsius=50),))
    text = plain(Snapshot(hot, (evil,), 0))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "m[bold]" in text


def test_one_line_for_ps() -> None:
    assert (
        summary(BOARD) == "NPU 1000 MHz, DDR 528 MHz, 62 °C, 12.0 GB of memory free, slowed by heat"
    )
    assert summary(BoardState()) == ""
    assert len(summary(BOARD)) < 80


# --- The command -------------------------------------------------------------------------------


def at(server: Server) -> dict[str, str]:
    """The environment of a user who has named a server."""
    return {"RKLLAMA_HOST": f"127.0.0.1:{server.port}"}


def rkllama(*arguments: str, env: dict[str, str] | None = None) -> str:
    done = prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


@pytest.mark.integration
def test_where_there_is_no_terminal_it_is_told_once_and_plainly(board: Path) -> None:
    text = rkllama("top")
    assert "\x1b" not in text
    assert text.startswith("This machine, without a server.\n")
    assert "NPU     -     1000 MHz  1000 MHz  rknpu_ondemand\n" in text
    assert "Requests" not in text


@pytest.mark.integration
def test_json_is_one_reading(board: Path, models: Path, npu: str) -> None:
    alone = json.loads(rkllama("top", "--json"))
    assert alone.keys() == {"board"}
    assert alone["board"]["npu"]["current_hz"] == 10**9
    write_model(models / "m.rkllm")
    with Server() as server:
        assert server.post("/api/generate", {"model": "m"}).status == 200
        values = json.loads(rkllama("top", "--json", env=at(server)))
        assert values["requests"] == {"running": 0, "waiting": 0}
        assert [model["info"]["name"] for model in values["models"]] == ["m"]
        assert values["board"] == alone["board"]
        loaded = json.loads(rkllama("ps", "--json", env=at(server)))
    assert [model.keys() for model in values["models"]] == [model.keys() for model in loaded]


@pytest.mark.integration
@pytest.mark.parametrize("key", ["q", "Q", CTRL_C])
def test_a_key_ends_it_and_the_terminal_is_as_before(board: Path, key: str) -> None:
    with Terminal("top", env={"NO_COLOR": "1"}) as terminal:
        before = termios.tcgetattr(terminal._fd)
        terminal.expect("q quits")
        assert not termios.tcgetattr(terminal._fd)[3] & (termios.ICANON | termios.ECHO)
        terminal.type(key)
        assert terminal.end() == 0
        assert "\x1b[?1049h" in terminal.raw
        assert terminal.raw.rstrip().endswith(("\x1b[?1049l", "\x1b[?25h"))
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.raw), "it has colours"
        assert before[3] & termios.ICANON


@pytest.mark.integration
def test_it_follows_the_board_and_the_size_of_the_terminal(board: Path) -> None:
    with Terminal("top", columns=80) as terminal:
        terminal.expect("rknpu_ondemand")
        (board / "sys/class/devfreq/fdab0000.npu/cur_freq").write_text("300000000\n")
        terminal.expect("300 MHz")
        terminal.resize(40)
        until(lambda: "GOVERNOR" not in terminal.expect("q quits"))
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.integration
def test_a_server_that_goes_is_told_and_waited_for(board: Path, models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    with Server() as server:
        assert server.post("/api/generate", {"model": "m"}).status == 200
        with Terminal("top", env=at(server)) as terminal:
            terminal.expect(f"Through the server at {server.url}")
            terminal.expect("ready")
            server.stop(signal.SIGKILL)
            terminal.expect("Waiting for it.")
            with Server("--port", str(server.port)):
                terminal.expect(f"Through the server at {server.url}")
                terminal.expect("No model is loaded.")
            terminal.type("q")
            assert terminal.end() == 0
            assert "Traceback" not in terminal.raw


@pytest.mark.integration
def test_a_named_server_that_was_never_there_is_an_error(board: Path) -> None:
    with Terminal("top", env={"RKLLAMA_HOST": "127.0.0.1:9"}) as terminal:
        terminal.expect("no server answers at http://127.0.0.1:9")
        assert terminal.end() == 1


@pytest.mark.integration
def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(board: Path) -> None:
    with Terminal("top") as terminal:
        terminal.expect("q quits")
        terminal.type(CTRL_Z)
        terminal.expect_raw("\x1b[?1049l")
        until(lambda: _state(terminal.process.pid) == "T")
        assert termios.tcgetattr(terminal._fd)[3] & termios.ICANON
        terminal.process.send_signal(signal.SIGCONT)
        terminal.expect("q quits")
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.integration
def test_who_ends_it_from_elsewhere_finds_the_terminal_as_before(board: Path) -> None:
    with Terminal("top") as terminal:
        terminal.expect("q quits")
        terminal.process.terminate()
        assert terminal.end() == 0
        assert "\x1b[?1049l" in terminal.raw
        assert "\x1b[?25h" in terminal.raw


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.integration
def test_a_terminal_without_control_sequences_gets_it_once(board: Path) -> None:
    with Terminal("top", env={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.raw
        assert "NPU" in terminal.raw


@pytest.mark.integration
def test_ps_tells_of_the_board_on_a_terminal_only(board: Path, models: Path, npu: str) -> None:
    with Server() as server:
        with Terminal("ps", env=at(server)) as terminal:
            assert terminal.end() == 0
            assert "NPU 1000 MHz, DDR 2112 MHz, 47 °C, 15.2 GB of memory free" in terminal.screen
        done = prepared.run(
            [sys.executable, "-m", "rkllama", "ps"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, **at(server)},
            check=True,
        )
        assert "NPU" not in done.stdout + done.stderr


@pytest.mark.integration
def test_watching_does_not_fill_the_servers_log(board: Path, models: Path, npu: str) -> None:
    with Server() as server:
        rkllama("top", env=at(server))
        assert server.get("/api/rkllama/board").status == 200
        assert server.get("/api/tags").status == 200
        assert server.get("/nowhere").status == 404
        until(lambda: any("/nowhere" in line for line in server.log))
        logged = "".join(server.log)
        assert '"GET /api/tags" 200' in logged
        assert "/api/rkllama/board" not in logged
        assert "/api/ps" not in logged
