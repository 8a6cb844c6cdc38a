"""What a schema is compiled to: nodes, each a choice between the shapes that its value may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from .limits import Limits
from .regex.automata import Spot
from .words import sorted_words


class Node:
    """A value's place in the schema: the shapes of which it has to have one.

    `shapes` is filled while the schema is compiled; a node may be a part of itself.
    """

    __slots__ = ("height", "shapes", "starts")

    def __init__(self, shapes: tuple[Shape, ...] | None = None) -> None:
        self.shapes = shapes
        self.height: float = math.inf
        """Objects and arrays inside each other that its smallest value needs."""
        self.starts: Mapping[str, tuple[Shape, ...]] = {}
        """By a value's first character: the shapes that it may be the begin of."""


@dataclass(slots=True, eq=False)
class Words:
    """A string that is one of some texts."""

    words: tuple[str, ...]
    checks: tuple[Node, ...] = ()
    """Values that it must not be, which is known at its end only; of every shape."""
    height: float = 0


@dataclass(slots=True, eq=False)
class Literals:
    """`true`, `false`, `null`, or one of some numbers, as they are written."""

    words: tuple[str, ...]
    checks: tuple[Node, ...] = ()
    height: float = 0


@dataclass(slots=True, eq=False)
class String:
    """A string of `least` to `most` characters, of an automaton's where there is one."""

    least: int
    most: int
    spot: Spot | None = None
    checks: tuple[Node, ...] = ()
    height: float = 0


@dataclass(slots=True, eq=False)
class Number:
    """A number in bounds; each bound may itself be excluded."""

    integer: bool
    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    step: Fraction | None = None
    checks: tuple[Node, ...] = ()
    height: float = 0
    scale: int = 0
    """Digits after the point that are admitted. The numbers below count in units of the last of them."""
    digits: int = 0
    lowest: int = 0
    highest: int = 0
    unit: int = 1
    """The smallest positive number that is a multiple of `step`."""
    free: bool = False
    """Whether every number is admitted that has few enough digits."""


@dataclass(slots=True, eq=False)
class Object:
    """An object. No key comes twice, and the keys may come in any order."""

    properties: dict[str, Node | None]
    """None: the key must not come."""
    required: frozenset[str] = frozenset()
    additional: Node | None = None
    """What has other keys; None: there are none."""
    offers_additional: bool = False
    """Whether other keys are written, and not just tolerated: the schema asks for them, or names no keys."""
    names: String | None = None
    """What other keys look like; None: as they like."""
    least: int = 0
    most: float = math.inf
    dependent: dict[str, frozenset[str]] = field(default_factory=dict)
    """By a key: those that have to be there with it."""
    checks: tuple[Node, ...] = ()
    height: float = math.inf
    order: tuple[str, ...] = ()
    """The keys that may come, as the schema has them."""
    words: tuple[str, ...] = ()
    tallest: float = 0
    """The greatest height of a property's value."""

    @property
    def tolerates_additional(self) -> bool:
        """Whether other keys may come that nothing asks for."""
        return not self.offers_additional and self.least <= len(self.order)

    def settle(self) -> None:
        """Leave out the keys whose values nothing can meet."""
        self.order = tuple(
            name
            for name, node in self.properties.items()
            if node is not None and node.height < math.inf
        )
        self.words = sorted_words(set(self.order))
        self.tallest = max((self.height_of(name) for name in self.order), default=0)

    def height_of(self, name: str) -> float:
        """Return the height of the value of a key that is named in the schema."""
        node = self.properties[name]
        return math.inf if node is None else node.height


@dataclass(slots=True, eq=False)
class Array:
    """An array: first `prefix`, then any number of `items`."""

    prefix: tuple[Node, ...]
    items: Node | None
    """None: nothing comes after `prefix`."""
    least: int = 0
    most: float = math.inf
    unique: bool = False
    checks: tuple[Node, ...] = ()
    height: float = math.inf

    def node_at(self, index: int) -> Node | None:
        """Return what the item at an index has to be; None where there is none."""
        if index >= self.most:
            return None
        return self.prefix[index] if index < len(self.prefix) else self.items


Shape = Words | Literals | String | Number | Object | Array


def free_string(limits: Limits) -> String:
    """Return any string."""
    return String(0, limits.string)
