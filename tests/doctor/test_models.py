"""The models directory, its files, and what each model needs."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

from rkllama.doctor.software import inventory, model_files, model_needs
from rkllama.doctor.software.model_files import (
    check_downloads,
    check_model_files,
    check_models,
    check_passed_over,
)
from rkllama.doctor.software.model_needs import (
    check_model_context,
    check_model_domains,
    check_model_encoder,
    check_model_end_tokens,
    check_model_runtime,
    check_model_soc,
    check_model_template,
)
from rkllama.rkllm.installed import Runtimes
from tests.boards import build_board
from tests.doctor.examine import POINTER, look, write_library, wrong
from tests.model_files import WHOLE, fill, header
from tests.virtual_npu.model import write_model

NAME = "Qwen3-0.6B-w8a8-rk3588"
CHECKS = (*model_files.CHECKS, *model_needs.CHECKS)


@pytest.fixture(autouse=True)
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RK3588 with librkllmrt 1.2.3."""
    stand("rk3588", tmp_path, monkeypatch)
    write_library(tmp_path / "home" / "RKLLAMA" / "lib" / "1.2.3" / "librkllmrt.so")


def stand(name: str, directory: Path, patch: pytest.MonkeyPatch) -> None:
    """Have a board of the library stand in for this machine."""
    patch.setenv("RKLLAMA_SYSROOT", str(build_board(name, directory)))


@pytest.fixture
def good(models: Path) -> Path:
    """A model that nothing is wrong with."""
    return Path(write_model(models / NAME / "model.rkllm", size=600_000_000))


def test_a_good_model_is_not_suspected(good: Path) -> None:
    assert [finding for check in CHECKS for finding in wrong(check)] == []


def test_one_model_is_told_in_full(good: Path) -> None:
    found = {one.check: one.found for check in CHECKS for one in look(check, NAME)}
    assert found == {
        "model-soc": "RK3588",
        "model-runtime": "librkllmrt 1.2.3",
        "model-template": "the usual one of qwen3 models",
        "model-context": "4096 tokens",
    }
    (good.parent / "chat_template.jinja").write_text("{{ messages }}")
    (finding,) = look(check_model_template, NAME)
    assert (finding.status, finding.found) == ("good", "chat_template.jinja")


def test_an_alias_is_examined_as_its_model(good: Path, models: Path) -> None:
    (models / "terse").mkdir()
    (models / "terse" / "Modelfile").write_text(f"FROM {NAME}\n")
    assert [one.found for one in look(check_model_soc, "terse")] == ["RK3588"]


# --- The directory -----------------------------------------------------------------------------


def test_a_fresh_machine_has_no_models_yet(home: Path) -> None:
    (finding,) = look(check_models)
    assert (finding.status, finding.found) == ("good", "none yet")


def test_a_directory_that_was_named_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_MODELS", str(tmp_path / "disk"))
    (finding,) = look(check_models)
    assert finding.status == "broken"
    assert str(tmp_path / "disk") in finding.found


def test_the_models_are_counted(good: Path, models: Path) -> None:
    write_model(models / "b.rkllm")
    assert [one.found for one in look(check_models)] == ["2 models, 600 MB"]


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("a.rkllm", POINTER, "a Git LFS pointer, which stands for the file"),
        ("a.rkllm", b"", "an empty file"),
        ("a.rkllm", b"<!DOCTYPE html><html>", "a web page"),
        ("a.rkllm", bytes(3 << 20), "a file of zeros: its download or copy broke off"),
        ("a.rkllm", b"RKLLM" + bytes(3 << 20), "a part of one: its download or copy broke off"),
        ("a.rkllm", b"GGUF" + bytes(100), "a GGUF model"),
        ("a.gguf", POINTER, "a Git LFS pointer, which stands for the file"),
        ("a.gguf", header(WHOLE)[:200], "it is truncated"),
        ("a.gguf", b"<html>", "it does not begin with GGUF"),
        ("Qwen3-4B-w8a8.rkllm", b"RKLLM" * 99_999 + b"x", "it has 0 MB"),
    ],
)
def test_files_that_are_no_models(
    file: str, content: bytes, words: str, good: Path, models: Path
) -> None:
    (models / file).write_bytes(content)
    (finding,) = wrong(check_model_files)
    assert finding.status == "broken"
    assert finding.found.startswith(f"{file.rpartition('.')[0]}: {words}")


def test_a_whole_gguf_is_fine(models: Path) -> None:
    (models / "a.gguf").write_bytes(header(WHOLE))
    assert look(check_model_files) == []


def test_a_download_that_another_program_is_at(good: Path) -> None:
    good.with_name("model.rkllm.aria2").touch()
    (finding,) = wrong(check_model_files)
    assert "a part of one" in finding.found


