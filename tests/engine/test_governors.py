"""The setting `governors`, with servers, helpers and their deaths as they are: processes and real writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prepared
from tests.board.governors import (
    BEFORE,
    FAST,
    NPU,
    board_as_delivered,
    governors,
    hold,
    listen,
    running_helper,
)
from tests.running import LIMIT, Server
from tests.virtual_npu import write_model
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, models: Path, npu: str) -> Iterator[Path]:
    """An RK3588 as it is delivered, two models, and the setting."""
    write_model(models / "m.rkllm")
    write_model(models / "other.rkllm")
    with board_as_delivered(monkeypatch) as root:
        monkeypatch.setenv("RKLLAMA_GOVERNORS", "performance")
        yield root


@pytest.fixture
def listener(board: Path) -> Iterator[socket.socket]:
    """systemd's socket on that board."""
    with listen(board) as listening:
        yield listening


def load(server: Server, model: str = "m") -> None:
    assert server.post("/api/generate", {"model": model}).status == 200


def unload(server: Server, model: str = "m") -> None:
    assert server.post("/api/generate", {"model": model, "keep_alive": 0}).status == 200


def said(server: Server) -> list[str]:
    """What a server has logged of the governors."""
    return [line.split("governors: ", 1)[1].strip() for line in server.log if "governors: " in line]


# --- A server of root's, without systemd -------------------------------------------------------


@pytest.mark.serial  # a model waits one second for the helper, whose process has to start in it
def test_they_are_held_while_a_model_is_in_memory(board: Path) -> None:
    with Server() as server:
        assert governors() == BEFORE
        load(server)
        assert governors() == FAST
        load(server, "other")  # it takes the first one's place
        assert governors() == FAST
        unload(server, "other")
        assert governors() == BEFORE
        load(server)
        assert governors() == FAST
    assert governors() == BEFORE
    assert said(server) == ["performance for npu, ddr, cpu0-3, cpu4-5, cpu6-7"] * 2


def test_they_are_put_back_when_the_models_time_is_over(board: Path) -> None:
    with Server() as server:
        load(server)
        assert server.post("/api/generate", {"model": "m", "keep_alive": 0.01}).status == 200
        until(lambda: governors() == BEFORE)


def test_they_are_put_back_after_a_server_was_killed(board: Path) -> None:
    with Server() as server:
        load(server)
        assert governors() == FAST
        server.stop(signal.SIGKILL)
        until(lambda: governors() == BEFORE)


def test_a_model_that_cannot_be_loaded_holds_nothing(board: Path, models: Path) -> None:
    (models / "broken.rkllm").write_bytes(b"no model")
    with Server() as server:
        assert server.post("/api/generate", {"model": "broken"}).status == 500
        until(lambda: governors() == BEFORE)


def test_a_model_whose_process_dies_holds_nothing(board: Path) -> None:
    with Server() as server:
        load(server)
        [child] = [pid for pid in server.children() if b"runner.child" in _command(pid)]
        os.kill(child, signal.SIGKILL)
        unload(server)
        until(lambda: governors() == BEFORE)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_two_servers_hold_them_until_both_are_done(board: Path, tmp_path: Path) -> None:
    with Server() as first, Server(env={"RKLLAMA_LOCK": str(tmp_path / "other.lock")}) as second:
        load(first)
        load(second)
        first.stop(signal.SIGKILL)
        until(lambda: not Path(f"/proc/{first.process.pid}/fd").exists())
        assert governors() == FAST
        unload(second)
        assert governors() == BEFORE


def test_what_somebody_sets_meanwhile_stays(board: Path) -> None:
    with Server() as server:
        load(server)
        (board / NPU.lstrip("/")).write_text("userspace\n")
        unload(server)
    assert governors() == {**BEFORE, "npu": "userspace"}


def test_a_command_without_a_server_holds_them_too(board: Path) -> None:
    done = prepared.run(
        [sys.executable, "-m", "rkllama", "run", "m", "hello", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "governors" not in done.stderr
    assert governors() == BEFORE
    assert (board / "run/rkllama-governors/holding").exists()


def test_unset_they_stay_as_they_are(board: Path) -> None:
    with Server(env={"RKLLAMA_GOVERNORS": "off"}) as server:
        load(server)
        assert governors() == BEFORE
    assert not (board / "run/rkllama-governors").exists()


# --- With the helper behind systemd's socket ---------------------------------------------------


def test_servers_use_the_helper_behind_the_socket(board: Path, listener: socket.socket) -> None:
    with running_helper(listener), Server() as server:
        load(server)
        assert governors() == FAST
        assert len(server.children()) == 1  # no helper of its own
        server.stop(signal.SIGKILL)
        until(lambda: governors() == BEFORE)


def test_a_helper_that_was_killed_does_no_harm(board: Path, listener: socket.socket) -> None:
    with Server() as server:
        with running_helper(listener) as helper:
            load(server)
            helper.kill()
            helper.wait(LIMIT)
        assert governors() == FAST
        with running_helper(listener):
            until(lambda: governors() == BEFORE)
            load(server)  # the model is in memory; that notices, and asks the new one
            assert governors() == FAST
            unload(server)
            until(lambda: governors() == BEFORE)


def test_systemd_puts_back_what_a_killed_helper_has_left(
    board: Path, listener: socket.socket
) -> None:
    with running_helper(listener) as helper:
        connection, _ = hold(board)
        helper.kill()
        helper.wait(LIMIT)
        assert governors() == FAST
        connection.close()
    with running_helper(listener, "--restore") as restoring:
        assert restoring.wait(LIMIT) == 0
    assert governors() == BEFORE


def test_a_helper_that_hangs_keeps_no_model_waiting(board: Path, listener: socket.socket) -> None:
    """Nobody takes the connection; the next helper that does finds the hold."""
    with Server() as server:
        load(server)  # else it would wait forever
        assert said(server) == [
            "their helper has not answered within 1 s; the model is not kept waiting"
        ]
        assert governors() == BEFORE
        with running_helper(listener):
            until(lambda: governors() == FAST)
            unload(server)
            until(lambda: governors() == BEFORE)


def test_a_governor_that_cannot_be_written_is_told(board: Path, listener: socket.socket) -> None:
    """As root without its privileges, which is how the unit runs it."""
    (board / NPU.lstrip("/")).chmod(0o444)
    limits: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("there is no setpriv")
        limits = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    with running_helper(listener, before=limits):
        connection, report = hold(board)
        assert report["refused"] == {"npu": "Permission denied"}
        assert report["set"] == ["ddr", "cpu0-3", "cpu4-5", "cpu6-7"]
        connection.close()
        until(lambda: governors() == BEFORE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(("mode", "groups", "served"), [
    (0o666, "--clear-groups", False),
    (0o660, "--groups=4711", True),
])  # fmt: skip
def test_only_root_and_the_group_of_the_socket_are_served(
    board: Path, listener: socket.socket, mode: int, groups: str, served: bool
) -> None:
    path = listener.getsockname()
    os.chown(path, 0, 4711)
    os.chmod(path, mode)
    for folder in Path(path).parents:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(b'h'); print(len(s.recv(4096)))"
    )
    with running_helper(listener):
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                groups,
                "/usr/bin/python3",
                "-c",
                program,
                path,
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    assert (done.stdout.strip() not in ("", "0")) == served, done.stderr
