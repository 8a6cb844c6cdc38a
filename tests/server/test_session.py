"""The hint by which a balancer keeps a conversation on its board."""

from __future__ import annotations

import pytest

from rkllama.server.status.session import session_of
from rkllama.types import ChatRequest, Message, Tool

SYSTEM, FIRST = Message.of("system", "You help."), Message.of("user", "Hello?")
LIGHT = Tool(name="light", description="Switch it.", parameters={"type": "object"})
CLOCK = Tool(name="clock", description="The time.", parameters={"type": "object", "title": "None"})


def chat(*messages: Message, tools: tuple[Tool, ...] = (LIGHT, CLOCK)) -> ChatRequest:
    return ChatRequest(messages=messages, tools=tools)


def test_it_is_the_same_in_every_turn() -> None:
    later = chat(SYSTEM, FIRST, Message.of("assistant", "Yes?"), Message.of("user", "Nothing."))
    assert session_of(chat(SYSTEM, FIRST)) == session_of(later)


def test_tools_are_in_the_order_in_which_a_client_happens_to_have_them() -> None:
    turned = Tool(
        name="clock", description="The time.", parameters={"title": "None", "type": "object"}
    )
    assert session_of(chat(SYSTEM, FIRST)) == session_of(chat(SYSTEM, FIRST, tools=(turned, LIGHT)))


@pytest.mark.parametrize(
    "other",
    [
        chat(SYSTEM, Message.of("user", "Hello!")),
        chat(Message.of("system", "You rhyme."), FIRST),
        chat(SYSTEM, FIRST, tools=(LIGHT,)),
        chat(FIRST),
        ChatRequest(prompt="Hello?"),
    ],
)
def test_another_beginning_has_another(other: ChatRequest) -> None:
    assert session_of(other) != session_of(chat(SYSTEM, FIRST))


def test_a_text_that_grows_keeps_its_own() -> None:
    text = "word " * 300
    assert session_of(ChatRequest(prompt=text)) == session_of(ChatRequest(prompt=text + "more"))
