"""A board whose governors tests set and read, and helpers on it as systemd would start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkllama.board.governors import SOCKET
from rkllama.board.telemetry import read_state
from tests.boards import build_board

NPU = "/sys/class/devfreq/fdab0000.npu/governor"
DDR = "/sys/class/devfreq/dmc/governor"
CPU = "/sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
BEFORE = {"npu": "rknpu_ondemand", "ddr": "dmc_ondemand"} | dict.fromkeys(
    ("cpu0-3", "cpu4-5", "cpu6-7"), "ondemand"
)
FAST = dict.fromkeys(BEFORE, "performance")


@contextmanager
def board_as_delivered(patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An RK3588 that RKLLama looks at; a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rk") as directory:
        root = build_board("rk3588", Path(directory))
        (root / DDR.lstrip("/")).write_text("dmc_ondemand\n")
        for policy in (0, 4, 6):
            (root / CPU.format(policy).lstrip("/")).write_text("ondemand\n")
        (root / "run/rkllama").mkdir(parents=True)
        patch.setenv("RKLLAMA_SYSROOT", str(root))
        yield root


def governors() -> dict[str, str | None]:
    """The governors of the board now."""
    return {clock.name: clock.governor for clock in read_state().clocks}


def listen(root: Path) -> socket.socket:
    """The socket of systemd's on a board."""
    path = root / SOCKET.lstrip("/")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    path.chmod(0o660)
    return listener


@contextmanager
def running_helper(
    listener: socket.socket, *arguments: str, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A helper as systemd starts it: the socket is its descriptor 3."""
    program = [*before, sys.executable, "-m", "rkllama", "governor-helper", *arguments]
    with subprocess.Popen(
        ["sh", "-c", 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *program],
        stdin=listener.fileno(),
        env=dict(os.environ),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def hold(root: Path) -> tuple[socket.socket, dict[str, object]]:
    """A connection that holds the governors, and what the helper said."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connection.connect(str(root / SOCKET.lstrip("/")))
    connection.sendall(b"h")
    return connection, json.loads(connection.recv(4096))
