"""A compiled schema in llama.cpp's notation for grammars (GBNF), for where its own reading of schemas ends.

A text of such a grammar has the canonical layout (a blank behind `:` and `,` may be left out), and its keys
come as the schema has them, with others only where the schema asks for them. What no such grammar holds
(uniqueItems, not, dependent keys, keys twice among those without a name) has to be looked at when the text
is whole.
"""

from __future__ import annotations

import json

from ..layout import plainest
from ..shapes import Array, Literals, Node, Number, Object, Shape, String, Words
from .numbers import number
from .rules import Rules, TooLarge, choice, literal
from .strings import other_key, string

_COMMA = '"," " "?'
_COLON = '":" " "?'


def write_gbnf(node: Node) -> str | None:
    """Return a node's grammar; None where it would be larger than llama.cpp should be given."""
    try:
        rules = Rules()
        return rules.text(_value(rules, node))
    except TooLarge:
        return None


def _value(rules: Rules, node: Node) -> str:
    return rules.named(node, lambda: _choice_of_shapes(rules, node))


def _choice_of_shapes(rules: Rules, node: Node) -> str:
    shapes = dict.fromkeys(shape for starts in node.starts.values() for shape in starts)
    ways = [text for shape in shapes if (text := _of_shape(rules, shape))]
    if not ways:
        raise TooLarge  # numbers of very many digits
    return choice(ways)


def _of_shape(rules: Rules, shape: Shape) -> str | None:
    if isinstance(shape, Words):
        return choice([literal(json.dumps(word, ensure_ascii=False)) for word in shape.words])
    if isinstance(shape, Literals):
        return choice([literal(word) for word in plainest(shape.words)])
    if isinstance(shape, String):
        return string(rules, shape)
    if isinstance(shape, Number):
        return number(rules, shape)
    return _array(rules, shape) if isinstance(shape, Array) else _Members(rules, shape).text()


def _array(rules: Rules, shape: Array) -> str:
    return f'"[" ({_items(rules, shape, 0)})'


def _items(rules: Rules, shape: Array, place: int) -> str:
    """What comes from an item on, with the bracket at the end."""
    close = literal("]")
    if place < len(shape.prefix) and place < shape.most:
        item = f"{_COMMA if place else ''} {_value(rules, shape.prefix[place])}"
        after = rules.named((shape, place + 1), lambda: _items(rules, shape, place + 1))
        ways = [f"{item} {after}"]
        return choice(ways if place < shape.least else [*ways, close])
    if shape.items is None or place >= shape.most:
        return close
    item = _value(rules, shape.items)
    more = rules.named(("more", shape.items), lambda: f"{_COMMA} {item}")
    least, most = max(0, shape.least - place), shape.most - place
    if place:
        return f"{rules.repeated(more, least, most)} {close}"
    some = f"{item} {rules.repeated(more, max(0, least - 1), most - 1)}"
    return f"{some} {close}" if least else f"({some})? {close}"


class _Members:
    """The members of an object: those that the schema names in its order, then others."""

    def __init__(self, rules: Rules, shape: Object) -> None:
        self._rules = rules
        self._shape = shape
        self._others = shape.additional is not None and not shape.tolerates_additional
        counts = shape.least > len(shape.required) or (
            shape.most < len(shape.order) or (self._others and shape.most != float("inf"))
        )
        highest = shape.least if shape.most == float("inf") else int(shape.most)
        self._cap = max(1, highest) if counts else 1
        """Up to how many members are counted."""
        self._bounded = counts

    def text(self) -> str:
        """Return an object."""
        return f'"{{" {self._from(0, 0)}'

    def _from(self, place: int, count: int) -> str:
        key = (self._shape, place, count)
        return self._rules.named(key, lambda: self._make(place, count))

    def _make(self, place: int, count: int) -> str:
        """What comes from a key on, behind so many members, with the brace at the end."""
        if place == len(self._shape.order):
            return self._end(count)
        name = self._shape.order[place]
        ways: list[str] = []
        if self._may_go_on(place + 1, count + 1):
            node = self._shape.properties[name]
            assert node is not None
            key = literal(json.dumps(name, ensure_ascii=False))
            ways.append(self._member(key, node, count, self._after(place + 1, count)))
        if name not in self._shape.required and self._may_go_on(place + 1, count):
            ways.append(self._from(place + 1, count))
        return choice(ways)

    def _end(self, count: int) -> str:
        shape, ways = self._shape, []
        if not self._bounded or count >= shape.least:
            ways.append(literal("}"))
        if self._others and (not self._bounded or count < shape.most):
            assert shape.additional is not None
            key = other_key(self._rules, shape.names, frozenset(shape.properties))
            after = self._after(len(shape.order), count)
            ways.append(self._member(key, shape.additional, count, after))
        return choice(ways)

    def _member(self, key: str, node: Node, count: int, after: str) -> str:
        return f"{_COMMA if count else ''} {key} {_COLON} {_value(self._rules, node)} {after}"

    def _after(self, place: int, count: int) -> str:
        return self._from(place, min(count + 1, self._cap))

    def _may_go_on(self, place: int, count: int) -> bool:
        """Whether an object can still have as many members as it needs, and no more than it may."""
        if not self._bounded:
            return True
        shape = self._shape
        left = shape.order[place:]
        reached = float("inf") if self._others else count + len(left)
        needed = count + sum(name in shape.required for name in left)
        return needed <= shape.most and min(reached, shape.most) >= shape.least
