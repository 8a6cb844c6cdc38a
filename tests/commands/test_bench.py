"""`rkllama bench` as users run it: without a server and through one, on a terminal, with a power meter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from rkllama.bench.results import Report
from rkllama.bench.schema import schema_of
from rkllama.cli import app
from tests import prepared
from tests.bench.test_power import Plug, running
from tests.boards import build_board
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, Terminal
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration


def rkllama(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        env={**os.environ, **(env or {})},
        check=False,
    )


def results(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """What `--json` prints, which fits the schema."""
    done = rkllama("bench", *arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema_of(Report)).validate(values)
    return values


@pytest.fixture
def model(models: Path, npu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of 1000 tokens per second on an RK3588 with the virtual NPU."""
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3588", tmp_path)))
    write_model(models / "m.rkllm", tokens=200, token_us=1000, prefill_us=20)
    return "m"


def test_the_table_and_what_comes_with_it(model: str, models: Path) -> None:
    write_model(models / "m.rkllm", tokens=200, token_us=10_000, prefill_us=20)
    cpu = Path(os.environ["RKLLAMA_SYSROOT"], "sys/devices/system/cpu/cpufreq/policy0")
    (cpu / "scaling_governor").write_text("ondemand\n")
    done = rkllama("bench", "m", "--quick", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("librkllmrt 1.2.3, 2 CPUs, context 4096, RKLLama ")
    assert lines[2] == "Orange Pi 5 Plus, RK3588, 6.1.84-vendor-rk35xx"
    (head,) = (number for number, line in enumerate(lines) if line.startswith("PROMPT"))
    titles = ["PROMPT", "CACHE", "FIRST TOKEN", "PROMPT tokens/s", "ANSWER tokens/s", "OUT"]
    assert re.split(r"  +", lines[head]) == titles
    cells = [line.split() for line in lines[head + 1 : head + 5]]
    assert [(row[0], row[1], row[-1]) for row in cells] == [
        ("128", "cold", "64"),
        ("128", "warm", "64"),
        ("512", "cold", "64"),
        ("512", "warm", "64"),
    ]
    assert all(80 < float(row[-2]) < 105 for row in cells)
    assert "\x1b" not in done.stdout + done.stderr
    # The progress is for terminals; the warning is for everybody.
    assert done.stderr.splitlines()[0] == (
        "Note: The governor of cpu0-3 is ondemand, not performance."
    )


def test_the_same_through_a_server_which_is_left_as_it_was(model: str) -> None:
    with Server() as server:
        env = {"RKLLAMA_HOST": server.url}
        values = results("m", "--quick", "--rounds", "1", env=env)
        assert server.get("/api/ps").json["models"] == []
        here = {key: values["runtime"][key] for key in ("through", "backend", "runtime", "threads")}
        assert here == {
            "through": "server",
            "backend": "npu",
            "runtime": "librkllmrt 1.2.3",
            "threads": 2,
        }
        assert values["runtime"]["rkllama"] == server.get("/api/version").json["rkllama"]
        assert values["board"]["soc"] == "RK3588"
        assert values["board"]["kernel"] == "6.1.84-vendor-rk35xx", "it runs on this machine"
        assert values["memory"]["peak"] > 5_000_000
        assert all(run["prompt_counts"] and run["answer_counts"] for run in values["runs"])


def test_ctrl_c_does_not_leave_the_model_in_a_servers_memory(model: str) -> None:
    with Server() as server:
        arguments = ("bench", "m", "--quick", "--rounds", "50")
        with Terminal(*arguments, env={"RKLLAMA_HOST": server.url}) as terminal:
            terminal.expect("Round 2 of 50: 512 tokens, cold")
            terminal.type(CTRL_C)
            terminal.expect("Interrupted: this is what had been measured.")
            assert terminal.process.wait(LIMIT) == 130
        assert server.get("/api/ps").json["models"] == []


def test_an_answer_to_somebody_else_is_not_cancelled(model: str, models: Path) -> None:
    write_model(models / "m.rkllm", tokens=200, token_us=10_000, prefill_us=20)
    body = {"model": "m", "prompt": "hello", "options": {"num_predict": 150}}
    with Server() as server, server.stream("/api/generate", body) as answer:
        assert answer.status() == 200
        lines = iter(answer)
        next(lines)
        values = results("m", "--quick", "--rounds", "1", env={"RKLLAMA_HOST": server.url})
        last = list(lines)[-1]
    assert last["done_reason"] == "length", "it was not unloaded under the answer"
    assert last["eval_count"] == 150
    assert values["load"]["first_seconds"] is None, "it was in memory"
    assert any("The server is answering others: m is in use." in note for note in values["notes"])


def test_what_is_in_json_is_compared(model: str, models: Path, tmp_path: Path) -> None:
    write_model(models / "m.rkllm", tokens=200, token_us=2000, prefill_us=20)
    values = results("m", "--quick", "--rounds", "3")
    old = tmp_path / "old.json"
    values["runtime"]["runtime"] = "librkllmrt 1.1.4"
    for size in values["sizes"]:
        for key in ("median", "q1", "q3", "min", "max"):
            size["cold"]["runtime_answer_rate"][key] /= 2
    old.write_text(json.dumps(values))
    done = rkllama("bench", "m", "--quick", "--rounds", "3", "--compare", str(old))
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("128 answer ")]
    assert row.split()[-1] == "faster"
    assert 1.8 < float(row.split()[-2]) < 2.2
    (difference,) = [line for line in done.stdout.splitlines() if line.startswith("runtime ")]
    assert difference.split() == ["runtime", "librkllmrt", "1.1.4", "librkllmrt", "1.2.3"]
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_results_are_shown_and_made_a_row_of_without_measuring(model: str, tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text(json.dumps(results("m", "--quick", "--rounds", "1")))
    shown = rkllama("bench", str(file))
    assert shown.stdout.splitlines()[2] == "Orange Pi 5 Plus, RK3588, 6.1.84-vendor-rk35xx"
    row = rkllama("bench", str(file), "--markdown").stdout.splitlines()
    assert len(row) == 3
    assert row[2].startswith("| Orange Pi 5 Plus, RK3588 | 6.1.84-vendor-rk35xx, rknpu 0.9.8 | m |")
    assert json.loads(rkllama("bench", str(file), "--json").stdout) == json.loads(file.read_text())


def test_a_plug_tells_the_energy(model: str, models: Path) -> None:
    # An answer takes 1.3 seconds: two or three samples.
    write_model(models / "m.rkllm", tokens=200, token_us=20_000, prefill_us=20)
    plug = Plug()
    plug.body = b'{"meters": [{"power": 5.0}]}'
    with running(plug) as address:
        values = results(
            "m", "--quick", "--rounds", "1", "--power", f"{address}/status#meters.0.power"
        )
    assert values["power"]["method"] == "samples"
    energies = [
        run["answer_joules"] / run["answer_seconds"]
        for run in values["runs"]
        if run["answer_joules"] is not None
    ]
    assert energies
    assert energies == pytest.approx([5.0] * len(energies))
    assert all(run["prompt_joules"] is None for run in values["runs"]), "too short for a plug"
    told = [size[cache] for size in values["sizes"] for cache in ("cold", "warm")]
    joules = [
        one["answer_joules_per_token"]["median"] for one in told if one["answer_joules_per_token"]
    ]
    assert all(0.09 < one < 0.15 for one in joules), "5 W for 20 ms a token"
    assert joules
    assert set(plug.paths) == {"/status"}


def test_a_counter_in_the_board_tells_it_too(model: str) -> None:
    folder = Path(os.environ["RKLLAMA_SYSROOT"], "sys/class/hwmon/hwmon5")
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina233\n")
    (folder / "energy1_input").write_text("1000000\n")
    values = results("m", "--quick", "--rounds", "1", "--power", "hwmon")
    assert values["power"]["source"] == "/sys/class/hwmon/hwmon5/energy1_input (ina233)"
    assert {run["answer_joules"] for run in values["runs"]} == {0.0}, "it stands still"


# --- On a terminal -------------------------------------------------------------------------------


def test_progress_and_ctrl_c_on_a_terminal(model: str) -> None:
    zone = next(Path(os.environ["RKLLAMA_SYSROOT"], "sys/class/thermal").glob("thermal_zone*/temp"))
    zone.write_text("90000\n")  # which is worth a note
    with Terminal("bench", "m", "--quick", "--rounds", "50") as terminal:
        terminal.expect("Round 1 of 50: 512 tokens, warm")
        terminal.expect("Round 2 of 50")
        terminal.type(CTRL_C)
        terminal.expect("PROMPT  CACHE")
        terminal.expect("Interrupted: this is what had been measured.")
        assert terminal.process.wait(LIMIT) == 130
        # Not in the middle of the bar's line.
        assert re.search(r"(?:\n|\x1b\[K)(?:\x1b\[\d+m)?Note:", terminal.raw)


def test_ctrl_c_while_the_model_loads(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", load_ms=60_000)
    with Terminal("bench", "m") as terminal:
        terminal.expect("Loading the model")
        terminal.type(CTRL_C)
        assert terminal.process.wait(LIMIT) == 130
        assert "PROMPT" not in terminal.screen


# --- Wrong usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "--markdown"),
        ("--json", "--compare", "x.json"),
        ("--rounds", "0"),
        ("--ctx", "10"),
        ("--power", "http://plug/status"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["bench", "guide", *arguments]).exit_code == 2


def test_what_cannot_be_done_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    for arguments, words in (
        (("nowhere",), "'nowhere' not found"),
        (("nowhere.json",), "nowhere.json cannot be used: No such file"),
        (("guide", "--compare", str(other)), "is not what `rkllama bench --json` prints"),
        (("guide", "--power", "http://127.0.0.1:1/#w"), "tells no watts"),
    ):
        done = rkllama("bench", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr


def test_a_model_that_cannot_be_loaded_is_an_error(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", init_error=1)
    done = rkllama("bench", "m")
    assert (done.returncode, done.stdout) == (1, "")
    assert "m.rkllm could not be loaded" in done.stderr


def test_a_model_that_breaks_each_time_is_an_error(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=200, segv_at=40)
    done = rkllama("bench", "m", "--quick")
    assert (done.returncode, done.stdout) == (1, ""), "no run went well"
    assert "Error: the model's process was killed by SIGSEGV" in done.stderr