def test_pointers_are_told_together_and_fetched_from_where_they_came(models: Path) -> None:
    for name in "abcde":
        (models / name).mkdir()
        (models / name / "m.rkllm").write_bytes(POINTER)
    record = {"repo": "user/it's", "file": "m.rkllm", "revision": "main"}
    (models / "b" / ".pull.json").write_text(json.dumps({**record, "repo": "user/repo"}))
    (finding,) = wrong(check_model_files)
    assert finding.found.startswith("a, b, c and 2 more: a Git LFS pointer")
    assert finding.cure == ("rkllama rm b", "rkllama pull user/repo/m.rkllm/b")


def test_a_name_with_a_quote_stays_a_name(models: Path) -> None:
    name = "a'; touch x #"
    (models / name).mkdir()
    (models / name / "m.rkllm").write_bytes(POINTER)
    record = {"repo": "user/repo", "file": "m.rkllm", "revision": "main"}
    (models / name / ".pull.json").write_text(json.dumps(record))
    (finding,) = wrong(check_model_files)
    assert [shlex.split(line)[:2] for line in finding.cure] == [
        ["rkllama", "rm"],
        ["rkllama", "pull"],
    ]
    assert [shlex.split(line)[2] for line in finding.cure] == [name, f"user/repo/m.rkllm/{name}"]


def test_incomplete_downloads(models: Path) -> None:
    assert look(check_downloads) == []
    (models / "q").mkdir()
    (models / "q" / "q.rkllm.part").write_bytes(bytes(3_000_000))
    (models / "q" / "q.rkllm.part.json").write_text('{"size": 9000000, "etag": "x"}')
    (finding,) = look(check_downloads)
    assert (finding.status, finding.cure) == ("warning", ())
    assert finding.found == "incomplete: q (3 MB of 9 MB)"
    record = {"repo": "user/repo", "file": "q.rkllm", "revision": "main"}
    (models / "q" / ".pull.json").write_text(json.dumps(record))
    assert look(check_downloads)[0].cure == ("rkllama pull user/repo/q.rkllm",)


def test_what_is_passed_over(good: Path, models: Path) -> None:
    (models / "gone.rkllm").symlink_to("/nowhere/gone.rkllm")
    (models / "lost").mkdir()
    (models / "lost" / "Modelfile").write_text("FROM nothing-like-it\n")
    (finding,) = look(check_passed_over)
    assert finding.status == "warning"
    assert "gone.rkllm: it is a link to /nowhere/gone.rkllm, which is not there" in finding.found
    assert "lost: it is made from nothing-like-it, which is not there" in finding.found


# --- The SoC -----------------------------------------------------------------------------------


def test_models_for_another_soc(good: Path, models: Path) -> None:
    write_model(models / "other-rk3576.rkllm")
    (finding,) = look(check_model_soc)
    assert (finding.status, finding.good) == ("warning", "RK3588")
    assert finding.found == "made for another one: other-rk3576 (RK3576)"
    assert [one.status for one in look(check_model_soc, "other-rk3576")] == ["broken"]


def test_no_model_for_this_soc(models: Path) -> None:
    write_model(models / "other" / "m.rkllm")
    record = {"repo": "user/Some-RK3576", "file": "m.rkllm", "revision": "main"}
    (models / "other" / ".pull.json").write_text(json.dumps(record))
    assert [one.status for one in look(check_model_soc)] == ["broken"]


