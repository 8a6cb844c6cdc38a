"""`rkllama import`: a file of this machine becomes a model, with what lies beside it, or nothing happens."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rkllama.models.store import Store
from tests.seeing_gguf import write_seeing
from tests.test_cli import failure, rkllama
from tests.virtual_npu.model import write_model

pytestmark = pytest.mark.integration

FILE = "Qwen3-0.6B-w8a8-rk3588.rkllm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as a publisher's repository has it."""
    folder = tmp_path / "download"
    write_model(folder / FILE)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# A model")
    (folder / "qwen3_vision_rk3588.rknn").write_bytes(b"RKNN" + bytes(100))
    return folder


def brought(models: Path, name: str) -> list[str]:
    return sorted(os.listdir(models / name))


@pytest.mark.usefixtures("npu")
def test_a_folder_becomes_a_model_that_answers(folder: Path, models: Path) -> None:
    done = rkllama("import", str(folder), "mine")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "Done. Try it: rkllama run mine"
    expected = [FILE, "chat_template.jinja", "config.json", "qwen3_vision_rk3588.rknn"]
    assert brought(models, "mine") == sorted(expected)
    store = Store(str(models))
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    assert [info.digest for info in store.list()] == [digest]
    store.close()
    assert rkllama("run", "mine", "hello", "--no-stdin").returncode == 0
    (folder / FILE).unlink()
    assert (models / "mine" / FILE).exists()


def test_an_encoder_for_llama_cpp_comes_along_and_is_no_model(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "download"
    write_seeing(folder / "seer-Q8_0.gguf", folder / "mmproj-seer-F16.gguf")
    assert rkllama("import", str(folder), "seer").returncode == 0
    assert brought(models, "seer") == ["mmproj-seer-F16.gguf", "seer-Q8_0.gguf"]
    refused = failure("import", str(folder / "mmproj-seer-F16.gguf"))
    assert "is no language model but the image encoder of one" in refused


def test_a_file_keeps_its_name(folder: Path, models: Path) -> None:
    assert rkllama("import", str(folder / FILE)).returncode == 0
    assert (models / "Qwen3-0.6B-w8a8-rk3588" / FILE).is_file()
    assert "already exists" in failure("import", str(folder / FILE))


@pytest.mark.usefixtures("npu")
def test_a_link_takes_no_room(folder: Path, models: Path) -> None:
    assert rkllama("import", "--link", str(folder), "linked").returncode == 0
    assert os.readlink(models / "linked" / FILE) == str(folder / FILE)
    assert (models / "linked" / "qwen3_vision_rk3588.rknn").is_symlink()
    assert rkllama("run", "linked", "hello", "--no-stdin").returncode == 0
    assert rkllama("rm", "linked", "--yes").returncode == 0
    assert (folder / FILE).exists()


def test_the_modelfile_comes_along_unless_it_is_anothers(folder: Path, models: Path) -> None:
    modelfile = folder / "Modelfile"
    modelfile.write_text(f"FROM {folder / FILE}\nSYSTEM Be brief.\n")
    assert rkllama("import", str(folder), "a").returncode == 0
    assert f"FROM {FILE}" in (models / "a" / "Modelfile").read_text()
    store = Store(str(models))
    assert store.resolve("a").system == "Be brief."
    store.close()
    modelfile.write_text("FROM ./other.rkllm\nSYSTEM Be someone else.\n")
    assert rkllama("import", str(folder), "b").returncode == 0
    assert "Modelfile" not in brought(models, "b")


@pytest.mark.parametrize("source", [f"./{FILE}", FILE])
def test_a_program_that_a_foreign_modelfile_names_stays_behind(
    folder: Path, models: Path, source: str
) -> None:
    lines = 'parameter Llama_Server /bin/false\nLLAMA_SERVER="-v"\nSYSTEM Be brief.\n'
    (folder / "Modelfile").write_text(f"FROM {source}\n{lines}")
    done = rkllama("import", str(folder), "a")
    assert done.returncode == 0, done.stderr
    assert "Note: the Modelfile's llama_server is left out" in done.stderr
    assert "llama_server" not in (models / "a" / "Modelfile").read_text().lower()
    store = Store(str(models))
    assert store.resolve("a").system == "Be brief."
    assert store.resolve("a").llama_server is None
    store.close()


def test_what_is_no_model_is_refused(folder: Path, models: Path, tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.rkllm"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "a Git LFS pointer" in failure("import", str(pointer))
    (tmp_path / "broken.gguf").write_bytes(b"GGU")
    assert "Error: " in failure("import", str(tmp_path / "broken.gguf"))
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    assert "one part of a model" in failure("import", str(tmp_path / "m-00001-of-00002.gguf"))
    assert "is not there" in failure("import", str(tmp_path / "nothing.rkllm"))
    assert "is not a .rkllm or .gguf" in failure("import", str(folder / "README.md"))
    write_model(folder / "second.rkllm")
    assert "matches several models" in failure("import", str(folder))
    assert [name for name in os.listdir(models) if name[0] != "."] == []


def test_a_disk_that_is_full_leaves_nothing(folder: Path, models: Path) -> None:
    with open(folder / FILE, "ab") as stream:
        stream.truncate(1 << 43)
        stream.seek(0, os.SEEK_END)
        stream.write(b"the end")
    assert "free" in failure("import", str(folder))
    assert [name for name in os.listdir(models) if name[0] != "."] == []


def test_the_name_of_an_alias_is_taken(folder: Path, models: Path) -> None:
    write_model(models / "first.rkllm")
    assert rkllama("cp", "first", "second").returncode == 0
    assert "already exists" in failure("import", str(folder), "second")
    assert (models / "second" / "Modelfile").exists()
