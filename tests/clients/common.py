"""What the tests of the client packages share: the scripted model, and questions to it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rkllama.models import guide
from tests.conftest import isolate
from tests.running import Server
from tests.virtual_npu import directive, library, write_model

MODEL = "qwen2.5-rk3588-w8a8"
THINKER = "qwen3-1.7b-rk3588-w8a8"
GUIDE_FILE = Path(guide.FILE)
"""The small language model that comes with the package."""


@contextlib.contextmanager
def serving_guide(
    base: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[Server, Path]]:
    """A server with a home of its own below `base`, the guide in its models directory, and the virtual
    NPU for what is put there meanwhile; with it comes that directory. `env` is added to its environment.
    """
    assert GUIDE_FILE.is_file(), "the guide is missing: python -m tools.guide.train makes it"
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, base) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        shutil.copy(GUIDE_FILE, models)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        with Server(*arguments, env=env) as running:
            yield running, models


def install(models: Path) -> None:
    """Put the scripted model into the models directory."""
    write_model(models / f"{MODEL}.rkllm")


def install_thinker(models: Path) -> None:
    """A model whose template knows thinking, and which thinks before it says "Yes."."""
    write_model(models / f"{THINKER}.rkllm", reply="<think>\nHmm.\n</think>\n\nYes.")


def ask(text: str, **config: object) -> Any:
    """A user's message; the virtual NPU answers what `config` scripts, else it echoes."""
    return {"role": "user", "content": text + (" " + directive(**config) if config else "")}


def tool_call(*cities: str) -> str:
    """What a Qwen model writes to ask for the weather in each of `cities`."""
    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in cities]
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
