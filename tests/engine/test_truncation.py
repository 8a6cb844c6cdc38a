"""What is left of a conversation that the context does not hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.engine import truncation
from rkllama.engine.truncation import truncate
from rkllama.errors import PromptTooLong
from rkllama.types import Message, Role, ToolCall

SYSTEM = Message.of("system", "Be brief.")


def turns(count: int, size: int = 100) -> tuple[Message, ...]:
    """So many questions, each with its answer but the last one."""
    made = [
        Message.of(role, f"{number} {role}".ljust(size))
        for number in range(count)
        for role in ("user", "assistant")
    ]
    return tuple(made[:-1])


def too_long(tokens: int | None = None, context: int | None = None) -> PromptTooLong:
    return PromptTooLong("too long", prompt_tokens=tokens, context_length=context)


def test_the_oldest_turns_go_four_at_a_time_and_the_system_message_stays() -> None:
    messages = (SYSTEM, *turns(20))
    left = truncate(messages, too_long(1100, 1000), 250)
    assert left == (SYSTEM, *turns(20)[16:])


def test_the_next_turns_are_cut_in_the_same_place() -> None:
    """Else the runtime would evaluate everything anew, at every turn."""
    firsts = []
    for count in range(20, 23):
        left = truncate(turns(count), too_long(50 * (2 * count - 1), 1900), 475)
        assert left is not None
        firsts.append(left[0].text)
    assert len(set(firsts)) == 1


def test_where_no_count_is_known_half_of_it_goes() -> None:
    left = truncate(turns(20), too_long(), 0)
    assert left == turns(20)[24:]


def test_two_long_turns_leave_the_last_one() -> None:
    assert truncate(turns(2), too_long(200, 100), 25) == turns(2)[2:]


def test_the_last_turn_alone_is_not_shortened() -> None:
    assert truncate(turns(1), too_long(200, 100), 25) is None
    assert truncate((SYSTEM, *turns(1)), too_long(200, 100), 25) is None
    assert truncate((SYSTEM,), too_long(200, 100), 25) is None
    assert truncate((), too_long(200, 100), 25) is None


def test_a_turn_is_cut_with_its_tool_calls_and_their_results() -> None:
    call = ToolCall(id="call_1", name="f", arguments={"x": "y" * 50})
    messages = (
        Message.of("user", "one"),
        Message.of("assistant", "", tool_calls=(call,)),
        Message.of("tool", "z" * 50, tool_call_id="call_1"),
        Message.of("assistant", "it is z"),
        Message.of("user", "two"),
    )
    assert truncate(messages, too_long(100, 60), 15) == messages[4:]


def test_each_message_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send hundreds of thousands."""
    measured: list[Message] = []

    def size(message: Message) -> int:
        measured.append(message)
        return 100

    monkeypatch.setattr(truncation, "_size", size)
    messages = turns(2000)
    left = truncate(messages, too_long(3000, 100), 25)
    assert left is not None
    assert len(left) < 100
    assert len(measured) == len(messages)


ROLES: list[Role] = ["system", "user", "assistant", "tool"]


@given(
    st.lists(st.builds(Message.of, st.sampled_from(ROLES), st.text(max_size=30))),
    st.integers(1, 1000),
    st.integers(1, 1000),
)
def test_it_always_gets_shorter_and_keeps_the_end(
    conversation: list[Message], tokens: int, context: int
) -> None:
    messages = tuple(conversation)
    for _ in range(len(messages) + 1):
        left = truncate(messages, too_long(tokens, context), context // 4)
        if left is None:
            return
        assert len(left) < len(messages)
        last_turn = max(n for n, message in enumerate(messages) if message.role == "user")
        assert left[-len(messages[last_turn:]) :] == messages[last_turn:]
        messages = left
    raise AssertionError("it never ended")
