"""Python and its packages, the clock, the home directory, the disk, and what runs .gguf models."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import resource
import shlex
import stat
import sys
from pathlib import Path

import pytest

from rkllama.doctor.software import disk, engines, surroundings
from rkllama.doctor.software.disk import check_disk_room, check_disk_speed, read_speed
from rkllama.doctor.software.engines import check_cpu_backend
from rkllama.doctor.software.home import check_home, check_secrets, check_settings
from rkllama.doctor.software.surroundings import (
    check_clock,
    check_packages,
    check_python,
    judge_clock,
    parse_requirement,
)
from tests.doctor.examine import look, wrong
from tests.model_files import WHOLE, header

# --- Python ------------------------------------------------------------------------------------


def test_this_python_and_its_packages_are_fine() -> None:
    assert [one.status for one in look(check_python)] == ["good"]
    (finding,) = look(check_packages)
    assert finding.status == "good"


def test_the_newest_python_is_the_one_that_the_package_names() -> None:
    named = importlib.metadata.metadata("rkllama").get_all("Classifier") or []
    newest = max(
        tuple(map(int, text.split(" :: ")[2].split("."))) for text in named if ":: 3." in text
    )
    assert newest == surroundings._NEWEST


def test_a_python_of_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    (finding,) = look(check_python)
    assert (finding.status, finding.good) == ("warning", "3.10 to 3.13")


def test_packages_that_are_missing_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that comes first on the path has RKLLama with other needs, and an old waitress."""
    install(
        tmp_path, "rkllama", "0.1.0", "bottle>=0.13,<0.14", "waitress<3.1,>=3.0.2", "no-such-thing"
    )
    install(tmp_path, "waitress", "2.1.0")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = look(check_packages)
    assert finding.status == "broken"
    assert finding.found == "waitress 2.1.0, no-such-thing is missing"
    line = finding.cure[0].removeprefix("sudo ")
    expected = [sys.executable, "-m", "pip", "install", "waitress<3.1,>=3.0.2", "no-such-thing"]
    assert shlex.split(line) == expected


def install(directory: Path, name: str, version: str, *needs: str) -> None:
    """Write a package's metadata."""
    folder = directory / f"{name}-{version}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_an_environment_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    line = engines.pip_line("jinja2>=3").removeprefix("sudo ")
    assert shlex.split(line) == ["uv", "pip", "install", "--python", sys.executable, "jinja2>=3"]


@pytest.mark.parametrize(
    ("requirement", "package"), [("xllamacpp>=1", "rkllama-cpu"), ("jinja2>=3", "rkllama")]
)
def test_a_package_of_debian(
    monkeypatch: pytest.MonkeyPatch, requirement: str, package: str
) -> None:
    monkeypatch.setattr(engines, "installer", lambda: "debian")
    line = engines.pip_line(requirement)
    assert line == f"sudo apt install --reinstall ./{package}_*.deb"


def test_rkllama_out_of_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert [one.status for one in look(check_packages)] == ["unseen"]


def test_our_own_requirements_are_understood() -> None:
    for text in importlib.metadata.requires("rkllama") or []:
        requirement = parse_requirement(text)
        if requirement is None:
            assert "extra" in text or "python_version" in text
            continue
        operators = {operator for operator, _ in requirement.bounds}
        assert {"<"} <= operators <= {">=", "<"}, text
        assert requirement.accepts(importlib.metadata.version(requirement.name))


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("1.8", True),
        ("1.8.0", True),
        ("1.10.2", True),
        ("1.7.9", False),
        ("3.0", False),
        ("2.99rc1", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, fits: bool) -> None:
    requirement = parse_requirement("huggingface_hub<3,>=1.8")
    assert requirement is not None
    assert requirement.accepts(version) is fits


def test_a_requirement_for_older_pythons() -> None:
    meant = parse_requirement("tomli<3,>=2; python_version < '3.99'")
    assert meant is not None
    assert meant.name == "tomli"
    assert parse_requirement("tomli<3,>=2; python_version < '3.0'") is None


def test_the_clock() -> None:
    assert [one.status for one in look(check_clock)] == ["good"]
    (finding,) = judge_clock(86400.0)
    assert (finding.status, finding.cure) == ("broken", ("sudo timedatectl set-ntp true",))
    assert finding.found.startswith("1970-01-0")


# --- Engines for .gguf -------------------------------------------------------------------------


