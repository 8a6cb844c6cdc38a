"""The server that the tests of a file ask which leave it as it was."""

from __future__ import annotations

import pytest

from tests.clients.common import install
from tests.running import Server, models_of


@pytest.fixture(scope="module")
def scripted(shared: Server) -> Server:
    """The shared server, with the scripted model: for requests that change neither models nor settings."""
    folder = models_of(shared)
    folder.mkdir(parents=True, exist_ok=True)
    install(folder)
    return shared
