"""`search`, `pull NAME` and `run NAME` as their users meet them: at 80 columns, and in a pipe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prepared
from tests.hub.loopback import LoopbackHub
from tests.hub.names import REPOSITORIES
from tests.running import LIMIT, Server
from tests.terminal import CTRL_D, RKLLAMA, Terminal
from tests.test_cli import rkllama
from tests.virtual_npu.model import write_model

pytestmark = pytest.mark.integration

CHOSEN = "dulimov/Qwen3-1.7B-rk3588-1.2.1-unsloth-16k/Qwen3-1.7B-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Path) -> Iterator[LoopbackHub]:
    """A Hub, and the files of a board: what finds a model asks for the SoC first."""
    write_model(tmp_path / "any.rkllm")
    model = (tmp_path / "any.rkllm").read_bytes()
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        for repo, (downloads, files) in REPOSITORIES.items():
            contents = {file: model + f"{repo}/{file}".encode() for file in files}
            server.add(repo, contents, downloads=downloads, tags=("rkllm",))
        yield server


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return prepared.run(
        [*RKLLAMA, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def pulled(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if path.name[0] != ".")


# --- search ------------------------------------------------------------------------------------


def test_search_prints_a_table_of_names_to_type(remote: LoopbackHub) -> None:
    done = command("search", "qwen3")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["NAME", "PARAMS", "QUANT", "CTX", "KIT", "SIZE", "LOADS", "BY"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["qwen3:4b"] == ["4B", "w8a8", "-", "1.2.1", "4.6G", "300", "dulimov"]
    assert rows["qwen3-vl:2b"][-1] == "vision"
    assert rows["qwen3-embedding:0.6b"][-1] == "embed"
    assert rows["qwen3-reranker:0.6b"][-1] == "rerank"
    assert "rk3576" not in done.stdout.lower()
    assert done.stderr.startswith("For RK3588; ")
    every = command("search", "qwen3", "--all").stdout
    assert "it is for RK3576" in every
    assert "it was made by toolkit 1.4.0, newer than the runtime 1.3.0" in every


def test_search_fits_80_columns(remote: LoopbackHub) -> None:
    with Terminal("search", "qwen3") as terminal:
        terminal.expect("rkllama pull NAME")
        assert terminal.end() == 0
        lines = terminal.screen.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("qwen3:4b-instruct-2507  ") for line in lines)


def test_search_for_another_board_and_for_the_cpu(remote: LoopbackHub) -> None:
    rows = json.loads(command("search", "qwen3", "--soc", "rk3576", "--json").stdout)
    best = next(row for row in rows if row["name"] == "qwen3:4b")
    assert (best["platform"], best["fits"], best["size"]) == ("rk3576", True, None)
    vision = next(row for row in rows if row["name"] == "qwen3-vl:2b")
    assert (vision["kind"], vision["encoder"]) == ("vision", "qwen3-vl-2b_vision_rk3576.rknn")
    foreign = [row for row in rows if row["platform"] == "rk3588"]
    assert foreign
    assert not any(row["fits"] for row in foreign)
    rows = json.loads(command("search", "qwen3:4b", "--gguf", "--json").stdout)
    assert {row["format"] for row in rows if row["fits"]} == {"gguf"}
    assert rows[0]["name"] == "qwen3:4b"
    assert command("search", "x", "--soc", "pentium").returncode == 2


def test_every_name_of_the_table_leads_to_its_row(remote: LoopbackHub) -> None:
    rows = json.loads(command("search", "qwen3", "--json").stdout)
    for row in [row for row in rows if row["name"].startswith("qwen3")][:4]:
        done = command("pull", row["name"], "--dry-run")
        assert f"Would fetch {row['repo']}/{row['file']}:" in done.stderr


def test_what_is_not_there_is_told(remote: LoopbackHub) -> None:
    done = command("search", "mistral")
    assert done.stdout == ""
    assert done.stderr == (
        "The Hub has no .rkllm model of that name. For the CPU: rkllama search mistral --gguf\n"
    )
    remote.search_faults["qwen3[rkllm]"] = (503, b"")
    done = command("search", "qwen3", "--refresh")
    assert done.returncode == 0
    assert done.stderr.startswith("Not answered: qwen3 [rkllm]: ")
    remote.api_fault = (503, {})
    done = command("search", "qwen3", "--refresh")
    assert done.returncode == 1
    assert "overloaded or out of order" in done.stderr


# --- pull --------------------------------------------------------------------------------------


def test_pull_says_what_it_chose_and_why(remote: LoopbackHub, models: Path) -> None:
    done = command("pull", "qwen3:1.7b")
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stderr.splitlines()
    assert first == (
        f"Chose {CHOSEN}: for RK3588, w8a8, toolkit 1.2.1, opt-1, context 16384, best of 5 that fit"
    )
    assert last == "Done. Try it: rkllama run qwen3:1.7b"
    assert pulled(models) == ["qwen3:1.7b"]
    rows = json.loads(command("search", "qwen3:1.7b", "--json").stdout)
    assert [row["file"] for row in rows if row["here"]] == [CHOSEN.rpartition("/")[2]]


def test_dry_run_lists_the_candidates_with_scores(remote: LoopbackHub, models: Path) -> None:
    done = command("pull", "qwen3:1.7b", "--dry-run")
    assert done.returncode == 0
    head, first, *others = done.stdout.splitlines()
    assert head.split() == ["FILE", "QUANT", "KIT", "SIZE", "SCORE"]
    assert first.startswith(CHOSEN)
    assert first.endswith("<")
    assert any("it is for RK3576" in line for line in others)
    assert pulled(models) == []


def test_dry_run_of_a_repository(remote: LoopbackHub, models: Path) -> None:
    done = command("pull", "dulimov/Qwen3-8B-rk3588-1.2.1-unsloth-16k", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "w8a8-opt-1-hybrid-ratio-0.0.rkllm: for RK3588" in done.stderr
    assert "there is no choice" in command("pull", CHOSEN, "--dry-run").stderr


def test_a_machine_without_npu_searches_for_gguf(
    remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKLLAMA_SYSROOT")
    done = rkllama("search", "qwen3:4b")
    assert done.stdout.splitlines()[1].split()[:3] == ["qwen3:4b", "4B", "Q4_K_M"]
    assert done.stderr.startswith("For the CPU; 4 more with --all.")


def test_an_ambiguous_name_is_asked_about_on_a_terminal(remote: LoopbackHub, models: Path) -> None:
    done = command("pull", "deepseek-r1")
    assert done.returncode == 1
    assert "Error: deepseek-r1 is ambiguous: there are 1.5B and 7B: radxa/" in done.stderr
    with Terminal("pull", "deepseek-r1") as terminal:
        terminal.expect(
            " 1  1.5B w8a8 rk3588, radxa/DeepSeek-R1-Distill-Qwen-1.5B_RKLLM\n    DeepSeek"
        )
        terminal.expect(" 2  7B w8a8 rk3588, VRxiaojie/")
        terminal.expect("Which one? [1-")
        terminal.type("2\n")
        terminal.expect("Done. Try it: rkllama run deepseek-r1\n")
        assert terminal.end() == 0
    assert pulled(models) == ["deepseek-r1"]
    with Terminal("pull", "gemma3") as terminal:
        terminal.expect("Which one? [1-")
        terminal.type("\n")
        terminal.expect("Error: gemma3 is ambiguous")
        assert terminal.end() == 1


def test_pull_through_a_server_asks_too(
    remote: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no NPU here: what it means is a .gguf."""
    monkeypatch.delenv("RKLLAMA_SYSROOT")
    files = {"Tiny-1B-Q4_K_M.gguf": b"a", "Tiny-2B-Q4_K_M.gguf": b"b"}
    remote.add("user/tiny-GGUF", files)
    with Server() as server, Terminal("pull", "tiny", env={"RKLLAMA_HOST": server.url}) as terminal:
        terminal.expect("Which one? [1-2, Enter: none] ")
        terminal.type("1\n")
        terminal.expect("Done. Try it: rkllama run tiny\n")
        assert terminal.end() == 0
        (entry,) = server.get("/api/tags").json["models"]
        assert (entry["name"], entry["details"]["file"]) == ("tiny:latest", "Tiny-1B-Q4_K_M.gguf")


