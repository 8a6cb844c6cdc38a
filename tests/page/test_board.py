"""The view "Board" in a browser: figures of the board's files, charts, models in memory, the doctor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.boards import build_board
from tests.conftest import isolate
from tests.page.accessibility import assert_accessible
from tests.page.conftest import Open
from tests.page.looking import LOOKS, Look, Problems, new_context, show, wait_for
from tests.running import Server
from tests.virtual_npu import library, write_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration

MODEL = "Qwen3-1.7B-w8a8-rk3588"
NEXT = 2000
"""Milliseconds until the page asks again."""


class Board:
    """The files of a board under load."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._busy = [100] * 8
        self._idle = 900

    def set_load(self, npu: tuple[int, ...], little: int, big: int = 0) -> None:
        """Set the NPU's load per core in percent, and the CPU's since the last call, of its clusters."""
        folder = self.root / "sys/kernel/debug/rknpu"
        folder.mkdir(parents=True, exist_ok=True)
        cores = "".join(f" Core{core}: {load}%," for core, load in enumerate(npu))
        (folder / "load").write_text(f"NPU load: {cores}")
        self._busy = [old + (little if core < 4 else big) for core, old in enumerate(self._busy)]
        self._idle += 100
        lines = [
            f"cpu{core} {busy} 0 0 {self._idle - busy} 0 0 0 0 0 0\n"
            for core, busy in enumerate(self._busy)
        ]
        (self.root / "proc/stat").write_text("cpu  1 2 3\n" + "".join(lines))


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """An RK3588 as root sees it."""
    return Board(build_board("rk3588", tmp_path_factory.mktemp("board")))


