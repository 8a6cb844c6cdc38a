"""The lock of the NPU's owner."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkllama.board.lock import NPULock, default_path, holder
from rkllama.errors import LoadFailed, NPUBusy
from tests.waiting import LIMIT, Task


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "npu.lock")


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which this very process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def held(path: str) -> Iterator[str]:
    """The path of a lock that this process holds."""
    lock = NPULock(path, "test")
    lock.acquire()
    yield path
    lock.release()


def test_a_second_owner_is_told_who_the_first_is(path: str, port: int) -> None:
    first = NPULock(path, "rkllama serve", f"http://127.0.0.1:{port}")
    assert first.fd == -1
    first.acquire()
    first.acquire()
    assert first.fd >= 0
    with pytest.raises(NPUBusy) as caught:
        NPULock(path, "rkllama run").acquire()
    for words in ("rkllama serve", str(os.getpid()), f"http://127.0.0.1:{port}"):
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


# --- What others write there --------------------------------------------------------------------


def test_a_file_that_nobody_has_locked_names_no_holder(path: str, port: int) -> None:
    forged = {"pid": os.getpid(), "command": "x", "url": f"http://127.0.0.1:{port}"}
    Path(path).write_text(json.dumps(forged))
    assert holder(path) is None


def test_an_address_is_believed_where_its_listener_is(held: str, port: int) -> None:
    """Everybody can write into the file while its lock is held."""

    def url_of(url: object) -> object:
        Path(held).write_text(json.dumps({"pid": 1, "command": "x", "url": url}))
        about = holder(held)
        assert about is not None
        assert about["pid"] == os.getpid(), "the kernel's word, not the file's"
        return about.get("url")

    for good in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://0.0.0.0:{port}"):
        assert url_of(good) == good
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert url_of(f"http://127.0.0.1:{silent.getsockname()[1]}") is None
    for bad in (
        f"http://192.0.2.1:{port}",
        f"http://127.example.org:{port}",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}@192.0.2.1:{port}",
        f"127.0.0.1:{port}",
        port,
        None,
    ):
        assert url_of(bad) is None, bad


def test_a_stranger_is_only_a_number(held: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"pid": 1, "command": "x", "url": f"http://127.0.0.1:{port}"}
    Path(held).write_text(json.dumps(about))
    monkeypatch.setattr("rkllama.board.lock._trusted_uids", lambda: {os.getuid() + 1})
    assert holder(held) == {"pid": os.getpid()}
    with pytest.raises(NPUBusy, match=rf"in use by process {os.getpid()}$"):
        NPULock(held, "test").acquire()


@pytest.mark.integration
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_believed(path: str) -> None:
    program = f"""
import fcntl, json, os, socket, sys
fd = os.open({path!r}, os.O_RDWR)
os.setuid(65534)
fcntl.flock(fd, fcntl.LOCK_EX)
listener = socket.create_server(("127.0.0.1", 0))
url = "http://127.0.0.1:%d" % listener.getsockname()[1]
os.pwrite(fd, json.dumps({{"pid": 1, "command": "x", "url": url}}).encode(), 0)
print(url, flush=True)
sys.stdin.read()
"""
    Path(path).touch()
    os.chmod(path, 0o666)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as eve:
        assert eve.stdout is not None
        url = eve.stdout.readline().strip()
        assert url.startswith("http://")
        assert holder(path) == {"pid": eve.pid}
        eve.kill()
        eve.wait(LIMIT)
    lock = NPULock(path, "test")
    lock.acquire()
    Path(path).write_text(json.dumps({"command": "x", "url": url}))
    assert holder(path) == {"pid": os.getpid(), "command": "x"}
    lock.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"[1]", b"\xff\xfe", b"[" * 4000, b'{"command":' * 350, b'{"command": 1}'],
)
def test_content_that_tells_nothing_is_an_unknown_holder(held: str, content: bytes) -> None:
    Path(held).write_bytes(content)
    assert holder(held) == {"pid": os.getpid(), "command": ""}
    with pytest.raises(NPUBusy, match=f"process {os.getpid()}"):
        NPULock(held, "test").acquire()


def test_what_the_file_says_cannot_command_a_terminal(held: str) -> None:
    command = "a\x1b]0;b\x07c\x9bd\x7fe\u202ef\ng" + "h" * 1000
    Path(held).write_text(json.dumps({"command": command}))
    about = holder(held)
    assert about is not None
    assert about["command"].startswith("a?]0;b?c?d?e?f?gh")
    assert len(about["command"]) == 200


def _link(victim: Path, path: str) -> None:
    os.symlink(victim, path)


def _hard_link(victim: Path, path: str) -> None:
    os.link(victim, path)


def _fifo(_: Path, path: str) -> None:
    os.mkfifo(path)


def _large(_: Path, path: str) -> None:
    Path(path).write_bytes(b" " * 5000)


@pytest.mark.parametrize("make", [_link, _hard_link, _fifo, _large])
def test_only_a_plain_file_is_the_lock(
    path: str, tmp_path: Path, make: Callable[[Path, str], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    make(victim, path)
    size = os.lstat(path).st_size
    with pytest.raises(LoadFailed, match="cannot be used: it ") as caught:
        NPULock(path, "test").acquire()
    assert "RKLLAMA_LOCK" in caught.value.text
    assert holder(path) is None
    assert victim.read_text() == "precious"
    assert os.lstat(path).st_size == size


@pytest.mark.skipif(os.getuid() != 0, reason="only root can open it at all")
def test_another_users_own_file_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    os.chown(path, 65534, 65534)
    with pytest.raises(LoadFailed, match="belongs to another user"):
        NPULock(path, "test").acquire()
    assert Path(path).read_text() == "precious"
    os.chmod(path, 0o666)  # now it is everybody's
    lock = NPULock(path, "test")
    lock.acquire()
    lock.release()


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
