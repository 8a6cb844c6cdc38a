"""The NPU's libraries: which are here, and whether they can be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rkllama.doctor.software import libraries
from rkllama.doctor.software.libraries import (
    check_runtime,
    check_sigill,
    missing_packages,
)
from rkllama.doctor.software.model_needs import check_model_encoder
from rkllama.doctor.software.pictures import check_image_encoders, check_image_library
from rkllama.rkllm.installed import Runtimes
from rkllama.rkllm.library import look_for_library
from tests.boards import build_board
from tests.doctor.examine import POINTER, X86_64, look, write_library, wrong
from tests.virtual_npu.model import write_model
from tests.virtual_rknn import write_encoder


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of an RK3588 stand in for this machine's."""
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    (root / "usr/lib/librkllmrt.so").unlink(missing_ok=True)
    return root


@pytest.fixture
def own(home: Path) -> Path:
    """RKLLama's own directory of releases."""
    return home / "RKLLAMA" / "lib"


def test_a_board_without_a_library(board: Path, models: Path) -> None:
    (finding,) = look(check_runtime)
    assert (finding.status, finding.found) == ("warning", "no librkllmrt.so")
    assert finding.cure == ("rkllama runtime install",)
    write_model(models / "a.rkllm")
    write_model(models / "b.rkllm")
    finding = look(check_runtime)[0]
    assert (finding.status, finding.found) == ("broken", "no librkllmrt.so, which a, b need")


def test_a_machine_without_an_npu_needs_none(home: Path, models: Path) -> None:
    assert look(check_runtime) == []


def test_a_board_whose_npu_runs_no_language_models_needs_none(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3566", tmp_path)))
    write_model(models / "a.rkllm")
    assert look(check_runtime) == [], "to fetch one would change nothing"


def test_releases_are_good(board: Path, own: Path) -> None:
    write_library(own / "1.2.3" / "librkllmrt.so")
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    found = [(one.status, one.found) for one in look(check_runtime)]
    assert found == [("good", "librkllmrt 1.3.0"), ("good", "librkllmrt 1.2.3")]


def test_the_systems_library_is_looked_for_below_the_root(board: Path) -> None:
    write_library(board / "usr/lib/aarch64-linux-gnu/librkllmrt.so", "1.2.1")
    (finding,) = look(check_runtime)
    assert (finding.status, finding.found) == ("good", "librkllmrt 1.2.1")
    path = str(board / "usr/lib/aarch64-linux-gnu/librkllmrt.so")
    assert finding.source == path
    assert look_for_library(None, os.environ) == (path, "1.2.1")


def test_a_release_of_another_machine(board: Path, own: Path) -> None:
    write_library(own / "1.2.3" / "librkllmrt.so", machine=X86_64)
    (finding,) = look(check_runtime)
    assert finding.status == "broken"
    assert finding.found.endswith("made for x86-64 (64 bit), but the board is aarch64 (64 bit)")
    assert finding.cure == ("rkllama runtime install 1.2.3",)


def test_a_pointer_in_the_place_of_the_systems_library(board: Path) -> None:
    path = board / "usr/lib/librkllmrt.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(POINTER)
    (finding,) = look(check_runtime)
    assert finding.status == "broken"
    assert "Git LFS pointer" in finding.found
    assert finding.cure == (f"sudo rm {path}", "rkllama runtime install")


def test_a_library_that_is_cut_off_and_has_a_strange_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_library(home / "my libs;reboot" / "librkllmrt.so", machine=_own())
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", str(path))
    (finding,) = look(check_runtime)
    assert finding.status == "broken"
    assert "incomplete" in finding.found
    assert finding.cure[0] == f"mv '{path}' '{path}.unusable'"


def _own() -> int:
    return {"x86_64": X86_64, "aarch64": 0xB7}[os.uname().machine]


def test_a_setting_that_names_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", "/nowhere/librkllmrt.so")
    (finding,) = look(check_runtime)
    assert (finding.status, finding.cure) == ("broken", ())
    assert (
        finding.found == "the setting rkllm_lib names /nowhere/librkllmrt.so, where there is none"
    )


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.3.9", "librkllmrt 1.3.9, which RKLLama does not know"),
        (None, "does not tell its release"),
    ],
)
def test_a_release_that_is_not_known(
    version: str | None, words: str, board: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_library(own / "librkllmrt.so", version)
    (finding,) = look(check_runtime)
    assert finding.status == "warning"
    assert words in finding.found
    monkeypatch.setenv("RKLLAMA_RKLLM_ABI", "1.3.0")
    assert [one.status for one in look(check_runtime)] == ["good"]


def test_a_library_needs_others(board: Path, own: Path) -> None:
    path = write_library(own / "librkllmrt.so", needed=("libgomp.so.1", "libc.so.6"))
    (finding,) = look(check_runtime)
    assert (finding.check, finding.status) == ("runtime-needs", "broken")
    assert finding.found == "libgomp.so.1 is missing"
    assert finding.cure[-1] == "sudo apt-get install -y libgomp1"
    gomp = board / "usr/lib/aarch64-linux-gnu/libgomp.so.1"
    gomp.parent.mkdir(parents=True, exist_ok=True)
    gomp.touch()
    assert missing_packages(str(path)) == []
    assert look(check_runtime)[0].status == "good"


@pytest.mark.usefixtures("board")
def test_a_model_is_told_of_its_own_release_alone(own: Path, models: Path) -> None:
    write_library(own / "1.2.3" / "librkllmrt.so")
    write_library(own / "1.1.4" / "librkllmrt.so", "1.1.4", machine=X86_64)
    write_model(models / "q-rk3588-1.2.1.rkllm")
    assert [one.status for one in look(check_runtime)] == ["broken", "good"]
    assert [one.found for one in look(check_runtime, "q-rk3588-1.2.1")] == ["librkllmrt 1.2.3"]


def test_the_loader_is_asked_for_what_is_not_in_the_usual_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "_LIBRARY_FOLDERS", ())
    path = str(write_library(tmp_path / "x.so", needed=("libstdc++.so.6", "libgomp.so.999")))
    assert missing_packages(path) == [("libgomp.so.999", "libgomp1")]


