"""A page with nothing but the renderer of Markdown, under the real page's policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rkllama.server import page as serving
from tests.page.looking import Look, Problems, new_context, wait_for
from tools import page as building

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HOST = "markdown.test"
_SCRIPT = Path(__file__).with_name("markdown_page.js").read_text()


def open_markdown(browser: Browser, folder: str, problems: Problems, look: Look) -> Page:
    """Open it. What goes wrong in it, and each request that it makes, is noted in `problems`."""
    context = new_context(browser, look)
    problems.watch(context)
    page = context.new_page()
    headers, body = _reply(folder)

    def answer(route: Route) -> None:
        if route.request.url == f"http://{HOST}/":
            route.fulfill(body=body, headers=headers)
        else:
            route.abort()

    page.route("**/*", answer)
    page.goto(f"http://{HOST}/")
    wait_for(page, "window.ready")
    return page


def _reply(folder: str) -> tuple[dict[str, str], str]:
    """Return the headers that the server gives to such a page, and the page."""
    body = building.build("markdown.js", _SCRIPT)
    path = f"{folder}/page.html"
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(body)
    real = serving.FILE
    serving.FILE = path
    try:
        headers = dict(serving._page.__wrapped__().headers)
    finally:
        serving.FILE = real
    return headers | {"Content-Type": serving.HTML}, body
