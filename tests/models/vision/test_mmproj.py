"""The encoder of a model for llama.cpp: which file it is, what that says, and how it comes and goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rkllama.console.one_file import OneFile
from rkllama.console.show import details_text
from rkllama.models import guide
from rkllama.models.authoring import WritableStore
from rkllama.models.filename import is_mmproj
from rkllama.models.scan import scan
from rkllama.models.vision.choice import find_encoder
from rkllama.models.vision.mmproj import Mmproj, read_mmproj
from rkllama.types import EncoderInfo
from tests.model_files import BOOL, STRING, U32, WHOLE, header

Put = Callable[..., Path]

CLIP: dict[str, Any] = {
    "general.architecture": "clip",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "mlp",
    "clip.vision.image_size": 336,
    "clip.vision.patch_size": 14,
}
MODEL = header(WHOLE)
KINDS = {str: STRING, bool: BOOL, int: U32}


def encoder(**changed: Any) -> bytes:
    ours = {f"rkllama.vision.{key}": changed.pop(key, None) for key in ("pad", "newest_only")}
    told = {f"clip.{key.replace('__', '.')}": value for key, value in changed.items()}
    keys = {**CLIP, **told, **ours}
    return header([(k, KINDS[type(v)], v) for k, v in keys.items() if v is not None])


def seen(store: WritableStore, name: str) -> tuple[str | None, bool]:
    """The encoder's name, and whether the model sees."""
    model = store.resolve(name)
    sees = "vision" in model.capabilities
    assert sees == (model.encoder is not None and model.encoder.problem is None)
    return (model.encoder.file if model.encoder else None), sees


# --- Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("mmproj-model-f16.gguf", True),
        ("mmproj.gguf", True),
        ("x/MMPROJ-F16.GGUF", True),
        ("llava-v1.5-7b-mmproj-Q4_0.gguf", True),
        ("guide-mmproj.gguf", True),
        ("model.mmproj.f16.gguf", True),
        ("mmproj-x.rkllm", False),
        ("hammproject.gguf", False),
        ("mmproj-x.rknn", False),
        ("mmproj/x.gguf", False),
    ],
)
def test_an_encoder_is_known_by_its_name(name: str, fits: bool) -> None:
    assert is_mmproj(name) is fits


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["m-Q4_K_M.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["m-Q4_K_M.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F16.gguf"),
        (["m-Q4_K_M.gguf", "mmproj-m-Q8_0.gguf", "mmproj-m-f16.gguf"], "mmproj-m-Q8_0.gguf"),
        (["m-Q4_K_M.gguf", "mmproj-m-bf16.gguf"], "mmproj-m-bf16.gguf"),
        (["m-Q4_0.gguf", "n-Q4_0.gguf", "mmproj-n-F16.gguf", "mmproj-m-F16.gguf"], "mmproj-m-F16.gguf"),
        (["m-Q4_0.gguf", "n-Q4_0.gguf", "mmproj-n-F16.gguf"], None),
        (["m-Q4_0.gguf", "mmproj-a.gguf", "mmproj-b.gguf"], None),
        (["m-Q4_0.gguf", "mmproj-a-F16.gguf", "mmproj-b-Q8_0.gguf"], None),
        (["a/m.gguf", "b/mmproj-F16.gguf", "a/mmproj-F16.gguf"], "a/mmproj-F16.gguf"),
        (["Q4_0/m-00001-of-00002.gguf", "mmproj-m-F16.gguf"], "mmproj-m-F16.gguf"),
        (["m-Q4_0.gguf", "vision.rknn"], None),
    ],
)  # fmt: skip
def test_of_several_the_one_that_goes_with_the_model(files: list[str], found: str | None) -> None:
    for order in (files, files[:1] + files[:0:-1]):
        assert find_encoder(files[0], order, "rk3588") == found


def test_an_encoder_is_no_model(models: Path, put: Put) -> None:
    put("a/m.gguf", MODEL)
    for name in (
        "a/mmproj-F16.gguf",
        "a/m-mmproj.gguf",
        "m-mmproj-Q8_0.gguf",
        "mmproj-x.gguf.part",
    ):
        put(name, encoder())
    put("b/m.gguf", MODEL)
    put("b/eyes.gguf", encoder())
    put("b/Modelfile", "FROM ./m.gguf\nVISION_ENCODER eyes.gguf\n")
    assert [entry.name for entry in scan(str(models))] == ["a", "b"]


