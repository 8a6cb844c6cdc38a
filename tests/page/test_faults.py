"""What must not lose the page or the focus: odd addresses, hostile names and files, wrong answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import isolate
from tests.page.conftest import NPU_MODEL, Open
from tests.page.looking import Look, new_context, show
from tests.running import Server
from tests.virtual_npu import library
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.integration

HOSTILE = '"><img src=x onerror=alert(1)>\u202e' + "W" * 10_000
KEY = "clé-€"
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
PICTURES = """() => new Promise((resolve) => {
  const opening = indexedDB.open('rkllama-chats');
  opening.onsuccess = () => {
    const asked = opening.result.transaction('pictures').objectStore('pictures').count();
    asked.onsuccess = () => resolve(asked.result);
  };
})"""
NO_ROOM = """() => {
  IDBObjectStore.prototype.put = () => { throw new DOMException('no room', 'QuotaExceededError'); };
}"""


def focused(page: Page) -> str:
    """The class of what has the focus."""
    return str(page.evaluate("document.activeElement.className"))


def ask(page: Page, text: str) -> None:
    """Ask by the button and wait for the whole answer."""
    before = page.locator(".chat-figures").count()
    page.fill(".chat-input", text)
    page.locator(".chat-send").click()
    page.locator(".chat-figures").nth(before).wait_for()


def imported(page: Page, *chats: Any) -> str:
    """What the page says of a file with these chats."""
    data = json.dumps({"format": "rkllama-chats", "version": 1, "chats": chats}).encode()
    file: Any = {"name": "x.json", "mimeType": "application/json", "buffer": data}
    page.set_input_files(".chats input[type=file]", file)
    text = page.locator(".notice span").first.inner_text()
    page.locator(".notice button").first.click()
    return text


def test_odd_addresses_and_the_way_back_leave_a_page(open_page: Open) -> None:
    page = open_page(path="/#toString")
    page.locator(".chat-view").wait_for()
    show(page, "models")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view"
    assert page.locator("#view[data-view=models]").count() == 1
    page.locator(".models-model .models-actions button").nth(1).click()
    page.get_by_role("dialog").wait_for()
    page.go_back()
    page.locator("#view[data-view=chat]").wait_for()
    assert page.get_by_role("dialog").count() == 0


def test_a_chat_is_begun_with_the_model_that_was_chosen(open_page: Open) -> None:
    page = open_page(path="/#models")
    for name in (NPU_MODEL, "guide"):
        page.locator(f'[data-model="{name}:latest"] a.button').click()
        page.locator(f'.chat-model option:checked[value="{name}"]').wait_for(state="attached")
        assert page.locator(".chat-message").count() == 0
        ask(page, "hello")
        show(page, "models")


def test_the_focus_is_never_lost(open_page: Open) -> None:
    page = open_page()
    page.select_option(".chat-model", NPU_MODEL)
    ask(page, "one")
    assert focused(page) == "chat-input"
    page.locator(".chat-assistant .chat-actions button").nth(1).click()  # ask again
    page.locator(".chat-figures").wait_for()
    assert focused(page) == "chat-input"
    page.locator(".chats-more").click()
    page.get_by_role("dialog").locator("input").fill("another")
    page.keyboard.press("Enter")
    page.locator(".chats-title", has_text="another").wait_for()
    assert "chats-more" in focused(page)
    page.keyboard.press("Enter")
    page.get_by_role("dialog").locator(".danger").click()
    page.locator(".chats-none").wait_for()
    assert page.evaluate("document.activeElement.type") == "search"


def test_a_hostile_file_does_no_harm(open_page: Open) -> None:
    page = open_page(Look(1440, "light", "en"))
    messages = [
        {"role": "user", "content": HOSTILE},
        {"role": "assistant", "content": HOSTILE, "end": "constructor", "thinking": HOSTILE},
    ]
    chat = {"title": HOSTILE[:900], "created": 1, "updated": 1, "messages": messages}
    for wrong in (1e300, "1", None):  # a list with a day that is none could never be shown again
        assert "chats[0].created" in imported(page, {**chat, "updated": wrong})
    page.locator(".chats-none").wait_for()
    assert "1 chat" in imported(page, {**chat, "settings": {"__proto__": {"odd": 1}}})
    page.locator(".chats-link").click()
    page.locator(".chat-assistant").wait_for()
    assert page.evaluate("({}).odd === undefined && document.querySelector('main img') === null")
    page.locator(".chats-more").click()
    page.get_by_role("dialog").locator(".danger").click()
    assert "\u202e" not in page.locator(".notice span").inner_text()


def test_a_deleted_picture_leaves_the_browser_until_it_is_brought_back(open_page: Open) -> None:
    page = open_page()
    question = {"role": "user", "content": "what?", "images": [DOT]}
    answer = {"role": "assistant", "content": "a dot"}
    imported(
        page, {"title": "dot", "created": 1, "updated": 1, "messages": [question, answer, question]}
    )
    page.locator(".chats-link").click()
    page.locator(".chat-user").nth(1).wait_for()
    assert page.evaluate(PICTURES) == 2
    page.locator(".chat-user .chat-actions button").nth(2).click()
    until(lambda: page.evaluate(PICTURES) == 1)
    page.locator(".notice .button").click()
    until(lambda: page.evaluate(PICTURES) == 2)


def test_hostile_names_neither_widen_nor_turn_the_page(open_page: Open) -> None:
    page = open_page(Look(360, "dark", "fr"))

    def lie(route: Route) -> None:
        reply = route.fetch()
        data = reply.json()
        for model in data["models"]:
            details = {"file": HOSTILE, "parameter_size": HOSTILE, "quantization_level": HOSTILE}
            model["details"].update(details)
        route.fulfill(response=reply, body=json.dumps(data))

    page.route("**/api/tags", lie)
    show(page, "models")
    page.locator(".models-model .badge").first.wait_for()
    assert page.evaluate("document.getElementById('view').scrollWidth") == 360
    page.locator(".models-model .icon-button").first.click()
    text = page.get_by_role("dialog").inner_text()
    assert "W" * 100 in text
    assert "\u202e" not in text


def test_a_wrong_answer_is_not_kept(open_page: Open) -> None:
    page = open_page(path="/#board")
    for path, shown in (("**/health", ".board-grid > *"), ("**/doctor", ".board-findings > *")):
        page.route(path, lambda route: route.fulfill(status=200, body="null"))
        show(page, "chat")
        show(page, "board")
        if "doctor" in path:
            page.locator("[aria-labelledby=board-doctor] button").first.click()
        page.locator(".error-box").wait_for()
        page.unroute(path)
        show(page, "chat")
        show(page, "board")
        if "doctor" in path:
            page.locator("[aria-labelledby=board-doctor] button").first.click()
        page.locator(shown).first.wait_for()
        assert page.locator(".error-box").count() == 0


def test_an_error_that_comes_again_is_shown_once(open_page: Open) -> None:
    page = open_page()
    page.select_option(".chat-model", NPU_MODEL)
    page.evaluate(NO_ROOM)
    ask(page, "one")
    ask(page, "two")
    assert page.locator(".notice").all_inner_texts() == ["This chat could not be saved: no room"]


@pytest.fixture
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key that has letters beyond Latin-1."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("keyed"))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        patch.setenv("RKLLAMA_API_KEY", KEY)
        with Server() as running:
            yield running


def test_any_key_can_be_given_and_none_is_asked_for_once(browser: Browser, keyed: Server) -> None:
    page = new_context(browser, Look(), base_url=keyed.url).new_page()
    page.goto("/#board")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.locator(".error-box", has_text="API key").wait_for()
    with page.expect_event("request", lambda request: request.url.endswith("/api/tags")):
        show(page, "models")
    assert page.get_by_role("dialog").count() <= 1
    page.get_by_role("dialog").locator("input").fill("wrong’")
    page.keyboard.press("Enter")
    page.get_by_text("does not know this key").wait_for()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.locator(".models-none").wait_for()
    page.context.close()
