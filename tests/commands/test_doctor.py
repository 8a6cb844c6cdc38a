"""`rkllama doctor` as a user sees it: on a terminal, in a pipe, on boards of the library."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.boards import build_board, put_models
from tests.terminal import Terminal
from tests.test_cli import rkllama

pytestmark = pytest.mark.integration


def stand(name: str, directory: Path, models: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("RKLLAMA_SYSROOT", str(build_board(name, directory)))
    put_models(name, models)


def _is_whole(line: str) -> bool:
    """Whether a line is one to copy, or a single path."""
    return line.startswith("        ") or len(line.split()) == 1


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("board", ["rk3588-no-groups", "rk3576-300mhz", "container-hidden"])
def test_it_fits_the_terminal_but_for_lines_to_copy(
    board: str, columns: int, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(board, tmp_path, models, monkeypatch)
    with Terminal("doctor", columns=columns) as terminal:
        terminal.end()
    lines = terminal.screen.splitlines()
    assert "\x1b[" in terminal.raw
    assert any("✗" in line or "!" in line for line in lines)
    long = [line for line in lines if len(line) > columns]
    assert all(_is_whole(line) for line in long), long


def test_without_colours_and_in_a_pipe_it_is_plain(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand("rk3588-no-groups", tmp_path, models, monkeypatch)
    with Terminal("doctor", env={"NO_COLOR": "1"}) as terminal:
        terminal.end()
    assert "\x1b[3" not in terminal.raw
    done = rkllama("doctor")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "  broken  NPU access        pi may not use /dev/dri/card1" in done.stdout
    assert "        sudo usermod -aG render,video pi\n" in done.stdout
    assert done.stdout.isascii() or "°C" in done.stdout


def test_an_unknown_model_is_an_error(models: Path) -> None:
    done = rkllama("doctor", "no-such-model")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert done.stdout == ""


@pytest.mark.serial
def test_it_takes_less_than_two_seconds(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand("rk3588", tmp_path, models, monkeypatch)
    monkeypatch.setenv("HF_ENDPOINT", "http://192.0.2.1:9")  # nothing answers there
    began = time.monotonic()
    done = rkllama("doctor", "--json")
    took = time.monotonic() - began
    assert json.loads(done.stdout)["soc"] == "RK3588"
    assert took < 2
