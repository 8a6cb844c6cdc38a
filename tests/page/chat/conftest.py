"""One server with models of each kind for all tests of the chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import isolate
from tests.running import Server
from tests.virtual_npu import library, write_model
from tests.virtual_rknn import library as encoder_library
from tests.virtual_rknn import write_encoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.page.chat.driving import Opener

PLAIN, THINKER, SEEING = "Qwen2.5-1.5B-Instruct-w8a8-rk3588", "Qwen3-1.7B-w8a8-rk3588", "seeing"
SMALL_MODEL = "small"


@pytest.fixture(scope="package")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the virtual NPU was given."""
    return tmp_path_factory.mktemp("trace") / "trace"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, trace: Path) -> Iterator[Server]:
    """A server with a model of each kind: one that talks, one that thinks, one that sees."""
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, tmp_path_factory.mktemp("chat"))
        models = home / "RKLLAMA" / "models"
        write_model(models / f"{PLAIN}.rkllm", trace=trace, trace_prompt=1)
        write_model(models / f"{THINKER}.rkllm", trace=trace, trace_prompt=1)
        write_model(models / f"{SMALL_MODEL}.rkllm")
        write_model(models / SEEING / "Qwen2.5-VL-3B-Instruct.rkllm", mode="picture", embd_size=16)
        write_encoder(models / SEEING / "vision.rknn")
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
        patch.setenv("RKLLAMA_RKNN_LIB", encoder_library())
        patch.setenv("RKLLAMA_MAX_QUEUE", "1")
        with Server() as running:
            yield running


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Opener]:
    """Opens the page, with nothing kept from before."""
    from tests.page.chat.driving import Opener  # it needs Playwright

    opener = Opener(browser, server.url)
    yield opener
    opener.close()