# --- What it says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({}, Mmproj("mlp", 336, 576, pads=True)),
        ({"projector_type": "ldp"}, Mmproj("ldp", 336, 144, pads=True)),
        (
            {"projector_type": "gemma3", "vision__image_size": 896},
            Mmproj("gemma3", 896, 256),
        ),
        ({"projector_type": "yasa2"}, Mmproj("yasa2", 336, 64)),
        ({"projector_type": "yasa2", "pad": True}, Mmproj("yasa2", 336, 64, pads=True)),
        (
            {"projector_type": "yasa2", "newest_only": True},
            Mmproj("yasa2", 336, 64, newest_only=True),
        ),
        ({"vision__mm_patch_merge_type": "spatial_unpad"}, Mmproj("mlp")),
        ({"projector_type": "qwen2.5vl_merger"}, Mmproj("qwen2.5vl_merger")),
        ({"vision__patch_size": 0}, Mmproj("mlp")),
        ({"vision__image_size": None}, Mmproj("mlp")),
        ({"has_vision_encoder": False}, Mmproj(problem="e.gguf encodes no pictures")),
        ({"projector_type": None}, Mmproj(problem="e.gguf encodes no pictures")),
    ],
)
def test_what_an_encoder_says(tmp_path: Path, changed: dict[str, Any], facts: Mmproj) -> None:
    path = tmp_path / "e.gguf"
    path.write_bytes(encoder(**changed))
    assert read_mmproj(str(path)) == facts


def test_what_sees_all_of_a_picture_takes_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "e.gguf"
    path.write_bytes(encoder(projector_type="gemma3", vision__image_size=896))
    assert read_mmproj(str(path)).at_once == 256
    path.write_bytes(encoder())
    assert read_mmproj(str(path)).at_once == 0


def test_a_language_model_is_no_encoder(tmp_path: Path) -> None:
    path = tmp_path / "e.gguf"
    path.write_bytes(MODEL)
    assert read_mmproj(str(path)).problem == "e.gguf is no image encoder but a language model"


def test_show_tells_that_earlier_pictures_are_left_out(
    models: Path, store: WritableStore, put: Put
) -> None:
    put("a/m.gguf", MODEL)
    put("a/mmproj-m.gguf", encoder(newest_only=True))
    details = store.details("a")
    assert details.encoder is not None
    assert details.encoder.newest_only
    assert "those of the last question" in details_text(details)


def test_show_tells_of_it(models: Path, store: WritableStore, put: Put) -> None:
    put("a/m.gguf", MODEL)
    path = put("a/mmproj-m.gguf", encoder())
    details = store.details("a")
    assert details.encoder == EncoderInfo(
        file=path.name,
        path=str(path),
        size=path.stat().st_size,
        width=336,
        height=336,
        tokens=576,
    )
    text = details_text(details)
    for line in ("mmproj-m.gguf", "336 x 336 pixels", "tokens per picture  576"):
        assert line in text
    assert "platform" not in text.partition("Pictures")[2].partition("\n\n")[0]


# --- Which one a model has ---------------------------------------------------------------------


def test_the_encoder_beside_a_model(models: Path, store: WritableStore, put: Put) -> None:
    put("a/m-Q4_K_M.gguf", MODEL)
    put("a/vision.rknn", b"RKNN")
    assert seen(store, "a") == (None, False)
    put("a/mmproj-F16.gguf", encoder())
    assert seen(store, "a") == ("mmproj-F16.gguf", True)
    put("a/mmproj-F16.gguf", b"<!doctype html>")
    assert seen(store, "a") == ("mmproj-F16.gguf", False)
    (models / "a" / "mmproj-F16.gguf").unlink()
    assert seen(store, "a") == (None, False)


def test_a_model_without_a_folder_has_only_the_encoder_of_its_name(
    store: WritableStore, put: Put
) -> None:
    put("one-Q4_0.gguf", MODEL)
    put("two.gguf", MODEL)
    put("three.rkllm")
    put("one-mmproj-Q8_0.gguf", encoder())
    put("mmproj-one-F16.gguf", encoder())
    put("three-mmproj.gguf", encoder())
    assert seen(store, "one-Q4_0") == ("one-mmproj-Q8_0.gguf", True)
    assert seen(store, "two") == (None, False)
    assert seen(store, "three") == (None, False)


