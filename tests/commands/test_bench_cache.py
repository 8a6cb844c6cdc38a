"""`rkllama bench --cache` as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from rkllama.bench.cache.results import CacheReport
from rkllama.bench.results import Report
from rkllama.bench.schema import schema_of
from rkllama.cli import app
from rkllama.config import load_settings
from rkllama.states.folder import trial_of
from tests import prepared
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, Terminal
from tests.virtual_npu import library, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def model(models: Path, board: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model on an RK3588 whose prompts take 0.1 ms per token."""
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    write_model(models / "qwen3-1.7b.rkllm", tokens=10, prefill_us=100, kv_bytes=4096)
    return "qwen3"


def rkllama(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        env={**os.environ, **variables},
        check=False,
    )


def assert_nothing_is_left() -> None:
    assert not Path(trial_of(load_settings().states)).exists()


def test_a_measurement_and_what_was_kept_of_it(model: str, tmp_path: Path) -> None:
    done = rkllama("bench", model, "--cache", "--quick", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema_of(Report | CacheReport)).validate(values)
    assert values["format"] == "rkllama-bench-cache"
    assert values["verdict"]["sound"] == "yes"
    assert_nothing_is_left()
    file = tmp_path / "cache.json"
    file.write_text(done.stdout)
    shown = CliRunner().invoke(app, ["bench", str(file)])
    lines = shown.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1] == "librkllmrt 1.3.0, 2 CPUs, context 4096, RKLLama 0.1.0"
    assert lines[4].split() == ["PROMPT", "FILE", "EVALUATED", "COLD", "LOADED", "SAVING", "ANSWER"]
    assert "With the loaded state the model answered the same as without it." in lines
    again = CliRunner().invoke(app, ["bench", str(file), "--json"])
    assert json.loads(again.stdout) == values


def test_ctrl_c_on_a_terminal_prints_what_there_is_and_leaves_no_file(model: str) -> None:
    with Terminal("bench", model, "--cache", "--rounds", "50") as terminal:
        terminal.expect("Round 2 of 50: 2048 tokens, saved")
        terminal.type(CTRL_C)
        terminal.expect("Interrupted: this is what had been measured.")
        assert terminal.process.wait(LIMIT) == 130
    assert_nothing_is_left()


def test_one_that_is_told_to_end_leaves_no_file(model: str) -> None:
    place = Path(trial_of(load_settings().states))
    arguments = [sys.executable, "-m", "rkllama", "bench", model, "--cache", "--rounds", "50"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: any(place.glob("*.kv")))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, said.decode()
    assert_nothing_is_left()


def test_beside_a_server_it_is_refused(model: str) -> None:
    with Server() as server:
        done = rkllama("bench", model, "--cache", RKLLAMA_HOST=server.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"a server is running at {server.url}" in done.stderr
        assert "systemctl stop rkllama.socket" in done.stderr


def test_where_conversations_are_not_kept_it_is_refused(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_STATE_BUDGET", "0")
    done = rkllama("bench", model, "--cache")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: conversations are not kept on the disk: state_budget is 0\n"
        "Unset it to measure; `rkllama config` shows where it is set.\n"
    )


@pytest.mark.parametrize(
    "arguments", [("--markdown",), ("--compare", "x.json"), ("--power", "hwmon")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["bench", "guide", "--cache", *arguments])
    assert done.exit_code == 2
    assert "it does not go with --cache" in done.stderr


def test_what_a_killed_one_left_is_cleared_with_the_rest(home: Path) -> None:
    place = Path(trial_of(load_settings().states))
    place.mkdir(mode=0o700, parents=True)
    (place / "0123456789abcdef.kv").write_bytes(b"left")
    (place / "disk").write_text("{}")
    assert CliRunner().invoke(app, ["cache", "clear"]).exit_code == 0
    assert not place.exists()
