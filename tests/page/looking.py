"""How a page is looked at, and what may not go wrong while it is."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HEIGHTS = {360: 740, 768: 1024, 1440: 900}
"""Pixels of a window by its width: a phone, a tablet, a desktop."""
PATIENCE = 15_000
"""Milliseconds after which a test fails instead of waiting on."""

_TELL_VIOLATIONS = """
addEventListener('securitypolicyviolation', (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class Look(NamedTuple):
    """A window's width, and what the browser tells the page of its user."""

    width: int = 1440
    scheme: Literal["light", "dark"] = "light"
    language: Literal["en", "fr"] = "en"

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}-{self.language}"


LOOKS = (Look(360, "dark", "fr"), Look(768, "light", "fr"), Look(1440, "dark", "en"))
"""Each width, scheme and language at least once."""
ALL_LOOKS = tuple(
    Look(width, scheme, language)
    for width in HEIGHTS
    for scheme in ("light", "dark")
    for language in ("en", "fr")
)


def chromium() -> str | None:
    """Return where Debian's Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Problems(list[str]):
    """What went wrong in a page: errors on its console, exceptions, violations of its policy, and requests
    to another host than `host` (as in "127.0.0.1:8080").
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def watch(self, context: BrowserContext) -> None:
        """Collect them from all pages of a context, which are to be opened after this."""
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._note_message)
        context.on("weberror", lambda error: self.append(f"exception: {error.error}"))
        context.on("request", lambda request: self._note_request(request.url))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.append(f"{message.type}: {message.text}")

    def _note_request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._host:
            self.append(f"request: {url}")

    def expect(self, pattern: str) -> None:
        """Take out the problems in which `pattern` is found; there has to be one."""
        matching = [problem for problem in self if re.search(pattern, problem)]
        assert matching, f"{pattern} is in none of {list(self)}"
        self[:] = [problem for problem in self if problem not in matching]

    def assert_none(self, context: BrowserContext) -> None:
        """Fail where something went wrong, told by any page of the context until now."""
        for page in context.pages:
            page.evaluate("1")  # its answer comes after what has happened before
        assert not self, "\n".join(self)


def new_context(browser: Browser, look: Look, **options: Any) -> BrowserContext:
    """Return a new profile of the browser, in a window of that look. `options` are Playwright's."""
    settings: dict[str, Any] = {
        "viewport": {"width": look.width, "height": HEIGHTS[look.width]},
        "color_scheme": look.scheme,
        "locale": {"en": "en-US", "fr": "fr-FR"}[look.language],
        "has_touch": look.width < 1024,
        "is_mobile": look.width == 360,
        "reduced_motion": "reduce",
    }
    context = browser.new_context(**(settings | options))
    context.set_default_timeout(PATIENCE)
    return context


def show(page: Page, view: str) -> None:
    """Go to "chat", "models" or "board" and wait until that view is there."""
    page.evaluate("view => { location.hash = view; }", view)
    page.wait_for_selector(f'#view[data-view="{view.partition("/")[0]}"] > *')


def wait_for(page: Page, expression: str) -> None:
    """Wait until an expression holds. Playwright's own way has the page evaluate a text, which its policy
    forbids from the second time on.
    """
    until(lambda: page.evaluate(expression), f"never: {expression}", each=0.02)
