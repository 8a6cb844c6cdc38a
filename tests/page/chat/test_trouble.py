"""What goes wrong is told, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import isolate
from tests.page.chat.conftest import PLAIN, SMALL_MODEL
from tests.page.chat.driving import Opener, asked_last, expect
from tests.running import Server
from tests.virtual_npu import directive

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration

NO_DATABASE = """Object.defineProperty(window, 'indexedDB', {
  get() { throw new DOMException('no', 'SecurityError'); },
});"""


class Gate:
    """A relay that a test closes and opens again on the same port."""

    def __init__(self, server: Server) -> None:
        self._target = (server.host, server.port)
        self._ends: list[socket.socket] = []
        self.port = 0
        self.open()

    def open(self) -> None:
        """Take connections, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Cut all connections, and take no new ones."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_limits_are_told_and_what_was_dropped(opened: Opener) -> None:
    chat = opened()
    chat.choose(SMALL_MODEL)
    dialog = chat.settings()
    dialog.get_by_label("Context").fill("256")
    dialog.get_by_role("button", name="Save").click()
    limited = chat.ask("x " + directive(tokens=400))
    expect(limited.locator(".chat-note")).to_have_text(
        "The answer has reached its limit of tokens."
    )
    for turn in range(2, 6):
        chat.ask(f"{'words of many kinds ' * 6} {directive(reply='a b c')}", turn)
    expect(chat.answers.last.locator(".chat-notes")).to_contain_text(
        "earlier messages did not fit the context."
    )
    repeated = chat.ask("r " + directive(reply="ha" * 200), 6)
    expect(repeated.locator(".chat-note").last).to_have_text(
        re.compile("repeating itself|limit of tokens")
    )


def test_errors_have_their_hint_and_a_retry(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    answer = chat.ask("x " + directive(segv_at=0))
    expect(answer.get_by_role("alert")).to_be_visible()
    assert answer.locator(".error-text").inner_text()
    chat.button("Edit", chat.questions.first).click()
    chat.questions.first.locator("textarea").fill("x " + directive(reply="partly said", error_at=2))
    chat.button("Send", chat.questions.first).click()
    answer = chat.ended()
    expect(answer.get_by_role("alert")).to_be_visible()
    chat.button("Try again", answer).click()
    answer = chat.ended()
    expect(answer.get_by_role("alert")).to_be_visible()


def test_the_place_in_the_queue_is_told_and_a_full_queue_is_waited_for(
    opened: Opener, server: Server
) -> None:
    chat, other = opened(), opened()
    for each in (chat, other):
        each.choose(PLAIN)
    slow = {
        "model": PLAIN,
        "messages": [{"role": "user", "content": directive(tokens=90_000, token_us=4000)}],
        "options": {"num_predict": 90_000},
    }
    with server.stream("/api/chat", slow) as running:
        assert running.status() == 200
        chat.send("mine")
        expect(chat.answers.first).to_contain_text("1 request before you")
        other.send("and mine")
        # Not at once: the other one is to have waited for a time that is told.
        expect(other.answers.first).to_contain_text(re.compile(r"Trying again in [1-4]"))
    expect(chat.ended().locator(".md")).to_have_text("mine")
    expect(chat.answers.first.locator(".chat-figures")).to_contain_text("in the queue")
    expect(other.ended().locator(".md")).to_have_text("and mine")


def test_a_lost_connection_keeps_what_came_and_goes_on(
    opened: Opener, server: Server, trace: Path
) -> None:
    gate = Gate(server)
    chat = opened(url=f"http://127.0.0.1:{gate.port}")
    chat.choose(PLAIN)
    chat.send("x " + directive(tokens=700, token_us=4000))
    answer = chat.answers.first
    expect(answer.locator(".md")).not_to_be_empty()
    gate.close()
    expect(answer.locator(".chat-status")).to_contain_text("Trying again until it is back")
    kept = answer.locator(".md").inner_text()
    assert kept
    gate.open()
    chat.ended()
    assert len(answer.locator(".md").inner_text()) > len(kept)
    assert f"<|im_start|>assistant\n{kept[:20]}" in asked_last(trace), "it went on from there"

    gate.close()
    chat.send("still there? " + directive(reply="yes, again"))
    expect(chat.answers.nth(1)).to_contain_text("Trying again until it is back")
    gate.open()
    expect(chat.ended(2).locator(".md")).to_have_text("yes, again")
    gate.close()


def test_a_chat_in_two_tabs_loses_nothing(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.ask("first")
    other = opened.tab(chat.page.context)
    other.page.locator(".chats-link").click()
    expect(other.answers).to_have_count(1)
    chat.ask("second", 2)
    expect(other.answers).to_have_count(2)
    chat.send("slow " + directive(tokens=600, token_us=4000))
    expect(chat.answers.nth(2).locator(".md")).not_to_be_empty()
    other.button("Delete", other.questions.nth(1)).click()
    expect(chat.page.locator(".notice")).to_contain_text("changed in another tab")
    chat.ended(3)
    expect(chat.page.locator(".chats-title")).to_have_text(["first (copy)", "first"])
    other.page.reload()
    expect(other.questions.first).to_have_text("first")
    other.page.get_by_role("link", name="first (copy)").click()
    expect(other.answers).to_have_count(3)


def test_without_a_database_chats_live_in_memory(opened: Opener) -> None:
    chat = opened(init=NO_DATABASE)
    expect(chat.page.locator(".chats-note")).to_contain_text("keeps no data")
    chat.choose(PLAIN)
    chat.ask("one")
    chat.page.get_by_role("link", name="New chat").click()
    chat.ask("two")
    chat.page.get_by_role("link", name="one").click()
    expect(chat.questions).to_have_text(["one"])


def test_a_server_without_models_says_what_to_do(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, tmp_path_factory.mktemp("none"))
        (home / "RKLLAMA" / "models").mkdir(parents=True)
        with Server() as server:
            opener = Opener(browser, server.url)
            chat = opener()
            expect(chat.page.locator(".chat-hello")).to_contain_text(
                "There is no model on this board yet."
            )
            expect(chat.page.get_by_role("link", name="Get a model")).to_have_attribute(
                "href", "#models"
            )
            chat.button("Use the guide").click()
            chat.button("What is RKLLama?").click()
            expect(chat.ended().locator(".md")).to_contain_text("Rockchip")
            expect(chat.page.locator(".chat-model")).to_have_value("guide")
            opener.close()
