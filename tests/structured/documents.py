"""Documents that meet a schema, as a person would fill it in: keys in its order, words in its strings."""

from __future__ import annotations

import json
import random
from typing import Any

from rkllama.schema.grammar import Grammar, State
from tests.schema.walking import DeadEnd, _last_step

_TEXTS = (
    "a",
    "Zoë Smith",
    "the living room",
    'she said "yes"',
    "C:\\temp",
    "two\nlines",
    "日本 😀",
    "https://example.com/a?b=c",
    "joe@example.com",
    "2024-11-28",
    "2024-11-28T10:00:00Z",
    "light.kitchen",
    "10",
)
_NUMBERS = ("1", "42", "1200", "0.5", "12.5", "-3", "0", "7", "150", "20.25")
_LONGEST = 400


def document(grammar: Grammar, chance: random.Random) -> Any:
    """Return a value that a grammar admits. Raises DeadEnd where none is found."""
    state, text = grammar.start(), ""
    while not state.must_end:
        more = _step(state, chance, len(text))
        count, state = state.feed(more)
        if count < len(more) or len(text) > 10 * _LONGEST:
            raise DeadEnd(text)
        text += more
    return json.loads(text)


def _step(state: State, chance: random.Random, length: int) -> str:
    if forced := state.forced():
        return forced
    if choices := state.choices():
        ends = [choice for choice in choices if choice in ("]", "}")]
        if ends and (length > _LONGEST or chance.random() < 0.2):
            return ends[0]
        return choices[0] if chance.random() < 0.6 else chance.choice(choices)
    if state.may_end and not state.in_string:
        return " "
    return _scalar(state, chance) or _last_step(state, chance)


def _scalar(state: State, chance: random.Random) -> str:
    """Return a text or a number that can come here as a whole, or nothing."""
    texts = [json.dumps(text, ensure_ascii=False) for text in _TEXTS]
    if state.in_string:
        return ""
    if not state.between_tokens:  # a number that may go on
        return next((end for end in ("}", "]", ", ") if state.feed(end)[0] == len(end)), "")
    for value in chance.sample([*texts, *_NUMBERS], len(texts) + len(_NUMBERS)):
        count, after = state.feed(value)
        if count == len(value) and (
            after.between_tokens or any(after.advance(char) for char in ",]}") or after.may_end
        ):
            return value
    return ""