def test_a_modelfile_overrules(store: WritableStore, put: Put) -> None:
    put("a/m.gguf", MODEL)
    put("a/mmproj-m.gguf", encoder())
    put("other/mmproj-x.gguf", encoder())
    put("npu/v.rknn", b"RKNN")
    put("mine/Modelfile", "FROM a\nVISION_ENCODER ../other/mmproj-x.gguf\n")
    put("blind/Modelfile", "FROM a\nVISION_ENCODER off\n")
    put("wrong/Modelfile", "FROM a\nVISION_ENCODER ../npu/v.rknn\n")
    assert seen(store, "mine") == ("mmproj-x.gguf", True)
    assert seen(store, "blind") == (None, False)
    assert seen(store, "wrong") == ("v.rknn", False)
    wrong = store.resolve("wrong").encoder
    assert wrong is not None
    assert wrong.problem == "it is no encoder for llama.cpp, which runs the model"


def test_without_pillow_a_model_does_not_see(
    store: WritableStore, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a/m.gguf", MODEL)
    put("a/mmproj-m.gguf", encoder())
    monkeypatch.setattr("rkllama.models.vision.encoder.find_spec", lambda _: None)
    assert seen(store, "a") == ("mmproj-m.gguf", False)
    assert "pip install 'rkllama[vision]'" in details_text(store.details("a"))


def test_a_file_that_is_run_where_it_lies_sees(put: Put, models: Path) -> None:
    path = put("a/m.gguf", MODEL)
    put("a/mmproj-m.gguf", encoder())
    put("a/mmproj-other.gguf", encoder())
    with contextlib.closing(OneFile(str(path))) as service:
        assert "vision" in service.show("m").capabilities
    assert sorted(os.listdir(models / "a")) == ["m.gguf", "mmproj-m.gguf", "mmproj-other.gguf"]


# --- Going -------------------------------------------------------------------------------------


def test_removing_a_model_removes_its_encoder(models: Path, store: WritableStore, put: Put) -> None:
    put("a/m.gguf", MODEL)
    put("a/mmproj-m.gguf", encoder())
    put("one.gguf", MODEL)
    own = put("one-mmproj.gguf", encoder())
    other = put("mmproj-two.gguf", encoder())
    store.remove("a")
    assert not (models / "a").exists()
    store.remove("one")
    assert not own.exists()
    assert other.exists()


def test_an_encoder_of_two_models_goes_with_the_second(store: WritableStore, put: Put) -> None:
    put("one-Q4_0.gguf", MODEL)
    put("one-Q8_0.gguf", MODEL)
    shared = put("one-mmproj.gguf", encoder())
    store.remove("one-Q4_0")
    assert shared.exists()
    store.remove("one-Q8_0")
    assert not shared.exists()


# --- The guide's -------------------------------------------------------------------------------


@pytest.fixture
def with_eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder that comes with the package."""
    path = tmp_path / "guide-mmproj.gguf"
    path.write_bytes(encoder())
    monkeypatch.setattr(guide, "ENCODER", str(path))
    return path


def test_the_guide_brings_its_encoder(models: Path, with_eyes: Path) -> None:
    with contextlib.closing(WritableStore(str(models))) as store:
        assert seen(store, "guide") == ("guide-mmproj.gguf", True)
        assert [info.name for info in store.list()] == ["guide"]
        assert (models / "guide-mmproj.gguf").read_bytes() == with_eyes.read_bytes()
        store.remove("guide")
    assert os.listdir(models) == []


def test_a_guide_that_was_there_before_gets_it(
    models: Path, with_eyes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, contextlib.closing(WritableStore(str(models))) as store:
        patch.setattr(guide, "ENCODER", str(models / "none"))
        assert seen(store, "guide") == (None, False)
    with contextlib.closing(WritableStore(str(models))) as store:
        assert seen(store, "guide") == ("guide-mmproj.gguf", True)


def test_another_guide_does_not(models: Path, with_eyes: Path, put: Put) -> None:
    put("guide.gguf", MODEL)
    with contextlib.closing(WritableStore(str(models))) as store:
        assert seen(store, "guide") == (None, False)
    assert os.listdir(models) == ["guide.gguf"]
