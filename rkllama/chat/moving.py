"""Lines of the system prompt that change, moved behind what stays the same.

A runtime reuses what a prompt has in common with the one before it, up to the first token that differs. A
clock in the system prompt therefore costs all that follows: the rest of it, and the tools, which most
templates write after it. Such lines go into a message of the user's, before its text, since that is the
first place behind the tools in every template: a second system message would be merged with the first.

`take_lines` is done once for a request; `put_lines` for each prompt that is made of it, after turns may have
been left out. Both are functions of their arguments, so that a conversation that grows keeps its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..settings.prompt_rules import Place, PromptRule, matches
from ..types import Message, TextPart

_LONGEST = 1 << 20
"""Characters of a system prompt in which lines are looked for, and how many lines it may have: what is longer
fits no context, and would only be read for nothing.
"""
_MOST_LINES = 10_000


class MovedLine(NamedTuple):
    """A line, and the rule by which it moves."""

    rule: str
    before: Place
    text: str


def take_lines(
    texts: Sequence[str], rules: Collection[PromptRule]
) -> tuple[tuple[str, ...], tuple[MovedLine, ...]]:
    """Return the texts of a system prompt without the lines that a rule has, and these lines.

    Nothing is taken where nothing would be left: there is nothing to keep in front. Nor is it from a text
    that is larger than any prompt.
    """
    if sum(map(len, texts)) > _LONGEST or sum(text.count("\n") for text in texts) > _MOST_LINES:
        return tuple(texts), ()
    moved: list[MovedLine] = []
    left = tuple(_without(text, rules, moved) for text in texts)
    if not moved or not any(text.strip() for text in left):
        return tuple(texts), ()
    return left, tuple(moved)


def _without(text: str, rules: Collection[PromptRule], moved: list[MovedLine]) -> str:
    kept = []
    for line in text.split("\n"):
        stripped = line.strip()
        rule = _rule_of(stripped, rules) if stripped else None
        if rule is None:
            kept.append(line)
        else:
            moved.append(MovedLine(rule.name, rule.before, stripped))
    return "\n".join(kept)


def _rule_of(line: str, rules: Collection[PromptRule]) -> PromptRule | None:
    return next(
        (rule for rule in rules if any(matches(pattern, line) for pattern in rule.lines)), None
    )


def put_lines(messages: Sequence[Message], moved: Collection[MovedLine]) -> tuple[Message, ...]:
    """Return the messages with these lines before the texts of the first and the last user's message."""
    placed = list(messages)
    users = [n for n, message in enumerate(placed) if message.role == "user"]
    for place, at in zip(("last", "first"), (users[-1:], users[:1]), strict=True):
        lines = [line.text for line in moved if line.before == place]
        if lines and at:
            placed[at[0]] = _preceded(placed[at[0]], "\n".join(lines))
    return tuple(placed)


def _preceded(message: Message, text: str) -> Message:
    text = f"{text}\n\n" if message.content else text
    return replace(message, content=(TextPart(text), *message.content))
