"""Files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from rkllama.files import NewFile, clear_new_files, make_directory, write_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_a_file_is_replaced_in_one_step(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"old")
    with NewFile(str(folder)) as new:
        new.stream.write(b"new")
        assert path.read_bytes() == b"old"
        new.place(str(path))
        assert path.read_bytes() == b"new"
    assert os.listdir(folder) == ["file"]


def test_what_is_not_placed_leaves_nothing(folder: Path) -> None:
    with NewFile(str(folder)) as new:
        new.stream.write(b"half")
        assert [name[0] for name in os.listdir(folder)] == ["."], "hidden from every list"
    assert os.listdir(folder) == []


def test_what_nobody_writes_any_more_is_cleared_and_nothing_else(folder: Path) -> None:
    (folder / ".new-left").write_bytes(b"x")
    (folder / ".new-folder").mkdir()
    (folder / ".other").write_bytes(b"x")
    with NewFile(str(folder)) as new:
        clear_new_files(str(folder))
        assert len(os.listdir(folder)) == 3
        new.stream.write(b"whole")
        new.place(str(folder / "file"))
    clear_new_files(str(folder / "nothing"))
    assert sorted(os.listdir(folder)) == [".new-folder", ".other", "file"]
    assert (folder / "file").read_bytes() == b"whole"


def test_a_file_that_is_cleared_while_it_is_made_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def meanwhile(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        clear_new_files(str(folder))
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    write_file(str(folder / "file"), b"whole")
    assert os.listdir(folder) == ["file"]


def test_a_name_that_cannot_be_taken_leaves_nothing(folder: Path) -> None:
    (folder / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_file(str(folder / "taken"), b"x")
    assert os.listdir(folder) == ["taken"]


def test_a_link_is_replaced_and_not_followed(folder: Path) -> None:
    target = folder / "target"
    target.write_bytes(b"mine")
    link = folder / "link"
    link.symlink_to(target)
    write_file(str(link), b"new")
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"mine", b"new", False)


def test_permissions_are_as_the_umask_has_them(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(str(folder / "file"), b"x")
    finally:
        os.umask(before)
    assert (folder / "file").stat().st_mode & 0o777 == 0o640


def test_a_directory_of_ours_is_ours_alone_and_one_that_was_there_stays_as_it_is(
    folder: Path,
) -> None:
    folder.chmod(0o775)
    before = os.umask(0o000)
    try:
        make_directory(str(folder / "a" / "b"))
        make_directory(str(folder / "a" / "b"))
    finally:
        os.umask(before)
    modes = [os.stat(path).st_mode & 0o777 for path in (folder, folder / "a", folder / "a" / "b")]
    assert modes == [0o775, 0o700, 0o700]
    (folder / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_directory(str(folder / "file"))
