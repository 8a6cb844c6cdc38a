"""`--report`: one file that shows another machine the same board, and no secret."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rkllama.board.sysroot import recording
from rkllama.config import usable_settings
from rkllama.doctor import report
from rkllama.doctor.checks import BOARD, Group, examine
from rkllama.doctor.finding import Finding, Subject
from rkllama.doctor.report import Mask, default_name, write_report
from rkllama.doctor.software import libraries
from rkllama.errors import RKLLamaError
from tests.boards import build_board, names, put_models
from tests.doctor.examine import POINTER, write_library
from tests.virtual_npu.model import write_model
from tests.waiting import Task

GROUPS = (*BOARD, Group("NPU runtime", libraries.CHECKS, "npu"))
SECRETS = {
    "RKLLAMA_API_KEY": "first-key-XYZ,second-key-XYZ",
    "HF_TOKEN": "hf_abcdefXYZ",
    "AWS_SECRET_ACCESS_KEY": "cloud-XYZ",
    "HTTPS_PROXY": "http://me:proxy-XYZ@proxy.example:3128",
}


def look() -> list[Finding]:
    """What the checks of the board and its libraries find."""
    told = examine(Subject(settings=usable_settings()[0]), GROUPS)
    return [entry.finding for entry in told]


def make(path: Path, *more: Finding) -> list[Finding]:
    """Examine this board and write a report; gives the findings."""
    with recording() as asked:
        findings = [*look(), *more]
    write_report(str(path), Subject(settings=usable_settings()[0]), findings, asked)
    return findings


def unpack(path: Path, directory: Path) -> Path:
    """The directory that a report holds."""
    with tarfile.open(path) as archive:
        archive.extractall(directory, filter="data")
    (inside,) = directory.iterdir()
    return inside


def plain(findings: list[Finding], root: str) -> list[Finding]:
    """Findings without what differs between two places and two users."""

    def text(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(text, value))
        return (
            re.sub(r"\bpi\b", "USER", value).replace(root, "") if isinstance(value, str) else value
        )

    return [
        Finding(**{field.name: text(getattr(one, field.name)) for field in dataclasses.fields(one)})
        for one in findings
    ]


# --- Another machine sees the same -------------------------------------------------------------


@pytest.mark.parametrize("board", names())
def test_another_machine_sees_the_same_board(
    board: str, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_board(board, tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    put_models(board, models)
    write_library(root / "usr/lib/librkllmrt.so", needed=("libgomp.so.1",))
    found = make(tmp_path / "report.tar.gz")
    assert found
    copy = unpack(tmp_path / "report.tar.gz", tmp_path / "elsewhere") / "sysroot"
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(copy))
    again = look()
    assert plain(again, str(copy)) == plain(found, str(root))
    assert not any(line.endswith(" pi") for one in again for line in one.cure)


@pytest.mark.integration
def test_this_machine_is_seen_the_same_elsewhere(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make(tmp_path / "report.tar.gz")
    copy = unpack(tmp_path / "report.tar.gz", tmp_path / "elsewhere") / "sysroot"
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(copy))
    again = [(one.check, one.status) for one in look()]
    assert again == [(one.check, one.status) for one in found]


@pytest.mark.parametrize("kind", ["good", "foreign", "cut off", "pointer"])
def test_a_library_stands_there_by_its_identity(
    kind: str, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    path = write_library(
        root / "usr/lib/librkllmrt.so", machine=0x3E if kind == "foreign" else 0xB7
    )
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:-1])
    if kind == "pointer":
        path.write_bytes(POINTER)
    with path.open("ab") as stream:
        stream.write(b"vendor's code " * 100_000 if kind in ("good", "foreign") else b"")
    found = make(tmp_path / "report.tar.gz")
    inside = unpack(tmp_path / "report.tar.gz", tmp_path / "elsewhere")
    copy = inside / "sysroot" / "usr/lib/librkllmrt.so"
    assert copy.stat().st_size < 4096
    assert b"vendor's code" not in copy.read_bytes()
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(inside / "sysroot"))
    assert plain(look(), str(inside / "sysroot")) == plain(found, str(root))
    (library,) = json.loads((inside / "report.json").read_text())["libraries"]
    assert library["size"] == path.stat().st_size
    assert len(library["sha256"]) == 64
    if kind == "good":
        assert (library["version"], library["machine"]) == ("1.2.3", "aarch64 (64 bit)")


# --- Secrets -----------------------------------------------------------------------------------


@pytest.fixture
def planted(home: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Secrets wherever there may be some; gives what must not be found."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RKLLAMA_LLAMA_SERVER", "/opt/llama-server --secret argument-XYZ")
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    (root / "proc/cpuinfo").write_text("processor : 0\nSerial\t\t: 1234serialXYZ\n")
    (root / "proc/cmdline").write_text("root=/dev/x androidboot.serialno=5678serialXYZ quiet\n")
    (root / "etc/passwd").write_text(
        "root:x:0:0::/:/bin/sh\nanna-XYZ:x:1000:1000:Anna XYZ:/home/anna:/bin/sh\n"
    )
    (root / "etc/group").write_text("video:x:44:anna-XYZ,bert-XYZ\nanna-XYZ:x:1000:\n")
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/kmsg").write_text(
        "6,1,1,-;RKNPU fdab0000.npu: RKNPU: rknpu iommu is enabled\n"
        "6,2,2,-;wlan0: connected to network-XYZ\n"
        "6,3,3,-;rknpu: at 02:00:5e:10:00:ff\n"
    )
    logs = home / "RKLLAMA" / "logs"
    logs.mkdir(mode=0o700)
    (logs / "qwen.log").write_text(
        "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588\n"
        "prompt: <|im_start|>user\nmy prompt is XYZ<|im_end|>\n"
        "E rkllm: my prompt begins like an error XYZ\n"
        "I rkllm: a prompt that looks like the runtime's, platform: XYZ\n"
        "E RKNN: failed to malloc npu memory, size: 4059037696\n"
    )
    (home / "RKLLAMA" / "history").write_text("what I typed XYZ\n")
    write_model(models / "a.rkllm")
    return ["XYZ", "02:00:5e", "serialno=5678", "wlan0"]


def test_no_secret_is_in_it(planted: list[str], tmp_path: Path, home: Path) -> None:
    told = Finding(
        check="x",
        status="broken",
        title="x",
        found="it said 'Bearer first-key-XYZ' and hf_zzzzXYZ to http://u:pw-XYZ@host/",
        cure=("export HF_TOKEN=hf_abcdefXYZ", "scp /home/anna-XYZ/x board:"),
        source=str(home / "RKLLAMA"),
    )
    make(tmp_path / "report.tar.gz", told)
    inside = unpack(tmp_path / "report.tar.gz", tmp_path / "elsewhere")
    files = [path for path in inside.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes().decode(errors="replace")
        for secret in [*planted, str(home)]:
            assert secret not in content, f"{path} has {secret}"
    content = json.loads((inside / "report.json").read_text())
    assert content["settings"]["api_keys"] == 2
    assert content["settings"]["llama_server"] == "/opt/llama-server"
    assert content["settings"]["home"] == "~/RKLLAMA"
    assert content["models"] == [
        {"name": "a", "file": "a.rkllm", "size": (home / "RKLLAMA/models/a.rkllm").stat().st_size}
    ]
    log = content["logs"]["qwen.log"]
    assert log["facts"] == {"runtime": "1.2.3", "driver": "0.9.8", "platform": "RK3588"}
    assert "memory" in log["complaint"]
    assert "rknpu iommu is enabled" in (inside / "sysroot/dev/kmsg").read_text()


def test_the_archive_names_nobody(tmp_path: Path, models: Path) -> None:
    make(tmp_path / "report.tar.gz")
    with tarfile.open(tmp_path / "report.tar.gz") as archive:
        for entry in archive:
            assert entry.name == "rkllama-report" or entry.name.startswith("rkllama-report/")
            assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
            assert entry.isfile() or entry.isdir()


def test_names_of_user_and_machine(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "attic.example.org")
    settings = usable_settings()[0]
    mask = Mask(settings, {"SUDO_USER": "pi", "OTHER_TOKEN": "tok"})
    assert mask.text(f"pi on attic: {home}/x, /home/bea/y") == "USER on HOST: ~/x, /home/USER/y"
    assert mask.text("pip, pi-top and attic.example.org") == "pip, pi-top and HOST"
    assert mask.text("tok") == "tok"  # as short as a word


def test_secrets_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_API_KEY", "abcd,e")
    environ = {"SOME_TOKEN": "true", "OTHER_TOKEN": "longer"}
    mask = Mask(usable_settings()[0], environ)
    assert mask.text("abcd true longer e") == "*** true *** e"
    assert (
        mask.text("'llama-server --api-key mine -ngl 9'") == "'llama-server --api-key *** -ngl 9'"
    )
    assert mask.text("--hf-token=mine --keys 3") == "--hf-token=*** --keys 3"
    assert mask.values({"a": ["abcd", 1, None, True]}) == {"a": ["***", 1, None, True]}


def test_a_report_is_its_owners_alone_and_whole(tmp_path: Path, models: Path) -> None:
    path = tmp_path / "report.tar.gz"
    path.write_text("an older one")
    path.chmod(0o644)
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tarfile.is_tarfile(path)
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".new")] == []


def test_a_report_that_cannot_be_written(tmp_path: Path, models: Path) -> None:
    with pytest.raises(RKLLamaError, match="cannot be written"):
        make(tmp_path / "nowhere" / "report.tar.gz")


def test_what_it_is_called() -> None:
    assert default_name().startswith("rkllama-report-2")
    assert default_name().endswith(".tar.gz")


def test_the_text_is_for_people(tmp_path: Path, models: Path) -> None:
    told = Finding(
        check="x", status="broken", title="A thing", found="it is wrong", good="right",
        advice="Cure it.", cure=("sudo cure",), source="/x",
    )  # fmt: skip
    make(tmp_path / "report.tar.gz", told)
    text = (unpack(tmp_path / "report.tar.gz", tmp_path / "x") / "report.txt").read_text()
    assert text.endswith(
        "[broken] A thing: it is wrong\n    good: right\n    Cure it.\n    $ sudo cure\n    from /x\n"
    )
    assert report.JSON_VERSION == 1


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://tok3n@mirror.example/x", "https://***@mirror.example/x"),
        ("https://u:p@ss@mirror.example/x", "https://***@mirror.example/x"),
        (
            "http://plug/status?user=a&auth_key=s3cret&x=1",
            "http://plug/status?user=a&auth_key=***&x=1",
        ),
        ("https://h/f?X-Amz-Signature=abc#power", "https://h/f?X-Amz-Signature=***#power"),
        ("Authorization: Bearer abcdef.ghij", "Authorization: Bearer ***"),
        ("ghp_0123456789abcdef in .netrc", "*** in .netrc"),
        ("origin https://github_pat_11ABC_def@github.com/x", "origin https://***@github.com/x"),
        ("it is sk-proj-0123456789", "it is ***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "***"),
        ("mail a@b.example about http://h/x", "mail a@b.example about http://h/x"),
        ("the key=value of a task-force", "the key=value of a task-force"),
    ],
)
def test_secrets_that_nobody_named(text: str, masked: str) -> None:
    assert Mask(usable_settings()[0], {}).text(text) == masked


def test_a_log_that_is_a_pipe_keeps_no_report_waiting(
    tmp_path: Path, models: Path, home: Path
) -> None:
    (home / "RKLLAMA/logs").mkdir()
    os.mkfifo(home / "RKLLAMA/logs/a.log")
    Task(lambda: make(tmp_path / "report.tar.gz")).result()
