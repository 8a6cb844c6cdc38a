"""A server that several tests of a file share, as new for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Server, models_of
from tests.waiting import until


@pytest.fixture
def emptied(shared: Server) -> Iterator[Server]:
    """The shared server, with no model on its disk nor in its memory, as one that has just started."""
    yield shared
    unload_all(shared)
    folder = models_of(shared)
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    folder.mkdir()


@pytest.fixture
def there(emptied: Server) -> Path:
    """The models directory of the shared server, empty."""
    return models_of(emptied)


def unload_all(server: Server) -> None:
    for model in server.get("/api/ps").json["models"]:
        server.post("/api/generate", {"model": model["model"], "keep_alive": 0})
    until(lambda: not server.get("/api/ps").json["models"])
