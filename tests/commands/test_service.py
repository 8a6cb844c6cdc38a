"""`rkllama service` as a user types it: for the root of another system, and with a stand-in for systemctl."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rkllama import __version__
from rkllama.commands.service.install import app
from rkllama.systemd.manager import Manager
from tests import prepared
from tests.running import LIMIT, Server

pytestmark = pytest.mark.integration

TOOLS = ("systemctl", "systemd-sysusers", "systemd-tmpfiles")
with_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason="needs root and systemd's tools"
)
PROGRAM = "/opt/rkllama/bin/rkllama"


def rkllama(*arguments: str) -> subprocess.CompletedProcess[str]:
    return prepared.run(
        [sys.executable, "-m", "rkllama", "service", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


# --- In another root ---------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system in which RKLLama is installed."""
    directory = tmp_path / "root"
    (directory / "etc").mkdir(parents=True)
    program = directory / PROGRAM[1:]
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    return directory


@with_root
def test_install_again_and_uninstall(root: Path) -> None:
    where = ("--root", str(root))
    first = rkllama("install", *where, "--program", PROGRAM)
    assert first.returncode == 0, first.stderr
    assert first.stdout == ""
    assert first.stderr.splitlines()[-1] == "Enable the service"
    unit = root / "etc/systemd/system/rkllama.service"
    assert f"\nExecStart={PROGRAM} serve\n" in unit.read_text()
    second = rkllama("install", *where, "--program", PROGRAM)
    assert second.stderr == "The service is installed already; nothing has changed.\n"
    refused = rkllama("uninstall", *where)
    assert refused.returncode == 1
    assert "Confirm it with --yes" in refused.stderr
    assert unit.exists()
    removed = rkllama("uninstall", *where, "--yes")
    assert removed.returncode == 0
    assert f"The models and settings are still in {root}/var/lib/rkllama.\n" in removed.stderr
    assert not unit.exists()
    assert rkllama("uninstall", *where, "--yes").stderr == "The service is not installed.\n"


@with_root
def test_a_server_for_other_machines_gets_a_key(root: Path) -> None:
    done = rkllama("install", "--root", str(root), "--program", PROGRAM, "--host", "0.0.0.0:9090")
    key = (root / "var/lib/rkllama/keys").read_text().strip()
    assert done.stderr.count(key) == 1
    drop_in = root / "etc/systemd/system/rkllama.service.d/50-keys.conf"
    assert "RKLLAMA_API_KEY=@/var/lib/rkllama/keys" in drop_in.read_text()
    again = rkllama("install", "--root", str(root), "--program", PROGRAM, "--host", "0.0.0.0:9090")
    assert again.stderr == "The service is installed already; nothing has changed.\n"


@with_root
def test_models_are_moved_on_request_and_told_of_otherwise(root: Path, models: Path) -> None:
    (models / "m.rkllm").write_bytes(b"x" * 1000)
    library = models.parent / "lib" / "1.2.3" / "librkllmrt.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"y")
    (models.parent / "config.toml").write_text('keep_alive = "1h"\n')
    where = ("--root", str(root), "--program", PROGRAM)
    told = rkllama("install", *where).stderr
    assert f"The service does not see the models in {models} (1.0 kB)." in told
    assert "sudo rkllama service install --move-models" in told
    assert (models / "m.rkllm").exists()
    moved = rkllama("install", *where, "--move-models")
    assert f"Moved 1 file (1.0 kB) from {models}\n" in moved.stderr
    assert f"  sudo install -o rkllama -m 600 {models.parent}/config.toml " in moved.stderr
    service = root / "var/lib/rkllama"
    assert not (models / "m.rkllm").exists()
    for path in (service / "models/m.rkllm", service / "lib/1.2.3/librkllmrt.so"):
        assert path.stat().st_uid == service.stat().st_uid != 0
    assert rkllama("install", *where, "--move-models").stderr == (
        "The service is installed already; nothing has changed.\n"
    )


@with_root
def test_a_dry_run_is_a_script_and_does_nothing(root: Path) -> None:
    done = rkllama("install", "--root", str(root), "--program", PROGRAM, "--dry-run")
    assert done.stderr == ""
    assert f"\nsystemctl --root={root} enable rkllama.socket" in done.stdout
    assert [*(root / "etc").iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "example.org"), "a service cannot listen on 'example.org'"),
        (("--host", "127.0.0.1:0"), "a service cannot listen on '127.0.0.1:0'"),
        (("--exit-idle", "soon"), "--exit-idle cannot be 'soon'"),
        (("--exit-idle", "0"), "--exit-idle cannot be '0': it must be at least 1s"),
        (("--user",), "--root is for the service of all users"),
    ],
)
def test_what_cannot_be_is_an_error(root: Path, arguments: tuple[str, ...], message: str) -> None:
    done = rkllama("install", "--root", str(root), "--program", PROGRAM, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert [*(root / "etc").iterdir()] == []


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="needs a machine without systemd")
@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_without_systemd_that_is_said(command: str) -> None:
    done = rkllama(command, "--user")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this machine is not run by systemd\n")


# --- Before a tool that stands in for systemctl ------------------------------------------------

