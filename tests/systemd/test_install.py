"""Installing into the root of a system that does not run, with systemd's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rkllama.errors import InvalidRequest, RKLLamaError
from rkllama.systemd.install import Plan, check_program, removal
from rkllama.systemd.manager import Manager
from rkllama.systemd.steps import carry_out, pending
from rkllama.systemd.units import SYSTEM_FILES, address_drop_ins, exit_idle_drop_in, render

TOOLS = ("systemctl", "systemd-sysusers", "systemd-tmpfiles")
pytestmark = pytest.mark.integration
PROGRAM = "/opt/rkllama/bin/rkllama"
ETC = {f"etc/{file.target}" for file in SYSTEM_FILES}
STEPS = len(SYSTEM_FILES) + 3
"""The files, then the user, its directory and what is enabled."""


@pytest.fixture(autouse=True)
def _tools() -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        pytest.skip("needs root and systemd's tools")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system without users of its own, in which RKLLama is installed."""
    directory = tmp_path / "root"
    program = directory / PROGRAM[1:]
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    (directory / "etc").mkdir()
    return directory


def files(root: Path) -> set[str]:
    found = {str(p.relative_to(root)) for p in (root / "etc").rglob("*") if p.is_file()}
    return {path for path in found if "rkllama" in path and not (root / path).is_symlink()}


def plan(root: Path, *drop_ins: object, **values: object) -> Plan:
    return Plan(Manager(root=str(root)), (PROGRAM,), drop_ins=drop_ins, **values)  # type: ignore[arg-type]


def install(root: Path, *drop_ins: object, **values: object) -> list[str]:
    """Install; return what was done."""
    return [step.about for step, _ in carry_out(plan(root, *drop_ins, **values).steps())]


def remove(root: Path, **values: bool) -> list[str]:
    return [step.about for step, _ in carry_out(removal(Manager(root=str(root)), **values))]


def test_all_is_there_and_a_second_time_nothing_is_done(root: Path) -> None:
    done = install(root)
    assert len(done) == STEPS
    assert files(root) == ETC
    enabled = root / "etc/systemd/system/sockets.target.wants/rkllama.socket"
    assert os.readlink(enabled) == "/etc/systemd/system/rkllama.socket"
    user = next(
        line.split(":")
        for line in (root / "etc/passwd").read_text().splitlines()
        if line.startswith("rkllama:")
    )
    assert user[5] == "/var/lib/rkllama"
    groups = {
        line.split(":")[0]
        for line in (root / "etc/group").read_text().splitlines()
        if "rkllama" in line.split(":")[3].split(",")
    }
    assert groups == {"render", "video"}
    assert (root / "var/lib/rkllama").stat().st_uid == int(user[2])
    assert (root / "run/lock/rkllama-npu.lock").stat().st_mode & 0o777 == 0o666
    assert install(root) == []


@pytest.mark.parametrize("steps", range(STEPS))
def test_an_interrupted_installation_goes_on(root: Path, steps: int) -> None:
    running = carry_out(plan(root).steps())
    done = [next(running)[0].about for _ in range(steps)]
    del running
    assert len(done + install(root)) == STEPS
    assert install(root) == []


def test_what_is_chosen_later_leaves_the_rest(root: Path) -> None:
    install(root, *address_drop_ins("0.0.0.0:9090"))
    assert install(root, exit_idle_drop_in("-1"), always_on=True) == [
        f"Write {root}/etc/systemd/system/rkllama.service.d/50-exit-idle.conf",
        "Enable the service",
    ]
    wants = root / "etc/systemd/system/multi-user.target.wants/rkllama.service"
    assert wants.is_symlink()
    assert install(root) == []
    assert files(root) - ETC == {
        "etc/systemd/system/rkllama.socket.d/50-address.conf",
        "etc/systemd/system/rkllama.service.d/50-address.conf",
        "etc/systemd/system/rkllama.service.d/50-exit-idle.conf",
    }


def test_a_server_that_is_always_on_can_be_made_to_end_again(root: Path) -> None:
    install(root, exit_idle_drop_in("-1"), always_on=True)
    assert install(root, exit_idle_drop_in("5m"), always_on=False) == [
        f"Write {root}/etc/systemd/system/rkllama.service.d/50-exit-idle.conf",
        "Have the first connection start the server",
        "Enable the service",
    ]
    assert not (root / "etc/systemd/system/multi-user.target.wants/rkllama.service").is_symlink()
    assert (root / "etc/systemd/system/sockets.target.wants/rkllama.socket").is_symlink()
    assert install(root, exit_idle_drop_in("5m"), always_on=False) == []


def test_a_key_is_made_once_and_shown_once(root: Path) -> None:
    told = [text for _, text in carry_out(plan(root, key="/var/lib/rkllama/keys").steps()) if text]
    file = root / "var/lib/rkllama/keys"
    assert told == [f"The API key, which is not shown again: {file.read_text().strip()}"]
    assert len(file.read_text()) > 40
    about = file.stat()
    assert about.st_mode & 0o777 == 0o600
    assert about.st_uid == (root / "var/lib/rkllama").stat().st_uid
    assert install(root, key="/var/lib/rkllama/keys") == []


