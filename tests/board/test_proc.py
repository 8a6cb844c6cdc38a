"""What the kernel tells of sockets: who listens on a port."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from rkllama.board import proc
from rkllama.errors import ConfigError
from rkllama.server.transport import listen


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_in_use_is_told_with_who_has_it(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        assert proc.listener_uids(port) == {os.geteuid()}
        with pytest.raises(ConfigError) as caught:
            listen(host, port)
    name = Path("/proc/self/comm").read_text().strip()
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert f"`{name}` (process {os.getpid()} of user {user}) does already" in str(caught.value)
    assert "--port" in (caught.value.hint or "")
    assert proc.listener_uids(port) == set()


def test_a_port_that_nobody_listens_on_may_be_taken_all_the_same() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="another program does already"):
            listen("127.0.0.1", bound.getsockname()[1])


def test_processes_of_others_are_named_by_their_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(proc, "_process_with", lambda _target: None)
        told = proc.describe_listener(taken.getsockname()[1])
    assert told == f"a program of user {pwd.getpwuid(os.geteuid()).pw_name}"


def test_a_process_that_is_gone_and_a_user_without_a_name() -> None:
    assert proc.process_name(1 << 22) == "?"
    assert proc.user_name(1 << 30) == str(1 << 30)
