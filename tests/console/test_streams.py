"""Texts of others on a terminal: none of them commands it. In a pipe they are data, as they are."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rkllama.console.streams import control, guarded, printable
from tests.client.test_remote import Canned
from tests.running import LIMIT
from tests.terminal import RKLLAMA, Terminal
from tests.virtual_npu import write_model

EVIL = "a\x1b]0;title\x07b \x1b[31mc\x9b2Jd\x7f\u202ee\u2066f\rg\bh"
HARMLESS = "a]0;titleb [31mc2Jdefgh"
_COMMAND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PLAIN = {"TERM": "dumb"}
"""No spinner and no colour: every control character is somebody else's."""


def screen(*arguments: str, status: int = 0, env: dict[str, str] | None = None) -> str:
    """What a command sends to a terminal, and that none of it commands it."""
    with Terminal(*arguments, env={**PLAIN, **(env or {})}, columns=200) as command:
        assert command.end() == status, command.raw
        text = command.raw.replace("\r\n", "\n")
        assert not _COMMAND.findall(text), text
        return text


def piped(*arguments: str) -> bytes:
    return subprocess.run(
        [*RKLLAMA, *arguments], stdout=subprocess.PIPE, timeout=LIMIT, check=True
    ).stdout


@pytest.mark.integration
def test_what_a_model_says_of_itself(models: Path, npu: str) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm")
    evil = EVIL.replace("\r", "")  # it would end the line
    (models / "m" / "Modelfile").write_text(
        f"FROM m.rkllm\nSYSTEM {evil}\nLICENSE {evil}\nTEMPLATE {evil}\nPARAMETER stop {evil}\n",
    )
    assert screen("show", "m").count(HARMLESS) == 3
    for part in ("system", "license", "template", "modelfile"):
        assert HARMLESS in screen("show", "m", f"--{part}")
    assert piped("show", "m", "--system").decode() == f"{evil}\n"
    assert json.loads(screen("show", "m", "--json")), "still JSON"


@pytest.mark.integration
def test_what_a_model_answers(models: Path, npu: str) -> None:
    """A colour of a model's own is none of ours; its sequences come in pieces, too."""
    write_model(models / "m.rkllm", reply=f"{EVIL} \x1b [ 3 1 m\ttab\nline")
    for form in ((), ("--nowordwrap",)):
        assert HARMLESS in screen("run", "m", "hi", *form)
    assert piped("run", "m", "hi").decode() == f"{EVIL} \x1b [ 3 1 m\ttab\nline\n"
    write_model(models / "DeepSeek-R1-1.5B.rkllm", reply=f"<think>{EVIL}</think>\n\nFour.")
    assert HARMLESS in screen("run", "DeepSeek-R1-1.5B", "2+2?")


@pytest.mark.integration
def test_what_a_server_says() -> None:
    model = {
        "name": EVIL,
        "size": 1,
        "modified_at": "2025-11-01T00:00:00+00:00",
        "details": {
            "file": EVIL,
            "format": EVIL,
            "parameter_size": EVIL,
            "quantization_level": EVIL,
            "platform": EVIL,
        },
    }
    answers: dict[str, Any] = {
        "GET /api/version": (200, [b'{"rkllama":"1"}']),
        "GET /api/tags": (200, [json.dumps({"models": [model, {**model, "name": "b"}]}).encode()]),
        "GET /api/ps": (500, [json.dumps({"error": EVIL, "hint": EVIL}).encode()]),
    }
    with Canned(answers) as server:
        there = {"RKLLAMA_HOST": server.address}
        first, second = screen("list", env=there).splitlines()[-2:]
        assert HARMLESS in first
        assert first.rindex(" ago") == second.rindex(" ago"), "columns are aligned"
        assert screen("ps", status=1, env=there).count(HARMLESS) == 2


@pytest.mark.integration
@pytest.mark.usefixtures("models")
def test_what_was_typed_or_lies_about() -> None:
    assert HARMLESS in screen("show", EVIL, status=1)
    assert HARMLESS in screen("cp", EVIL, "b", status=1)


def test_every_write_is_guarded() -> None:
    raw = io.BytesIO()
    stream = guarded(io.TextIOWrapper(raw, encoding="utf-8"))
    assert stream.write(EVIL) == len(EVIL)
    print(EVIL, file=stream)
    stream.writelines([EVIL])
    control(stream, "\x1b[0m")
    stream.flush()
    assert raw.getvalue().decode() == f"{HARMLESS}{HARMLESS}\n{HARMLESS}\x1b[0m"


def test_text_stays_as_it_is() -> None:
    text = "a\tb\nc é 漢 \u200d\u200f 🎉"
    assert printable(text) == text


@pytest.mark.integration
def test_a_terminal_that_takes_ascii_only_is_no_way_around(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", reply=f"{EVIL}é")
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    assert f"{HARMLESS}?" in screen("run", "m", "hi", env=env)
    assert screen("show", os.fsdecode(b"\xff\x1b[31m"), status=1, env=env)
