"""Strings of JSON in GBNF: free ones, those of an automaton, and keys that a schema does not name."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..regex.automata import Spot
from ..regex.characters import Ranges, complement, ranges
from ..shapes import String
from .rules import Rules, character, choice, literal

_LONG = 65_536
_MOST_COUNTED = 256
"""Characters that are counted beside an automaton: each of them needs its places anew. A text that is longer
than it may be is found out when it is whole.
"""
_SHORT_ESCAPES = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r"}
_CONTROLS = 0x20
_NEVER_PLAIN: Ranges = ((0, _CONTROLS - 1), (0x22, 0x22), (0x5C, 0x5C), (0xD800, 0xDFFF))
"""What stands in no string as it is; a model's text has no halves of surrogate pairs."""
_PLAIN = complement(_NEVER_PLAIN)
_HEX = "[0-9a-fA-F]"
_ESCAPED = rf'"\\" (["\\/bfnrt] | "u" ([0-9abcefABCEF] {_HEX} | [dD] [0-7]) {_HEX} {_HEX})'
"""No halves of surrogate pairs."""


def string(rules: Rules, shape: String) -> str:
    """Return a string with its quotes."""
    quote = literal('"')
    if shape.spot is not None:
        return f"{quote} {_place(rules, shape, shape.spot, _first_length(shape))}"
    most = math.inf if shape.most >= _LONG else shape.most
    return f"{quote} {rules.repeated(_any_character(rules), shape.least, most)} {quote}"


def other_key(rules: Rules, names: String | None, known: frozenset[str]) -> str:
    """Return a key, with its quotes, that is none of the known ones."""
    shape = names or String(0, _LONG)
    if shape.spot is not None or not known or (shape.least, shape.most) != (0, _LONG):
        return string(rules, shape)
    return f"{literal(chr(34))} {_unlike(rules, known, '')}"


def _any_character(rules: Rules) -> str:
    return rules.named("character", lambda: f"{_class_of(_PLAIN)} | {_ESCAPED}")


def _unlike(rules: Rules, known: frozenset[str], begun: str) -> str:
    """The rest of a key that begins as some of the known ones do."""

    def make() -> str:
        nexts = {name[len(begun)] for name in known if name.startswith(begun) and name != begun}
        ways = [
            f"{literal(char)} {_unlike(rules, known, begun + char)}"
            for char in sorted(nexts)
            if char not in '"\\' and char >= " "
        ]
        taken = ranges([*_NEVER_PLAIN, *((ord(char), ord(char)) for char in nexts)])
        rest = rules.repeated(_any_character(rules), 0, math.inf)
        ways.append(f"{_class_of(complement(taken))} {rest} {literal(chr(34))}")
        if begun not in known:
            ways.append(literal('"'))
        return choice(ways)

    return rules.named(("unlike", known, begun), make)


# --- Automata --------------------------------------------------------------------------------------


def _first_length(shape: String) -> int | None:
    """Return 0 where characters have to be counted beside the automaton, else None."""
    assert shape.spot is not None
    most = math.inf if shape.most > _MOST_COUNTED else shape.most
    counts = shape.least > shape.spot.shortest or most < shape.spot.longest
    return 0 if counts else None


def _place(rules: Rules, shape: String, spot: Spot, length: int | None) -> str:
    """The rest of a string from a place in its automaton on, with the quote at its end."""
    if length is not None and length >= shape.least and shape.most > _MOST_COUNTED:
        length = None  # there are enough, and never too many
    key = (spot, length, shape.least, shape.most) if length is not None else spot
    return rules.named(key, lambda: _from_place(rules, shape, spot, length))


def _from_place(rules: Rules, shape: String, spot: Spot, length: int | None) -> str:
    ways: list[str] = []
    by_target: dict[Spot, list[tuple[int, int]]] = {}
    for low, high, target in spot.edges():
        if length is None or _has_room(shape, target, length + 1):
            by_target.setdefault(target, []).append((low, high))
    for target, pairs in by_target.items():
        after = _place(rules, shape, target, None if length is None else length + 1)
        ways += (f"{each} {after}" for each in _characters(pairs))
    if spot.accepting and (length is None or length >= shape.least):
        ways.append(literal('"'))
    return choice(ways)


def _has_room(shape: String, spot: Spot, length: int) -> bool:
    return length + spot.shortest <= shape.most and length + spot.longest >= shape.least


def _characters(pairs: Iterable[tuple[int, int]]) -> list[str]:
    """The ways to write one character of some ranges."""
    these = ranges(pairs)
    ways: list[str] = []
    if plain := _common(these, _PLAIN):
        ways.append(_class_of(plain))
    escaped = [*_common(these, _NEVER_PLAIN[:3])]
    codes = [code for low, high in escaped for code in range(low, high + 1)]
    if len(codes) > _CONTROLS:  # anything may come: the usual ones are enough
        return [*ways, r'"\\" ["\\/bfnrt]']
    return ways + [literal(_escape(code)) for code in codes]


def _escape(code: int) -> str:
    if code in (0x22, 0x5C):
        return f"\\{chr(code)}"
    short = _SHORT_ESCAPES.get(code)
    return f"\\{short}" if short else f"\\u{code:04x}"


def _common(one: Ranges, other: Ranges) -> Ranges:
    return ranges(
        (max(low, first), min(high, last))
        for low, high in one
        for first, last in other
        if max(low, first) <= min(high, last)
    )


def _class_of(these: Ranges) -> str:
    parts = (
        character(low) if low == high else f"{character(low)}-{character(high)}"
        for low, high in these
    )
    return f"[{''.join(parts)}]"
