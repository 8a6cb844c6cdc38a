"""What a family's way of writing tool calls is made of.

A call is an opener, a head, JSON and closers, such as `<tool_call>` `{…}` `</tool_call>`. In place of JSON
there can be tags. What only looks like a call is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = r"(?P<name>[\w.-]{1,64})"
FENCED = r"\s*(?:```(?:json)?\s*)?"
TAGS_FOLLOW = r">\s*(?=<)"
_JSON_FOLLOWS = r"(?=\{|\[\s{0,99}[{\]])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a call. `head` matches between opener and JSON; `partial` matches every
    beginning of a head, so that a mismatch shows at once. `strict`: the JSON alone has to show that
    it is a call, of a known tool. `tagged` matches up to the tags that can stand in place of JSON.
    """

    opener: str
    head: re.Pattern[str]
    partial: re.Pattern[str]
    closers: tuple[str, ...] = ()
    strict: bool = False
    json_at_opener: bool = False
    tagged: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """How a family of models writes calls.

    A template is of this format when its source holds one of `signs`. `separators` are control tokens
    inside a call, beside openers and closers. `bare_anywhere`: JSON without a marker is a call at the
    beginning of any line, not only at the beginning of the answer.
    """

    name: str
    signs: tuple[str, ...]
    forms: tuple[Form, ...]
    separators: tuple[str, ...] = ()
    bare_anywhere: bool = False


def marked(opener: str, head: str, partial: str, *closers: str, tagged: str | None = None) -> Form:
    """A form whose opener says that a call begins.

    In its patterns no two `\\s*` may meet: a failed match would take the square of the spaces' number.
    """
    return Form(
        opener=opener,
        head=re.compile(head + _JSON_FOLLOWS),
        partial=re.compile(partial),
        closers=closers,
        tagged=None if tagged is None else re.compile(tagged),
    )


def bare(opener: str, *closers: str, json_at_opener: bool = False) -> Form:
    """A form that counts at the beginning of a line only, and whose JSON has to be a call."""
    return Form(
        opener=opener,
        head=re.compile(r"\s*" + _JSON_FOLLOWS),
        partial=re.compile(r"\s*(?:\[\s*)?"),
        closers=closers,
        strict=True,
        json_at_opener=json_at_opener,
    )
