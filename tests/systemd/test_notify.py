"""What a server tells systemd, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkllama.systemd.notify import Heartbeat, Notifier


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A service manager's socket; it never blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        yield manager


def test_a_file_of_a_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.ready("Listening on http://127.0.0.1:8080")
        notifier.alive()
        notifier.stopping("Ending")
        assert [manager.recv(200) for _ in range(3)] == [
            b"READY=1\nSTATUS=Listening on http://127.0.0.1:8080",
            b"WATCHDOG=1",
            b"STOPPING=1\nSTATUS=Ending",
        ]


def test_an_abstract_socket() -> None:
    name = f"rkllama-test-{os.getpid()}"
    with listening(f"\0{name}") as manager:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert manager.recv(100) == b"WATCHDOG=1"


def test_without_a_manager_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.ready("Listening")
    assert notifier.watchdog is None


def test_a_manager_that_is_gone_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("Listening")
    assert caplog.messages == [
        "systemd cannot be told READY=1: [Errno 2] No such file or directory"
    ]


def test_no_child_inherits_the_variables() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    assert Notifier(environ).watchdog == 60.0
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_that_is_not_for_this_process(environ: dict[str, str]) -> None:
    assert Notifier(environ).watchdog is None


def test_the_sign_of_life_comes_twice_in_its_time(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as manager:
        heartbeat = Heartbeat(Notifier({"NOTIFY_SOCKET": path}), watchdog=10.0)
        assert heartbeat(100.0) == 5.0
        assert heartbeat(104.0) == 1.0
        assert heartbeat(105.5) == 5.0
        assert manager.recv(100) + manager.recv(100) == b"WATCHDOG=1" * 2
        with pytest.raises(BlockingIOError):
            manager.recv(100)


@pytest.mark.parametrize("microseconds", ["9" * 400, "9" * 5000, "18446744073709551615"])
def test_a_watchdog_that_is_never_wanted(microseconds: str) -> None:
    assert Notifier({"WATCHDOG_USEC": microseconds}).watchdog is None


def test_a_watchdog_does_not_take_all_of_the_time() -> None:
    watchdog = Notifier({"WATCHDOG_USEC": "1"}).watchdog
    assert watchdog is not None
    assert Heartbeat(Notifier({}), watchdog)(100.0) > 0.04
