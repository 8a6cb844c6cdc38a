"""A models directory to write into, and the store over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkllama.models.authoring import WritableStore

Put = Callable[..., Path]


@pytest.fixture
def put(models: Path) -> Put:
    """Writes a file into the models directory."""

    def write(path: str, content: str | bytes = "x") -> Path:
        file = models / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.fixture
def store(models: Path) -> Iterator[WritableStore]:
    made = WritableStore(str(models))
    yield made
    made.close()


@pytest.fixture
def zoo(put: Put) -> None:
    put("Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm")
    put("llama/Llama-3.2-1B-rk3588-w8a8_g128.rkllm")
    put("gemma/gemma-2b-w8a8.rkllm")
    put("gemma/gemma-2b-w4a16.rkllm")
    put("tiny.gguf")
    put("poet/Modelfile", "FROM llama\nSYSTEM rhyme")


def tree(directory: Path) -> set[str]:
    """Every path below a directory, the store's own folder left out."""
    found = (str(path.relative_to(directory)) for path in directory.rglob("*"))
    return {path for path in found if not path.startswith(".rkllama")}