NONE = "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nFragmentPath=\nMainPID=0\n"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what `systemctl show UNIT` prints, in a file SCOPE-UNIT."""
    shown = tmp_path / "shown"
    shown.mkdir()
    for scope in ("system", "user"):
        for unit in ("rkllama.service", "rkllama.socket"):
            (shown / f"{scope}-{unit}").write_text(NONE)
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
scope=system
said="$*"
[ "$1" = --user ] && scope=user && shift
[ "$1" = show ] && exec cat {shown}/$scope-$2
echo "$said" >> {shown}/said
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(Manager, "require", lambda self: None)
    return shown


def describe(shown: Path, name: str, values: Mapping[str, str]) -> None:
    (shown / name).write_text("".join(f"{key}={value}\n" for key, value in values.items()))


def service_of(
    shown: Path,
    address: str,
    *,
    active: str = "active",
    sub: str = "",
    pid: int = 1,
    enabled: str = "disabled",
) -> None:
    unit = {"LoadState": "loaded", "NeedDaemonReload": "no", "DropInPaths": ""}
    environment = "RKLLAMA_HOME=/var/lib/rkllama RKLLAMA_EXIT_IDLE=10m"
    describe(
        shown,
        "system-rkllama.service",
        {
            **unit,
            "Id": "rkllama.service",
            "ActiveState": active,
            "SubState": sub,
            "UnitFileState": enabled,
            "FragmentPath": "/usr/lib/systemd/system/rkllama.service",
            "MainPID": str(pid),
            "Environment": f'{environment} "RKLLAMA_MODELS=/mnt/my models"',
            "Result": "success" if active in ("active", "inactive") else "exit-code",
        },
    )
    describe(
        shown,
        "system-rkllama.socket",
        {
            **unit,
            "Id": "rkllama.socket",
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "FragmentPath": "/usr/lib/systemd/system/rkllama.socket",
            "Listen": f"{address} (Stream)",
        },
    )


def test_a_service_that_is_not_there(systemctl: Path) -> None:
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 1
    assert done.output == "The service is not installed. Install it: rkllama service install\n"


def test_a_service_that_waits_is_not_asked(systemctl: Path) -> None:
    service_of(systemctl, "127.0.0.1:1", active="inactive", pid=0)
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 0
    lines = [line.split(maxsplit=1) for line in done.output.splitlines()]
    assert dict(lines) == {
        "SERVICE": "of all users",
        "unit": "/usr/lib/systemd/system/rkllama.service",
        "enabled": "yes, a connection starts the server",
        "state": "waiting",
        "address": "http://127.0.0.1:1",
        "home": "/var/lib/rkllama",
        "models": "/mnt/my models",
    }


def test_a_running_service_tells_its_version(systemctl: Path, server: Server) -> None:
    service_of(systemctl, f"0.0.0.0:{server.port}", pid=server.process.pid)
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 0
    (service,) = json.loads(done.output)
    assert service["state"] == "running"
    assert service["pid"] == server.process.pid
    assert service["server"]["version"] == __version__
    text = CliRunner().invoke(app, ["status"]).output
    assert f"version  {__version__}\n" in text


def test_an_older_server_is_told_from_this_version(
    systemctl: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    service_of(systemctl, f"127.0.0.1:{server.port}", pid=server.process.pid)
    monkeypatch.setattr("rkllama.__version__", "99.1")
    text = CliRunner().invoke(app, ["status"]).output
    assert f"version  {__version__}; this is 99.1\n" in text


def test_a_failed_service_says_why(systemctl: Path) -> None:
    service_of(systemctl, "127.0.0.1:1", active="failed", pid=0)
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 1
    assert "state    failed: exit-code\n" in done.output


def test_a_service_that_cannot_start_is_not_called_running(systemctl: Path) -> None:
    service_of(systemctl, "127.0.0.1:1", active="activating", sub="auto-restart", pid=0)
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 1
    assert "state    restarting: exit-code\n" in done.output


def test_an_address_that_is_taken_is_an_error(
    systemctl: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    script = tmp_path / "rkllama"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    done = CliRunner().invoke(
        app, ["install", "--user", "--host", f"127.0.0.1:{server.port}", "--program", str(script)]
    )
    assert f"listens on port {server.port} already" in str(done.exception)
    assert not (tmp_path / "config").exists()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's units go."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/systemd/user"


def test_a_user_s_service_is_enabled_and_read_again_when_it_changes(
    systemctl: Path, config: Path, tmp_path: Path
) -> None:
    program = tmp_path / "rkllama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ["install", "--user", "--host", address, "--program", str(program)]
    reload, enable = "--user daemon-reload", "--user enable --now rkllama.socket"

    def said() -> list[str]:
        words = (systemctl / "said").read_text().splitlines()
        (systemctl / "said").unlink()
        return words

    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert said() == [reload, enable]
    assert (config / "rkllama.service").is_file()

    started = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    for unit in ("rkllama.service", "rkllama.socket"):
        beside = config / f"{unit}.d" / "50-address.conf"
        about = {"Id": unit, "FragmentPath": str(config / unit), "DropInPaths": str(beside)}
        times = {"InactiveExitTimestampMonotonic": str(now + 1_000_000), "Listen": address}
        describe(systemctl, f"user-{unit}", {**started, **about, **times})
    done = CliRunner().invoke(app, arguments)
    assert "nothing has changed" in done.output
    assert not (systemctl / "said").exists()

    # A directory of drop-ins is new to systemd, and an edited unit is younger than what runs.
    (config / "rkllama.socket.d" / "mine.conf").write_text("[Socket]\n")
    later = time.time() + 60
    os.utime(config / "rkllama.service", (later, later))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert said() == [reload, "--user try-restart rkllama.service"]