@pytest.fixture(scope="module")
def server(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on that board, with a model on the virtual NPU."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, folder) / "RKLLAMA" / "models"
        patch.setenv("RKLLAMA_SYSROOT", str(board.root))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        write_model(models / f"{MODEL}.rkllm")
        with Server() as running:
            yield running


def label(page: Page, name: str) -> str:
    """What a chart tells who cannot see it."""
    return page.locator(f'.chart-drawing[aria-label^="{name}"]').get_attribute("aria-label") or ""


def take_sample(page: Page) -> None:
    """Let the page's clock go on until it asks the board again, and wait for what it draws."""
    with page.expect_response("**/api/rkllama/board"):
        page.clock.run_for(NEXT)
    page.evaluate("0")  # its answer comes behind what the response has set going


def set_seen(page: Page, seen: bool) -> None:
    """Let the page believe that its tab is shown, or is behind another one."""
    page.evaluate(
        """seen => {
          const value = seen ? 'visible' : 'hidden';
          Object.defineProperty(document, 'visibilityState', { value, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        seen,
    )


def test_the_last_minutes_as_charts(open_page: Open, board: Board) -> None:
    board.set_load((86, 4, 0), little=50)
    page = open_page(Look(1440))
    page.clock.install()
    show(page, "board")
    page.get_by_role("heading", name="RK3588").wait_for()
    page.get_by_text("core 0 86%").wait_for()
    board.set_load((20, 8, 0), little=50, big=25)
    take_sample(page)
    page.get_by_text("core 0 20%").wait_for()
    assert page.get_by_text("20% to 86%").is_visible()
    assert label(page, "Load of the NPU") == (
        "Load of the NPU, last 5 minutes: core 0 20%, from 20% to 86%; core 1 8%, from 4% to 8%; "
        "core 2 0%, from 0% to 0%"
    )
    assert "cores 0–3 50%, from" in label(page, "Load of the CPU")
    assert "cores 4–5 25%, from" in label(page, "Load of the CPU")
    assert label(page, "Load of the memory bus").endswith(": 2%, from 2% to 2%")
    assert "47 °C" in label(page, "Hottest sensor")
    assert re.search(r"1\.4\sGB", label(page, "Memory in use"))
    assert label(page, "Requests that wait").endswith("0, from 0 to 0")
    npu = page.get_by_role("region", name="NPU")
    assert "1 GHz" in npu.inner_text()
    assert "governor rknpu_ondemand" in npu.inner_text()
    heat = page.get_by_role("region", name="Temperatures")
    assert "Not throttled" in heat.inner_text()
    assert re.search(r"littlecore\s+46 °C", heat.inner_text())

    # Nobody looks: nothing is asked, and the chart has a gap where nobody did.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    set_seen(page, seen=False)
    page.clock.run_for(20 * NEXT)
    assert asked == []
    path = '.chart-drawing[aria-label^="Load of the NPU"] .chart-line.chart-0'
    assert str(page.locator(path).get_attribute("d")).count("M") == 1
    board.set_load((30, 8, 0), little=50)
    set_seen(page, seen=True)
    page.get_by_text("core 0 30%").wait_for()
    assert str(page.locator(path).get_attribute("d")).count("M") == 2
    # Another view: nothing is asked, and the history is there when this one is back.
    show(page, "models")
    page.get_by_text("1 model,").wait_for()
    asked.clear()
    page.clock.run_for(5 * NEXT)
    assert not [url for url in asked if "rkllama/board" in url]
    show(page, "board")
    page.get_by_text("core 0 30%").wait_for()
    assert "from 20% to 86%" in label(page, "Load of the NPU")


def test_models_in_memory_count_down(open_page: Open, server: Server) -> None:
    server.post("/api/generate", {"model": MODEL, "prompt": "a b c", "keep_alive": "5m"})
    page = open_page()
    page.clock.install()
    show(page, "board")
    region = page.get_by_role("region", name="Models in memory")
    left = region.get_by_text("in memory, 4 min")
    left.wait_for()
    assert "librkllmrt 1.2.3" in region.inner_text()
    assert "tokens/s" in region.inner_text()
    assert re.search(r"Memory\s*5\d\d\sMB", region.inner_text())
    before = left.inner_text()
    page.clock.run_for(1000)
    assert left.inner_text() != before
    region.get_by_role("button", name=f"Unload: {MODEL}").click()
    region.get_by_text("None.").wait_for()
    assert server.get("/api/ps").json["models"] == []
    wait_for(page, "document.activeElement.id === 'board-models'")


def test_the_doctor_tells_the_cures(open_page: Open, server: Server, axe: str) -> None:
    findings = server.get("/api/rkllama/doctor").json["findings"]
    broken = [finding for finding in findings if finding["status"] == "broken"]
    cured = next(finding for finding in broken if finding["cure"])
    page = open_page(Look(768), permissions=["clipboard-read", "clipboard-write"])
    show(page, "board")
    page.get_by_role("button", name="Check this board").click()
    card = page.get_by_role("region", name="Doctor")
    card.get_by_role("button", name="Check again").wait_for()
    first = card.locator(".board-problems > li").first
    assert card.get_by_role("status").inner_text().startswith(f"{len(broken)} broken")
    assert first.locator(".badge").inner_text() == "Broken"
    problem = card.locator("li").filter(has=page.locator(".board-cure")).first
    assert cured["found"] in problem.inner_text()
    lines = problem.locator("pre").inner_text()
    assert lines.strip().splitlines() == cured["cure"]
    problem.get_by_role("button", name="Copy").click()
    problem.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(cured["cure"])
    good = card.locator("details", has_text="checks are good")
    assert not good.locator("dl").first.is_visible()
    good.locator("summary").click()
    assert good.get_by_text("NPU driver").is_visible()
    assert_accessible(page, axe)


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_it_fits_and_is_read_out(look: Look, open_page: Open) -> None:
    page = open_page(look, "/#board")
    page.locator(".board-card").nth(5).wait_for()
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.getElementById('view').scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    language = {"en": "Load of the NPU, last 5 minutes", "fr": "Charge du NPU, 5 dernières minutes"}
    assert label(page, language[look.language])


def test_the_way_to_the_server_is_lost(open_page: Open, problems: Problems) -> None:
    page = open_page()
    page.clock.install()
    show(page, "board")
    page.locator(".board-card").first.wait_for()
    page.route("**/api/rkllama/board", lambda route: route.abort())
    page.clock.run_for(NEXT)
    page.get_by_role("alert").wait_for()
    assert page.locator(".board-card").first.is_visible()
    page.unroute("**/api/rkllama/board")
    take_sample(page)
    page.get_by_role("alert").wait_for(state="detached")
    problems.expect("net::ERR_FAILED")


def test_a_machine_without_an_npu(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board("laptop", tmp_path)))
    with Server() as running:
        context = new_context(browser, Look(360), base_url=running.url)
        try:
            page = context.new_page()
            page.goto("/#board")
            page.get_by_text("No NPU: models run on the CPU").wait_for()
            assert page.get_by_text("last 5 minutes").is_visible()
            page.get_by_role("region", name="Memory", exact=True).wait_for()
            assert page.get_by_role("region", name="NPU").count() == 0
            assert page.get_by_role("region", name="Memory bus").count() == 0
            show(page, "models")
            page.get_by_role("searchbox").wait_for()
            assert page.get_by_role("combobox").count() == 0
        finally:
            context.close()