@pytest.mark.integration
def test_a_real_library_of_this_machine(home: Path, npu: str, tmp_path: Path) -> None:
    (finding,) = look(check_runtime)
    assert (finding.status, finding.found, finding.source) == ("good", "librkllmrt 1.2.3", npu)
    assert missing_packages(npu) == []


# --- SIGILL ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("board")
def test_a_release_that_may_die_is_told_where_it_would_be_used(own: Path, models: Path) -> None:
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    (finding,) = wrong(check_sigill)
    assert (finding.status, finding.found) == ("warning", "librkllmrt 1.3.0")
    assert finding.cure == ("rkllama runtime install 1.2.3", "rkllama runtime use 1.2.3")
    write_model(models / "q-rk3588.rkllm")
    assert wrong(check_sigill)[0].found == "librkllmrt 1.3.0, used by q-rk3588"


@pytest.mark.usefixtures("board")
def test_a_release_that_has_worked_is_not_suspected(home: Path, own: Path, models: Path) -> None:
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    path = write_model(models / "q.rkllm")
    Runtimes(str(home / "RKLLAMA")).remember(path, "1.3.0", None)
    assert look(check_sigill) == []


@pytest.mark.usefixtures("board")
def test_a_release_that_nobody_uses_is_not_suspected(home: Path, own: Path, models: Path) -> None:
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    write_library(own / "1.2.3" / "librkllmrt.so")
    path = write_model(models / "q.rkllm")
    Runtimes(str(home / "RKLLAMA")).choose("1.2.3", path)
    assert look(check_sigill) == []


@pytest.mark.usefixtures("board")
def test_a_model_that_needs_the_release_keeps_it(own: Path, models: Path) -> None:
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    write_model(models / "q-rk3588-1.3.0.rkllm")
    (finding,) = look(check_sigill)
    assert finding.cure == ()
    assert "older toolkit" in (finding.advice or "")


def test_on_another_soc_it_is_fine(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3576", tmp_path)))
    write_library(own / "1.3.0" / "librkllmrt.so", "1.3.0")
    assert look(check_sigill) == []


# --- Pictures ----------------------------------------------------------------------------------


def test_a_model_with_an_encoder_needs_its_library(board: Path, models: Path) -> None:
    assert look(check_image_library) == []
    write_model(models / "sees" / "q.rkllm")
    assert look(check_image_library) == []
    (models / "sees" / "q_vision_rk3588.rknn").write_bytes(b"RKNN")
    (finding,) = look(check_image_library)
    assert (finding.status, finding.found) == ("warning", "no librknnrt.so")
    assert finding.cure == ("rkllama runtime install rknn",)
    write_library(board / "usr/lib/librknnrt.so", None)
    assert [one.status for one in look(check_image_library)] == ["good"]
    write_library(board / "usr/lib/librknnrt.so", None, machine=X86_64)
    assert "made for x86-64" in look(check_image_library)[0].found


def test_an_encoder_that_cannot_be_used_is_told(board: Path, models: Path) -> None:
    write_model(models / "sees" / "q.rkllm")
    write_encoder(models / "sees" / "vision.rknn")
    assert look(check_image_encoders) == []
    write_encoder(models / "sees" / "vision.rknn", platform="RK3576")
    (finding,) = look(check_image_encoders)
    assert finding.found == (
        "vision.rknn of sees: it was made for the rk3576, and this is the rk3588"
    )
    (models / "sees" / "vision.rknn").write_bytes(b"<html>")
    assert "is no image encoder" in look(check_image_encoders)[0].found


def test_an_encoder_beside_a_model_without_a_folder(board: Path, models: Path) -> None:
    write_model(models / "q.rkllm")
    (models / "other.rknn").touch()
    assert look(check_image_library) == []
    (models / "q.rknn").touch()
    assert [one.status for one in look(check_image_library)] == ["warning"]


def test_an_encoder_that_a_modelfile_names_is_the_one_that_is_looked_at(
    board: Path, models: Path
) -> None:
    write_model(models / "sees" / "Qwen2-VL-2B.rkllm")
    assert "no encoder for pictures" in look(check_model_encoder)[0].found
    write_encoder(models / "shared" / "eyes.rknn", platform="RK3576")
    (models / "sees" / "Modelfile").write_text(
        "FROM Qwen2-VL-2B\nVISION_ENCODER ../shared/eyes.rknn\n"
    )
    assert look(check_model_encoder) == []
    assert "eyes.rknn of sees: it was made for the rk3576" in look(check_image_encoders)[0].found
    (models / "sees" / "Modelfile").write_text("FROM Qwen2-VL-2B\nVISION_ENCODER off\n")
    for check in (check_model_encoder, check_image_encoders, check_image_library):
        assert look(check) == []


def test_the_encoder_of_one_model_is_told(board: Path, models: Path) -> None:
    write_model(models / "sees" / "q.rkllm")
    write_encoder(models / "sees" / "vision.rknn", tokens=196)
    (finding,) = look(check_image_encoders, "sees")
    assert (finding.status, finding.found) == ("good", "vision.rknn, tokens per picture: 196")
