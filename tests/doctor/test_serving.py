"""The server, who has the NPU, the service, and llama-server: real processes and sockets."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkllama import __version__
from rkllama.board import lock
from rkllama.board.proc import listens_to_others
from rkllama.doctor.software import serving
from rkllama.doctor.software.engines import check_llama_server
from rkllama.doctor.software.home import check_home
from rkllama.doctor.software.serving import (
    check_npu_lock,
    check_server,
    check_server_access,
    check_service,
)
from tests.doctor.examine import look, wrong
from tests.running import Server, free_port
from tests.virtual_npu.model import write_model

pytestmark = pytest.mark.integration


def name_in_file(home: Path, host: str) -> None:
    """Set the server's address where it only says where one may be."""
    (home / "RKLLAMA" / "config.toml").write_text(f'host = "{host}"\n')


# --- The server --------------------------------------------------------------------------------


def test_no_server_is_fine(home: Path) -> None:
    (finding,) = look(check_server)
    assert finding.status == "good"
    assert "none is running" in finding.found


def test_a_server_that_runs(server: Server, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", server.url)
    (finding,) = look(check_server)
    assert finding.status == "good"
    assert finding.found == f"running at {server.url}, its models are in {models}"
    assert [wrong(check) for check in serving.CHECKS] == [[], [], [], []]


def test_a_server_that_was_named_and_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", f"127.0.0.1:{free_port()}")
    (finding,) = look(check_server)
    assert (finding.status, finding.source) == ("broken", "RKLLAMA_HOST")
    assert finding.advice == "Start it there, or unset RKLLAMA_HOST."


def test_a_server_that_wants_a_key(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server("--api-key", "right-key") as server:
        monkeypatch.setenv("RKLLAMA_HOST", server.url)
        (missing,) = look(check_server)
        monkeypatch.setenv("RKLLAMA_API_KEY", "wrong-key")
        (refused,) = look(check_server)
        monkeypatch.setenv("RKLLAMA_API_KEY", "right-key")
        assert wrong(check_server) == []
    assert (missing.status, refused.status) == ("broken", "broken")
    assert "requires an API key" in missing.found
    assert "does not accept this API key" in refused.found
    assert "wrong-key" not in f"{refused}"


def test_models_that_the_server_does_not_see(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", server.url)
    monkeypatch.setenv("RKLLAMA_MODELS", str(tmp_path / "mine"))
    assert wrong(check_server) == []  # there are none
    write_model(tmp_path / "mine" / "a.rkllm")
    (finding,) = wrong(check_server)
    assert (finding.check, finding.status) == ("server-models", "warning")
    mine = tmp_path / "mine"
    assert finding.found.endswith(f"RKLLAMA/models; 1 model in {mine} not seen by it")


def test_a_server_of_another_release(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", server.url)
    monkeypatch.setattr(serving, "__version__", "99.1")
    (finding,) = wrong(check_server)
    assert (finding.check, finding.status) == ("server-version", "warning")
    assert finding.found == f"{__version__} at {server.url}"


def test_a_port_that_another_program_has(
    models: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKLLAMA_HOST")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        name_in_file(home, f"127.0.0.1:{port}")
        monkeypatch.setattr(serving, "_QUICK", 0.2)
        finding, none = look(check_server)
    assert (finding.check, finding.status, none.status) == ("server-port", "warning", "good")
    assert f"{port} is used by `" in finding.found
    assert f"(process {os.getpid()} of user " in finding.found
    name_in_file(home, f"127.0.0.1:{port}")
    assert wrong(check_server) == []


# --- Who may use it ----------------------------------------------------------------------------


def test_a_server_that_is_open_to_all(
    models: Path, npu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models / "a.rkllm")
    with Server("--host", "0.0.0.0") as server:
        assert server.post("/api/generate", {"model": "a", "prompt": "x"}).status == 200
        assert listens_to_others(server.port)
        (finding,) = look(check_server_access)  # found by the lock of the NPU
    assert finding.status == "warning"
    assert f"port {server.port}" in finding.found


def test_a_server_with_a_key_and_one_of_this_machine_alone(models: Path, npu: str) -> None:
    write_model(models / "a.rkllm")
    with Server("--host", "0.0.0.0", "--api-key", "key-of-it") as server:
        done = server.post(
            "/api/generate", {"model": "a", "prompt": "x"}, Authorization="Bearer key-of-it"
        )
        assert done.status == 200
        assert look(check_server_access) == []
    with Server() as server:
        assert server.post("/api/generate", {"model": "a", "prompt": "x"}).status == 200
        assert not listens_to_others(server.port)
        assert look(check_server_access) == []


def test_settings_that_would_open_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", f"0.0.0.0:{free_port()}")
    assert [one.status for one in look(check_server_access)] == ["warning"]
    monkeypatch.setenv("RKLLAMA_API_KEY", "a-key")
    assert look(check_server_access) == []


@pytest.mark.parametrize(
    ("family", "address", "open_to_others"),
    [
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET, "127.3.2.1", False),
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET6, "::1", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", False),
        (socket.AF_INET6, "::", True),
    ],
)
def test_addresses_as_the_kernel_writes_them(
    family: socket.AddressFamily, address: str, open_to_others: bool
) -> None:
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen()
        assert listens_to_others(listener.getsockname()[1]) is open_to_others


# --- The NPU's lock ----------------------------------------------------------------------------


def test_nobody_has_the_npu() -> None:
    assert [one.found for one in look(check_npu_lock)] == ["nobody has the NPU"]


def test_a_server_has_the_npu(server: Server, models: Path) -> None:
    write_model(models / "a.rkllm")
    assert server.post("/api/generate", {"model": "a", "prompt": "x"}).status == 200
    (finding,) = look(check_npu_lock)
    assert finding.status == "good"
    assert f"`rkllama serve` (process {server.process.pid})" in finding.found


def test_a_lock_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my lock"
    monkeypatch.setenv("RKLLAMA_LOCK", str(path))
    path.mkdir()
    (finding,) = look(check_npu_lock)
    assert (finding.status, finding.cure) == ("broken", (f"sudo rm '{path}'",))
    path.rmdir()
    path.symlink_to("/etc/hostname")
    assert "it is a link" in look(check_npu_lock)[0].found
    path.unlink()
    path.write_text("x" * 9999)
    assert "it holds something else" in look(check_npu_lock)[0].found


def test_looking_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o666)
    taken: list[int] = []
    monkeypatch.setattr(fcntl, "flock", lambda fd, _: taken.append(fd))
    assert lock.fault(str(path)) is None
    assert taken == []


# --- The service -------------------------------------------------------------------------------


@contextmanager
def systemd(directory: Path, patch: pytest.MonkeyPatch, script: str) -> Iterator[None]:
    """A `systemctl` of our own, first in PATH, and a unit that is installed."""
    program = directory / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    units = directory / "units"
    units.mkdir()
    (units / "rkllama.service").touch()
    with patch.context() as context:
        context.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        context.setattr(serving, "_SYSTEM_UNITS", (str(units),))
        yield


def test_without_a_service_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_SYSTEM_UNITS", (str(tmp_path),))
    assert look(check_service) == []


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ('[ "$1 $2" = "show rkllama.service" ] && echo ActiveState=failed', "broken"),
        ("echo ActiveState=active", "good"),
        ("echo 'System has not been booted with systemd' >&2; exit 1", "unseen"),
        ("sleep 60", "unseen"),
    ],
)
def test_the_state_of_the_service(
    script: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_QUICK", 0.5)
    with systemd(tmp_path, monkeypatch, script):
        (finding,) = look(check_service)
    assert finding.status == status
    if status == "broken":
        assert finding.cure[-1] == "sudo systemctl restart rkllama.service"


def test_a_server_that_systemd_starts(
    home: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = home / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "rkllama.socket").touch()
    monkeypatch.setattr(serving, "_QUICK", 0.2)
    monkeypatch.delenv("RKLLAMA_HOST")
    with socket.socket() as systemd_listens:
        systemd_listens.bind(("127.0.0.1", 0))
        systemd_listens.listen()
        address = f"127.0.0.1:{systemd_listens.getsockname()[1]}"
        name_in_file(home, address)
        assert [one.found for one in look(check_server)] == ["it starts with the first connection"]
        monkeypatch.setenv("RKLLAMA_HOST", address)
        assert [one.status for one in look(check_server)] == ["good"]
        (units / "rkllama.socket").unlink()
        assert [one.status for one in look(check_server)] == ["broken"]


def test_a_users_service(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = home / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "rkllama.service").touch()
    with systemd(
        tmp_path,
        monkeypatch,
        'case "$*" in --user*) echo ActiveState=failed;; *) echo ActiveState=active;; esac',
    ):
        system, own = look(check_service)
    assert (system.status, own.status) == ("good", "broken")
    assert own.cure[-1] == "systemctl --user restart rkllama.service"


# --- llama-server ------------------------------------------------------------------------------


def program(path: Path, text: str) -> str:
    """A program of the user's."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(check_llama_server) == []
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", f"{tmp_path}/gone -ngl 99")
    assert "is not there" in wrong(check_llama_server)[0].found
    path = program(tmp_path / "good", "#!/bin/sh\necho version: 1\n")
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", f"{path} -ngl 99")
    assert [one.status for one in look(check_llama_server)] == ["good"]
    os.chmod(path, 0o644)
    assert "is not executable" in wrong(check_llama_server)[0].found
    lost = program(tmp_path / "lost", "#!/no/such/interpreter\n")
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", lost)
    assert "No such file" in wrong(check_llama_server)[0].found
    slow = program(tmp_path / "slow", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", slow)
    monkeypatch.setattr("rkllama.doctor.software.engines._TIMEOUT", 0.3)
    assert wrong(check_llama_server) == []


def test_a_llama_server_without_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "llama-server: error while loading shared libraries: libggml.so: cannot open"
    path = program(tmp_path / "bare", f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", path)
    (finding,) = look(check_llama_server)
    assert finding.found == f"{path} does not run here: libggml.so is missing"


def test_a_llama_server_for_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(Path(sys.executable).resolve().read_bytes()[:4096])
    content[18:20] = b"\xf3\x00"
    path = tmp_path / "foreign"
    path.write_bytes(content)
    path.chmod(0o755)
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", str(path))
    assert "it was made for riscv (64 bit)" in look(check_llama_server)[0].found


# --- Another user ------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_home_that_sudo_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    home = tmp_path / "a home"
    (home / "models").mkdir(parents=True)
    os.chown(home, 65534, 65534)
    found = as_nobody(home)
    assert found[0][0] == "broken"
    assert found[0][1] == f"this user may not write {home / 'models'}"
    assert found[0][3] == [f"sudo chown -R \"$(id -u):$(id -g)\" '{home / 'models'}'"]
    os.chown(home / "models", 65533, 65533)
    (other,) = as_nobody(home)
    assert (other[0], other[3]) == ("broken", [])
    assert str(other[2]).startswith("It belongs to 65533.")
    os.chown(home / "models", 65534, 65534)
    assert as_nobody(home)[0][0] == "good"
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("RKLLAMA_MODELS", str(shared))
    assert as_nobody(home)[0][0] == "warning"


def as_nobody(home: Path) -> list[list[object]]:
    """What another user finds of a home: a copy of this process that has become him looks."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.environ["RKLLAMA_HOME"] = str(home)
            found = [[one.status, one.found, one.advice, one.cure] for one in look(check_home)]
            os.write(write, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    answer: list[list[object]] = json.loads(content)
    return answer
