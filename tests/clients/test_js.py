"""npm's `ollama` package, run by node, against a running server."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients.common import (
    GUIDE_FILE,
    MODEL,
    THINKER,
    ask,
    install,
    install_thinker,
    tool_call,
)
from tests.running import LIMIT, Server

pytestmark = pytest.mark.integration

PACKAGE = "ollama@0.6.4"
SCRIPT = Path(__file__).with_name("js.cjs")

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def packages() -> str:
    """The node_modules that holds the package."""
    return installed(PACKAGE)


def installed(*names: str) -> str:
    """Return the node_modules that holds npm packages: installed once, used by parallel processes."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    base = Path(tempfile.gettempdir(), f"rkllama-npm-{os.getuid()}")
    target = base / "+".join(name.replace("/", "-") for name in names)
    if not target.exists():
        _install(base, target, names)
    return str(target / "node_modules")


def _install(base: Path, target: Path, names: tuple[str, ...]) -> None:
    base.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as work:
        made = Path(work, "made")
        command = ["npm", "install", "--prefix", str(made), "--ignore-scripts", *names]
        command.append("--fetch-retries=0")  # where there is no registry, that is known at once
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm could not install {' '.join(names)} within a minute")
        if run.returncode:
            pytest.skip(f"npm could not install {' '.join(names)}: {run.stderr.strip()[:300]}")
        # Another process may have been faster; its installation is as good.
        if not target.exists():
            made.rename(target)


@pytest.fixture
def js(scripted: Server, packages: str) -> Run:
    """Runs a scenario of js.cjs against the scripted model; answers what it printed."""
    return functools.partial(run_node, packages, scripted.url)


@pytest.fixture
def own(server: Server, models: Path, packages: str) -> Run:
    """The same with a server for this test alone."""
    install(models)
    return functools.partial(run_node, packages, server.url)


def run_node(
    packages: str, url: str, scenario: str, text: str = "", model: str = MODEL, **config: object
) -> Any:
    question = ask(text, **config)["content"]
    run = subprocess.run(
        ["node", str(SCRIPT), scenario, url, model, question],
        env={**os.environ, "NODE_PATH": packages},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


def test_chat_with_thinking(own: Run, models: Path) -> None:
    install_thinker(models)
    answer = own("chat", "Really?", model=THINKER)
    assert answer["message"]["thinking"].strip() == "Hmm."
    assert answer["message"]["content"] == "Yes."
    assert answer["done_reason"] == "stop"
    assert answer["eval_count"] > 0


def test_chat_streamed(js: Run) -> None:
    parts = js("streamed", "one two three four")
    assert "".join(part["message"]["content"] for part in parts) == "one two three four"
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]


def test_signs_of_life_are_skipped(models: Path, npu: str, packages: str) -> None:
    install(models)
    with Server(env={"RKLLAMA_ALIVE_INTERVAL": "0.1"}) as server:
        parts = run_node(
            packages, server.url, "streamed", "a b c d", reply="one two", prefill_us=8000
        )
    assert parts[0]["queue_position"] == 0
    assert "".join(part["message"]["content"] for part in parts) == "one two"
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate_streamed(js: Run) -> None:
    parts = js("generated", "hello you")
    assert "".join(part["response"] for part in parts) == "hello you"


def test_the_build_for_browsers(js: Run) -> None:
    assert js("browser", "hello")["message"]["content"] == "hello"


def test_aborting_frees_the_model(js: Run) -> None:
    seen = js("aborted", "go on", tokens=100_000, token_us=10_000)
    assert seen["seen"] >= 1
    assert seen["error"]["name"] == "AbortError"
    assert seen["after"] == "free again"


def test_tools(js: Run) -> None:
    seen = js("toolLoop", "How is the weather in Nantes?", reply=tool_call("Nantes"))
    assert seen["called"]["name"] == "get_weather"
    assert seen["called"]["arguments"] == {"city": "Nantes"}
    assert seen["answer"] == "It is mild."


def test_structured_output(js: Run) -> None:
    country = {"name": "France", "capital": "Paris"}
    answer = js("format", "France?", reply=json.dumps(country))
    assert json.loads(answer["message"]["content"]) == country


def test_embed(js: Run) -> None:
    first, second = js("embed")["embeddings"]
    assert first != second
    assert sum(x * x for x in first) == pytest.approx(1.0, abs=1e-4)


def test_version_ps_and_show(own: Run) -> None:
    seen = own("status")
    assert [int(part) for part in seen["version"].split(".")] >= [0, 6, 4]
    assert seen["before"] == 0
    (loaded,) = seen["loaded"]
    assert loaded["name"] == f"{MODEL}:latest"
    assert datetime.fromisoformat(loaded["expires"]).tzinfo is not None
    assert "tools" in seen["capabilities"]


def test_create_copy_list_and_delete(own: Run) -> None:
    seen = own("models")
    assert seen["steps"][-1] == "success"
    assert seen["system"] == "You are a pirate."
    assert seen["parameters"] == "num_predict                    3"
    assert seen["names"] == ["pirate:latest", f"{MODEL}:latest"]


def test_errors_are_the_packages_own(js: Run) -> None:
    seen = js("errors", "x", tokens=9, segv_at=5)
    assert seen["unknown"]["name"] == "ResponseError"
    assert seen["unknown"]["status"] == 404
    assert "nothing-here" in seen["unknown"]["message"]
    assert seen["pull"]["status"] == 400
    assert "not a model" in seen["pull"]["message"]
    assert seen["midway"]["name"] == "Error"
    assert "SIGSEGV" in seen["midway"]["message"]


def test_the_guide(models: Path, packages: str) -> None:
    shutil.copy(GUIDE_FILE, models)
    with Server() as running:
        parts = run_node(packages, running.url, "streamed", "How do I pull a model?", model="guide")
    assert "rkllama pull" in "".join(part["message"]["content"] for part in parts)
    assert parts[-1]["done"]
