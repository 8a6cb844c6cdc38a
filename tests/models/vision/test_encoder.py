"""Which image encoder belongs to a model on disk, and when that makes it see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rkllama.backends.vision.markers import markers_of
from rkllama.console.show import details_text
from rkllama.errors import InvalidRequest
from rkllama.models.authoring import WritableStore
from rkllama.models.store import Store
from rkllama.rkllm.domains import Domains
from rkllama.types import EncoderInfo
from tests.virtual_rknn import write_encoder

Put = Callable[..., Path]

MODEL = "Qwen3-VL-2B-w8a8-rk3588.rkllm"


@pytest.fixture(autouse=True)
def _library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "librknnrt.so"
    library.write_bytes(b"")
    monkeypatch.setenv("RKLLAMA_RKNN_LIB", str(library))


def seen(store: Store, name: str) -> tuple[str | None, bool, str | None]:
    """The encoder's name, whether the model sees, and why it does not."""
    model = store.resolve(name)
    encoder = model.encoder
    sees = "vision" in model.capabilities
    assert sees == (encoder is not None and encoder.problem is None)
    if encoder is None:
        return None, sees, None
    return encoder.file, sees, encoder.problem


@pytest.mark.parametrize(
    ("files", "encoder"),
    [
        (["anything.rknn"], "anything.rknn"),
        (["x_vision_rk3588.rknn", "detector.rknn"], "x_vision_rk3588.rknn"),
        (["x_vision_rk3588.rknn", "x_vision_rk3576.rknn"], "x_vision_rk3588.rknn"),
        (["vision_transformer.rknn", "other.rknn"], "vision_transformer.rknn"),
        (["vision_rk3576.rknn"], None),
        (["a.rknn", "b.rknn"], None),
        (["mmproj-f16.gguf"], None),
        ([], None),
    ],
)
def test_the_encoder_in_a_models_folder(
    models: Path, store: WritableStore, put: Put, files: list[str], encoder: str | None
) -> None:
    put(f"qwen/{MODEL}")
    for name in files:
        write_encoder(models / "qwen" / name)
    assert seen(store, "qwen") == (encoder, encoder is not None, None)


def test_a_model_without_a_folder_has_only_the_encoder_of_its_name(
    models: Path, store: WritableStore, put: Put
) -> None:
    put("one.rkllm")
    put("two.rkllm")
    write_encoder(models / "one.rknn")
    write_encoder(models / "vision.rknn")
    assert seen(store, "one") == ("one.rknn", True, None)
    assert seen(store, "two") == (None, False, None)


def test_what_show_tells_of_it(models: Path, store: WritableStore, put: Put) -> None:
    put(f"qwen/{MODEL}")
    path = write_encoder(models / "qwen" / "v.rknn", width=448, height=392, tokens=196, outputs=4)
    details = store.details("qwen")
    assert details.encoder == EncoderInfo(
        file="v.rknn",
        path=path,
        size=os.path.getsize(path),
        width=448,
        height=392,
        tokens=196,
        platforms=("rk3588",),
    )
    text = details_text(details)
    assert "vision" in text
    for line in ("v.rknn", "448 x 392 pixels", "tokens per picture  196", "rk3588"):
        assert line in text
    assert "not used" not in text


def test_what_comes_goes_or_changes_is_noticed(
    models: Path, store: WritableStore, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"qwen/{MODEL}")
    assert seen(store, "qwen") == (None, False, None)
    write_encoder(models / "qwen" / "v.rknn", tokens=9)
    assert seen(store, "qwen")[:2] == ("v.rknn", True)
    write_encoder(models / "qwen" / "v.rknn", tokens=144)
    encoder = store.resolve("qwen").encoder
    assert encoder is not None
    assert encoder.tokens == 144
    monkeypatch.setenv("RKLLAMA_RKNN_LIB", "/nowhere/librknnrt.so")
    assert seen(store, "qwen")[1:] == (
        False,
        "librknnrt.so is not there: rkllama runtime install rknn",
    )
    assert "not used" in details_text(store.details("qwen"))
    (models / "qwen" / "v.rknn").unlink()
    assert seen(store, "qwen") == (None, False, None)


