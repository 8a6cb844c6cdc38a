"""Structured output through npm's `ai` package, from a model that writes keys and values wrong."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.common import MODEL, ask
from tests.clients.test_js import installed
from tests.running import LIMIT, Server

pytestmark = pytest.mark.integration

PACKAGES = ("ai@6.0.326", "@ai-sdk/openai-compatible@2.0.92")
SCRIPT = Path(__file__).with_name("ai_sdk.cjs")
EGGS: dict[str, Any] = {"title": "Boiled eggs", "servings": 2, "steps": ["Boil water", "Wait"]}


@pytest.fixture(scope="session")
def packages() -> str:
    """The node_modules that holds the packages."""
    return installed(*PACKAGES)


def _run(packages: str, server: Server, scenario: str, value: dict[str, Any], seed: int) -> Any:
    faults = {"faults": 30, "fault_tries": 2, "seed": seed, "token_us": 2000} if seed else {}
    question = ask("Eggs?", reply=json.dumps(value), **faults)["content"]
    run = subprocess.run(
        ["node", str(SCRIPT), scenario, server.url, MODEL, question],
        env={**os.environ, "NODE_PATH": packages},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_an_object(packages: str, scripted: Server) -> None:
    value = _run(packages, scripted, "output", EGGS, 1)
    assert value["servings"] == 2
    assert value.keys() == EGGS.keys()


def test_a_streamed_object(packages: str, scripted: Server) -> None:
    seen = _run(packages, scripted, "streamed", EGGS, 2)
    assert seen["object"]["servings"] == 2
    assert len(seen["partial"]) > 3
    assert "steps" not in seen["partial"][0]


def test_a_failure(packages: str, scripted: Server) -> None:
    seen = _run(packages, scripted, "failure", {**EGGS, "servings": "enough for all"}, 0)
    assert seen["name"] == "AI_NoObjectGeneratedError"
    assert "no value that fits at $.servings" in seen["text"]
