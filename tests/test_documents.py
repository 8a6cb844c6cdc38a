"""The examples in the documents, run as they are printed, against a server over the virtual NPU."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.running import LIMIT, Reply, Server
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[1] / "docs"
MODELS = ("Qwen2.5-1.5B-Instruct-w8a8-rk3588", "Qwen3-1.7B-w8a8-rk3588")


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    text = (DOCS / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def curls(document: str) -> Iterator[list[str]]:
    """The arguments of every curl command."""
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "curl":
                yield words[1:]


def perform(server: Server, arguments: list[str]) -> Reply:
    """What curl would do, as far as the documents use it."""
    method, path, data, headers = None, "", None, {}
    words = iter(arguments)
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-d":
            data = next(words).encode()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word != "-N":
            path = urlsplit(word).path
    return server.request(method or ("POST" if data else "GET"), path, data, headers)


def install(models: Path) -> None:
    for name in MODELS:
        write_model(models / f"{name}.rkllm", reply="Bonjour ! Je vais bien, merci.")


@pytest.mark.parametrize("document", ["api.md", "clients.md"])
def test_the_curl_commands_are_answered(document: str, server: Server, models: Path) -> None:
    ask_the_hub = ("/pull", "/search")
    commands = [
        words
        for words in curls(document)
        if not any(path in word for word in words for path in ask_the_hub)
    ]
    assert commands
    for arguments in commands:
        install(models)  # one of the commands deletes a model
        write_model(models / "qwen3-reranker.rkllm", yes_id=9693, no_id=2152)
        answer = perform(server, arguments)
        assert answer.status == 200, (arguments, answer.body)
        assert b'"error":' not in answer.body.replace(b'"error":null', b""), arguments


def test_the_answers_of_the_native_api_are_as_printed(server: Server, models: Path) -> None:
    install(models)
    section = blocks("api.md", "sh")[0]
    printed = re.findall(r"^curl (.*)\n# (.*)$", section, re.M)
    assert len(printed) == 5
    for command, expected in printed:
        assert perform(server, shlex.split(command)).body.decode() == expected


@pytest.mark.parametrize("example", blocks("clients.md", "python"))
def test_the_python_clients_run_as_printed(example: str, server: Server, models: Path) -> None:
    """In a process of its own: they close no client, which would be another test's warning here."""
    install(models)
    program = example.replace("http://board:8080", server.url)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT)
    assert [model["state"] for model in server.get("/health").json["models"]] == ["ready"]