# --- run ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("npu")
def test_run_fetches_what_is_not_here_after_asking(remote: LoopbackHub, models: Path) -> None:
    with Terminal("run", "qwen3:1.7b", "hello") as terminal:
        terminal.expect("qwen3:1.7b is not here. The Hub has it for RK3588, w8a8, ")
        terminal.expect("Fetch it (")
        terminal.expect(")? [Y/n] ")
        terminal.type("\n")
        terminal.expect("hello\n")
        assert terminal.end() == 0
    assert pulled(models) == ["qwen3:1.7b"]
    with Terminal("run", "qwen3:1.7b", "again") as terminal:
        terminal.expect("again\n")
        assert terminal.end() == 0
        assert "[Y/n]" not in terminal.screen


@pytest.mark.usefixtures("npu")
@pytest.mark.parametrize("key", ["n\n", CTRL_D])
def test_run_takes_no_for_an_answer(remote: LoopbackHub, models: Path, key: str) -> None:
    with Terminal("run", "qwen3:1.7b", "hello") as terminal:
        terminal.expect("? [Y/n] ")
        terminal.type(key)
        terminal.expect("Error: model 'qwen3:1.7b' not found")
        assert terminal.end() == 1
    assert pulled(models) == []


@pytest.mark.usefixtures("npu")
def test_run_of_a_file_or_a_repository_of_the_hub(remote: LoopbackHub, models: Path) -> None:
    with Terminal("run", CHOSEN, "hello") as terminal:
        terminal.expect("is not here. Fetch it? [Y/n] ")
        terminal.type("\n")
        terminal.expect("hello\n")
        assert terminal.end() == 0
    done = command("run", "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3", "hi", "--no-stdin", "--pull")
    assert (done.returncode, done.stdout) == (0, "hi\n")


