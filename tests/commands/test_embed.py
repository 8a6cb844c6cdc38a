"""`rkllama embed` and `rkllama rerank`: one JSON object a line, with a server and without."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import prepared
from tests.running import LIMIT, Server
from tests.terminal import CTRL_D, Terminal
from tests.test_cli import failure, output, rkllama
from tests.virtual_npu import read_trace, write_model

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def trace(models: Path, npu: str, tmp_path: Path) -> Path:
    path = tmp_path / "trace"
    write_model(models / "bge-m3.rkllm", embd_size=16, trace=str(path))
    return path


def rows(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> list[Any]:
    text = output("embed", *arguments, stdin=stdin, env=env)
    return [json.loads(line) for line in text.splitlines()]


def test_texts_are_embedded(where: dict[str, str]) -> None:
    found = rows("bge", "hello", "größer", "hello", env=where)
    assert [(row["index"], row["text"]) for row in found] == [
        (0, "hello"),
        (1, "größer"),
        (2, "hello"),
    ]
    assert list(found[0]) == ["index", "text", "embedding"]
    for row in found:
        assert math.isclose(math.hypot(*row["embedding"]), 1, rel_tol=1e-5)
    assert found[0]["embedding"] == found[2]["embedding"] != found[1]["embedding"]


def test_a_server_gives_the_same_vectors(models: Path) -> None:
    alone = rows("bge", "hello")
    with Server() as server:
        assert rows("bge", "hello", env={"RKLLAMA_HOST": server.url}) == alone


def test_each_line_of_stdin_is_a_text(where: dict[str, str]) -> None:
    found = rows("bge", stdin="one\n\n  \r\ntwo\r\nthree", env=where)
    assert [(row["index"], row["text"]) for row in found] == [(0, "one"), (3, "two"), (4, "three")]
    found = rows("bge", "first", "-", "last", stdin="a\nb\n", env=where)
    assert [row["text"] for row in found] == ["first", "a", "b", "last"]
    assert [row["index"] for row in found] == [0, 1, 2, 3]
    assert rows("bge", env=where) == []


def test_vectors_come_while_stdin_is_still_open() -> None:
    process = prepared.Popen(
        [sys.executable, "-m", "rkllama", "embed", "bge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(f"line {number}\n" for number in range(16)))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "line 0"
    process.stdin.write("end\n")
    process.stdin.close()
    assert len(process.stdout.readlines()) == 16
    assert process.wait(LIMIT) == 0
    process.stdout.close()


def test_texts_typed_on_a_terminal_are_embedded_one_by_one(models: Path) -> None:
    write_model(models / "slow-bge-m3.rkllm", embd_size=4, load_ms=400)
    with Terminal("embed", "slow", columns=300) as terminal:
        terminal.expect("Each line is a text; Ctrl-D ends them.\n")
        terminal.type("one\n")
        terminal.expect_spinner("Embedding…")
        terminal.expect('{"index": 0, "text": "one", "embedding": [')
        terminal.type("two\n")
        terminal.expect('{"index": 1, "text": "two", "embedding": [')
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_fewer_dimensions() -> None:
    (row,) = rows("bge", "hello", "--dimensions", "4")
    assert len(row["embedding"]) == 4
    assert math.isclose(math.hypot(*row["embedding"]), 1, rel_tol=1e-5)
    assert "dimensions" in failure("embed", "bge", "hello", "--dimensions", "17")
    assert "--dimensions" in failure("embed", "bge", "hello", "--dimensions", "0", status=2)


def test_a_text_that_is_too_long_is_cut_or_refused(where: dict[str, str]) -> None:
    long = "word " * 100
    (row,) = rows("bge", long, "--ctx", "32", env=where)
    assert row["text"] == long
    error = failure("embed", "bge", long, "--ctx", "32", "--no-truncate", env=where)
    assert "32" in error


def test_a_file_that_is_no_model_yet(tmp_path: Path) -> None:
    write_model(tmp_path / "own-bge-m3.rkllm", embd_size=8)
    (row,) = rows(f"{tmp_path}/own-bge-m3.rkllm", "hello")
    assert len(row["embedding"]) == 8


def test_what_goes_wrong() -> None:
    assert "model 'nothing' not found" in failure("embed", "nothing", "hello")
    done = rkllama("embed", "bge", stdin=b"caf\xe9\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the text on stdin is not UTF-8" in done.stderr


def test_a_reader_that_has_seen_enough() -> None:
    process = prepared.Popen(
        [sys.executable, "-m", "rkllama", "embed", "bge", *["hello"] * 400],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(LIMIT)


def test_one_model_is_loaded_once_for_many_texts(trace: Path) -> None:
    assert len(rows("bge", *["hello"] * 40)) == 40
    assert [event["event"] for event in read_trace(trace)].count("init") == 1


RERANKER = "Qwen3-Reranker-0.6B-rk3588"


@pytest.fixture
def reranker(models: Path) -> str:
    folder = models / RERANKER
    tokens = {"yes_id": 1500, "no_id": 1501}
    write_model(folder / f"{RERANKER}.rkllm", vocab_size=2048, eos_id=2000, **tokens)
    lines = "PARAMETER yes_token_id 1500\nPARAMETER no_token_id 1501\n"
    (folder / "Modelfile").write_text(f"FROM {RERANKER}.rkllm\n{lines}")
    return RERANKER


def test_texts_are_ranked(reranker: str, where: dict[str, str]) -> None:
    texts = ["Bananas", "Paris is the capital of France"]
    text = output("rerank", reranker, "capital of France?", *texts, env=where)
    best, worst = map(json.loads, text.splitlines())
    assert list(best) == ["index", "text", "score"]
    assert (best["index"], best["text"], worst["index"]) == (1, texts[1], 0)
    assert 0 < worst["score"] < 0.1 < 0.9 < best["score"] < 1
    lines = "Bananas\n\nParis in France"
    text = output("rerank", "--top", "1", reranker, "France", stdin=lines, env=where)
    assert [json.loads(line)["index"] for line in text.splitlines()] == [2]
    assert output("rerank", reranker, "France", stdin="", env=where) == ""


def test_a_model_that_does_not_rank_is_named(where: dict[str, str]) -> None:
    text = failure("rerank", "bge", "q", "text", env=where)
    assert text.startswith("Error: bge-m3 is not a reranker\nUse one: ")
