"""Each board of the library is diagnosed by the right check first, and no healthy one is suspected."""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rkllama.board.sysroot import read_user
from rkllama.cli import app
from rkllama.config import load_settings
from rkllama.doctor import checks
from rkllama.doctor.checks import BOARD, Told, examine, sort_by_weight
from rkllama.doctor.finding import Finding, Subject
from rkllama.doctor.software import disk
from tests.boards import build_board, names, put_models, read_board
from tests.doctor.examine import AARCH64, X86_64, write_library

Stand = Callable[[str], None]

WITHOUT_THE_DISK = tuple(
    group._replace(checks=tuple(one for one in group.checks if one not in disk.CHECKS))
    for group in checks.GROUPS
)
"""All checks but those of this machine's disk, which may be slow or full."""
HEALTHY = [name for name in names() if read_board(name).first is None]
BROKEN = [name for name in names() if name not in HEALTHY]


@pytest.fixture
def stand(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Makes a board of the library stand in for this machine; only what is board is examined."""
    monkeypatch.setattr(checks, "GROUPS", BOARD)

    def build(name: str) -> None:
        monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board(name, tmp_path)))
        put_models(name, models)

    return build


def look(model: str | None = None) -> list[Told]:
    return examine(Subject(settings=load_settings(), model=model))


def wrong(told: list[Told]) -> list[Finding]:
    return [entry.finding for entry in told if entry.finding.status in ("broken", "warning")]


def test_the_library_has_the_boards_that_it_promises() -> None:
    assert len(BROKEN) >= 25
    assert len(HEALTHY) >= 5
    for kind in ("rk3588", "rk3576", "rk3562", "rv1126b", "rk3566", "laptop", "container"):
        assert any(name.startswith(kind) for name in names())


@pytest.mark.parametrize("board", HEALTHY)
def test_a_healthy_board_is_not_suspected(board: str, stand: Stand) -> None:
    stand(board)
    told = look()
    assert [entry.finding for entry in told if entry.finding.status != "good"] == []
    assert len(told) >= 3


@pytest.mark.parametrize("board", names())
def test_nothing_else_is_wrong_when_all_is_examined(
    board: str, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(board)
    library = tmp_path / "librkllmrt.so"
    write_library(library, machine=X86_64 if board == "laptop" else AARCH64)
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", str(library))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = examine(Subject(settings=load_settings()), WITHOUT_THE_DISK)
    assert {one.check for one in wrong(told)} == {one.check for one in wrong(look())}
    first = next((one.check for one in sort_by_weight(told)), None)
    assert first == read_board(board).first
    assert {entry.group for entry in told} >= {"Models", "Server", "Python", "Hugging Face"}


@pytest.mark.parametrize("board", BROKEN)
def test_a_broken_board_is_diagnosed_by_the_right_check_first(board: str, stand: Stand) -> None:
    stand(board)
    told = look()
    first = read_board(board).first
    assert wrong(told)[0].check == first
    assert next(sort_by_weight(told)).check == first
    for finding in wrong(told):
        assert finding.good
        assert finding.source
        assert finding.advice or finding.cure
    assert [entry.finding for entry in told if entry.finding.found.startswith("the check")] == []


_ALONE = [name for name in BROKEN if read_board(name).first in ("soc", "npu-driver", "npu-device")]
_ALONE.remove("rk3588-driver-0.9.2")  # it has a second fault


@pytest.mark.parametrize("board", [*_ALONE, "rk3588-no-groups", "container-no-groups"])
def test_one_fault_is_told_once(board: str, stand: Stand) -> None:
    stand(board)
    assert len(wrong(look())) == 1


@pytest.mark.parametrize("board", BROKEN)
def test_lines_to_copy_are_whole_and_name_what_is_there(board: str, stand: Stand) -> None:
    stand(board)
    for finding in wrong(look()):
        for line in finding.cure:
            assert "\n" not in line
            assert shlex.split(line)
            if "usermod" in line:
                assert line.endswith(f" {read_user().name}")
            if "governor" in line:
                path = line.rpartition(" ")[2]
                assert fnmatch.filter(read_board(board).files, path)


@pytest.mark.parametrize("board", names())
def test_json_and_the_exit_code_tell_the_same(board: str, stand: Stand) -> None:
    stand(board)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    values = json.loads(result.stdout)
    broken = [one for one in values["findings"] if one["status"] == "broken"]
    assert values["version"] == 1
    assert result.exit_code == bool(broken)
    first = read_board(board).first
    assert (values["status"] == "good") == (first is None)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == result.exit_code
    if first is None:
        assert shown.stdout.endswith("\nAll is well.\n")
    else:
        title = next(one["title"] for one in values["findings"] if one["check"] == first)
        assert f"Begin with: {title}." in shown.stdout


def _cures(told: list[Told], check: str) -> tuple[str, ...]:
    return next(entry.finding.cure for entry in told if entry.finding.check == check)


def test_cures_are_the_boards_own(stand: Stand) -> None:
    stand("rk3576-300mhz")
    told = look()
    assert _cures(told, "npu-clock") == (
        "echo performance | sudo tee /sys/class/devfreq/27700000.npu/governor",
    )
    assert _cures(told, "cpu-governor") == (
        "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy4/scaling_governor",
    )


def test_where_all_cpus_wait_for_load_one_line_raises_them(stand: Stand) -> None:
    stand("rk3588-ondemand")
    assert _cures(look(), "cpu-governor") == (
        "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    )


def test_limits_are_lifted_in_the_units_of_their_files(stand: Stand) -> None:
    stand("rk3588-limited")
    assert _cures(look(), "clock-limit") == (
        "echo 1000000000 | sudo tee /sys/class/devfreq/fdab0000.npu/max_freq",
        "echo 2352000 | sudo tee /sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq",
    )


def test_a_device_for_root_alone_gets_a_rule_of_udev(stand: Stand) -> None:
    stand("rk3562-root-only")
    cures = _cures(look(), "npu-access")
    assert cures[0].startswith('echo \'SUBSYSTEM=="drm"')
    assert cures[0].endswith("| sudo tee -a /etc/udev/rules.d/99-rkllama.rules")
    assert cures[-1] == "sudo usermod -aG render,video pi"


def test_what_a_container_has_from_its_host_is_cured_there(stand: Stand) -> None:
    stand("container-old-driver")
    assert _cures(look(), "npu-driver") == ()
    stand("container-ondemand")
    (finding,) = wrong(look())
    assert finding.advice is not None
    assert "on the host" in finding.advice


def test_whoever_has_joined_the_groups_only_logs_in_again(stand: Stand) -> None:
    stand("rk3588-old-session")
    (finding,) = wrong(look())
    assert finding.cure == ()
    assert finding.advice is not None
    assert "log in again" in finding.advice


def test_without_root_it_says_what_it_cannot_see(stand: Stand, tmp_path: Path) -> None:
    stand("rk3588")
    (tmp_path / "rk3588/sys/module/rknpu/version").unlink()
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert shown.stdout.endswith(
        "All is well.\nNot seen: NPU driver. Root may see more:\n  sudo rkllama doctor\n"
    )


def test_governors_that_rkllama_raises_are_no_warning(stand: Stand, tmp_path: Path) -> None:
    stand("rk3588-ondemand")

    subject = Subject(settings=load_settings({"governors": "performance"}))
    assert _cures(examine(subject), "cpu-governor") == ("sudo rkllama service install",)
    helper = tmp_path / "rk3588-ondemand/run/rkllama/governors.sock"
    helper.parent.mkdir(parents=True)
    helper.touch()
    assert wrong(examine(subject)) == []


def test_a_model_for_the_cpu_needs_no_npu(stand: Stand, models: Path) -> None:
    stand("rk3588-no-driver")
    (models / "cpu.gguf").write_bytes(b"GGUF")
    assert {entry.group for entry in look("cpu")} == {"Memory and limits"}
    assert wrong(look("cpu")) == []
    assert wrong(look("Qwen3-1.7B-rk3588-w8a8-opt-1-hybrid-ratio-0.0"))[0].check == "npu-driver"


def test_one_model_is_looked_at_alone(stand: Stand, models: Path) -> None:
    stand("rv1126b-too-large")
    assert wrong(look("Qwen2.5-0.5B-Instruct-rv1126b-w4a16")) == []
    (finding,) = wrong(look("Qwen3-4B-rv1126b-w4a16"))
    assert finding.cure == ("rkllama rm Qwen3-4B-rv1126b-w4a16",)
    result = CliRunner().invoke(app, ["doctor", "qwen2.5-0.5b"])
    assert result.exit_code == 0
    assert "Qwen3-4B" not in result.stdout


def test_a_reports_texts_cannot_command_the_terminal_or_the_shell(
    stand: Stand, tmp_path: Path
) -> None:
    stand("rk3588-no-groups")
    root = tmp_path / "rk3588-no-groups"
    (root / "proc/sys/kernel/osrelease").write_text("6.1.84\x1b]0;owned\x07")
    (root / "etc/passwd").write_text("x;reboot:x:1000:1000:::\n")
    result = CliRunner().invoke(app, ["doctor"])
    assert "\x1b" not in result.stdout
    assert "sudo usermod -aG render,video 'x;reboot'" in result.stdout
