"""Each model on the release of librkllmrt that fits it: several virtual NPUs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.board.lock import NPULock
from rkllama.config import load_settings
from rkllama.engine.memory.pool import Pool
from rkllama.errors import LibraryNotFound, LoadFailed, WrongRuntime
from rkllama.models.authoring import WritableStore
from rkllama.rkllm.abi import RELEASES
from rkllama.rkllm.installed import Runtimes
from tests.virtual_npu import VERSIONS, library, write_model

pytestmark = pytest.mark.integration


class Board:
    """A home with releases installed, and the models in memory."""

    def __init__(self, home: Path, lock: str) -> None:
        self.home = home / "RKLLAMA"
        self.models = self.home / "models"
        self.models.mkdir(parents=True)
        self.lock = NPULock(lock, "test")
        self.store = WritableStore(str(self.models))
        self.runtimes = Runtimes(str(self.home))
        self.pool = Pool(load_settings({"max_loaded": 2}), self.lock)

    def install(self, *releases: str) -> None:
        for release in releases:
            folder = self.home / "lib" / release
            folder.mkdir(parents=True)
            # 1.1.0 to 1.1.3 have the layout of 1.1.4.
            built = release if release in VERSIONS else "1.1.4"
            shutil.copy(library(built, reported=release), folder / "librkllmrt.so")

    def load(self, name: str) -> str:
        """Load a model and return the runtime that it got."""
        with self.pool.use(self.store.resolve(name)) as turn:
            return turn.resident.ready.runtime.removeprefix("librkllmrt ")

    def write(self, name: str, **config: str) -> None:
        write_model(self.models / f"{name}.rkllm", size=0, **config)


@pytest.fixture
def board(home: Path, tmp_path: Path) -> Iterator[Board]:
    board = Board(home, str(tmp_path / "npu.lock"))
    yield board
    board.pool.close()
    board.store.close()


PAIRS = (
    ("nothing-told", {"toolkit": "1.1.0"}, "1.3.0"),
    ("for-1.1-only", {"toolkit": "1.1.4", "runtimes": "1.1.0,1.1.1,1.1.2,1.1.3,1.1.4"}, "1.1.4"),
    ("m-rk3588-1.1.2", {"toolkit": "1.1.2"}, "1.1.4"),
    ("m-rk3588-1.2.0", {"toolkit": "1.2.0"}, "1.2.3"),
    ("m-rk3588-1.2.1", {"toolkit": "1.2.1"}, "1.2.3"),
    ("m-rk3588-1.2.1-only", {"toolkit": "1.2.1", "runtimes": "1.2.1"}, "1.2.1"),
    ("m-RKLLM-v1.2.2", {"toolkit": "1.2.2"}, "1.2.3"),
    ("m-RKLLM-v1.2.3", {"toolkit": "1.2.3"}, "1.2.3"),
    ("m-rk3588-1.3.0", {"toolkit": "1.3.0"}, "1.3.0"),
    ("falsely-rk3588-1.1.4", {"toolkit": "1.3.0"}, "1.3.0"),
    ("beta-rk3588", {"toolkit": "1.2.0", "runtimes": "1.2.1b1"}, "1.2.1b1"),
    ("oldest", {"toolkit": "1.1.0", "runtimes": "1.1.0"}, "1.1.0"),
)


def test_with_all_releases_each_model_gets_the_one_that_fits(board: Board) -> None:
    board.install(*RELEASES)
    assert [one.release for one in board.runtimes.installed()] == list(reversed(RELEASES))
    for name, config, _ in PAIRS:
        board.write(name, **config)
    assert {name: board.load(name) for name, _, _ in PAIRS} == {n: r for n, _, r in PAIRS}


def test_what_worked_is_tried_first_the_next_time(board: Board) -> None:
    board.install("1.2.3", "1.3.0", "1.1.4")
    board.write("m", toolkit="1.1.4", runtimes="1.1.4")
    assert board.load("m") == "1.1.4"
    board.pool.unload(board.store.resolve("m").info)
    assert board.runtimes.candidates(str(board.models / "m.rkllm"), None).installed[0].release == (
        "1.1.4"
    )
    assert board.load("m") == "1.1.4"
    board.pool.unload(board.store.resolve("m").info)
    board.write("m", toolkit="1.3.0")  # another file of the same name
    assert board.load("m") == "1.3.0"


def test_a_release_that_is_bad_with_the_toolkit_goes_last(board: Board) -> None:
    board.install("1.2.0", "1.3.0")
    board.write("m", toolkit="1.2.3", runtimes="1.3.0,1.2.0")
    # 1.2.0 refuses the newer toolkit: 1.3.0 loads it, but nothing says that it did well.
    assert board.load("m") == "1.3.0"
    board.pool.unload(board.store.resolve("m").info)
    board.install("1.2.3")
    board.write("m", toolkit="1.2.3")
    board.runtimes.remember(str(board.models / "m.rkllm"), None, "1.2.3")
    assert board.load("m") == "1.2.3"


def test_two_models_on_two_releases_answer_at_the_same_time(board: Board) -> None:
    board.install("1.1.4", "1.3.0")
    board.write("old", toolkit="1.1.4", runtimes="1.1.4")
    board.write("new", toolkit="1.3.0")
    use, resolve = board.pool.use, board.store.resolve
    with use(resolve("old")) as old, use(resolve("new")) as new:
        both = old.resident.ready.runtime, new.resident.ready.runtime
    assert both == ("librkllmrt 1.1.4", "librkllmrt 1.3.0")


def test_where_none_fits_all_are_named_and_the_one_to_install(board: Board) -> None:
    board.install("1.1.4", "1.2.0")
    board.write("m-rk3588-1.2.3", toolkit="1.2.3")
    with pytest.raises(WrongRuntime) as raised:
        board.load("m-rk3588-1.2.3")
    error = raised.value
    assert error.release == "1.2.3"
    assert "rkllama runtime install 1.2.3" in (error.hint or "")
    assert error.message.index("1.2.0: ") < error.message.index("1.1.4: ")


def test_the_users_choice_is_final_for_a_model_and_first_for_all(board: Board) -> None:
    board.install("1.2.0", "1.2.3", "1.3.0")
    board.write("m", toolkit="1.2.0", runtimes="1.2.0,1.2.3")
    path = str(board.models / "m.rkllm")
    board.runtimes.choose("1.3.0", path)
    with pytest.raises(WrongRuntime, match="file format"):
        board.load("m")
    board.runtimes.choose("1.2.1", path)
    with pytest.raises(LoadFailed, match=r"is to use librkllmrt 1\.2\.1, which is not installed"):
        board.load("m")
    board.runtimes.choose(None, path)
    board.runtimes.choose("1.2.0")
    assert board.load("m") == "1.2.0"


def test_a_single_file_counts_as_one(board: Board) -> None:
    (board.home / "lib").mkdir()
    shutil.copy(library("1.2.3"), board.home / "lib" / "librkllmrt.so")
    board.write("m")
    assert board.load("m") == "1.2.3"
    (one,) = board.runtimes.installed()
    assert (one.release, one.managed) == ("1.2.3", False)


def test_a_damaged_release_is_passed_over(board: Board) -> None:
    board.install("1.2.3", "1.3.0")
    (board.home / "lib" / "1.3.0" / "librkllmrt.so").write_bytes(b"<html>")
    board.write("m", toolkit="1.2.3")
    assert board.load("m") == "1.2.3"


def test_without_any_release_the_error_is_as_before(board: Board) -> None:
    board.write("m")
    with pytest.raises(LibraryNotFound, match=r"librkllmrt\.so"):
        board.load("m")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"models": 1}', '{"models": {"x": 3}}', "[" * 99999]
)
def test_choices_that_cannot_be_read_are_none(board: Board, content: str) -> None:
    board.install("1.2.3")
    (board.home / "runtimes.json").write_text(content)
    board.write("m")
    assert board.load("m") == "1.2.3"
    kept = json.loads((board.home / "runtimes.json").read_text())
    assert kept["models"][str(board.models / "m.rkllm")]["release"] == "1.2.3"
