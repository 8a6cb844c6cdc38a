"""`rkllama logs`: the logs of models by their names, and where the server's is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rkllama.runner.log_reader import LogReader
from tests import prepared
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, Terminal
from tests.test_cli import ELSEWHERE, failure, output, rkllama
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration


@pytest.fixture
def logs(home: Path) -> Path:
    directory = home / "RKLLAMA" / "logs"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(autouse=True)
def _no_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service of the machine that the tests run on is found."""
    programs = tmp_path / "no-bin"
    programs.mkdir()
    program(programs, "systemctl", "exit 1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


# --- The models' -------------------------------------------------------------------------------


def test_what_a_models_process_printed(models: Path, npu: str, home: Path) -> None:
    write_model(models / "echo.rkllm")
    done = rkllama("logs")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("No logs yet: a model's begins when it is loaded.\n")
    assert failure("logs", "ech") == (
        "Error: echo has no log yet\nIt begins when the model is loaded.\n"
    )
    output("run", "echo", "hi")
    whole = (home / "RKLLAMA/logs/echo.log").read_text()
    assert whole.count("\n") > 2
    for name in ("echo", "ech", "ECHO", "echo.rkllm", "echo:latest"):
        assert output("logs", name) == whole
    assert output("logs", "echo", "-n", "1") == whole.splitlines(keepends=True)[-1]
    head, line = output("logs").splitlines()
    assert head.split() == ["NAME", "SIZE", "MODIFIED"]
    assert line.split()[0] == "echo"
    (row,) = json.loads(output("logs", "--json"))
    assert (row["name"], row["size"]) == ("echo", len(whole.encode()))


def test_another_name_of_a_model_has_its_log(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    output("cp", "echo", "second")
    output("run", "echo", "hi")
    assert output("logs", "second") == output("logs", "echo") != ""


def test_what_is_left_of_a_model_that_is_gone(models: Path, logs: Path) -> None:
    (logs / "gone-1.5b.log").write_text("old\n")
    (logs / "gone-7b.log").write_text("older\n")
    assert output("logs", "gone-7") == "older\n"
    assert "'gone' matches several logs: gone-" in failure("logs", "gone")
    assert "Did you mean gone-7b, gone-1.5b?" in failure("logs", "gonne-7b")
    assert "`rkllama logs` lists the logs" in failure("logs", "xyz")


@pytest.mark.parametrize("name", ["../secret", "..", "", "/etc/passwd", "x/../../secret", "\n"])
def test_names_do_not_leave_the_directory(name: str, models: Path, logs: Path, home: Path) -> None:
    (home / "RKLLAMA" / "secret.log").write_text("secret")
    assert "not found" in failure("logs", name)


def test_an_empty_log_says_so(models: Path, logs: Path) -> None:
    (logs / "quiet.log").touch()
    done = rkllama("logs", "quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "The log is empty.\n")


def test_a_log_is_followed_until_ctrl_c(models: Path, logs: Path) -> None:
    (logs / "m.log").write_text("one\ntwo\n")
    with Terminal("logs", "-f", "-n", "1", "m") as terminal:
        terminal.expect("two\n")
        with (logs / "m.log").open("a") as stream:
            stream.write("three\n")
        terminal.expect("three\n")
        os.replace(logs / "m.log", logs / "m.log.1")
        (logs / "m.log").write_text("anew\n")
        terminal.expect("anew\n")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert "one" not in terminal.screen


def test_following_begins_before_the_model_is_loaded(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    with Terminal("logs", "-f", "echo") as terminal:
        terminal.expect("There is no log yet; it begins when the model is loaded.\n")
        output("run", "echo", "hi")
        terminal.expect("rkllm")


def test_following_ends_with_its_reader(models: Path, logs: Path) -> None:
    (logs / "m.log").write_text("one\n")
    process = prepared.Popen(
        [sys.executable, "-m", "rkllama", "logs", "-f", "m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"one\n"
    process.stdout.close()
    assert process.wait(LIMIT) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_log_reaches_a_terminal_as_text_and_a_pipe_as_it_is(models: Path, logs: Path) -> None:
    (logs / "m.log").write_text("red\x1b[31m \x1b]0;title\x07\n")
    assert (
        prepared.run(
            [sys.executable, "-m", "rkllama", "logs", "m"], capture_output=True, check=True
        ).stdout
        == (logs / "m.log").read_bytes()
    )
    with Terminal("logs", "m") as terminal:
        assert terminal.end() == 0
        assert terminal.raw == "red[31m ]0;title\r\n"


def test_what_is_asked_wrongly(models: Path) -> None:
    assert "it needs a model or server" in failure("logs", "-f", status=2)
    assert "only the list" in failure("logs", "m", "--json", status=2)
    assert "--lines" in failure("logs", "m", "-n", "-1", status=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_log_of_somebody_else(models: Path, logs: Path) -> None:
    (logs / "m.log").write_text("x")
    (logs / "m.log").chmod(0)
    assert "only their owner reads them" in failure("logs", "m")


def test_the_logs_are_the_running_servers(
    models: Path, npu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / "models").mkdir(parents=True)
    write_model(other / "models" / "theirs.rkllm")
    with Server(env={"RKLLAMA_HOME": str(other)}) as server:
        server.post("/api/generate", {"model": "theirs", "prompt": "hi"})
        monkeypatch.setenv("RKLLAMA_HOST", server.url)
        assert "theirs" in output("logs")
        assert output("logs", "the") == (other / "logs" / "theirs.log").read_text()
        assert output("--models", str(models), "logs") == ""
        assert server.get("/api/version").json["home"] == str(other)
    assert output("logs") == "", "a server that was named and is gone is no reason to fail"


def test_the_logs_of_another_machine_are_there(models: Path) -> None:
    error = failure("logs", "m", env={"RKLLAMA_HOST": ELSEWHERE})
    assert f"the logs of the server at {ELSEWHERE} are on its machine\nRun this" in error
    assert output("--models", str(models), "logs", env={"RKLLAMA_HOST": ELSEWHERE}) == ""


# --- The server's ------------------------------------------------------------------------------


def test_without_a_service_the_error_says_where_the_log_goes(models: Path, tmp_path: Path) -> None:
    assert failure("logs", "server") == (
        "Error: no service keeps the server's log; it goes to stderr\n"
        "To keep it, start the server with: rkllama serve 2>> server.log\n"
    )


def test_the_file_that_the_servers_stderr_goes_to(
    models: Path, npu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Server() as server,
    ):
        error = failure("logs", "server", env={"RKLLAMA_HOST": server.url})
        assert f"the server (process {server.process.pid}) writes its log to pipe:" in error
    file = tmp_path / "server.log"
    with file.open("w") as stream:
        process = prepared.Popen(
            [sys.executable, "-m", "rkllama", "serve", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stderr=stream,
        )
    try:
        with Terminal("logs", "-f", "x", program=["tail", "-n", "+1", "-F", str(file)]) as tail:
            url = tail.expect("\n").rpartition(" ")[2].strip()
            while not url.startswith("http"):
                url = tail.expect("\n").rpartition(" ")[2].strip()
        monkeypatch.setenv("RKLLAMA_HOST", url)
        assert f"RKLLama listens on {url}\n" in output("logs", "server")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT)


@pytest.mark.parametrize(
    ("user", "system", "scope"),
    [
        ("loaded active", "not-found inactive", "--user "),
        ("not-found inactive", "loaded active", ""),
        ("loaded inactive", "loaded active", ""),
        ("loaded inactive", "loaded inactive", "--user "),
        ("loaded active", "loaded active", "--user "),
    ],
)
def test_the_journal_of_the_service(
    user: str, system: str, scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    states = [
        f"echo LoadState={a}; echo ActiveState={b}" for a, b in (user.split(), system.split())
    ]
    program(programs, "systemctl", f'if [ "$1" = --user ]; then {states[0]}; else {states[1]}; fi')
    program(programs, "journalctl", 'echo "$*"; exit 4')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    done = rkllama("logs", "server", "-f", "-n", "7")
    assert done.returncode == 4, "its own"
    assert done.stdout == f"{scope}--unit=rkllama.service --lines=7 --no-pager --follow\n"
    assert rkllama("logs", "server").stdout == (
        f"{scope}--unit=rkllama.service --lines=100 --no-pager\n"
    )


def test_a_line_without_end_is_not_read_whole(models: Path, logs: Path) -> None:
    path = logs / "long.log"
    path.write_text("first\n")
    os.truncate(path, 10 << 30)
    with path.open("ab") as stream:
        stream.write(b"\nthe last\nof all\n")
    with contextlib.closing(LogReader(str(path))) as reader:
        assert reader.last(2) == "the last\nof all\n"
    with contextlib.closing(LogReader(str(path))) as reader:
        assert len(reader.last(3)) < 200 << 20


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 10**30])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_lines_are_those_of_both_parts(logs: Path, count: int, end: str) -> None:
    (logs / "a.log.1").write_text("1\n2\n")
    (logs / "a.log").write_text(f"3 \r x\n4{end}")
    whole = ["1\n", "2\n", "3 \r x\n", f"4{end}"]
    reader = LogReader(str(logs / "a.log"))
    assert reader.last(count) == "".join(whole[max(0, len(whole) - count) :])
    reader.close()
