"""The chat as its user drives it, and what it is given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.looking import Look, new_context
from tests.virtual_npu import read_trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Image = pytest.importorskip("PIL.Image")
sync_api = pytest.importorskip("playwright.sync_api")
sync_api.expect.set_options(timeout=15_000)
expect = sync_api.expect


class Chat:
    """The page as its user sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.input = page.locator(".chat-input")
        self.answers = page.locator(".chat-assistant")
        self.questions = page.locator(".chat-user")

    def choose(self, model: str) -> None:
        """Take a model in the bar."""
        self.page.locator(f'.chat-model option[value="{model}"]').wait_for(state="attached")
        self.page.select_option(".chat-model", model)

    def send(self, text: str) -> None:
        """Write and send by Enter."""
        self.input.fill(text)
        self.input.press("Enter")

    def ask(self, text: str, count: int = 1) -> Locator:
        """Send and wait until the `count`th answer has ended; returns it."""
        self.send(text)
        return self.ended(count)

    def ended(self, count: int = 1) -> Locator:
        """The `count`th answer, once it has ended."""
        expect(self.answers).to_have_count(count)
        answer = self.answers.nth(count - 1)
        expect(answer).not_to_have_attribute("aria-busy", "true")
        return answer

    def button(self, name: str, within: Locator | None = None) -> Locator:
        """A button by its label."""
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def settings(self) -> Locator:
        """The settings of this chat, opened."""
        self.button("Settings of this chat").click()
        return self.page.get_by_role("dialog")

    def titles(self) -> list[str]:
        """The chats in the list."""
        return self.page.locator(".chats-title").all_inner_texts()


_LOOK = Look()


def asked_last(trace: Path) -> str:
    """The prompt of the last run."""
    return str([event for event in read_trace(trace) if event["event"] == "run"][-1]["prompt"])


class Opener:
    """Opens pages, and holds them to having neither an error nor a violation of the policy."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self.url = url
        self.problems: list[str] = []
        self._contexts: list[Any] = []

    def __call__(
        self, look: Look = _LOOK, *, init: str = "", url: str = "", **options: Any
    ) -> Chat:
        context = new_context(self._browser, look, **options)
        self._contexts.append(context)
        if init:
            context.add_init_script(init)
        return self.tab(context, url)

    def tab(self, context: Any, url: str = "") -> Chat:
        """One more page in the same browser."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"{error}\n{error.stack}"))
        page.on("console", self._said)
        page.goto((url or self.url) + "/")
        page.locator(".chat-input").wait_for()
        return Chat(page)

    def _said(self, message: Any) -> None:
        # A status that is no success is told by the browser itself; tests that cause one look at the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def close(self) -> None:
        """Close all, and fail for what went wrong in them."""
        for context in self._contexts:
            context.close()
        assert self.problems == []


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(
        page.evaluate(
            "[document.documentElement, document.querySelector('.chat-log')]"
            ".every((e) => e.scrollWidth <= e.clientWidth)"
        )
    )


def file(name: str, kind: str, content: bytes) -> Any:
    """A file as it is picked in a dialog."""
    return {"name": name, "mimeType": kind, "buffer": content}


def photo(size: tuple[int, int] = (64, 64), colour: str = "#ff0000", form: str = "PNG") -> bytes:
    """A picture of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()
