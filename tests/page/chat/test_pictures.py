"""Pictures come into a question in every way that a browser has."""

from __future__ import annotations

import base64

import pytest

from tests.page.chat.conftest import PLAIN, SEEING
from tests.page.chat.driving import Opener, expect, file, photo

pytestmark = pytest.mark.integration

PASTE = """(kind) => {
  const bytes = Uint8Array.from(atob(kind.data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], kind.name, { type: kind.type }));
  const event = kind.event === 'paste'
    ? new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(kind.event, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector(kind.at).dispatchEvent(event);
}"""


def test_pictures_come_by_file_paste_and_drop_and_stay_with_the_chat(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    expect(chat.button("Add pictures")).to_be_hidden()
    given = {"name": "a.png", "type": "image/png", "data": base64.b64encode(photo()).decode()}
    chat.page.evaluate(PASTE, {**given, "event": "paste", "at": ".chat-input"})
    expect(chat.page.locator(".notice.error")).to_contain_text("does not see pictures")
    chat.button("Close").click()

    chat.choose(SEEING)
    expect(chat.button("Add pictures")).to_be_visible()
    files = chat.page.locator("input[type=file][multiple]")
    large = file("large.jpg", "image/jpeg", photo((3000, 1000), "#0000ff", "JPEG"))
    files.set_input_files([large])
    thumbs = chat.page.locator(".chat-composer .chat-thumb")
    expect(thumbs).to_have_count(1)
    size = thumbs.first.locator("img").evaluate(
        "async (i) => { await i.decode(); return [i.naturalWidth, i.naturalHeight]; }"
    )
    assert size == [1536, 512]
    chat.page.evaluate(PASTE, {**given, "event": "paste", "at": ".chat-input"})
    expect(thumbs).to_have_count(2)
    chat.page.evaluate(PASTE, {**given, "event": "drop", "at": ".chat-input"})
    expect(thumbs).to_have_count(3)
    chat.button("Remove picture 2").click()
    expect(thumbs).to_have_count(2)
    chat.page.evaluate(
        PASTE, {**given, "event": "drop", "at": ".chat-log", "name": "b.txt", "type": "text/plain"}
    )
    expect(chat.page.locator(".notice.error")).to_contain_text("b.txt")
    chat.button("Close").click()
    files.set_input_files([file(f"{n}.png", "image/png", photo()) for n in range(9)])
    expect(thumbs).to_have_count(8)
    expect(chat.page.locator(".notice.error")).to_contain_text("8 pictures")
    for _ in range(6):
        chat.button("Remove picture 3").click()

    answer = chat.ask("what is it?")
    expect(answer.locator(".md")).to_contain_text("picture 2")
    expect(answer.locator(".md")).to_contain_text("#ff0000")
    chat.page.reload()
    expect(chat.page.locator(".chat-user .chat-thumb img")).to_have_count(2)
    camera = chat.page.locator("input[type=file][capture]")
    assert camera.get_attribute("capture") == "environment"
    assert camera.get_attribute("accept") == "image/*"
