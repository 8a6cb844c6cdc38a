"""A socket that was listening before the server: handed over as systemd does, to a real process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from rkllama.errors import ConfigError
from rkllama.systemd import activation
from rkllama.systemd.activation import activated_socket
from tests.running import LIMIT

pytestmark = pytest.mark.integration

_CHILD = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from rkllama.errors import RKLLamaError
from rkllama.systemd import activation
from rkllama.systemd.activation import activated_socket
try:
    listener = activated_socket(os.environ)
except RKLLamaError as error:
    sys.exit(error.text)
print(listener.getsockname()[1], os.get_inheritable(3), [v for v in os.environ if v.startswith("LISTEN_")])
"""


def hand_over(*sockets: socket.socket) -> subprocess.CompletedProcess[str]:
    """Run a process that has these as its file descriptors from 3 on."""
    numbers = [each.fileno() for each in sockets]

    def arrange() -> None:
        high = [os.dup2(number, 100 + place) for place, number in enumerate(numbers)]
        for place, number in enumerate(high):
            os.dup2(number, 3 + place)

    return subprocess.run(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "rkllama.socket"},
        preexec_fn=arrange,
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_listening_socket_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = hand_over(listener)
        assert done.stdout == f"{listener.getsockname()[1]} False []\n", done.stderr


def test_one_that_does_not_listen_is_refused() -> None:
    with socket.socket() as idle:
        done = hand_over(idle)
    assert done.returncode == 1
    assert "does not listen on TCP" in done.stderr


def test_a_unix_socket_is_refused(tmp_path: os.PathLike[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(tmp_path, "s"))
        listener.listen()
        done = hand_over(listener)
    assert "does not listen on TCP. Leave one ListenStream=" in done.stderr


def test_several_sockets_are_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        done = hand_over(one, two)
    assert "handed over 2 sockets; one is served" in done.stderr


def test_variables_of_another_process_are_none_of_ours() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert activated_socket(environ) is None
    assert environ == {}


@pytest.mark.parametrize("number", ["0", "", "-1", "many", "0" * 5000, "\u00b2"])
def test_no_number_of_sockets_is_none(number: str) -> None:
    assert activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": number}) is None


def test_what_is_no_socket_is_refused() -> None:
    with open(os.devnull) as null, pytest.raises(ConfigError, match="is no socket"):
        activation._listening(null.fileno())


@pytest.mark.parametrize("number", ["9" * 5000, "2"])
def test_more_sockets_than_one_are_too_many(number: str) -> None:
    with pytest.raises(ConfigError, match="one is served"):
        activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": number})
