"""Lines of the system prompt that move behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.chat.moving import MovedLine, put_lines, take_lines
from rkllama.settings.prompt_rules import PromptRule
from rkllama.types import Message

CLOCK = PromptRule(name="clock", lines=("Time: *",))
AREA = PromptRule(name="area", lines=("You are in *.", "No timers."), before="last")


def test_lines_are_taken_and_the_rest_stays_as_it_was() -> None:
    text = "Be kind.\n  Time: 12:01  \n\n  Be brief.\nYou are in Kitchen.\r\nTimeless"
    left, moved = take_lines([text], (CLOCK, AREA))
    assert left == ("Be kind.\n\n  Be brief.\nTimeless",)
    assert moved == (
        MovedLine("clock", "first", "Time: 12:01"),
        MovedLine("area", "last", "You are in Kitchen."),
    )


def test_what_is_left_is_the_same_whatever_the_lines_say() -> None:
    texts = [f"Be kind.\nTime: 12:0{n}\nYou are in {n}." + "\nNo timers." * n for n in range(3)]
    assert len({take_lines([text], (CLOCK, AREA))[0] for text in texts}) == 1


def test_nothing_is_taken_where_nothing_would_be_left() -> None:
    assert take_lines(["Time: 12:01\n", ""], (CLOCK,)) == (("Time: 12:01\n", ""), ())
    left, moved = take_lines(["Time: 12:01", "Be kind."], (CLOCK,))
    assert left == ("", "Be kind.")
    assert len(moved) == 1


def test_nothing_is_taken_where_no_line_matches() -> None:
    text = "The time: 12:01\nTime\n"
    assert take_lines([text], (CLOCK, AREA)) == ((text,), ())


@pytest.mark.parametrize("rest", ["\n" * 10_001, "x" * (1 << 20)])
def test_nothing_is_looked_for_in_what_fits_no_context(rest: str) -> None:
    text = f"Time: 12:01\n{rest}"
    assert take_lines([text], (CLOCK,)) == ((text,), ())


MESSAGES = (
    Message.of("system", "Be kind."),
    Message.of("user", "Hello"),
    Message.of("assistant", "Hi"),
    Message.of("user", "Bye"),
)
MOVED = (MovedLine("clock", "first", "Time: 1"), MovedLine("area", "last", "You are in X."))


def test_lines_stand_before_the_first_and_the_last_of_the_user_s_texts() -> None:
    texts = [message.text for message in put_lines(MESSAGES, MOVED)]
    assert texts == ["Be kind.", "Time: 1\n\nHello", "Hi", "You are in X.\n\nBye"]


def test_both_places_may_be_one_message() -> None:
    (_, user) = put_lines(MESSAGES[:2], (*MOVED, MovedLine("clock", "first", "Day: 2")))
    assert user.text == "Time: 1\nDay: 2\n\nYou are in X.\n\nHello"


def test_without_a_user_nothing_is_put() -> None:
    assert put_lines(MESSAGES[:1], MOVED) == MESSAGES[:1]


def test_a_line_that_stays_the_same_keeps_the_text_of_earlier_turns() -> None:
    before = put_lines(MESSAGES[:2], MOVED[:1])
    after = put_lines(MESSAGES, MOVED[:1])
    assert after[: len(before)] == before


_LINES = st.lists(st.sampled_from(["Time: 1", "You are in X.", "No timers.", "a", " b", ""]))


@given(_LINES)
def test_no_line_is_lost_or_made(lines: list[str]) -> None:
    (left,), moved = take_lines(["\n".join(lines)], (CLOCK, AREA))
    kept = left.split("\n") if len(moved) < len(lines) or not lines else []
    assert sorted([*kept, *(line.text for line in moved)]) == sorted(lines or [""])
