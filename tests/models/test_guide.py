"""The guide comes with the package, and into the models directory when somebody asks for it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rkllama.console.list import collect
from rkllama.console.show import details_text
from rkllama.errors import ConfigError, DiskFull, ModelNotFound
from rkllama.models import guide as bundled
from rkllama.models.authoring import WritableStore

WANTED: list[Callable[[WritableStore], object]] = [
    lambda store: store.resolve("guide"),
    lambda store: store.resolve("Guide.gguf"),
    lambda store: store.details("guide:latest"),
    lambda store: store.copy("guide", "mine"),
    lambda store: store.create("mine", "FROM guide\nSYSTEM Be brief."),
]


@pytest.mark.parametrize("ask", WANTED)
def test_it_is_there_for_whoever_names_it(
    ask: Callable[[WritableStore], object], tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "there"
    with contextlib.closing(WritableStore(str(folder))) as store:
        ask(store)
        assert "guide" in [info.name for info in store.list()]
    assert (folder / "guide.gguf").read_bytes() == Path(bundled.FILE).read_bytes()


@pytest.mark.parametrize("name", ["guid", "guides", "my/guide", "../guide", "guide/x", ""])
def test_only_its_name_brings_it(name: str, models: Path) -> None:
    with contextlib.closing(WritableStore(str(models))) as store, pytest.raises(ModelNotFound):
        store.resolve(name)
    assert list(models.glob("*.gguf")) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        contextlib.closing(WritableStore(str(tmp_path / "file" / "models"))) as store,
        pytest.raises(ConfigError, match=r"cannot be copied to .+: Not a directory"),
    ):
        store.resolve("guide")


def test_a_full_disk_is_told_where_not_even_the_directory_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(DiskFull, match="No space left") as caught:
        bundled.install(str(tmp_path / "not" / "there"))
    assert caught.value.available > 0


def test_somebody_elses_guide_stays(models: Path) -> None:
    (models / "guide.rkllm").write_bytes(b"theirs")
    with contextlib.closing(WritableStore(str(models))) as store:
        assert store.resolve("guide").info.file == "guide.rkllm"
    assert list(models.glob("*.gguf")) == []


def test_list_and_show_say_what_it_is(models: Path) -> None:
    with contextlib.closing(WritableStore(str(models))) as store:
        shown = details_text(store.details("guide"))
    assert "A 3M-parameter guide that answers questions about RKLLama" in shown
    (row,) = collect()
    assert (row["name"], row["parameter_size"], row["quantization"]) == ("guide", "3.1M", "Q8_0")
