"""Firefox: the page loads without a fault, and a chat with the guide streams."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.running import Server

pytestmark = pytest.mark.integration

_TELL_VIOLATIONS = """() => {
  window.violations = [];
  addEventListener('securitypolicyviolation', (event) => {
    window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
  });
}"""


def test_a_chat_in_firefox(server: Server, tmp_path: Path) -> None:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("Firefox is not installed: apt install firefox-esr")
    pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    from tests.page.firefox import firefox

    server.post(
        "/api/generate", {"model": "guide"}
    )  # the model in memory is the one that is offered
    with firefox(program, tmp_path / "profile") as browser:
        browser.before_each_page(_TELL_VIOLATIONS)
        browser.resize(360, 740)
        browser.go(f"{server.url}/#chat")
        browser.wait_for("document.querySelector('#view textarea:enabled') !== null")
        browser.value("document.querySelector('#view textarea').focus()")
        browser.press(*"How do I pull a model?", "\ue007")
        browser.wait_for("document.querySelector('#view').innerText.includes('rkllama pull')")
        assert "guide" in str(server.get("/api/ps").json)
        for view in ("models", "board"):
            browser.value(f"void (location.hash = '{view}')")
            browser.wait_for(f"document.querySelector('#view[data-view={view}] > *') !== null")
            assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        assert browser.value("window.violations.join()") == ""
    assert browser.problems == []
    hosts = {urlsplit(url).netloc for url in browser.requests}
    assert hosts <= {f"{server.host}:{server.port}", ""}
