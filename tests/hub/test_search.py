"""Searching, and pulling by a name, against a Hub on the loopback that has the repositories of names.py."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub.constants
import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import (
    AmbiguousName,
    HubGated,
    HubNotFound,
    HubUnreachable,
    PullError,
    Unsupported,
)
from rkllama.hub import pull
from rkllama.hub.api import Hub
from rkllama.hub.find import Library, find
from rkllama.hub.offers import Board
from rkllama.hub.search import FRESH, Found, Question, questions, search
from rkllama.hub.wanted import parse_wanted
from rkllama.models.store import Store
from rkllama.types import PullProgress
from tests.hub.loopback import LoopbackHub
from tests.hub.names import REPOSITORIES
from tests.running import Server

pytestmark = pytest.mark.integration

RK3588 = Board(soc="RK3588", memory=16 << 30, release="1.3.0")
RK3576 = Board(soc="RK3576", memory=8 << 30, release="1.3.0")
CPU = Board(memory=16 << 30)
T = TypeVar("T")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def _no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HUGGING", "HF_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(home / "hf" / "token"))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Publishers tag in their own ways: some `rkllm`, some not, and never the readers' way."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        for number, (repo, (downloads, files)) in enumerate(REPOSITORIES.items()):
            tags = ("rkllm",) if number % 2 or "RKLLM" in repo else ()
            contents = {file: f"{repo}/{file}".encode() * 20 for file in files}
            server.add(repo, contents, downloads=downloads, tags=tags)
        yield server


def result(steps: Generator[object, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value


def look(text: str, board: Board = RK3588, **values: Any) -> Found:
    asked = questions(text, board.format, board.soc)
    return result(search(Hub(), asked, **values))


def fetch(text: str, models: Path, board: Board = RK3588, **values: Any) -> list[PullProgress]:
    return list(pull.pull(text, str(models), backoff=0, board=board, **values))


def searches(remote: LoopbackHub) -> list[str]:
    return [seen.path for seen in remote.seen if seen.path.startswith("/api/models?")]


# --- Searching ---------------------------------------------------------------------------------


def test_the_questions_are_those_that_find_every_publisher() -> None:
    assert questions("qwen3:4b", "rkllm", "RK3588S") == (
        Question(words="qwen3", tag="rkllm"),
        Question(words="qwen3 rkllm"),
        Question(words="qwen3 rk3588"),
    )
    assert questions("llama3.2:1b", "gguf", None) == (Question(words="llama-3.2", tag="gguf"),)
    assert questions("some words", "gguf", None) == (Question(words="some words", tag="gguf"),)


def test_the_union_of_the_answers(remote: LoopbackHub) -> None:
    found = look("qwen3:4b")
    repos = {offer.repo for offer in found.offers}
    assert "dulimov/Qwen3-4B-rk3588-1.2.1-base" in repos
    assert "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3" in repos
    assert all("qwen3" in repo.lower() for repo in repos)
    assert len({(offer.repo, offer.file) for offer in found.offers}) == len(found.offers)
    assert not found.failures
    (first, *_) = searches(remote)
    for part in ("search=qwen3", "filter=rkllm", "expand=siblings", "expand=gated", "limit=100"):
        assert part in first
    assert "full=" not in first


def test_offers_know_what_they_are(remote: LoopbackHub) -> None:
    remote.repos["JiahaoLi/Qwen3-VL-RK3576"].gated = True
    offers = {offer.file: offer for offer in look("qwen3", RK3576).offers}
    vision = offers["qwen3-vl-2b-instruct_w4a16_g128_rk3576.rkllm"]
    assert (vision.kind, vision.encoder) == ("vision", "qwen3-vl-2b_vision_rk3576.rknn")
    assert (vision.gated, vision.downloads) == (True, 16)
    assert offers["Qwen3-Embedding-0.6B-w8a8-rk3588.rkllm"].kind == "embedding"
    assert offers["Qwen3-Reranker-0.6B-w8a8-rk3588.rkllm"].kind == "reranker"


def test_one_unanswered_question_costs_only_its_answer(remote: LoopbackHub) -> None:
    remote.search_faults["qwen3[rkllm]"] = (503, b"busy")
    remote.search_faults["qwen3 rkllm[]"] = (200, b"<html>a portal</html>")
    found = look("qwen3:4b")
    assert "dulimov/Qwen3-4B-rk3588-1.2.1-base" in {offer.repo for offer in found.offers}
    assert len(found.failures) == 2
    assert "out of order" in found.failures[0]
    remote.search_faults["qwen3 rk3588[]"] = (503, b"busy")
    with pytest.raises(HubUnreachable):
        look("qwen3:4b")


def test_a_wrong_token_is_told_and_asked_about_once(
    remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(HubGated, match="a search"):
        look("qwen3:4b")
    assert len(searches(remote)) == 1


def test_offline_is_told(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        look("qwen3:4b")
    assert not remote.seen


@pytest.mark.parametrize(
    "answer",
    [
        {},
        "text",
        [1, None, [], {}],
        [{"id": 5}, {"id": "no-user"}, {"id": "../../etc"}, {"id": "a/b"}],
        [{"id": "u/r", "siblings": 7}, {"id": "u/r", "siblings": [{"rfilename": 8}, 9]}],
        [{"id": "u/r", "siblings": [{"rfilename": "../a.rkllm"}, {"rfilename": "a\x1b[2J.rkllm"}]}],
        [{"id": "u/r", "siblings": [{"rfilename": "a" * 5000 + ".rkllm"}]}],
    ],
)
def test_nothing_is_believed(remote: LoopbackHub, answer: object) -> None:
    for key in ("qwen3[rkllm]", "qwen3 rkllm[]", "qwen3 rk3588[]"):
        remote.search_faults[key] = (200, json.dumps(answer).encode())
    if isinstance(answer, list):
        assert look("qwen3:4b").offers == ()
    else:
        with pytest.raises(PullError, match="no list"):
            look("qwen3:4b")


def test_numbers_are_bounded(remote: LoopbackHub) -> None:
    files = [{"rfilename": f"a{n}-qwen3-4b-w8a8-rk3588.rkllm"} for n in range(5000)]
    rows = [{"id": f"u/r{n}", "siblings": files, "downloads": -1} for n in range(500)]
    rows[0]["downloads"] = 1 << 90
    remote.search_faults["qwen3[rkllm]"] = (200, json.dumps(rows[:20]).encode())
    found = look("qwen3:4b")
    own = [offer for offer in found.offers if offer.repo == "u/r0"]
    assert len(own) == 1000
    assert {offer.downloads for offer in own} == {None}


def test_an_answer_without_end_is_cut_off(
    remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.hub.api.SEARCH_LIMIT", 1000)
    with pytest.raises(PullError, match="more than 1000 bytes"):
        look("qwen3:4b")


# --- The cache ---------------------------------------------------------------------------------


def test_answers_are_used_for_an_hour(remote: LoopbackHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = look("qwen3:4b", cache=str(cache))
    assert len(searches(remote)) == 3
    assert look("qwen3:1.7b", cache=str(cache)) == first
    assert len(searches(remote)) == 3
    for path in cache.iterdir():
        os.utime(path, (time.time() - FRESH - 1,) * 2)
    assert look("qwen3:4b", cache=str(cache)) == first
    assert len(searches(remote)) == 6
    assert remote.unchanged == 3, "what is the same is not sent again"
    look("qwen3:4b", cache=str(cache), refresh=True)
    assert len(searches(remote)) == 9


def test_a_cache_of_nonsense_costs_only_the_question(remote: LoopbackHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = look("qwen3:4b", cache=str(cache))
    for path in cache.iterdir():
        path.write_text('[{"id": "u/r", "files": 3}, 4' + " " * 10)
    assert look("qwen3:4b", cache=str(cache)) == first
    for path in cache.iterdir():
        path.write_text("[]")
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    look("gemma3", cache=str(cache))
    assert len(list(cache.iterdir())) == 3  # those of two days ago are gone
    look("qwen3:4b", cache="/proc/nothing/can/be/written/here")


# --- Finding -----------------------------------------------------------------------------------


def test_a_size_that_does_not_fit_is_noticed_before_the_download(remote: LoopbackHub) -> None:
    """The search tells no sizes; the first choice is 40 times as large as its name says."""
    repo = remote.repos["dulimov/Qwen3-4B-rk3588-1.2.1-base"]
    file = "Qwen3-4B-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm"
    small = Board(soc="RK3588", memory=10 << 30, release="1.3.0")
    plan = result(find(Hub(), parse_wanted("qwen3:4b"), small))
    assert plan.remote
    assert (plan.remote.repo, plan.remote.path) == ("dulimov/Qwen3-4B-rk3588-1.2.1-base", file)
    repo.files[file].announced = 200 << 30
    plan = result(find(Hub(), parse_wanted("qwen3:4b"), small))
    assert plan.remote
    assert plan.remote.path != file or plan.remote.repo != "dulimov/Qwen3-4B-rk3588-1.2.1-base"


# --- Pulling by a name -------------------------------------------------------------------------


def test_pull_by_a_name(remote: LoopbackHub, models: Path) -> None:
    steps = fetch("qwen3:4b", models)
    (note,) = [step.note for step in steps if step.note]
    file = "Qwen3-4B-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm"
    assert note.startswith(f"chose dulimov/Qwen3-4B-rk3588-1.2.1-base/{file}: for RK3588, w8a8")
    assert steps[-1].name == "qwen3:4b"
    assert (models / "qwen3:4b" / file).read_bytes()
    store = Store(str(models))
    assert [info.name for info in store.list()] == ["qwen3:4b"]
    for name in ("qwen3:4b", "QWEN3:4B", "qwen3", file):
        assert store.resolve(name).info.name == "qwen3:4b"


def test_other_boards_get_other_files(remote: LoopbackHub, models: Path) -> None:
    fetch("qwen3:4b", models / "a", RK3576)
    assert (models / "a/qwen3:4b/Qwen3-4B-rk3576-w8a8-v1.2.3-RKLLM.rkllm").exists()
    fetch("library/qwen3:4b", models / "b", CPU)
    assert (models / "b/qwen3:4b/Qwen3-4B-Q4_K_M.gguf").exists()


def test_an_ambiguous_name_is_an_error_with_the_list(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(AmbiguousName, match=r"there are 1\.5B and 7B") as caught:
        fetch("deepseek-r1", models)
    assert caught.value.candidates[:2] == (
        "radxa/DeepSeek-R1-Distill-Qwen-1.5B_RKLLM/DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588.rkllm",
        (
            "VRxiaojie/deepseek-r1-distill-qwen-7B-RK3588S-RKLLM1.1.4/"
            "deepseek-r1-distill-qwen-7B-W8A8-RK3588.rkllm"
        ),
    )
    fetch(f"{caught.value.candidates[0]}/deepseek-r1:1.5b", models)
    assert [path.name for path in models.iterdir() if path.name[0] != "."] == ["deepseek-r1:1.5b"]


def test_what_is_there_as_gguf_only_is_offered_as_such(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(HubNotFound, match=r"no \.rkllm model on the Hub") as caught:
        fetch("mistral:7b", models)
    assert caught.value.hint
    file = "bartowski/Mistral-7B-Instruct-v0.3-GGUF/Mistral-7B-Instruct-v0.3-Q4_K_M.gguf"
    assert caught.value.hint.endswith(f"rkllama pull {file}")
    with pytest.raises(HubNotFound, match="is called nosuchmodel") as caught:
        fetch("nosuchmodel", models)
    assert "rkllama search nosuchmodel --all" in (caught.value.hint or "")
    assert not models.exists()


def test_what_was_begun_is_continued(remote: LoopbackHub, models: Path) -> None:
    """Also when by now another file would be chosen."""
    steps = pull.pull("qwen3:4b", str(models), backoff=0, board=RK3588)
    for step in steps:
        if step.status == "downloading":
            break
    folder = models / "qwen3:4b"
    (folder / "Qwen3-4B-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm.part").write_bytes(b"d")
    steps.close()
    del remote.repos["dulimov/Qwen3-4B-rk3588-1.2.1-unsloth-16k"]
    asked = len(searches(remote))
    assert fetch("qwen3:4b", models)[-1].name == "qwen3:4b"
    assert len(searches(remote)) == asked


def test_the_best_file_of_a_repository(remote: LoopbackHub, models: Path) -> None:
    steps = fetch("dulimov/Qwen3-8B-rk3588-1.2.1-unsloth-16k", models)
    assert [step.note for step in steps if step.note]
    assert steps[-1].name == "Qwen3-8B-rk3588-w8a8-opt-1-hybrid-ratio-0.0"
    steps = fetch("hf.co/dulimov/Qwen3-8B-rk3588-1.2.1-unsloth-16k:w8a8_g512", models)
    assert steps[-1].name == "Qwen3-8B-rk3588-w8a8_g512-opt-1-hybrid-ratio-1.0"


def test_a_repository_for_another_board_is_refused_but_not_its_file(
    remote: LoopbackHub, models: Path
) -> None:
    repo, file = "RKNNAI/RK3576-LLM-Qwen3-1.7B", "Qwen3-1.7B_w4a16_g128_rk3576.rkllm"
    with pytest.raises(Unsupported, match="no file for RK3588: it is for RK3576"):
        fetch(repo, models)
    steps = fetch(f"{repo}/{file}", models)
    assert steps[-1].status == "done"
    (note,) = [step.note for step in steps if step.note]
    assert note == f"{file} is for RK3576, and this is an RK3588: it will not run here"


def test_a_repository_that_names_no_platform_is_asked_about(
    remote: LoopbackHub, models: Path
) -> None:
    remote.add("u/r", {"a-w8a8.rkllm": b"a", "b-w8a8.rkllm": b"b"})
    with pytest.raises(AmbiguousName, match="its platform is not named"):
        fetch("u/r", models)
    remote.add("u/one", {"a-w8a8.rkllm": b"a"})
    assert fetch("u/one", models)[-1].status == "done"  # the user named it, and there is no other


def test_a_file_system_without_colons(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.makedirs

    def without(path: str, *args: Any, **values: Any) -> None:
        if ":" in path:
            raise OSError(22, "Invalid argument", path)
        make(path, *args, **values)

    monkeypatch.setattr(os, "makedirs", without)
    assert fetch("qwen3:4b", models)[-1].name == "qwen3-4b"
    assert Store(str(models)).resolve("qwen3:4b").info.name == "qwen3-4b"


def test_the_service_finds_the_board_and_keeps_the_answers(
    remote: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.board.soc.read_soc", lambda: "RK3588")
    service = LocalService(load_settings(), "test")
    try:
        assert list(service.pull("gemma3:1b"))[-1].name == "gemma3:1b"
        asked = len(searches(remote))
        assert list(service.pull("gemma3:1b"))[-1].name == "gemma3:1b"
        assert list(service.pull("gemma3:4b"))[-1].name == "gemma3:4b"
        assert len(searches(remote)) == asked
        assert len(list((Path(load_settings().cache)).iterdir())) == 3
        # A file that is here already gets the name that was asked for.
        file = "gemma-3-1b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm/mine:1b"
        steps = service.pull(f"thanhtantran/gemma-3-1b-it-rk3588-1.2.1/{file}")
        assert list(steps)[-1].name == "mine:1b"
        assert {info.name for info in service.models()} == {"gemma3:1b", "gemma3:4b", "mine:1b"}
    finally:
        service.close()


def test_the_answer_of_a_search_is_not_needed_for_a_mirror(
    remote: LoopbackHub, models: Path
) -> None:
    remote.serve_api = False
    repo = "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3"
    steps = fetch(f"{repo}/Qwen3-1.7B-w8a8-rk3588.rkllm", models)
    assert steps[-1].status == "done"
    assert Library().cache is None


def test_clients_of_ollama_pull_a_name_and_then_see_it(remote: LoopbackHub, home: Path) -> None:
    """Open WebUI and Home Assistant look for the very name that they have pulled."""
    with Server(env={"HF_ENDPOINT": remote.endpoint}) as server:
        lines = server.post("/api/pull", {"model": "qwen3:4b"}).body.decode().splitlines()
        steps = [json.loads(line)["status"] for line in lines]
        assert steps[0] == "pulling manifest"
        chosen = "chose Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf: for the CPU, Q4_K_M, best of 5"
        assert f"{chosen} that fit" in steps
        assert steps[-1] == "success"
        (entry,) = server.get("/api/tags").json["models"]
        assert entry["name"] == "qwen3:4b"
        assert server.post("/api/pull", {"model": "qwen3:4b", "stream": False}).status == 200
        text = server.post("/pull", {"model": "qwen2.5:0.5b"}).body.decode()
        assert text.splitlines()[0].startswith("Téléchargement qwen2.5-0.5b-instruct-q4_k_m.gguf")
        names = [entry["name"] for entry in server.get("/api/tags").json["models"]]
        assert names == ["qwen2.5:0.5b", "qwen3:4b"]
        missing = server.post("/api/pull", {"model": "nosuchmodel", "stream": False})
        assert missing.status == 404
        deleted = server.request("DELETE", "/api/delete", {"model": "qwen3:4b"})
        assert deleted.status == 200
        assert len(server.get("/api/tags").json["models"]) == 1
