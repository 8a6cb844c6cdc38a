"""Firefox as Debian has it, driven through WebDriver BiDi: the little of it that a smoke test needs.

Playwright's own Firefox cannot be had here, and it wants commands of stock Firefox that an ESR has not.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.running import LIMIT

_EVENTS = ["log.entryAdded", "network.beforeRequestSent"]
_PREFERENCES = """\
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("remote.active-protocols", 1);
"""


class Firefox:
    """A tab of a running Firefox, and what it has told since."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.problems: list[str] = []
        """Errors and warnings on its console, exceptions among them."""
        self.requests: list[str] = []
        """The addresses that its page has asked for."""
        self._do("session.new", capabilities={})
        self._do("session.subscribe", events=_EVENTS)
        self._tab = self._do("browsingContext.create", type="tab")["context"]

    def _do(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(command))
        while True:
            message = json.loads(self._connection.recv(LIMIT))
            if message.get("id") == self._number:
                assert message["type"] == "success", message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        event = message.get("params", {})
        if message.get("method") == "log.entryAdded" and event["level"] in ("error", "warn"):
            self.problems.append(f"{event['type']}: {event['text']}")
        elif message.get("method") == "network.beforeRequestSent":
            self.requests.append(event["request"]["url"])

    def resize(self, width: int, height: int) -> None:
        """Give the page so many pixels."""
        self._do(
            "browsingContext.setViewport",
            context=self._tab,
            viewport={"width": width, "height": height},
        )

    def before_each_page(self, function: str) -> None:
        """Have a function of JavaScript called in each page before its own script."""
        self._do("script.addPreloadScript", functionDeclaration=function)

    def go(self, url: str) -> None:
        """Load a page, wholly."""
        self._do("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives: a text, a number or a truth value, awaited."""
        result = self._do(
            "script.evaluate",
            expression=expression,
            target={"context": self._tab},
            awaitPromise=True,
            userActivation=True,
        )
        assert result["type"] == "success", result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Return when an expression of JavaScript is true."""
        end = time.monotonic() + LIMIT
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} never came; {self.problems}"
            self.value("new Promise((resolve) => requestAnimationFrame(resolve)).then(() => 1)")

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other; Enter is "\\ue007"."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._do(
            "input.performActions",
            context=self._tab,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )


@contextmanager
def firefox(program: str, profile: Path) -> Iterator[Firefox]:
    """A headless Firefox with a profile of its own in an empty folder."""
    profile.mkdir()
    (profile / "user.js").write_text(_PREFERENCES)
    process = subprocess.Popen(
        [program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("Firefox did not start")
        with connect(f"{found[1]}/session", max_size=None) as connection:
            yield Firefox(connection)
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT)
