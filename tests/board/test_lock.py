"""The lock of the NPU's owner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rkllama.board.lock import NPULock, default_path, holder
from rkllama.errors import LoadFailed, NPUBusy
from tests.waiting import LIMIT, Task


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "npu.lock")


def test_a_second_owner_is_told_who_the_first_is(path: str) -> None:
    first = NPULock(path, "rkllama serve", "http://127.0.0.1:8080")
    assert first.fd == -1
    first.acquire()
    first.acquire()
    assert first.fd >= 0
    with pytest.raises(NPUBusy) as caught:
        NPULock(path, "rkllama run").acquire()
    for words in ("rkllama serve", str(os.getpid()), "http://127.0.0.1:8080"):
        assert words in str(caught.value)
    assert caught.value.status == 503
    first.release()
    first.release()
    second = NPULock(path, "rkllama run")
    second.acquire()
    second.release()


def test_threads_of_one_process_take_it_once(path: str) -> None:
    for _ in range(20):
        lock, barrier = NPULock(path, "test"), threading.Barrier(4)

        def take(lock: NPULock = lock, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(LIMIT)
            lock.acquire()
            return lock.fd

        before = len(os.listdir("/proc/self/fd"))
        tasks = [Task(take) for _ in range(4)]
        assert {task.result() for task in tasks} == {lock.fd}
        lock.release()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_refused_try_leaves_no_descriptor_open(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = NPULock(path, "test")
    first.acquire()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NPUBusy):
        NPULock(path, "test").acquire()
    first.release()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(LoadFailed, match="No space left"):
            first.acquire()
    assert first.fd == -1
    assert len(os.listdir("/proc/self/fd")) == before - 1
    first.acquire()
    first.release()


@pytest.mark.integration
def test_it_ends_with_its_owner_however_it_ends(path: str) -> None:
    program = f"""
import sys
from rkllama.board.lock import NPULock
NPULock({path!r}, "rkllama serve").acquire()
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        about = holder(path)
        assert about is not None
        assert about["pid"] == owner.pid
        with pytest.raises(NPUBusy, match=str(owner.pid)):
            NPULock(path, "test").acquire()
        owner.kill()
        owner.wait(LIMIT)
    assert holder(path) is None
    lock = NPULock(path, "test")
    lock.acquire()
    lock.release()


@pytest.mark.integration
def test_a_child_that_inherits_it_holds_it_beyond_its_parent(path: str) -> None:
    lock = NPULock(path, "test")
    lock.acquire()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=(lock.fd,),
    ) as child:
        lock.release()
        with pytest.raises(NPUBusy):
            NPULock(path, "test").acquire()
        child.kill()
        child.wait(LIMIT)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("content", [b"", b"garbage", b"[1]", b"\xff\xfe", b'{"pid": 0}'])
def test_whatever_the_file_says_it_is_no_holder(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    assert holder(path) is None
    lock = NPULock(path, "test")
    lock.acquire()
    assert json.loads(Path(path).read_text())["pid"] == os.getpid()
    lock.release()
    assert holder(path) is None


def test_an_unusable_file_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        NPULock(str(tmp_path / "no" / "npu.lock"), "test").acquire()
    assert str(tmp_path / "no" / "npu.lock") in caught.value.text
    assert "RKLLAMA_LOCK" in caught.value.text
    with pytest.raises(LoadFailed):
        NPULock(str(tmp_path), "test").acquire()


def test_every_user_may_use_the_file(path: str) -> None:
    old = os.umask(0o077)
    try:
        lock = NPULock(path, "test")
        lock.acquire()
        lock.release()
    finally:
        os.umask(old)
    assert os.stat(path).st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    ("writable", "directory"),
    [
        ({"/run/lock"}, "/run/lock"),
        ({"/run/lock/rkllama-npu.lock"}, "/run/lock"),
        (set[str](), tempfile.gettempdir()),
    ],
)
def test_all_users_of_a_machine_mean_the_same_file(
    monkeypatch: pytest.MonkeyPatch, writable: set[str], directory: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path in writable)
    assert default_path() == os.path.join(directory, "rkllama-npu.lock")
