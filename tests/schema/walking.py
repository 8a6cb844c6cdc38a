"""Texts made by a grammar itself, one character after another, at random."""

from __future__ import annotations

import random

from rkllama.schema.frames import KeyAt, StringAt
from rkllama.schema.grammar import Grammar, State
from rkllama.schema.regex.automata import Spot
from rkllama.schema.strings import FreeCursor

_CHARACTERS = '{}[]":, \n0123456789-.aeEfnrstluxyzAZ@/\\éΩ語😀'
_TO_THE_END = '"}]1234567890:,tfnaulser{[x -.'


class DeadEnd(AssertionError):
    """An accepted text that nothing completes."""


def random_text(grammar: Grammar, rng: random.Random, length: int = 60, limit: int = 4000) -> str:
    """Return a text that the grammar accepts: at random for `length` characters, then as short as may be.

    Raises DeadEnd, which a grammar that is decided by prefix never does.
    """
    state = grammar.start()
    text = ""
    while len(text) < limit:
        if state.may_end and (len(text) >= length or rng.random() < 0.1):
            return text
        more = _random_step(state, rng) if len(text) < length else _last_step(state, rng)
        text += more
        count, state = state.feed(more)
        assert count == len(more)
    raise DeadEnd(f"no end after {text[:300]}")


def _random_step(state: State, rng: random.Random) -> str:
    if rng.random() < 0.2 and (forced := state.forced()):
        return forced
    if rng.random() < 0.2 and (choices := state.choices()):
        return rng.choice(choices)
    for char in rng.sample(_CHARACTERS, len(_CHARACTERS)):
        if state.advance(char) is not None:
            return char
    return _last_step(state, rng)


def _last_step(state: State, rng: random.Random) -> str:
    if forced := state.forced():
        return forced
    if choices := state.choices():
        ends = [choice for choice in choices if choice in "]}"]
        return rng.choice(ends or choices)
    for char in _hints(state) + _TO_THE_END + _CHARACTERS:
        if state.advance(char) is not None:
            return char
    raise DeadEnd(f"at {state.path} ({state.kind})")


def _hints(state: State) -> str:
    """Characters that lead nearer to the end of a string."""
    top = state._tops[0]
    if not isinstance(top, StringAt | KeyAt):
        return ""
    if top.escape:
        return "0123456789abcdef\\u"
    cursor = top.cursor
    if isinstance(cursor, FreeCursor):
        return _nearest(cursor.spot) if cursor.spot is not None and not cursor.complete else ""
    if cursor.complete:
        return ""
    return "".join(rest[:1] for rest in cursor.rests())


def _nearest(spot: Spot) -> str:
    """Characters that lead nearer to the end."""
    edges = [edge for edge in spot.edges() if edge[2].shortest < spot.shortest]
    return "".join(chr(low) for low, _, _ in edges)
