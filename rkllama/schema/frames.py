"""One reading of a text: what is open in it, innermost first.

A frame is something that is open. It names those around it (`outer`): several, where several readings of
the text so far go on alike from here. Frames are never changed: a character makes new ones, and those
around are shared.

    Value      a value has to begin
    StringAt   in a string            KeyAt   in a key
    NumberAt   in a number            LiteralAt   in true, false, null or a given number
    ObjectAt   between the tokens of an object        ArrayAt   of an array
    Checked    around a value that is looked at once more when it has ended
    Bottom     around everything      End     behind everything
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import words as choices
from .limits import Limits
from .numbers import is_number, is_number_prefix
from .shapes import Array, Node, Number, Object, Shape, String, Words
from .strings import FreeCursor, KeyCursor, free, unescape
from .values import admits, identity, parse
from .words import WordCursor, sorted_words

BLANKS = " \n\r\t"

OPENED, KEY_READ, WAITING, FILLED, COMMA = range(5)
"""What was last: a bracket; a key; the colon, or a value's begin; a value's end; a comma."""


class Tail:
    """The text so far as a list from its end, kept where values are looked at again."""

    __slots__ = ("before", "char")

    def __init__(self, char: str, before: Tail | None) -> None:
        self.char = char
        self.before = before


class Step(NamedTuple):
    """One character, with the text before and behind it, and the limits of the grammar."""

    char: str
    before: Tail | None
    after: Tail | None
    limits: Limits


class Bottom(NamedTuple):
    """Around everything."""

    outer: tuple[Any, ...] = ()


class End(NamedTuple):
    """Behind the whole value."""

    outer: tuple[Any, ...] = ()


class Value(NamedTuple):
    """A value has to begin."""

    outer: tuple[Any, ...]
    node: Node
    depth: int


class StringAt(NamedTuple):
    """In a string; `escape` is what of an escape was read."""

    outer: tuple[Any, ...]
    cursor: FreeCursor | WordCursor
    escape: str = ""


class KeyAt(NamedTuple):
    """In a key of the object around."""

    outer: tuple[Any, ...]
    cursor: KeyCursor
    escape: str = ""


class NumberAt(NamedTuple):
    """In a number."""

    outer: tuple[Any, ...]
    shape: Number
    text: str


class LiteralAt(NamedTuple):
    """In a literal."""

    outer: tuple[Any, ...]
    cursor: WordCursor


class ObjectAt(NamedTuple):
    """In an object, with the keys that were there."""

    outer: tuple[Any, ...]
    shape: Object
    depth: int
    phase: int = OPENED
    seen: frozenset[str] = frozenset()
    key: str = ""
    missing: frozenset[str] = frozenset()
    """Keys that have to come."""
    barred: frozenset[str] = frozenset()
    """Keys that must not come any more."""


class ArrayAt(NamedTuple):
    """In an array, with the index of the item that is next."""

    outer: tuple[Any, ...]
    shape: Array
    depth: int
    phase: int = OPENED
    place: int = 0
    start: Tail | None = None
    """The text before the item, and what all items were, where none may come twice."""
    items: frozenset[Any] = frozenset()


class Checked(NamedTuple):
    """Around a value that must not be one of some."""

    outer: tuple[Any, ...]
    checks: tuple[Node, ...]
    start: Tail | None


Frame = (
    Bottom | End | Value | StringAt | KeyAt | NumberAt | LiteralAt | ObjectAt | ArrayAt | Checked
)
BOTTOM = Bottom()
END = End()


def advance(frame: Frame, step: Step, found: list[Frame]) -> None:
    """Add to `found` what a frame becomes with one more character: nothing where that cannot come."""
    _ADVANCE[type(frame)](frame, step, found)


def _value(frame: Value, step: Step, found: list[Frame]) -> None:
    char = step.char
    if char in BLANKS:
        found.append(frame)
        return
    for shape in frame.node.starts.get(char, ()):
        outer: tuple[Any, ...] = frame.outer
        if shape.checks:
            outer = (Checked(outer, shape.checks, step.before),)
        _begin(shape, frame.depth, outer, step, found)


def _begin(
    shape: Shape, depth: int, outer: tuple[Any, ...], step: Step, found: list[Frame]
) -> None:
    if isinstance(shape, Object):
        if depth + shape.height <= step.limits.depth:
            found.append(ObjectAt(outer, shape, depth + 1, missing=shape.required))
    elif isinstance(shape, Array):
        if depth + shape.height <= step.limits.depth:
            found.append(ArrayAt(outer, shape, depth + 1, start=step.after))
    elif isinstance(shape, String):
        found.append(StringAt(outer, free(shape)))
    elif isinstance(shape, Words):
        if cursor := choices.begin(shape.words):
            found.append(StringAt(outer, cursor))
    elif isinstance(shape, Number):
        if is_number_prefix(step.char, shape):
            found.append(NumberAt(outer, shape, step.char))
    elif (cursor := choices.begin(shape.words)) and (cursor := cursor.step(step.char)):
        found.append(LiteralAt(outer, cursor))


def _string(frame: StringAt | KeyAt, step: Step, found: list[Frame]) -> None:
    char = step.char
    cursor = frame.cursor
    if not frame.escape:
        if char == '"':
            if cursor.complete:
                _end_string(frame, step, found)
            return
        if char == "\\":
            if cursor.open:
                found.append(frame._replace(escape="\\"))
            return
        if char < " " or "\ud800" <= char <= "\udfff":
            return
    else:
        read = unescape(frame.escape, char, cursor)
        if read is None:
            return
        escape, char = read
        if escape:
            found.append(frame._replace(escape=escape))
            return
    after = cursor.step(char)
    if after is not None:
        found.append(type(frame)(frame.outer, after))  # type: ignore[arg-type]


def _end_string(frame: StringAt | KeyAt, step: Step, found: list[Frame]) -> None:
    if isinstance(frame, StringAt):
        close(frame.outer, step.after, found)
        return
    key = frame.cursor.text
    for outer in frame.outer:
        found.append(outer._replace(phase=KEY_READ, key=key))


def _number(frame: NumberAt, step: Step, found: list[Frame]) -> None:
    text = frame.text + step.char
    if step.char in "0123456789.eE+-":
        if is_number_prefix(text, frame.shape):
            found.append(NumberAt(frame.outer, frame.shape, text))
    elif is_number(frame.text, frame.shape):
        _behind(frame.outer, step, found)


def _literal(frame: LiteralAt, step: Step, found: list[Frame]) -> None:
    if step.char in ",]} \n\r\t":
        if frame.cursor.complete:
            _behind(frame.outer, step, found)
    elif cursor := frame.cursor.step(step.char):
        found.append(LiteralAt(frame.outer, cursor))


def _behind(outer: tuple[Any, ...], step: Step, found: list[Frame]) -> None:
    """End a value that is known to have ended by the character behind it."""
    ended: list[Frame] = []
    close(outer, step.before, ended)
    for frame in ended:
        advance(frame, step, found)


def close(outer: tuple[Any, ...], tail: Tail | None, found: list[Frame]) -> None:
    """Add to `found` what those around a value become when it ends at `tail`."""
    for frame in outer:
        if isinstance(frame, ObjectAt):
            seen = frame.seen | {frame.key}
            missing = frame.missing - {frame.key}
            if frame.shape.dependent:
                missing |= frame.shape.dependent.get(frame.key, frozenset()) - seen
            found.append(frame._replace(phase=FILLED, seen=seen, missing=missing))
        elif isinstance(frame, ArrayAt):
            if (after := _with_item(frame, tail)) is not None:
                found.append(after)
        elif isinstance(frame, Checked):
            value = parse(text_between(frame.start, tail))
            if not any(admits(check, value) for check in frame.checks):
                close(frame.outer, tail, found)
        else:
            found.append(END)


def _with_item(frame: ArrayAt, tail: Tail | None) -> ArrayAt | None:
    if not frame.shape.unique:
        return frame._replace(phase=FILLED, place=frame.place + 1)
    item = identity(parse(text_between(frame.start, tail)))
    if item in frame.items:
        return None
    return frame._replace(phase=FILLED, place=frame.place + 1, items=frame.items | {item})


def text_between(start: Tail | None, end: Tail | None) -> str:
    """Return the text behind `start`, up to `end`."""
    chars: list[str] = []
    while end is not start and end is not None:
        chars.append(end.char)
        end = end.before
    return "".join(reversed(chars))


def _object(frame: ObjectAt, step: Step, found: list[Frame]) -> None:
    char, phase = step.char, frame.phase
    if char in BLANKS:
        found.append(frame)
    elif phase == KEY_READ:
        node = value_node(frame) if char == ":" else None
        if node is not None and frame.depth + node.height <= step.limits.depth:
            outer = (frame._replace(phase=WAITING),)
            found.append(Value(outer, node, frame.depth))
    elif char == "}" and phase in (OPENED, FILLED):
        if may_close(frame):
            close(frame.outer, step.after, found)
    elif char == "," and phase == FILLED:
        if keys(frame, step.limits) is not None:
            found.append(frame._replace(phase=COMMA))
    elif (
        char == '"'
        and phase in (OPENED, COMMA)
        and (cursor := keys(frame, step.limits)) is not None
    ):
        found.append(KeyAt((frame,), cursor))


def value_node(frame: ObjectAt) -> Node | None:
    """Return the node of the value of an object's last key."""
    if frame.key in frame.shape.properties:
        return frame.shape.properties[frame.key]
    return frame.shape.additional