@pytest.mark.usefixtures("npu")
def test_pull_and_no_pull_decide(remote: LoopbackHub, models: Path) -> None:
    for options in ([], ["--no-pull"]):
        done = command("run", "qwen3:1.7b", "hello", "--no-stdin", *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert "model 'qwen3:1.7b' not found" in done.stderr
    assert not remote.seen
    done = command("run", "deepseek-r1", "hello", "--no-stdin", "--pull")
    assert done.returncode == 1
    assert "deepseek-r1 is ambiguous" in done.stderr
    done = command("run", "qwen3:1.7b", "hello", "--no-stdin", "--pull")
    assert (done.returncode, done.stdout) == (0, "hello\n")


@pytest.mark.usefixtures("npu")
def test_run_of_what_nobody_has_says_so(remote: LoopbackHub, models: Path) -> None:
    with Terminal("run", "nosuchmodel", "hello") as terminal:
        terminal.expect("Error: model 'nosuchmodel' not found")
        terminal.expect("Not on the Hub either: no .rkllm model on the Hub is called nosuchmodel.")
        assert terminal.end() == 1


@pytest.mark.usefixtures("npu")
def test_run_offers_a_gguf_where_nothing_else_is_there(remote: LoopbackHub, models: Path) -> None:
    with Terminal("run", "mistral:7b", "hello") as terminal:
        terminal.expect("mistral:7b is not here, and the Hub has it for the CPU only:\n")
        terminal.expect("  Mistral-7B-Instruct-v0.3-Q4_K_M.gguf\nFetch it (~4.2 GB)? [Y/n] ")
        terminal.type("n\n")
        terminal.expect("Error: model 'mistral:7b' not found")
        assert terminal.end() == 1
        assert max(map(len, terminal.screen.splitlines())) <= 80
