"""What is known of nodes when all are there: which can be met, how deep, and how their values begin."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..limits import Limits
from ..shapes import Array, Literals, Node, Object, Shape, String, Words, free_string
from ..values import identity


def settle_nodes(nodes: Sequence[Node], limits: Limits) -> None:
    """Find out how deep each node's smallest value is, and leave out what cannot be met."""
    shapes = [shape for node in nodes for shape in node.shapes or ()]
    for shape in shapes:
        if isinstance(shape, Array):
            _limit_items(shape)
    _measure(nodes)
    any_name = free_string(limits)
    for shape in shapes:
        if isinstance(shape, Array):
            _cut(shape)
        elif isinstance(shape, Object):
            shape.settle()
            shape.names = shape.names or any_name
    for node in nodes:
        _index(node)


def _measure(nodes: Sequence[Node]) -> None:
    """Set the heights, from the inside to the outside."""
    changed = True
    while changed:
        changed = False
        for node in nodes:
            for shape in node.shapes or ():
                shape.height = min(shape.height, _height(shape))
                if shape.height < node.height:
                    node.height = shape.height
                    changed = True


def _height(shape: Shape) -> float:
    """The objects and arrays inside each other that a shape's smallest value needs; up to too many."""
    if isinstance(shape, Object):
        needed = [shape.properties[name] for name in shape.required]
        heights = [math.inf if node is None else node.height for node in needed]
        missing = shape.least - len(heights)
        if missing > 0:
            optional = [
                node.height
                for name, node in shape.properties.items()
                if node is not None and name not in shape.required
            ]
            if shape.additional is not None:
                optional += [shape.additional.height] * missing
            heights += (sorted(optional) + [math.inf] * missing)[:missing]
    elif isinstance(shape, Array):
        if shape.least > shape.most:
            return math.inf
        count = min(shape.least, len(shape.prefix) + 1)
        found = (shape.node_at(index) for index in range(count))
        heights = [math.inf if node is None else node.height for node in found]
    else:
        return 0
    height = 1 + max(heights, default=0)
    return height if height <= 1000 else math.inf


def _limit_items(shape: Array) -> None:
    """Of a few different values there are no more different items."""
    if not shape.unique or shape.prefix or shape.items is None:
        return
    shapes = shape.items.shapes or ()
    if all(isinstance(each, Words | Literals) for each in shapes):
        values: set[Any] = set()
        for each in shapes:
            if isinstance(each, Words):
                values.update(each.words)
            elif isinstance(each, Literals):
                values.update(identity(json.loads(word)) for word in each.words)
        shape.most = min(shape.most, len(values))


def _cut(shape: Array) -> None:
    """End an array before the first item that cannot be."""
    for index, node in enumerate(shape.prefix):
        if node.height == math.inf:
            shape.most = min(shape.most, index)
            break
    if shape.items is not None and shape.items.height == math.inf:
        shape.items = None
    if shape.items is None:
        shape.most = min(shape.most, len(shape.prefix))


def _index(node: Node) -> None:
    starts: dict[str, list[Shape]] = {}
    for shape in node.shapes or ():
        if shape.height == math.inf:
            continue
        for char in _first_characters(shape):
            starts.setdefault(char, []).append(shape)
    node.starts = {char: tuple(shapes) for char, shapes in starts.items()}


def _first_characters(shape: Shape) -> Iterable[str]:
    if isinstance(shape, Object):
        return "{"
    if isinstance(shape, Array):
        return "["
    if isinstance(shape, Words | String):
        return '"'
    if isinstance(shape, Literals):
        return {word[0] for word in shape.words}
    return "-0123456789"


def children_of(shape: Shape) -> Iterable[Node]:
    """Return the nodes inside a shape."""
    if isinstance(shape, Object):
        return [node for node in (*shape.properties.values(), shape.additional) if node is not None]
    if isinstance(shape, Array):
        return [node for node in (*shape.prefix, shape.items) if node is not None]
    return ()
