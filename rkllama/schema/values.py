"""Values that are already there: whether a node admits one, and whether two are the same to JSON schema."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from typing import Any

from .numbers import admits_number, as_fraction
from .regex.automata import matches
from .shapes import Array, Literals, Node, Number, Object, Shape, String, Words


class DuplicateKey(ValueError):
    """JSON with a key twice in one object: programs differ in which of its values they take."""


def parse(text: str) -> Any:
    """Return the value that a text is. Raises DuplicateKey, and ValueError where it is not JSON."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKey(f"it has the key {twice[:100]!r} twice in one object")
    return made


def no_constant(name: str) -> Any:
    """Raise ValueError for NaN or Infinity, which Python's JSON has and nobody else's."""
    raise ValueError(f"{name} is not JSON")


def identity(value: Any) -> Hashable:
    """Return what is equal for values that are the same to JSON schema, such as 1 and 1.0."""
    if isinstance(value, dict):
        return "object", frozenset((name, identity(each)) for name, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(identity, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", as_fraction(value)
    return type(value), value


def written(value: Any) -> set[str]:
    """Return how a number, a boolean or null is written."""
    texts = {json.dumps(value)}
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e20:
        texts.add(str(int(value)))
    elif isinstance(value, int) and not isinstance(value, bool):
        texts.add(f"{value}.0")
    return texts - {"-0", "-0.0"} or {"0"}


def admits(node: Node, value: Any) -> bool:
    """Return whether a value has one of a node's shapes."""
    return any(shape_admits(shape, value) for shape in node.shapes or ())


def shape_admits(shape: Shape, value: Any) -> bool:
    """Return whether a value has a shape."""
    return _fits(shape, value) and not any(admits(check, value) for check in shape.checks)


def _fits(shape: Shape, value: Any) -> bool:
    if isinstance(value, str):
        if isinstance(shape, Words):
            return value in shape.words
        return isinstance(shape, String) and fits_string(shape, value)
    if isinstance(value, dict):
        return isinstance(shape, Object) and _fits_object(shape, value)
    if isinstance(value, list):
        return isinstance(shape, Array) and _fits_array(shape, value)
    if isinstance(shape, Literals):
        return any(identity(json.loads(word)) == identity(value) for word in shape.words)
    if isinstance(value, bool) or value is None:
        return False
    return isinstance(shape, Number) and admits_number(value, shape)


def fits_string(shape: String, value: str) -> bool:
    """Return whether a text is one of a string's."""
    if not shape.least <= len(value) <= shape.most:
        return False
    return shape.spot is None or matches(shape.spot, value)


def _fits_object(shape: Object, value: dict[str, Any]) -> bool:
    if not shape.least <= len(value) <= shape.most or not shape.required <= value.keys():
        return False
    if any(shape.dependent.get(name, frozenset()) - value.keys() for name in value):
        return False
    for name, each in value.items():
        if name in shape.properties:
            node = shape.properties[name]
        elif shape.names is None or fits_string(shape.names, name):
            node = shape.additional
        else:
            node = None
        if node is None or not admits(node, each):
            return False
    return True


def _fits_array(shape: Array, value: list[Any]) -> bool:
    if not shape.least <= len(value) <= shape.most:
        return False
    if shape.unique and len(set(map(identity, value))) < len(value):
        return False
    nodes = ((shape.node_at(index), each) for index, each in enumerate(value))
    return all(node is not None and admits(node, each) for node, each in nodes)


# --- Two shapes ------------------------------------------------------------------------------------


def all_apart(nodes: list[Node], depth: int = 2) -> bool:
    """Return whether no value can be admitted by two of the nodes, as far as that is seen easily."""
    if _told_apart_by_key(nodes):
        return True
    if len(nodes) > 64:
        return False
    return all(
        apart(one, other, depth) for index, one in enumerate(nodes) for other in nodes[:index]
    )


def _told_apart_by_key(nodes: list[Node]) -> bool:
    """Return whether all are objects with a key that has other constants in each."""
    shapes = [node.shapes[0] for node in nodes if node.shapes and len(node.shapes) == 1]
    objects = [shape for shape in shapes if isinstance(shape, Object)]
    if len(objects) < len(nodes) or not objects:
        return False
    return any(_are_keys(objects, name) for name in objects[0].required)


def _are_keys(objects: list[Object], name: str) -> bool:
    seen: set[tuple[type, str]] = set()
    for shape in objects:
        node = shape.properties.get(name)
        if name not in shape.required or node is None or not node.shapes or len(node.shapes) != 1:
            return False
        words = node.shapes[0]
        if not isinstance(words, Words | Literals):
            return False
        constants = {(type(words), word) for word in words.words}
        if seen & constants:
            return False
        seen |= constants
    return True


def apart(one: Node, other: Node, depth: int) -> bool:
    """Return whether no value can be admitted by both, as far as that is seen easily."""
    if one.shapes is None or other.shapes is None:
        return False  # still being compiled
    return all(_shapes_apart(a, b, depth) for a in one.shapes for b in other.shapes)


def _shapes_apart(one: Shape, other: Shape, depth: int) -> bool:
    if isinstance(other, Words | Literals):
        one, other = other, one
    if isinstance(one, Words):
        return not any(shape_admits(other, word) for word in one.words)
    if isinstance(one, Literals):
        return not any(shape_admits(other, json.loads(word)) for word in one.words)
    if isinstance(one, Number) and isinstance(other, Number):
        return _numbers_apart(one, other)
    if isinstance(one, String) and isinstance(other, String):
        return one.most < other.least or other.most < one.least
    if isinstance(one, Array) and isinstance(other, Array):
        return one.most < other.least or other.most < one.least
    if isinstance(one, Object) and isinstance(other, Object):
        return _objects_apart(one, other, depth)
    return True


def _numbers_apart(one: Number, other: Number) -> bool:
    def below(low: Number, high: Number) -> bool:
        if low.high is None or high.low is None:
            return False
        return low.high < high.low or (low.high == high.low and (low.high_open or high.low_open))

    return below(one, other) or below(other, one)


def _objects_apart(one: Object, other: Object, depth: int) -> bool:
    if one.most < other.least or other.most < one.least:
        return True
    return _lacks(one, other) or _lacks(other, one) or (depth > 0 and _differ(one, other, depth))


def _lacks(one: Object, other: Object) -> bool:
    """Return whether one must not have a key that the other has to have."""
    for name in other.required:
        if name in one.properties:
            if one.properties[name] is None:
                return True
        elif one.additional is None or (one.names and not fits_string(one.names, name)):
            return True
    return False


def _differ(one: Object, other: Object, depth: int) -> bool:
    return any(
        (a := one.properties.get(name)) is not None
        and (b := other.properties.get(name)) is not None
        and apart(a, b, depth - 1)
        for name in one.required & other.required
    )


def joined_words(shapes: Iterable[Shape], kind: type[Words] | type[Literals]) -> set[str]:
    """Return the texts of the shapes of a kind that need no check at their end."""
    return {
        word
        for shape in shapes
        if isinstance(shape, kind) and not shape.checks
        for word in shape.words
    }
