"""A server that several tests of a file share, as new for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import isolate
from tests.running import Server
from tests.virtual_npu import library
from tests.waiting import until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `rkllama serve` over the virtual NPU, for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("shared"))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        with Server() as running:
            yield running


@pytest.fixture
def emptied(shared: Server) -> Iterator[Server]:
    """That server, with no model on its disk nor in its memory, as one that has just started."""
    yield shared
    unload_all(shared)
    folder = models_of(shared)
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    folder.mkdir()


@pytest.fixture
def there(emptied: Server) -> Path:
    """The models directory of the shared server, empty."""
    return models_of(emptied)


def models_of(server: Server) -> Path:
    return Path(server.get("/api/version").json["models"])


def unload_all(server: Server) -> None:
    for model in server.get("/api/ps").json["models"]:
        server.post("/api/generate", {"model": model["model"], "keep_alive": 0})
    until(lambda: not server.get("/api/ps").json["models"])