def test_a_link_in_the_place_of_the_key_is_not_followed(root: Path, tmp_path: Path) -> None:
    install(root)
    (root / "var/lib/rkllama/keys").symlink_to(tmp_path / "elsewhere")
    install(root, key="/var/lib/rkllama/keys")
    assert not (tmp_path / "elsewhere").exists()


def test_an_edited_file_stays_until_it_is_forced(root: Path) -> None:
    install(root)
    unit = root / "etc/systemd/system/rkllama.service"
    ours = unit.read_bytes()
    edited = ours.replace(b"WatchdogSec=60", b"WatchdogSec=90")
    unit.write_bytes(edited)
    assert install(root) == []
    assert unit.read_bytes() == edited
    assert install(root, force=True) == [f"Write {unit}"]
    assert unit.read_bytes() == ours
    assert Path(f"{unit}.old").read_bytes() == edited


def test_an_older_version_that_nobody_edited_is_updated(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "rkllama.systemd.install.render", lambda file, program: f"# of 1.0, for {program}\n"
        )
        install(root)
    done = install(root)
    assert f"Write {root}/etc/systemd/system/rkllama.service" in done


def test_what_a_package_brought_is_not_written_again(root: Path) -> None:
    for file in SYSTEM_FILES:
        path = root / "usr/lib" / file.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(file, (PROGRAM,)))
    install(root, *address_drop_ins("0.0.0.0:9090"))
    assert files(root) == {
        "etc/systemd/system/rkllama.socket.d/50-address.conf",
        "etc/systemd/system/rkllama.service.d/50-address.conf",
    }
    assert (root / "etc/systemd/system/sockets.target.wants/rkllama.socket").is_symlink()


def test_a_package_of_another_rkllama_is_an_error(root: Path) -> None:
    path = root / "usr/lib/systemd/system/rkllama.service"
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/usr/bin/rkllama serve\n")
    with pytest.raises(InvalidRequest, match="comes from a package"):
        plan(root).steps()


def test_removing_leaves_the_models_unless_they_are_purged(root: Path) -> None:
    install(root, *address_drop_ins("0.0.0.0:9090"))
    model = root / "var/lib/rkllama/models/m.rkllm"
    model.parent.mkdir()
    model.write_bytes(b"x")
    admins = root / "etc/systemd/system/rkllama.service.d/override.conf"
    admins.write_text("[Service]\nNice=5\n")
    assert remove(root)
    assert files(root) == {"etc/systemd/system/rkllama.service.d/override.conf"}
    assert model.exists()
    assert not (root / "etc/systemd/system/sockets.target.wants/rkllama.socket").is_symlink()
    assert remove(root) == []
    remove(root, purge=True)
    assert not (root / "var/lib/rkllama").exists()
    assert "rkllama" not in (root / "etc/passwd").read_text()


def test_the_script_of_a_dry_run_does_the_same(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    install(root, *address_drop_ins("0.0.0.0:9090"))
    steps = pending(plan(other, *address_drop_ins("0.0.0.0:9090")).steps())
    script = "\n".join(f"# {step.about}\n{step.line()}" for step in steps)
    subprocess.run(["sh", "-e"], input=script, text=True, check=True, capture_output=True)
    assert files(other) == files(root)
    for name in files(root):
        assert (other / name).read_bytes() == (root / name).read_bytes()
        assert (other / name).stat().st_mode == (root / name).stat().st_mode
    assert install(other, *address_drop_ins("0.0.0.0:9090")) == []


def test_a_program_that_is_not_in_the_root_is_an_error(root: Path) -> None:
    with pytest.raises(RKLLamaError, match="there is no /usr/bin/none in"):
        check_program(Manager(root=str(root)), ("/usr/bin/none",))
    check_program(Manager(root=str(root)), (PROGRAM,))


def test_a_program_that_the_service_cannot_run_is_an_error(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = private / "rkllama"
    program.symlink_to(sys.executable)
    with pytest.raises(RKLLamaError, match=r"the service cannot run .*Permission denied"):
        check_program(Manager(), (str(program),))
    check_program(Manager(), ("/usr/bin/env", "true"))


@pytest.mark.parametrize("link", ["etc", "etc/systemd", "var/lib", "var/lib/rkllama", "etc/passwd"])
def test_no_link_leads_out_of_the_root(root: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (outside / "systemd/system/rkllama.service.d").mkdir(parents=True)
    kept = outside / "rkllama"
    kept.mkdir()
    (kept / "model").write_text("kept")
    (outside / "passwd").write_text("kept:x:1:1::/:/bin/sh\n")
    before = sorted(outside.rglob("*"))
    place = root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    target = {"etc/systemd": outside / "systemd", "etc/passwd": outside / "passwd"}.get(
        link, outside
    )
    place.symlink_to(target)
    with pytest.raises(InvalidRequest, match="leads out of"):
        install(root, key="/var/lib/rkllama/keys")
    with pytest.raises(RKLLamaError, match=r"leads out of|symbolic link"):
        remove(root, purge=True, force=True)
    assert sorted(outside.rglob("*")) == before


def test_a_link_within_the_root_is_followed(root: Path) -> None:
    (root / "etc").rename(root / "real")
    (root / "etc").symlink_to("real")
    assert install(root)
    assert (root / "real/systemd/system/rkllama.service").is_file()