def test_the_cpu_backend_is_needed_where_a_model_is(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_PACKAGE", "no_such_package")
    assert look(check_cpu_backend) == []
    (models / "guide.gguf").write_bytes(header(WHOLE))  # it comes by itself
    assert look(check_cpu_backend) == []
    (models / "a.gguf").write_bytes(header(WHOLE))
    (finding,) = look(check_cpu_backend)
    assert (finding.status, finding.found) == ("broken", "not installed, and a needs it")


def test_the_cpu_backend_is_not_imported_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_PACKAGE", "jinja2")
    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    assert [one.status for one in look(check_cpu_backend)] == ["good"]
    assert "jinja2" not in sys.modules


def test_what_pip_is_asked_for() -> None:
    assert engines._requirement().startswith("xllamacpp")
    assert " " not in engines._requirement()


# --- Settings ----------------------------------------------------------------------------------


def test_settings_that_are_fine(home: Path) -> None:
    assert [one.status for one in look(check_settings)] == ["good"]


def test_settings_that_cannot_be_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "RKLLAMA" / "config.toml"
    file.parent.mkdir()
    file.write_text('keep_alive = "soon"\nmodells = "x"\nmax_loaded = 2\n')
    monkeypatch.setenv("RKLLAMA_MAX_QUEUE", "many")
    monkeypatch.setenv("RKLLAMA_MODLES", "/disk")
    findings = look(check_settings)
    assert [one.status for one in findings] == ["broken", "broken", "broken", "warning"]
    assert "unknown settings: modells" in findings[0].found
    assert {one.source for one in findings} == {str(file), "the environment"}
    assert findings[3].advice == "Is RKLLAMA_MODELS meant?"
    file.write_text("keep_alive = ")
    assert "cannot be read" in look(check_settings)[0].found


# --- The home directory ------------------------------------------------------------------------


def test_a_home_of_our_own(models: Path) -> None:
    assert [one.status for one in look(check_home)] == ["good"]


def test_a_fresh_home(home: Path) -> None:
    assert [one.status for one in look(check_home)] == ["good"]


def test_what_others_may_read(models: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = home / "RKLLAMA"
    assert wrong(check_secrets) == []
    (own / "logs").mkdir(mode=0o700)
    for name, text in (("history", "hello"), ("config.toml", 'api_keys = "@~/my keys"\n')):
        (own / name).write_text(text)
        (own / name).chmod(0o644)
    keys, token = home / "keys", home / "hf" / "token"
    token.parent.mkdir()
    for path in (keys, token):
        path.write_text("secret")
        path.chmod(0o640)
    monkeypatch.setenv("RKLLAMA_API_KEY", "@~/keys")
    (finding,) = wrong(check_secrets)
    paths = [own / "history", own / "config.toml", keys, token]
    assert finding.status == "warning"
    assert finding.cure == tuple(f"chmod 600 {path}" for path in paths)
    (own / "logs").chmod(0o755)
    assert wrong(check_secrets)[0].cure[1] == f"chmod 700 {own / 'logs'}"
    for path in [*paths, own / "logs"]:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o077)
    assert wrong(check_secrets) == []


def test_a_configuration_without_keys_may_be_read(home: Path, models: Path) -> None:
    (home / "RKLLAMA" / "config.toml").write_text("max_loaded = 2\n# api_keys = ''\n")
    assert wrong(check_secrets) == []


# --- The disk ----------------------------------------------------------------------------------


def test_room_on_the_disk(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_LITTLE", 0)
    assert [one.status for one in look(check_disk_room)] == ["good"]
    monkeypatch.setattr(disk, "_LITTLE", 1 << 60)
    assert [one.status for one in look(check_disk_room)] == ["warning"]
    monkeypatch.setattr(disk, "RESERVE", 1 << 60)
    assert [one.status for one in look(check_disk_room)] == ["broken"]


def test_the_speed_of_the_disk(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(check_disk_speed) == []
    (models / "a.rkllm").write_bytes(os.urandom(3 << 20))
    (models / "b.rkllm").write_bytes(os.urandom(8 << 20))
    (finding,) = look(check_disk_speed)
    assert (finding.status, finding.source) == ("good", str((models / "b.rkllm").resolve()))
    monkeypatch.setattr(disk, "_SLOW", 1e18)
    (finding,) = look(check_disk_speed)
    assert (finding.status, "load slowly" in (finding.advice or "")) == ("warning", True)


def test_a_bounded_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    path.write_bytes(os.urandom(32 << 20))
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    whole = read_by(path)
    monkeypatch.setattr(disk, "_MOST_READ", 4 << 20)
    part = read_by(path)
    if not whole:
        pytest.skip("this file system does not count what it reads")
    assert whole >= 32 << 20  # nothing came from the page cache
    assert 4 << 20 <= part <= 24 << 20  # with what the kernel reads ahead


def read_by(path: Path) -> int:
    """Bytes that come from the disk when the speed is measured."""
    before = blocks()
    assert read_speed(str(path)) > 0
    return (blocks() - before) * 512


def blocks() -> int:
    """Blocks of 512 bytes that this process has read from disks."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock
