"""Another system's tree below RKLLAMA_SYSROOT, and what is listed of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from rkllama.board import sysroot
from rkllama.board.snapshot import take
from rkllama.board.soc import read_soc
from rkllama.board.sysroot import User, list_nodes, read_node, read_user
from rkllama.board.telemetry import read_state
from rkllama.config import load_settings
from rkllama.doctor import limits
from rkllama.doctor.checks import Group, examine
from rkllama.doctor.finding import Subject
from tests.boards import build_board
from tests.waiting import Task


@pytest.fixture
def rk3588(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    return root


def test_a_board_is_read_as_if_it_were_this_machine(rk3588: Path) -> None:
    state = read_state()
    assert (read_soc(), state.soc) == ("RK3588", "RK3588")
    assert state.npu is not None
    assert (state.npu.current, state.npu.governor) == (1_000_000_000, "rknpu_ondemand")
    assert [clock.name for clock in state.cpus] == ["cpu0-3", "cpu4-5", "cpu6-7"]
    assert state.throttled is False


def test_the_user_and_his_groups_are_the_boards(rk3588: Path) -> None:
    assert read_user() == User(1000, "pi", frozenset({27, 44, 105, 1000}))


def test_nodes_of_a_listing_tell_mode_owner_and_what_the_user_may(rk3588: Path) -> None:
    node = read_node("/dev/dri/renderD129")
    assert node is not None
    assert (node.mode, node.owner, node.group, node.gid) == ("crw-rw----", "root", "render", 105)
    assert (node.device, node.target, node.usable) == ("226:129", None, True)
    assert read_node("/dev/rknpu") is None
    assert [node.path for node in list_nodes("/dev/dma_heap")] == [
        "/dev/dma_heap/cma",
        "/dev/dma_heap/system",
        "/dev/dma_heap/system-uncached",
    ]


@pytest.mark.parametrize(
    ("line", "usable"),
    [
        ("crw-rw---- root:0 render:105 226:129 /dev/x", True),
        ("crw-rw---- root:0 nobody:65534 226:129 /dev/x", False),
        ("crw-rw-rw- root:0 root:0 226:129 /dev/x", True),
        ("crw------- root:0 root:0 226:129 /dev/x", False),
        ("crw------- pi:1000 root:0 226:129 /dev/x", True),
        ("c---rw-rw- pi:1000 render:105 226:129 /dev/x", False),
        ("crw-rw----+ root:0 root:0 226:129 /dev/x", True),
        ("crw-rw-rw-! root:0 root:0 226:129 /dev/x", False),
        ("lrwxrwxrwx root:0 root:0 - /dev/x -> dri/renderD129", True),
    ],
)
def test_a_line_of_a_listing_is_written_as_it_is_read(
    rk3588: Path, line: str, usable: bool
) -> None:
    (rk3588 / "NODES").write_text(f"not a node\n{line}\n")
    node = read_node("/dev/x")
    assert node is not None
    assert (str(node), node.usable) == (line, usable)


def test_root_may_use_everything(rk3588: Path) -> None:
    (rk3588 / "proc/self/status").write_text("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 \n")
    (rk3588 / "NODES").write_text("crw------- pi:1000 pi:1000 1:1 /dev/x\n")
    node = read_node("/dev/x")
    assert node is not None
    assert node.usable


def test_no_node_is_opened_where_that_does_something(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def note(path: str, *_: object) -> int:
        opened.append(path)
        return 3

    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "close", lambda _fd: None)
    for path in ("/dev/watchdog", "/dev/dri/card0", "/dev/rknpu", "/dev/dri/renderD129"):
        assert sysroot._opens(path)
    assert opened == ["/dev/rknpu", "/dev/dri/renderD129"]


def test_without_another_root_the_nodes_are_this_machines(tmp_path: Path) -> None:
    null = read_node("/dev/null")
    assert null is not None
    assert (null.mode, null.device, null.usable) == ("crw-rw-rw-", "1:3", True)
    assert "/dev/null" in [node.path for node in list_nodes("/dev")]
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    node = read_node(str(link))
    assert node is not None
    assert (node.mode[0], node.target, node.usable) == ("l", "nowhere", False)
    assert read_user().uid == os.geteuid()


# --- A tree that somebody else made -------------------------------------------------------------


def put(root: Path, path: str) -> Path:
    """A place in a tree with nothing there."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    return place


def test_no_link_leads_out_of_the_tree(
    rk3588: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("home")
    (outside / "id_rsa").write_text("a private key\n")
    (outside / "NODES").write_text("crw-rw---- root:0 render:105 226:129 /dev/outside\n")
    put(rk3588, "sys/a/file").symlink_to(outside / "id_rsa")
    put(rk3588, "sys/b/folder").symlink_to(outside)
    put(rk3588, "dev/kmsg").symlink_to(outside / "id_rsa")
    put(rk3588, "NODES").symlink_to(outside / "NODES")
    assert sysroot.read_text("/sys/a/file") is None
    assert sysroot.read_text("/sys/b/folder/id_rsa") is None
    assert sysroot.read_text(f"/sys/..{'/..' * 20}{outside}/id_rsa") is None
    assert sysroot.list_names("/sys/b/folder") == []
    assert sysroot.read_kernel_log() is None
    assert read_node("/dev/outside") is None


def test_a_link_within_the_tree_is_followed(rk3588: Path) -> None:
    put(rk3588, "sys/device").symlink_to("class/devfreq/fdab0000.npu")
    assert sysroot.read_text("/sys/device/governor") == "rknpu_ondemand"


@pytest.mark.parametrize("path", ["NODES", "dev/kmsg", "etc/group", "proc/device-tree/compatible"])
def test_a_pipe_keeps_nobody_waiting(rk3588: Path, path: str) -> None:
    os.mkfifo(put(rk3588, path))
    assert not Task(lambda: read_soc()).result() or path != "proc/device-tree/compatible"
    Task(lambda: list(take(["/dev/kmsg"], lambda _: b""))).result()


@pytest.mark.parametrize("path", ["NODES", "dev/kmsg", "etc/group", "proc/device-tree/compatible"])
def test_of_a_file_without_end_only_a_part_is_read(rk3588: Path, path: str) -> None:
    place = put(rk3588, path)
    place.touch()
    os.truncate(place, 1 << 40)
    Task(lambda: [read_soc(), *take(["/dev/kmsg"], lambda _: b"")]).result()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/class/devfreq/fdab0000.npu/available_frequencies", "9" * 5000),
        ("sys/class/devfreq/fdab0000.npu/cur_freq", "9" * 4000),
        ("sys/class/devfreq/fdab0000.npu/available_frequencies", "\u00b2"),
        ("sys/devices/system/cpu/cpufreq/policy\u00b2/scaling_governor", "ondemand"),
        ("sys/devices/system/cpu/cpufreq/policy4/related_cpus", "\u00b2 4"),
        ("sys/class/thermal/thermal_zone\u00b2/type", "soc"),
        ("proc/meminfo", f"MemTotal: {'9' * 5000} kB"),
        ("proc/stat", f"cpu0 {'9' * 5000} 0 0 0"),
        ("proc/stat", f"cpu{'9' * 5000} 0 0 0 0"),
    ],
)
def test_no_figure_is_one_that_cannot_be_told(rk3588: Path, path: str, text: str) -> None:
    put(rk3588, path).write_text(text)
    json.dumps(asdict(read_state()))


def test_the_cost_of_a_long_list_of_cpus_is_bounded(rk3588: Path) -> None:
    put(rk3588, "sys/devices/system/cpu/online").write_text("0-999999999999")
    subject = Subject(settings=load_settings({}), model=None)
    groups = [Group("Limits", limits.CHECKS)]
    told = Task(lambda: examine(subject, groups)).result()
    assert not [entry for entry in told if "failed" in entry.finding.found]
