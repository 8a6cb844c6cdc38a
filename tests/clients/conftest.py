"""A server for the tests of a file that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.common import install
from tests.conftest import isolate
from tests.running import Server
from tests.virtual_npu import library


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with the scripted model, for requests that change neither models nor settings."""
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, tmp_path_factory.mktemp("shared")) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        install(models)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        with Server() as running:
            yield running
