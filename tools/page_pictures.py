"""Make the pictures of the page in docs/pictures: `python tools/page_pictures.py`.

They show the real page in Debian's Chromium, before a real server with the guide, models on the virtual NPU,
and the files of a board of the tests. It takes half a minute, and needs what the tests of the page need.
"""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.boards import build_board
from tests.conftest import isolate
from tests.page.looking import CHROMIUM, Look, chromium, new_context, show
from tests.running import Server
from tests.virtual_npu import library, write_model

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
LARGEST = 80_000
"""Bytes that a picture may have."""
_MODELS = {"qwen3:1.7b": 2_400_000_000, "qwen2.5-coder:3b": 3_500_000_000}
"""Names and sizes of the files on the virtual NPU, which take no room."""
_QUESTIONS = ("How do I pull a model?", "How do I see which models are in memory?")
_SAMPLES = 150
_EVERY = 2000
"""How often the page asks how the board is doing, in milliseconds."""


@contextmanager
def server(folder: Path) -> Iterator[tuple[Server, Path]]:
    """A server on an RK3588, and the folder of that board's files."""
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, folder) / "RKLLAMA" / "models"
        board = build_board("rk3588", folder)
        patch.setenv("RKLLAMA_SYSROOT", str(board))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        patch.setenv("RKLLAMA_BOARD_NAME", "orangepi")
        for name, size in _MODELS.items():
            stem = name.replace(":", "-")
            write_model(models / f"{stem}-w8a8-rk3588.rkllm", size=size)
        with Server("--max-loaded", "2") as running:
            for name in ("qwen3", "guide"):  # the last one is what the chat begins with
                running.post("/api/generate", {"model": name, "keep_alive": "30m"})
            yield running, board


def picture_chat(page: Page) -> None:
    """Two questions to the guide and its answers."""
    for number, question in enumerate(_QUESTIONS, 1):
        entry = page.locator("#view textarea:enabled").first
        entry.fill(question)
        entry.press("Enter")
        page.wait_for_function(
            "number => document.getElementById('view').innerText.split('tokens/s').length > number",
            arg=number,
        )
    page.locator("#view textarea").first.blur()


def picture_models(page: Page) -> None:
    """What is here."""
    show(page, "models")
    page.get_by_text("guide").first.wait_for()
    page.wait_for_load_state("networkidle")


def picture_board(page: Page, board: Path) -> None:
    """Five minutes of a board that answers now and then; the page's clock runs as fast as it is answered."""
    page.clock.install()
    show(page, "board")
    times = [[0.0, 0.0] for _ in range(8)]
    for number in range(_SAMPLES):
        _work(board, number, times)
        with page.expect_response("**/api/rkllama/board"):
            page.clock.run_for(_EVERY)
    page.wait_for_load_state("networkidle")


def _work(board: Path, number: int, times: list[list[float]]) -> None:
    """Have the board's files tell of work that comes and goes; `times` are the cores' busy and idle ones."""
    busy = max(0.0, math.sin((number - _SAMPLES) / 9 + 1.2)) ** 0.4
    (board / "sys/class/devfreq/dmc/load").write_text(f"{int(4 + 70 * busy)}@2112000000Hz\n")
    load = board / "sys/kernel/debug/rknpu/load"
    load.parent.mkdir(parents=True, exist_ok=True)
    shares = [int(busy * (70 + 9 * math.sin(number * each))) for each in (1, 2, 3)]
    load.write_text("NPU load: " + ", ".join(f" Core{n}: {s}%" for n, s in enumerate(shares)) + ",")
    for zone in (board / "sys/class/thermal").glob("thermal_zone*/temp"):
        zone.write_text(f"{int(43_000 + 14_000 * (1 - math.exp(-number / 40)) + 1500 * busy)}\n")
    for core, time in enumerate(times):
        share = 0.04 + busy * (0.1 if core < 4 else 0.3 + 0.05 * math.sin(number * (core // 2)))
        time[0], time[1] = time[0] + 200 * share, time[1] + 200 * (1 - share)
    lines = [f"cpu{n} {int(a)} 0 0 {int(b)} 0 0 0 0 0 0" for n, (a, b) in enumerate(times)]
    (board / "proc/stat").write_text("\n".join(["cpu 1 2 3", *lines, ""]))


def save(page: Page, name: str) -> None:
    """Write what the page shows, in as many colours as leave it small enough. Raises ValueError."""
    page.mouse.move(0, 0)
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    for colours in (128, 64, 32):
        buffer = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if len(buffer.getvalue()) < LARGEST:
            (FOLDER / name).write_bytes(buffer.getvalue())
            print(
                f"{FOLDER / name}: {image.width} x {image.height}, {len(buffer.getvalue())} bytes"
            )
            return
    raise ValueError(f"{name} has {len(buffer.getvalue())} bytes")


def draw(browser: Browser, running: Server, board: Path) -> None:
    """Make all pictures."""
    wide, narrow = {"width": 1100, "height": 720}, {"width": 390, "height": 720}
    views = (
        ("page-chat.png", Look(1440, "light"), wide, picture_chat),
        ("page-models.png", Look(360, "dark"), narrow, picture_models),
        ("page-board.png", Look(1440, "dark"), wide, lambda page: picture_board(page, board)),
    )
    for name, look, window, prepare in views:
        with ExitStack() as stack:
            context = new_context(browser, look, base_url=running.url, viewport=window)
            stack.callback(context.close)
            page = context.new_page()
            page.goto("/")
            page.wait_for_selector("#view[data-view] > *")
            prepare(page)
            save(page, name)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder)) as (running, board),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(CHROMIUM))
        draw(browser, running, board)
        browser.close()


if __name__ == "__main__":
    main()
