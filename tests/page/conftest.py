"""One browser and one server for all tests of the page; a new profile of the browser for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.boards import build_board
from tests.conftest import isolate
from tests.page.accessibility import fetch_axe
from tests.page.looking import CHROMIUM, Look, Problems, chromium, new_context
from tests.running import Server
from tests.virtual_npu import library, write_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NPU_MODEL = "qwen2.5-1.5b-rk3588-w8a8"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. It ends with this folder's tests: until then asyncio is Playwright's."""
    path = chromium()
    if path is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=list(CHROMIUM))
        yield running
        running.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on an RK3588 with the guide, and a model on the virtual NPU."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, folder) / "RKLLAMA" / "models"
        patch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3588", folder)))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        write_model(models / f"{NPU_MODEL}.rkllm")
        with Server() as running:
            running.post("/api/show", {"model": "guide"})  # it is put there when it is first named
            yield running


_DEFAULT = Look()
Open = Callable[..., "Page"]


@pytest.fixture
def problems(server: Server) -> Problems:
    """What went wrong in the pages of this test; what is left at its end fails it."""
    return Problems(f"{server.host}:{server.port}")


@pytest.fixture
def open_page(browser: Browser, server: Server, problems: Problems) -> Iterator[Open]:
    """Opens the page as `open_page(Look(...), path="/", **options of Playwright's new_context)`, each time
    in a profile of its own.
    """
    with ExitStack() as stack:

        def opened(look: Look = _DEFAULT, path: str = "/", **options: Any) -> Page:
            context = new_context(browser, look, base_url=server.url, **options)
            stack.callback(context.close)
            stack.callback(problems.assert_none, context)
            problems.watch(context)
            page = context.new_page()
            page.goto(path)
            page.wait_for_selector("#view[data-view]")
            return page

        yield opened


@pytest.fixture
def page(request: pytest.FixtureRequest, open_page: Open) -> Page:
    """The page, in the look that `@pytest.mark.parametrize("page", LOOKS, indirect=True, ids=str)` says."""
    return open_page(getattr(request, "param", Look()))


@pytest.fixture(scope="package")
def axe(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script for `assert_accessible`; skipped where npm cannot bring it."""
    return fetch_axe(tmp_path_factory.getbasetemp().parent / "axe")