def test_a_machine_without_an_npu_has_no_wrong_models(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKLLAMA_SYSROOT")
    write_model(models / "other-rk3576.rkllm")
    assert look(check_model_soc) == []


# --- The runtime -------------------------------------------------------------------------------


def test_a_model_of_a_newer_toolkit(good: Path, models: Path) -> None:
    write_model(models / "new-rk3588-1.3.0.rkllm")
    (finding,) = look(check_model_runtime)
    assert (finding.status, finding.cure) == ("broken", ("rkllama runtime install 1.3.0",))
    assert (
        "new-rk3588-1.3.0: made by toolkit 1.3.0, which is newer than librkllmrt 1.2.3"
        in finding.found
    )


def test_a_release_that_was_chosen_and_is_gone(home: Path, good: Path) -> None:
    Runtimes(str(home / "RKLLAMA")).choose("1.2.0", str(good.resolve()))
    (finding,) = look(check_model_runtime)
    assert finding.found == f"{NAME} is to use librkllmrt 1.2.0, which is not installed"
    assert finding.cure == ("rkllama runtime install 1.2.0",)


def test_answers_that_do_not_end(home: Path, models: Path) -> None:
    write_library(home / "RKLLAMA" / "lib" / "1.3.0" / "librkllmrt.so", "1.3.0")
    path = Path(write_model(models / "strange" / "strange-rk3588-1.2.2.rkllm"))
    assert look(check_model_end_tokens) == []  # 1.2.3 is tried first
    Runtimes(str(home / "RKLLAMA")).choose("1.3.0", str(path.resolve()))
    (finding,) = look(check_model_end_tokens)
    assert "answers of strange may not end" in finding.found
    assert finding.cure == ("rkllama runtime use 1.2.3 strange",)
    path.with_name("generation_config.json").write_text('{"eos_token_id": 7}')
    assert look(check_model_end_tokens) == []


def test_a_release_that_cannot_be_used_is_no_choice(home: Path, models: Path) -> None:
    lib = home / "RKLLAMA" / "lib"
    (lib / "1.2.3" / "librkllmrt.so").write_bytes(POINTER)
    write_library(lib / "1.1.4" / "librkllmrt.so", "1.1.4")
    write_library(lib / "1.3.0" / "librkllmrt.so", "1.3.0")
    write_model(models / "strange" / "strange-rk3588-1.2.2.rkllm")
    (finding,) = look(check_model_end_tokens)  # 1.1.4 refuses it, 1.3.0 is left
    assert finding.cure[0] == "rkllama runtime install 1.2.3"


def test_what_a_model_of_another_soc_lacks_is_not_told(models: Path) -> None:
    write_model(models / "m" / "Qwen2.5-VL-3B-rk3576-1.3.0.rkllm")
    write_model(models / "n" / "n-rk3576.rkllm")
    told = [one.check for check in CHECKS for one in wrong(check)]
    assert told == ["model-soc"]


def test_known_families_end_their_answers(home: Path, models: Path) -> None:
    write_library(home / "RKLLAMA" / "lib" / "1.3.0" / "librkllmrt.so", "1.3.0")
    path = Path(write_model(models / "Qwen3-0.6B-rk3588-1.2.2.rkllm"))
    Runtimes(str(home / "RKLLAMA")).choose("1.3.0", str(path.resolve()))
    assert look(check_model_end_tokens) == []


# --- What lies beside it -----------------------------------------------------------------------


def test_a_model_without_template_and_family(models: Path) -> None:
    write_model(models / "m" / "m-rk3588.rkllm")
    for findings in (look(check_model_template), look(check_model_template, "m")):
        (finding,) = findings
        assert (finding.check, finding.status) == ("model-template", "warning")
        assert "m: no chat template, and the name tells no family" in finding.found
    (models / "m" / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert wrong(check_model_template) == []


def test_the_context_of_a_model(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good.with_name("config.json").write_text('{"max_position_embeddings": 2048}')
    (finding,) = look(check_model_context, NAME)
    assert (finding.status, finding.found) == ("good", "2048 tokens; the model's limit is 2048")
    good.with_name("Modelfile").write_text("FROM model.rkllm\nPARAMETER num_ctx 8192\n")
    (finding,) = look(check_model_context, NAME)
    assert (finding.status, finding.good) == ("warning", "8192 tokens, as its Modelfile has it")
    assert look(check_model_context) == []


def test_a_model_that_embeds_needs_no_template(models: Path) -> None:
    write_model(models / "some-embedding-rk3588.rkllm")
    assert wrong(check_model_template) == []


def test_a_model_that_is_made_to_see(models: Path) -> None:
    write_model(models / "v" / "Qwen2.5-VL-3B-rk3588.rkllm")
    (finding,) = look(check_model_encoder)
    assert (finding.status, finding.found[:2]) == ("warning", "v:")
    (models / "v" / "q_vision_rk3588.rknn").touch()
    assert look(check_model_encoder) == []


def test_a_npu_with_one_domain(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models / "large.rkllm", size=5 << 30)
    assert look(check_model_domains) == []
    stand("rk3562", tmp_path, monkeypatch)
    (finding,) = look(check_model_domains)
    assert finding.found == "large has 5.4 GB"


# --- Many --------------------------------------------------------------------------------------


def test_many_models_are_one_finding_each_and_little_is_read(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(models, 500)
    for path in models.glob("*/model.rkllm"):
        path.write_bytes(POINTER)
    inventory._watch.cache_clear()
    start = time.process_time()
    findings = [finding for check in CHECKS for finding in look(check)]
    # What was measured on an idle machine is a fifth of a second; ten times as much means that each
    # model is read whole, or each check looks at the directory anew.
    assert time.process_time() - start < 2
    assert len(findings) == 2
    assert findings[1].found.endswith(" and 497 more: a Git LFS pointer, which stands for the file")


def test_a_change_is_seen_at_the_next_look(models: Path) -> None:
    write_model(models / "a.rkllm")
    assert look(check_models)[0].found.startswith("1 model,")
    write_model(models / "b.rkllm")
    assert look(check_models)[0].found.startswith("2 models,")
