"""Keys, a phone's screen, and what a screen reader is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.page.accessibility import assert_accessible
from tests.page.chat.conftest import PLAIN, SEEING
from tests.page.chat.driving import Opener, expect, file, fits, photo
from tests.page.looking import Look

pytestmark = pytest.mark.integration

ROWS = """(area) => {
  area.value = 'x\\n'.repeat(30);
  area.dispatchEvent(new Event('input'));
  return area.clientHeight / parseFloat(getComputedStyle(area).lineHeight);
}"""
COMPOSED = """(area) => {
  const key = { key: 'Enter', isComposing: true, bubbles: true, cancelable: true };
  return area.dispatchEvent(new KeyboardEvent('keydown', key));
}"""
SMALL = """[...document.querySelectorAll('.chat-view button, .chat-view a, .chat-view select')]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML)"""


def every_kind() -> bytes:
    """An export of a chat that has all that a chat can have."""
    picture = f"data:image/png;base64,{base64.b64encode(photo()).decode()}"
    figures = {"first": 0.4, "speed": 12.5, "tokens": 40, "cached": 0.8, "loaded": 2, "queued": 1}
    call = {"id": "1", "name": "weather", "arguments": {"city": "Lyon" * 40}}
    error = {"message": "the model's process was killed by SIGSEGV", "hint": "Its log is x."}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "look " * 60, "images": [picture]},
        {"role": "assistant", "content": "", "thinking": "Hm.\nSo.", "thought": 2, "calls": [call]},
        {"role": "tool", "content": "sunny", "toolName": "weather", "callId": "1"},
        {"role": "assistant", "content": "# Sun\n\n`code`\n\n| a | b |\n|-|-|\n| 1 | 2 |"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "cut", "end": "lost", "figures": figures, "dropped": 2},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "", "end": "error", "error": error},
    ]
    chat = {"title": "all", "created": 1, "updated": 1, "settings": {}, "messages": messages}
    return json.dumps({"format": "rkllama-chats", "version": 1, "chats": [chat]}).encode()


def test_what_was_written_is_kept_and_keys_do_what_they_say(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.input.fill("line")
    chat.input.press("Shift+Enter")
    chat.page.keyboard.type("two")
    assert chat.input.input_value() == "line\ntwo"
    rows = chat.input.evaluate(ROWS)
    assert 8 <= rows < 9
    chat.input.fill("a draft")
    assert chat.input.evaluate(COMPOSED), "Enter that ends a composition is the keyboard's"
    chat.page.reload()
    expect(chat.input).to_have_value("a draft")
    chat.input.press("Enter")
    chat.ended()
    expect(chat.input).to_have_value("")
    chat.input.fill("another")
    chat.page.get_by_role("link", name="New chat").click()
    expect(chat.input).to_have_value("")
    chat.page.go_back()
    expect(chat.input).to_have_value("another")


def test_on_a_phone_the_list_is_a_drawer_and_enter_a_new_line(opened: Opener) -> None:
    chat = opened(Look(360))
    chat.choose(PLAIN)
    chat.input.fill("one")
    chat.input.press("Enter")
    assert chat.input.input_value() == "one\n"
    chat.button("Send").tap()
    chat.ended()
    assert fits(chat.page)
    drawer = chat.page.locator(".chats")
    expect(drawer).to_be_hidden()
    chat.button("Show the chats").tap()
    expect(drawer).to_be_visible()
    expect(chat.page.get_by_label("Search chats")).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(chat.button("Show the chats")).to_be_focused()
    chat.button("Show the chats").tap()
    chat.page.get_by_role("link", name="New chat").tap()
    expect(drawer).to_be_hidden()
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    small = chat.page.evaluate(SMALL)
    assert small == []


@pytest.mark.parametrize("look", [Look(360, "dark", "fr"), Look(1440, "light", "en")], ids=str)
def test_nothing_serious_in_a_chat_with_everything(opened: Opener, axe: str, look: Look) -> None:
    chat = opened(look)
    page = chat.page
    page.locator("input[type=file][accept*=json]").set_input_files(
        [file("all.json", "application/json", every_kind())]
    )
    page.locator(".chats-link").first.wait_for(state="attached")
    page.evaluate("document.querySelector('.chats-link').click()")
    expect(chat.answers).to_have_count(4)
    for details in page.locator(".chat-thoughts summary").all():
        details.click()
    chat.choose(SEEING)
    page.locator("input[type=file][multiple]").set_input_files(
        [file("a.png", "image/png", photo())]
    )
    page.locator(".chat-composer .chat-thumb").wait_for()
    assert fits(page)
    assert_accessible(page, axe)
    page.keyboard.press("Control+k")
    assert_accessible(page, axe)
    page.locator(".chats-more").first.click()
    page.get_by_role("dialog").wait_for()
    assert_accessible(page, axe)
    page.keyboard.press("Escape")