def test_the_setting_names_the_library(
    models: Path, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = os.environ["RKLLAMA_RKNN_LIB"]
    monkeypatch.delenv("RKLLAMA_RKNN_LIB")
    put(f"qwen/{MODEL}")
    write_encoder(models / "qwen" / "v.rknn")
    assert not seen(Store(str(models)), "qwen")[1]
    assert seen(Store(str(models), rknn_lib=library), "qwen")[1]


def test_without_pillow_a_model_does_not_see(
    models: Path, store: WritableStore, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"qwen/{MODEL}")
    write_encoder(models / "qwen" / "v.rknn")
    monkeypatch.setattr("rkllama.models.vision.encoder.find_spec", lambda _: None)
    _, sees, problem = seen(store, "qwen")
    assert not sees
    assert problem is not None
    assert "pip install 'rkllama[vision]'" in problem


def test_an_encoder_for_another_soc_is_not_used(
    models: Path, store: WritableStore, put: Put, board: Path
) -> None:
    put(f"qwen/{MODEL}")
    put("plain/model.rkllm")
    for folder in ("qwen", "plain"):
        write_encoder(models / folder / "v.rknn", platform="RK3576")
    assert seen(store, "qwen")[1:] == (
        False,
        "it was made for the rk3576, the model for the rk3588",
    )
    assert seen(store, "plain")[1:] == (False, "it was made for the rk3576, and this is the rk3588")


def test_what_is_no_encoder_is_told(models: Path, store: WritableStore, put: Put) -> None:
    put(f"qwen/{MODEL}")
    put("qwen/v.rknn", "<!doctype html>")
    assert seen(store, "qwen")[2] == "v.rknn is no image encoder: it does not begin as one"


def test_a_modelfile_overrules(models: Path, store: WritableStore, put: Put) -> None:
    put(f"qwen/{MODEL}")
    write_encoder(models / "qwen" / "v.rknn")
    write_encoder(models / "shared" / "other.rknn")
    put("old/Modelfile", 'FROM="qwen"\nVISION_ENCODER="../shared/other.rknn"\nIMAGE_WIDTH=448\n')
    put("blind/Modelfile", "FROM qwen\nVISION_ENCODER off\n")
    put("heir/Modelfile", "FROM old\n")
    put("wrong/Modelfile", "FROM qwen\nVISION_ENCODER /etc/passwd\n")
    assert seen(store, "qwen")[0] == "v.rknn"
    assert seen(store, "old")[:2] == ("other.rknn", True)
    assert seen(store, "heir")[:2] == ("other.rknn", True)
    assert seen(store, "blind") == (None, False, None)
    assert seen(store, "wrong")[0] == "v.rknn"
    (note,) = store.resolve("wrong").notes
    assert (
        note == "the VISION_ENCODER /etc/passwd of wrong/Modelfile is not in the models directory"
    )


def test_a_created_model_keeps_its_encoder(models: Path, store: WritableStore, put: Put) -> None:
    put(f"qwen/{MODEL}")
    write_encoder(models / "shared" / "other.rknn")
    store.create("mine", "FROM qwen\nVISION_ENCODER shared/other.rknn")
    assert seen(store, "mine")[0] == "other.rknn"
    assert "VISION_ENCODER ../shared/other.rknn" in (models / "mine" / "Modelfile").read_text()
    store.create("blind", "FROM qwen\nVISION_ENCODER off")
    assert seen(store, "blind")[0] is None
    with pytest.raises(
        InvalidRequest, match=r"the VISION_ENCODER 'none\.rknn' is not in the models"
    ):
        store.create("bad", "FROM qwen\nVISION_ENCODER none.rknn")


def test_markers_are_the_familys_then_the_older_keys_then_those_of_qwen(
    store: WritableStore, put: Put
) -> None:
    keys = "IMG_START=<a>\nIMG_END=<b>\nIMG_CONTENT=<c>\n"
    put("InternVL3-2B/model.rkllm")
    put("InternVL3-2B/Modelfile", f"FROM model.rkllm\n{keys}")
    put("plain/model.rkllm")
    put("keyed/Modelfile", f"FROM plain\n{keys}")
    assert markers_of(store.resolve("InternVL3-2B")).start == "<img>"
    assert markers_of(store.resolve("keyed")) == ("<a>", "<b>", "<c>")
    assert markers_of(store.resolve("plain")).start == "<|vision_start|>"


def test_a_gguf_model_has_no_encoder_for_the_npu(
    models: Path, store: WritableStore, put: Put
) -> None:
    put("mixed/m.gguf")
    write_encoder(models / "mixed" / "v.rknn")
    assert store.resolve("mixed").encoder is None


def test_a_model_that_sees_leaves_domain_0_to_encoders() -> None:
    domains = Domains()
    gigabyte = 1 << 30
    assert domains.take("sees", gigabyte, sees=True) == 1
    assert domains.take("text", gigabyte) == 2
    domains.give_back("sees")
    assert domains.take("other", gigabyte) == 0
    assert domains.take("seeing too", gigabyte, sees=True) == 1
    assert domains.take("wanted", gigabyte, 0, sees=True) == 0
    single = Domains(several=False)
    assert single.take("sees", gigabyte, sees=True) == 0
