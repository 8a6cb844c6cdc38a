"""The list of chats, their files, and a chat of 2000 messages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.page.chat.conftest import PLAIN, SEEING
from tests.page.chat.driving import Opener, expect, file, photo
from tests.virtual_npu import directive

pytestmark = pytest.mark.integration


def long_chat(count: int) -> bytes:
    """An export with one chat of so many messages."""
    messages = [
        {
            "role": "assistant" if n % 2 else "user",
            "content": f"Message {n}. " + "Some words that fill a line or two. " * (n % 7),
        }
        for n in range(count)
    ]
    chat = {"title": "long", "created": 1, "updated": 1, "settings": {}, "messages": messages}
    return json.dumps({"format": "rkllama-chats", "version": 1, "chats": [chat]}).encode()


def test_chats_are_listed_searched_renamed_and_deleted(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.ask("About apples\n" + directive(reply="They grow on trees."))
    page = chat.page
    page.get_by_role("link", name="New chat").click()
    chat.ask("About pears\n" + directive(reply="They grow on bushes."))
    expect(page.locator(".chats-title")).to_have_text([re.compile("pears"), re.compile("apples")])

    search = page.get_by_label("Search chats")
    page.locator(".chat-log").focus()
    page.keyboard.press("/")
    expect(search).to_be_focused()
    search.fill("TREES")
    expect(page.locator(".chats-title")).to_have_text([re.compile("apples")])
    expect(page.locator(".chats-when")).to_contain_text("grow on trees")
    search.fill("nowhere")
    expect(page.locator(".chats-none")).to_have_text("No chat has these words.")
    search.press("Escape")
    expect(page.locator(".chats-title")).to_have_count(2)
    chat.input.focus()
    page.keyboard.press("Control+k")
    expect(search).to_be_focused()

    page.get_by_role("link", name="apples").click()
    expect(chat.questions).to_contain_text(["apples"])
    page.locator(".chats-more").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Title").fill("Fruit")
    dialog.get_by_label("Title").press("Enter")
    expect(page.locator(".chats-title").last).to_have_text("Fruit")
    chat.ask("more", 2)
    expect(page.locator(".chats-title").first).to_have_text("Fruit")

    page.locator(".chats-more").first.click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator(".chats-title")).to_have_count(1)
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    chat.button("Undo").click()
    expect(page.locator(".chats-title")).to_have_text(["Fruit", re.compile("pears")])
    page.get_by_role("link", name="Fruit").click()
    expect(chat.answers).to_have_count(2)


def test_chats_go_out_as_files_and_come_in_again(opened: Opener, tmp_path: Path) -> None:
    chat = opened()
    chat.choose(SEEING)
    page = chat.page
    page.locator("input[type=file][multiple]").set_input_files(
        [file("a.png", "image/png", photo())]
    )
    page.locator(".chat-composer .chat-thumb").wait_for()
    chat.ask("What colour?")
    dialog = page.get_by_role("dialog")

    def saved(button: str) -> Path:
        page.locator(".chats-more").first.click()
        with page.expect_download() as download:
            dialog.get_by_role("button", name=button).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    markdown = saved("Save as Markdown")
    assert markdown.name == "What-colour.md"
    text = markdown.read_text()
    assert text.startswith("# What colour?\n\n## You\n\n![Picture 1](data:image/png;base64,")
    assert f"## {SEEING}\n\npicture 1: #ff0000" in text
    exported = saved("Save as JSON")
    whole = json.loads(exported.read_text())
    assert [message["role"] for message in whole["chats"][0]["messages"]] == ["user", "assistant"]

    other = opened()
    imports = other.page.locator("input[type=file][accept*=json]")
    imports.set_input_files(str(exported))
    expect(other.page.locator(".chats-title")).to_have_text(["What colour?"])
    other.page.locator(".chats-link").click()
    expect(other.page.locator(".chat-user .chat-thumb img")).to_have_count(1)
    expect(other.answers).to_contain_text(["#ff0000"])

    whole["chats"].append({**whole["chats"][0], "messages": [{"role": "user", "content": 5}]})
    for name, content, reason in (
        ("bad.json", json.dumps(whole), "chats[1].messages[0].content"),
        ("text.json", "{", "not a JSON file"),
        ("other.json", "[]", "not an export of this page"),
        (
            "script.json",
            json.dumps(
                {
                    **whole,
                    "chats": [
                        {
                            **whole["chats"][0],
                            "messages": [
                                {
                                    "role": "user",
                                    "content": "",
                                    "images": ["http://evil.example/x.png"],
                                }
                            ],
                        }
                    ],
                }
            ),
            "messages[0].images",
        ),
    ):
        imports.set_input_files([file(name, "application/json", content.encode())])
        notice = other.page.locator(".notice.error")
        expect(notice).to_contain_text(reason)
        other.button("Close", notice).click()
    expect(other.page.locator(".chats-title")).to_have_count(1)
    with other.page.expect_download() as download:
        other.button("Export all").click()
    assert len(json.loads(Path(download.value.path()).read_text())["chats"]) == 1


def test_a_chat_of_2000_messages_opens_at_its_end_and_draws_what_is_looked_at(
    opened: Opener,
) -> None:
    chat = opened()
    page = chat.page
    page.locator("input[type=file][accept*=json]").set_input_files(
        [file("l.json", "application/json", long_chat(2000))]
    )
    page.locator(".chats-link").click()
    expect(page.get_by_text("Message 1999.")).to_be_in_viewport()
    drawn = "document.querySelectorAll('.chat-message').length"
    whole = page.locator(".chat-log").evaluate(
        "(log) => log.textContent.match(/Message \\d+/g).length"
    )
    assert whole == 2000, "the browser's own search finds all"
    assert page.evaluate(drawn) < 100
    page.locator(".chat-log").evaluate("(log) => { log.scrollTop = 0; }")
    expect(page.locator(".chat-bubble", has_text="Message 0.")).to_be_in_viewport()
    assert page.evaluate(drawn) < 200
    end = chat.button("To the end")
    end.click()
    expect(page.get_by_text("Message 1999.")).to_be_in_viewport()
    expect(end).to_be_hidden()
