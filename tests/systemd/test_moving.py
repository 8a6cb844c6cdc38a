"""Moving a user's models to the service: on one file system, to another one, and what others may put in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.errors import DiskFull, RKLLamaError
from rkllama.files import RESERVE
from rkllama.systemd import moving
from rkllama.systemd.moving import Move, Moved, Owner, make_place

ME = Owner(os.getuid(), os.getgid())


def move(source: Path, target: Path, uid: int = ME.uid) -> Moved:
    return Move(str(source), uid, str(target), ME).run(lambda name, done: None)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Models of a user."""
    directory = tmp_path / "mine"
    (directory / "folder").mkdir(parents=True)
    (directory / "a.rkllm").write_bytes(b"a" * 3_000_000)
    (directory / "folder" / "b.gguf").write_bytes(b"b")
    (directory / "folder" / "Modelfile").write_text("FROM ./b.gguf")
    return directory


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """The service's models directory, on the same file system."""
    directory = tmp_path / "service"
    directory.mkdir()
    return directory


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """The same on another one."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture(params=["near", "far"])
def target(request: pytest.FixtureRequest) -> Path:
    """Either."""
    directory: Path = request.getfixturevalue(request.param)
    return directory


def test_everything_is_moved(source: Path, target: Path) -> None:
    before = contents(source)
    times = {name: (source / name).stat().st_mtime_ns for name in before}
    assert move(source, target) == Moved(3, 3_000_014, [])
    assert contents(target) == before
    assert {name: (target / name).stat().st_mtime_ns for name in before} == times
    assert list(source.iterdir()) == []


def test_what_is_there_stays_and_what_is_the_same_goes(source: Path, target: Path) -> None:
    (target / "a.rkllm").write_bytes(b"a" * 3_000_000)
    (target / "folder").mkdir()
    (target / "folder" / "b.gguf").write_bytes(b"B")
    moved = move(source, target)
    assert moved.stayed == ["folder/b.gguf: there is another file of this name"]
    assert contents(source) == {"folder/b.gguf": b"b"}
    assert (target / "folder" / "b.gguf").read_bytes() == b"B"


def test_an_interrupted_move_goes_on(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(source)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(source, target)
    assert contents(source) == before
    assert contents(target) == {}
    move(source, target)
    assert contents(target) == before


def test_a_copy_that_differs_is_not_taken(
    source: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(source)
    monkeypatch.setattr(moving, "_copy", lambda source, target: b"another digest")
    with pytest.raises(RKLLamaError, match="the copy differs from the original"):
        move(source, far)
    assert contents(source) == before
    assert contents(far) == {}


def test_without_room_nothing_is_begun(
    source: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "free_space", lambda directory: RESERVE + 3_000_000)
    with pytest.raises(DiskFull, match="has room for 3 MB, but 3 MB"):
        move(source, far)
    assert contents(far) == {}


def test_links_and_pipes_stay(source: Path, target: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (source / "folder" / "Modelfile").unlink()
    (source / "evil.rkllm").symlink_to(secret)
    (source / "deep").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(source / "pipe.gguf")
    os.link(secret, source / "twice.gguf")
    moved = move(source, target)
    assert moved.stayed == [
        "deep: it is a link or a device",
        "evil.rkllm: it is a link or a device",
        "pipe.gguf: it is not a plain file",
        "twice.gguf: it has several names",
    ]
    assert contents(target) == {"a.rkllm": b"a" * 3_000_000, "folder/b.gguf": b"b"}
    assert secret.read_text() == "secret"


def test_a_directory_of_somebody_else_is_left_alone(source: Path, target: Path) -> None:
    """As where a user has a link to a directory of the system in the place of his own."""
    before = contents(source)
    stranger = Owner(ME.uid + 1, ME.gid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fchown", lambda *_: pytest.fail("it was given away"))
        moved = Move(str(source), ME.uid + 2, str(target), stranger).run(lambda name, done: None)
    assert moved.stayed == [f"{source}: it belongs to another user"]
    assert contents(source) == before


def test_the_target_may_not_be_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RKLLamaError, match="cannot be moved"):
        move(source, tmp_path / "link")
    with pytest.raises(OSError, match="link"):
        make_place(str(tmp_path), "link", ME)


def test_the_place_is_made_once(tmp_path: Path) -> None:
    make_place(str(tmp_path), "models", ME)
    make_place(str(tmp_path), "models", ME)
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o755


def test_what_is_not_there_has_no_size(tmp_path: Path) -> None:
    assert Move(str(tmp_path / "none"), ME.uid, str(tmp_path), ME).size() == 0


@pytest.fixture
def too_deep(source: Path) -> Iterator[Path]:
    """A model in so many folders that no path is long enough; taken away again, which pytest's own
    clean-up cannot do (Python before 3.12 removes a tree recursively)."""
    here, depth = os.getcwd(), 1500
    try:
        os.chdir(source)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("model.gguf").write_bytes(b"m")
        os.chdir(here)
        yield source
        os.chdir(source)
        for _ in range(depth):
            os.chdir("d")
        os.unlink("model.gguf")
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)


def test_what_lies_too_deep_stays(too_deep: Path, target: Path) -> None:
    moved = move(too_deep, target)
    assert moved.files == 3
    assert [text.rpartition(": ")[2] for text in moved.stayed] == ["it lies too deep"]
    Move(str(too_deep), ME.uid, str(target), ME).size()
