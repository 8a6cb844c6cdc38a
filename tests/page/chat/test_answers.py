"""Answers: as they come, stopped, asked again, edited, with thoughts and with tools."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.page.chat.conftest import PLAIN, THINKER
from tests.page.chat.driving import Opener, asked_last, expect, fits
from tests.page.looking import Look
from tests.virtual_npu import directive

pytestmark = pytest.mark.integration

WEATHER = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
)


@pytest.mark.parametrize(
    ("look", "question"),
    [
        (Look(360, "dark", "fr"), "Qu’est-ce que RKLLama\u202f?"),
        (Look(768, "light", "fr"), "Comment télécharger un modèle\u202f?"),
        (Look(1440, "light", "en"), "Which boards are supported?"),
    ],
    ids=str,
)
def test_the_guide_answers_an_example_at_each_width(
    opened: Opener, look: Look, question: str
) -> None:
    chat = opened(look)
    if look.language == "fr":
        expect(chat.page.locator(".chat-hello h1")).to_have_text("Que souhaitez-vous savoir\u202f?")
    # The guide is not in the list until it was named once.
    chat.page.evaluate("localStorage.setItem('rkllama-model', 'guide')")
    chat.page.reload()
    example = chat.page.get_by_role("button", name=question)
    example.click()
    answer = chat.ended()
    expect(answer.locator(".md")).to_contain_text("RK")
    expect(answer.locator(".chat-figures")).to_contain_text(
        "tokens/s" if look.language == "en" else "jetons/s"
    )
    expect(chat.questions).to_have_text([question])
    assert fits(chat.page)
    status = chat.page.locator(".chat-main > [aria-live=polite]")
    expect(status).to_contain_text("RK")


def test_an_answer_streams_and_is_stopped_asked_again_and_goes_on(
    opened: Opener, trace: Path
) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("slow " + directive(tokens=700, token_us=4000))
    answer = chat.answers.first
    expect(answer).to_have_attribute("aria-busy", "true")
    before = answer.locator(".md").inner_text()
    expect(answer.locator(".md")).not_to_have_text(before)
    expect(chat.button("Send")).to_be_hidden()
    chat.button("Stop").click()
    answer = chat.ended()
    expect(answer.locator(".chat-note")).to_have_text("Stopped.")
    kept = answer.locator(".md").inner_text()
    assert kept
    chat.page.reload()
    expect(answer.locator(".md")).to_have_text(kept)

    chat.button("Continue").click()
    expect(answer).to_have_attribute("aria-busy", "true")
    chat.ended()
    assert answer.locator(".md").inner_text().startswith(kept)
    assert asked_last(trace).endswith(f"<|im_start|>assistant\n{kept}"), "nothing was said anew"
    expect(answer.locator(".chat-note")).to_have_count(0)

    chat.send("again " + directive(reply="one two"))
    chat.ended(2)
    chat.button("Ask again", chat.answers.last).click()
    answer = chat.ended(2)
    expect(answer.locator(".md")).to_have_text("one two")
    expect(answer.locator(".chat-figures")).to_contain_text("of the prompt from the cache")
    expect(answer.locator(".chat-figures")).to_contain_text("to the first token")

    chat.send("slow " + directive(tokens=700, token_us=4000))
    expect(chat.answers.last.locator(".md")).not_to_be_empty()
    chat.input.press("Escape")
    expect(chat.ended(3).locator(".chat-note")).to_have_text("Stopped.")


def test_a_message_is_edited_copied_and_deleted(opened: Opener) -> None:
    chat = opened(permissions=["clipboard-read", "clipboard-write"])
    chat.choose(PLAIN)
    chat.ask("first")
    chat.ask("second", 2)
    question = chat.questions.first
    chat.button("Edit", question).click()
    area = question.locator("textarea")
    expect(area).to_be_focused()
    area.press("Escape")
    expect(chat.button("Edit", question)).to_be_focused()
    chat.button("Edit", question).click()
    area.fill("changed")
    area.press("Enter")
    answer = chat.ended(1)
    expect(answer.locator(".md")).to_have_text("changed")
    expect(chat.questions).to_have_text(["changed"])

    chat.button("Copy", answer).click()
    expect(chat.button("Copied", answer)).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "changed"

    chat.ask("third", 2)
    chat.ask("fourth", 3)
    chat.button("Ask again", chat.answers.first).click()
    chat.ended(1)
    expect(chat.questions).to_have_text(["changed"])
    chat.button("Undo").last.click()
    expect(chat.questions).to_have_text(["changed", "third", "fourth"])
    chat.button("Delete", chat.questions.last).click()
    expect(chat.questions).to_have_text(["changed", "third"])
    chat.button("Delete", chat.questions.first).click()
    expect(chat.questions).to_have_text(["third"])
    expect(chat.answers).to_have_count(1)
    chat.button("Undo").last.click()
    expect(chat.questions).to_have_text(["changed", "third"])
    chat.page.reload()
    expect(chat.questions).to_have_text(["changed", "third"])


def test_thinking_is_folded_and_can_be_switched_off(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(THINKER)
    expect(chat.page.locator(".chat-about")).to_contain_text("thinks")
    think = chat.button("Think")
    expect(think).to_have_attribute("aria-pressed", "true")
    thoughts = "<think>" + "one two " * 400 + "\nso</think>\n\nFour."
    chat.send("2+2 " + directive(reply=thoughts, token_us=4000))
    details = chat.page.locator(".chat-thoughts")
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_have_text("Thinking…")
    answer = chat.ended()
    expect(details).not_to_have_attribute("open", "")
    expect(details.locator("summary")).to_have_text(re.compile(r"Thought for \d"))
    expect(answer.locator(".md")).to_have_text("Four.")

    think.click()
    expect(think).to_have_attribute("aria-pressed", "false")
    chat.ask("plain", 2)
    assert "<think>\n\n</think>" in asked_last(trace), "the template is told not to think"


def test_tools_are_called_and_given_their_results(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(PLAIN)
    dialog = chat.settings()
    dialog.get_by_label("Tools").fill("{")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text("The tools are not a JSON list.")
    dialog.get_by_label("Tools").fill(WEATHER)
    dialog.get_by_role("button", name="Save").click()
    called = '<tool_call>\n{"name": "weather", "arguments": {"city": "Lyon"}}\n</tool_call>'
    answer = chat.ask("weather? " + directive(reply=called))
    expect(answer.locator(".chat-call p")).to_have_text("Calls weather")
    expect(answer.locator(".chat-call pre")).to_have_text('{\n  "city": "Lyon"\n}')
    answer.get_by_label("Result of weather").fill("sunny, 24 degrees")
    chat.button("Send the result").click()
    chat.ended(2)
    prompt = asked_last(trace)
    assert "<tool_response>\nsunny, 24 degrees" in prompt
    expect(chat.page.locator(".chat-tool pre")).to_have_text("sunny, 24 degrees")


def test_settings_of_a_chat_reach_the_model(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(PLAIN)
    dialog = chat.settings()
    dialog.get_by_label("System prompt").fill("Speak like a pirate.")
    values = {
        "Temperature": "0.5",
        "Top p": "0.75",
        "Top k": "7",
        "Repeat penalty": "1.5",
        "Longest answer": "200",
        "Context": "8192",
        "Seed": "5",
    }
    for label, value in values.items():
        dialog.get_by_label(label).fill(value)
    dialog.get_by_role("button", name="Save").click()
    answer = chat.ask("x " + directive(mode="params"))
    told = json.loads(answer.locator(".md").inner_text().replace("\u201c", '"'))
    assert told["temperature"] == 0.5
    assert told["top_p"] == 0.75
    assert told["top_k"] == 7
    assert told["repeat_penalty"] == 1.5
    assert told["max_new_tokens"] == 200
    assert told["max_context_len"] == 8192
    prompt = asked_last(trace)
    assert "Speak like a pirate." in prompt
    chat.page.reload()
    chat.answers.first.wait_for()
    dialog = chat.settings()
    expect(dialog.get_by_label("System prompt")).to_have_value("Speak like a pirate.")
    expect(dialog.get_by_label("Temperature")).to_have_value("0.5")
    dialog.get_by_role("button", name="Reset").click()
    expect(dialog.get_by_label("Temperature")).to_have_value("")


def test_an_answer_goes_on_while_something_else_is_shown(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("slow " + directive(tokens=500, token_us=4000))
    expect(chat.answers.first.locator(".md")).not_to_be_empty()
    chat.page.get_by_role("link", name="Board", exact=True).click()
    expect(chat.input).not_to_be_attached()
    chat.page.get_by_role("link", name="Chat", exact=True).click()
    expect(chat.questions).to_have_count(1)
    chat.page.get_by_role("link", name="New chat").click()
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    chat.page.locator(".chats-link").first.click()
    answer = chat.ended()
    expect(answer.locator(".chat-figures")).to_contain_text("500 tokens")


def test_many_tokens_leave_the_page_responsive_and_the_reader_where_he_is(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("x " + directive(tokens=2000, token_us=1000))
    log = chat.page.locator(".chat-log")
    gap = "(log) => log.scrollHeight - log.clientHeight - log.scrollTop"
    expect(chat.page.locator(".chat-assistant .md")).to_have_text(re.compile(r"(\S+\s+){600}"))
    assert log.evaluate(gap) < 80, "the scroll follows"
    log.hover()
    chat.page.mouse.wheel(0, -400)
    expect(chat.button("To the end")).to_be_visible()
    top = log.evaluate("(log) => log.scrollTop")
    chat.ended()
    assert log.evaluate("(log) => log.scrollTop") == top, "who reads above is left there"
    assert log.evaluate(gap) > 80
