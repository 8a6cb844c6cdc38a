"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rkllama.files import NewFile, write_file


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with NewFile(str(tmp_path)) as new:
        new.stream.write(b"new")
        assert path.read_bytes() == b"old"
        new.place(str(path))
        assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_not_placed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), NewFile(str(tmp_path)) as new:
        new.stream.write(b"half")
        assert [name[0] for name in os.listdir(tmp_path)] == ["."], "hidden from every list"
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_file(str(tmp_path / "taken"), b"x")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_file(str(link), b"new")
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"mine", b"new", False)


def test_permissions_are_as_the_umask_has_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(str(tmp_path / "file"), b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
