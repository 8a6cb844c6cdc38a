"""That a prepared process is like one that was started anew, in all that a program can tell."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import prepared
from tests.prepared import start
from tests.prepared.start import RKLLAMA
from tests.running import LIMIT
from tests.terminal import CTRL_C, Terminal
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration


def command_line(process: subprocess.Popen[bytes]) -> bytes:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes()


def long_answer(models: Path) -> prepared.Popen:
    write_model(models / "slow.rkllm", tokens=5000, token_us=20_000)
    process = prepared.Popen(
        [*RKLLAMA, "run", "slow", "hi"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"amber"
    return process


@pytest.mark.parametrize(
    "arguments", [("list",), ("bogus",), ("show", "m"), ("--version",), ("config", "--json")]
)
def test_it_says_the_same_and_ends_the_same(models: Path, arguments: tuple[str, ...]) -> None:
    write_model(models / "m.rkllm")
    command = [*RKLLAMA, *arguments]
    done = prepared.run(command, capture_output=True, timeout=LIMIT)
    with prepared.whole():
        anew = prepared.run(command, capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (
        anew.returncode,
        anew.stdout,
        anew.stderr,
    )


def test_it_is_a_child_with_streams_of_its_own(models: Path, npu: str) -> None:
    process = long_answer(models)
    assert process.stdout is not None
    assert b"tests.prepared.parent" in command_line(process)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"\nPPid:\t{os.getpid()}\n" in status
    assert sorted(map(int, os.listdir(f"/proc/{process.pid}/fd")))[:3] == [0, 1, 2]
    assert os.getpgid(process.pid) == os.getpgid(0)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130
    process.stdout.close()


def test_it_inherits_limits_and_the_umask(models: Path, npu: str) -> None:
    limits, mask = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, limits[1]))
    try:
        process = long_answer(models)
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert process.stdout is not None
    assert "\nUmask:\t0027\n" in Path(f"/proc/{process.pid}/status").read_text()
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (123, limits[1])
    process.kill()
    process.wait(LIMIT)
    process.stdout.close()


def test_a_signal_ends_it(models: Path, npu: str) -> None:
    process = long_answer(models)
    assert process.stdout is not None
    process.kill()
    assert process.wait(LIMIT) == -signal.SIGKILL
    process.stdout.close()


def test_its_terminal_controls_it(models: Path, npu: str) -> None:
    write_model(models / "slow.rkllm", tokens=5000, token_us=20_000)
    with Terminal("run", "slow", "hi") as terminal:
        terminal.expect("amber")
        assert b"tests.prepared.parent" in command_line(terminal.process)
        assert os.getsid(terminal.process.pid) == terminal.process.pid
        terminal.type(CTRL_C)
        assert terminal.end() == 130


def test_environment_and_directory_are_those_that_are_given(npu: str, tmp_path: Path) -> None:
    write_model(tmp_path / "here.rkllm")
    env = {"RKLLAMA_MODELS": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    env |= {
        name: os.environ[name] for name in os.environ if name.startswith(("PYTHON", "LC_", "LANG"))
    }
    done = prepared.run([*RKLLAMA, "list"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert "here" in done.stdout
    done = prepared.run(
        [*RKLLAMA, "run", "./here.rkllm", "hi"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "hi\n", done.stderr


def test_what_it_cannot_prepare_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_parent", pytest.fail)
    for command, env in (
        ([sys.executable, "-X", "utf8", "-m", "rkllama", "--version"], {}),
        ([*RKLLAMA, "--version"], {"PYTHONIOENCODING": "latin-1"}),
    ):
        done = prepared.run(command, env={**os.environ, **env}, capture_output=True, text=True)
        assert done.stdout.startswith("rkllama ")
