"""What comes next in the canonical layout: `{"a": 1, "b": [1, 2]}`, with the keys as the schema has them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .frames import (
    COMMA,
    FILLED,
    KEY_READ,
    WAITING,
    ArrayAt,
    Frame,
    KeyAt,
    LiteralAt,
    NumberAt,
    ObjectAt,
    StringAt,
    Tail,
    Value,
    close,
    keys,
    may_close,
    next_item,
)
from .limits import Limits
from .numbers import is_number, is_number_prefix
from .shapes import Literals, Number, Object, Shape, String, Words
from .strings import FreeCursor
from .values import identity
from .words import WordCursor

_MOST = 1_000
"""Choices that are looked at; more are as good as open."""


class Where(NamedTuple):
    """What counts beside the frames: blanks before this place, and the text so far where it is kept."""

    limits: Limits
    blanks: int
    tail: Tail | None


def continuations(frame: Frame, where: Where) -> list[str] | None:
    """Return the texts of which one has to come next, up to a token's end; None where that is open."""
    if isinstance(frame, Value):
        gap = " " if _stands_behind_a_token(frame.outer) and not where.blanks else ""
        return _in_value(frame, where.limits, gap)
    if isinstance(frame, ObjectAt):
        return _in_object(frame, where.limits, where.blanks)
    if isinstance(frame, ArrayAt):
        return _in_array(frame, where.limits)
    if isinstance(frame, StringAt):
        return _in_string(frame)
    if isinstance(frame, KeyAt):
        if frame.escape or len(rests := frame.cursor.rests()) > _MOST:
            return None
        return [f'{_escaped(rest)}": ' for rest in rests] or None
    if isinstance(frame, NumberAt):
        if can_grow(frame):
            return None
        return _behind(frame.outer, where) if is_number(frame.text, frame.shape) else []
    if isinstance(frame, LiteralAt):
        return _in_literal(frame, where)
    return []


def can_grow(frame: NumberAt) -> bool:
    """Return whether one more character can belong to a number."""
    return any(is_number_prefix(frame.text + char, frame.shape) for char in "0123456789.e")


def _stands_behind_a_token(outer: tuple[Any, ...]) -> bool:
    """Return whether a value comes behind a colon or a comma."""
    around = outer[0]
    if isinstance(around, ObjectAt):
        return True
    return isinstance(around, ArrayAt) and around.phase == WAITING and around.place > 0


def _in_value(frame: Value, limits: Limits, gap: str) -> list[str] | None:
    texts: list[str] = []
    for shape in dict.fromkeys(s for shapes in frame.node.starts.values() for s in shapes):
        if isinstance(shape, String | Number):
            return None
        if isinstance(shape, Words | Literals) and len(shape.words) > _MOST:
            return None
        if frame.depth + shape.height <= limits.depth:
            texts += (gap + text for text in _beginnings(shape))
    return texts


def _beginnings(shape: Shape) -> Iterable[str]:
    if isinstance(shape, Words):
        return [f'"{_escaped(word)}"' for word in shape.words]
    if isinstance(shape, Literals):
        return plainest(shape.words)
    return "{" if isinstance(shape, Object) else "["


def plainest(words: Iterable[str]) -> list[str]:
    """Of each number the shortest form."""
    by_value: dict[Any, str] = {}
    for word in sorted(words, key=len):
        by_value.setdefault(identity(json.loads(word)), word)
    return list(by_value.values())


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_object(frame: ObjectAt, limits: Limits, blanks: int) -> list[str] | None:
    if frame.phase == KEY_READ:
        return [": "]
    cursor = keys(frame, limits)
    names = next_keys(frame, limits) if cursor is not None else []
    closes = frame.phase != COMMA and may_close(frame)
    others = cursor is not None and cursor.others is not None
    if others and not frame.missing and frame.shape.offers_additional:
        return None
    if len(names) > _MOST or (others and not names and not closes):
        return None
    before = ""
    if frame.phase == FILLED:
        before = ", "
    elif frame.phase == COMMA and not blanks:
        before = " "
    texts = [f'{before}"{_escaped(name)}": ' for name in names]
    return [*texts, "}"] if closes else texts


def next_keys(frame: ObjectAt, limits: Limits) -> list[str]:
    """Return the keys of which one comes next when they come as the schema has them: what is required must
    not be passed over, but what was passed over already comes first.
    """
    shape, missing = frame.shape, frame.missing
    seen = frame.seen | frame.barred
    last = max((at for at, name in enumerate(shape.order) if name in frame.seen), default=-1)
    late = [name for name in shape.order if name in missing]
    if late and (shape.most - len(frame.seen) <= len(missing) or shape.order.index(late[0]) < last):
        return late[:1]
    names: list[str] = []
    for name in shape.order[last + 1 :]:
        node = shape.properties[name]
        is_possible = node is not None and node.height + frame.depth <= limits.depth
        if is_possible and name not in seen:
            names.append(name)
        if name in missing:
            break
    if not names and not may_close(frame):
        return [name for name in shape.order if name not in seen]
    return names


def _in_array(frame: ArrayAt, limits: Limits) -> list[str] | None:
    closing = ["]"] if frame.place >= frame.shape.least else []
    node = next_item(frame, limits)
    if node is None:
        return closing
    if frame.phase == FILLED:
        return [", ", *closing]
    first = _in_value(Value((frame,), node, frame.depth), limits, "")
    return None if first is None else first + closing


def _in_string(frame: StringAt) -> list[str] | None:
    if frame.escape:
        return None
    if isinstance(frame.cursor, WordCursor):
        rests = frame.cursor.rests()
        return None if len(rests) > _MOST else [f'{_escaped(rest)}"' for rest in rests]
    assert isinstance(frame.cursor, FreeCursor)
    forced = frame.cursor.forced()
    return [forced] if forced else None


def _in_literal(frame: LiteralAt, where: Where) -> list[str] | None:
    begun = frame.cursor.words[frame.cursor.low][: frame.cursor.depth]
    rests = _plainest_rests(frame.cursor, begun)
    if not frame.cursor.complete:
        return rests
    return _behind(frame.outer, where) if rests == [""] else None


def _plainest_rests(cursor: WordCursor, begun: str) -> list[str]:
    words = [begun + rest for rest in cursor.rests()]
    return [word[len(begun) :] for word in plainest(words)]


def _behind(outer: tuple[Any, ...], where: Where) -> list[str] | None:
    """What comes behind a value that cannot go on."""
    found: list[Frame] = []
    close(outer, where.tail, found)
    texts: list[str] = []
    for frame in found:
        more = continuations(frame, where)
        if more is None:
            return None
        texts += more
    return texts