def may_close(frame: ObjectAt) -> bool:
    """Return whether an object may end."""
    return not frame.missing and len(frame.seen) >= frame.shape.least


def keys(frame: ObjectAt, limits: Limits) -> KeyCursor | None:
    """Return the place before an object's next key; None where there can be none."""
    shape, seen = frame.shape, frame.seen
    room = shape.most - len(seen)
    if room <= 0:
        return None
    seen |= frame.barred
    words, others = shape.words, None
    if room <= len(frame.missing):
        words = sorted_words(frame.missing)
    elif (
        shape.additional is not None
        and shape.names is not None
        and not (limits.named_keys and shape.tolerates_additional)
        and shape.additional.height + frame.depth <= limits.depth
    ):
        others = free(shape.names)
    if frame.depth + shape.tallest > limits.depth:
        words = tuple(name for name in words if frame.depth + shape.height_of(name) <= limits.depth)
    cursor = choices.begin(words)
    if cursor is not None and len(words) <= len(seen) and all(word in seen for word in words):
        cursor = None
    if cursor is None and others is None:
        return None
    return KeyCursor(shape, seen, "", cursor, others)


def _array(frame: ArrayAt, step: Step, found: list[Frame]) -> None:
    char, phase = step.char, frame.phase
    if char in BLANKS:
        found.append(frame)
    elif char == "]" and phase in (OPENED, FILLED):
        if frame.place >= frame.shape.least:
            close(frame.outer, step.after, found)
    elif phase == FILLED:
        if char == "," and (node := next_item(frame, step.limits)) is not None:
            outer = (frame._replace(phase=WAITING, start=step.after),)
            found.append(Value(outer, node, frame.depth))
    elif phase == OPENED and (node := next_item(frame, step.limits)) is not None:
        _value(Value((frame._replace(phase=WAITING),), node, frame.depth), step, found)


def next_item(frame: ArrayAt, limits: Limits) -> Node | None:
    """Return the node of an array's next item; None where there can be none."""
    node = frame.shape.node_at(frame.place)
    if node is None or frame.depth + node.height > limits.depth:
        return None
    return node


def _end(frame: End, step: Step, found: list[Frame]) -> None:
    if step.char in BLANKS:
        found.append(frame)


_ADVANCE: dict[type, Any] = {
    Value: _value,
    StringAt: _string,
    KeyAt: _string,
    NumberAt: _number,
    LiteralAt: _literal,
    ObjectAt: _object,
    ArrayAt: _array,
    End: _end,
}


def merged(frames: list[Frame]) -> list[Frame]:
    """Return frames, those that go on alike as one with all that is around them."""
    together: dict[Any, list[Frame]] = {}
    for frame in frames:
        together.setdefault((type(frame), frame[1:]), []).append(frame)
    if len(together) == len(frames):
        return frames
    kept: list[Frame] = []
    for alike in together.values():
        outer = {id(around): around for frame in alike for around in frame.outer}
        kept.append(alike[0]._replace(outer=tuple(outer.values())))
    return kept
