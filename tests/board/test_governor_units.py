"""The governors' helper as its units start it; what systemd says of those is with the other units."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rkllama.board.governors import SOCKET
from rkllama.systemd.units import SYSTEM_FILES, render
from tests.board.governors import BEFORE, FAST, governors, hold
from tests.running import LIMIT
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_the_socket_is_where_servers_look_for_it() -> None:
    unit = next(file for file in SYSTEM_FILES if file.name == "rkllama-governors.socket")
    assert f"\nListenStream={SOCKET}\n" in render(unit, ("/bin/true",))


def test_systemds_socket_starts_it(board: Path) -> None:
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("there is no systemd-socket-activate")
    path = board / SOCKET.lstrip("/")
    passed = [f"--setenv={name}" for name in ("RKLLAMA_SYSROOT", "HOME", "PATH")]
    helper = [sys.executable, "-m", "rkllama", "governor-helper"]
    with subprocess.Popen(
        [program, "-l", str(path), *passed, *helper], stderr=subprocess.DEVNULL
    ) as activated:
        until(path.exists)
        connection, report = hold(board)
        assert report == {"set": list(BEFORE), "refused": {}}
        assert governors() == FAST
        assert _program(activated.pid) == sys.executable  # it has become the helper
        connection.close()
        until(lambda: governors() == BEFORE)
        activated.terminate()
        assert activated.wait(LIMIT) == 0


def _program(pid: int) -> str:
    return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])


def test_by_hand_it_says_what_it_is_for(board: Path) -> None:
    for arguments, code in (((), 2), (("--restore",), 0), (("--other",), 2)):
        done = subprocess.run(
            [sys.executable, "-m", "rkllama", "governor-helper", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert bool(done.stderr) == (code == 2)
        assert "Traceback" not in done.stderr
    assert governors() == BEFORE
