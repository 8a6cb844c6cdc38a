"""From a JSON schema to nodes: everything that can come is looked at once, before any text is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .. import limits as bounds
from ..errors import InvalidSchema, SchemaError, UnsupportedSchema
from ..limits import Limits
from ..shapes import Array, Literals, Node, Object, Shape, String, Words
from ..values import admits, all_apart, fits_string, identity, joined_words, shape_admits, written
from ..words import sorted_words
from .branches import Branch, Branches, Part
from .keywords import (
    ALL_TYPES,
    both_types,
    constants_of,
    count_of,
    inner,
    items_of,
    mapping_of,
    names_of,
    types_of,
    wrong,
)
from .references import Place
from .scalars import Scalars
from .settling import children_of, settle_nodes

_NEVER = Node(())


class Compiler:
    """Compiles one schema."""

    def __init__(self, root: Any, limits: Limits) -> None:
        self._limits = limits
        self._work = 0
        self._branches = Branches(root, self._are_apart, self._spend)
        self._nodes: dict[tuple[int, ...], Node] = {}
        self._parts: dict[Node, tuple[Part, ...]] = {}
        self._constants: list[Node] = []
        self._scalars = Scalars(limits, self._spend)
        self.has_checks = False
        self.has_unique_items = False

    def compile(self, root: Part) -> Node:
        """Return the node of a schema, with all that it leads to. Raises SchemaError."""
        first = self._node([root])
        waiting = 0
        while waiting < len(self._parts):
            for node in list(self._parts)[waiting:]:
                self._expand(node)
                waiting += 1
        settle_nodes([*self._constants, *reversed(self._parts)], self._limits)
        if first.height == math.inf:
            raise InvalidSchema(root.place.pointer, "schema", "cannot be met by any value")
        if first.height > self._limits.depth:
            raise UnsupportedSchema(root.place.pointer, "schema", "is nested too deeply")
        return first

    @property
    def size(self) -> int:
        """The nodes that were made."""
        return len(self._parts) + len(self._constants)

    def _spend(self, steps: int, place: Place) -> None:
        self._work += steps
        if self._work > bounds.MAX_WORK:
            raise UnsupportedSchema(place.pointer, "schema", "is too large")

    def _node(self, parts: Sequence[Part]) -> Node:
        """Return the node of a value that meets all of some schemas; it may not be filled yet."""
        parts = [part for part in parts if part.schema is not True and part.schema != {}]
        if any(part.schema is False for part in parts):
            return _NEVER
        key = tuple(dict.fromkeys(id(part.schema) for part in parts))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node()
            self._parts[node] = tuple(parts)
            if len(self._parts) > bounds.MAX_NODES:
                place = parts[0].place if parts else Place(None)
                raise UnsupportedSchema(place.pointer, "schema", "is too large")
        return node

    def _are_apart(self, parts: Sequence[Part]) -> bool:
        nodes = [self._node([part]) for part in parts]
        for node in nodes:
            self._expand(node, children=True)
        return all_apart(nodes)

    def _expand(self, node: Node, *, children: bool = False) -> None:
        """Find a node's shapes; with `children`, also those of the values that an object has to have."""
        if node.shapes is None and node in self._parts:
            parts = self._parts[node]
            place = parts[0].place if parts else Place(None)
            self._spend(1, place)
            if not self._branches.enter(node):
                return  # it is being expanded, further up
            try:
                branches = self._branches.of(parts)
                shapes = [shape for branch in branches for shape in self._shapes(branch)]
            finally:
                self._branches.leave(node)
            node.shapes = self._joined(shapes, place)
        if children:
            for shape in node.shapes or ():
                if isinstance(shape, Object):
                    for name in shape.required:
                        if found := shape.properties.get(name):
                            self._expand(found)

    def _joined(self, shapes: list[Shape], place: Place) -> tuple[Shape, ...]:
        """The shapes with their constants together."""
        kept: list[Shape] = []
        if words := joined_words(shapes, Words):
            kept.append(Words(sorted_words(words)))
        if literals := joined_words(shapes, Literals):
            kept.append(Literals(sorted_words(literals)))
        kept += (s for s in shapes if s.checks or not isinstance(s, Words | Literals))
        if len(kept) > bounds.MAX_SHAPES:
            raise UnsupportedSchema(place.pointer, "schema", "has too many alternatives")
        return tuple(kept)

    # --- A branch: plain schemas that are met together ---------------------------------------------

    def _shapes(self, branch: Branch) -> list[Shape]:
        types = ALL_TYPES
        constants: list[Any] | None = None
        for part in branch.plain:
            types = both_types(types, types_of(part))
            found = constants_of(part)
            if found is not None:
                self._spend(len(found), part.place)
                constants = found if constants is None else _common(constants, found)
        if constants is not None:
            types = frozenset(_type_of(value) for value in constants) & types | (
                types & {"integer", "number"}
            )
        shapes = [shape for name in sorted(types) if (shape := self._shape(name, branch.plain))]
        checks = tuple(map(self._checked, branch.excluded))
        if constants is not None:
            large = sum(isinstance(value, dict | list) for value in constants)
            if large > bounds.MAX_SHAPES:
                place = branch.plain[0].place
                raise UnsupportedSchema(place.pointer, "enum", "has too many objects and arrays")
            if large:
                for child in (child for shape in shapes for child in children_of(shape)):
                    self._expand_all(child)
            kept = [v for v in constants if any(shape_admits(shape, v) for shape in shapes)]
            kept = [value for value in kept if not any(admits(check, value) for check in checks)]
            return self._constant_shapes(kept, branch.plain[0].place)
        for shape in shapes:
            shape.checks = checks
        self.has_checks = self.has_checks or bool(checks and shapes)
        return shapes

    def _checked(self, part: Part) -> Node:
        node = self._node([part])
        self._expand_all(node)
        return node

    def _expand_all(self, node: Node) -> None:
        """Find the shapes of a node and of all that it leads to: values are compared with it."""
        waiting = [node]
        seen: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            self._expand(node)
            waiting += (each for shape in node.shapes or () for each in children_of(shape))

    def _constant_shapes(self, values: Iterable[Any], place: Place) -> list[Shape]:
        shapes: list[Shape] = []
        words: set[str] = set()
        literals: set[str] = set()
        for value in values:
            if isinstance(value, str):
                words.add(value)
            elif isinstance(value, dict):
                properties = {name: self._constant(each, place) for name, each in value.items()}
                names = frozenset(value)
                shapes.append(Object(dict(properties), names, most=len(value)))
            elif isinstance(value, list):
                prefix = tuple(self._constant(each, place) for each in value)
                shapes.append(Array(prefix, None, len(value), len(value)))
            else:
                literals |= written(value)
        if words:
            shapes.append(Words(sorted_words(words)))
        if literals:
            shapes.append(Literals(sorted_words(literals)))
        return shapes

    def _constant(self, value: Any, place: Place) -> Node:
        self._spend(1, place)
        node = Node(tuple(self._constant_shapes([value], place)))
        self._constants.append(node)
        return node

    def _shape(self, name: str, parts: Sequence[Part]) -> Shape | None:
        """The shape of one type; None where nothing meets the schemas."""
        if name == "object":
            return self._object(parts)
        if name == "array":
            return self._array(parts)
        if name == "string":
            return self._scalars.string(parts)
        if name == "null":
            return Literals(("null",))
        if name == "boolean":
            return Literals(("false", "true"))
        return self._scalars.number(parts, name == "integer")

    # --- Objects and arrays ------------------------------------------------------------------------

    def _object(self, parts: Sequence[Part]) -> Object | None:
        properties = [mapping_of(part, "properties") for part in parts]
        names = list(dict.fromkeys(name for each in properties for name in each))
        self._spend(len(names) * len(parts), parts[0].place if parts else Place(None))
        shape = Object({})
        for name in names:
            inners: list[Part] = []
            for part, each in zip(parts, properties, strict=True):
                if name in each:
                    inners.append(inner(part, "properties", name))
                elif "additionalProperties" in part.schema:
                    inners.append(inner(part, "additionalProperties"))
            node = self._node(inners)
            shape.properties[name] = None if node is _NEVER else node
        others = [
            inner(p, "additionalProperties") for p in parts if "additionalProperties" in p.schema
        ]
        additional = self._node(others)
        shape.additional = None if additional is _NEVER else additional
        shape.offers_additional = bool(others) or not names
        for part in parts:
            self._count_properties(shape, part)
        self._name_properties(shape, parts)
        return shape if self._has_room(shape) else None

    def _count_properties(self, shape: Object, part: Part) -> None:
        shape.required |= frozenset(names_of(part, "required"))
        shape.least = max(shape.least, count_of(part, "minProperties") or 0)
        most = count_of(part, "maxProperties")
        shape.most = shape.most if most is None else min(shape.most, most)
        for keyword in ("dependentRequired", "dependencies"):
            for name, needed in mapping_of(part, keyword).items():
                if keyword == "dependencies" and not isinstance(needed, list):
                    continue
                if not isinstance(needed, list) or not all(isinstance(n, str) for n in needed):
                    raise wrong(part, keyword, "has what is not a list of names")
                shape.dependent[name] = shape.dependent.get(name, frozenset()) | set(needed)
                self.has_checks = True

    def _name_properties(self, shape: Object, parts: Sequence[Part]) -> None:
        """Apply `propertyNames`."""
        inners = [inner(part, "propertyNames") for part in parts if "propertyNames" in part.schema]
        if inners:
            node = self._node(inners)
            self._expand_all(node)
            for name in shape.properties:
                if not admits(node, name):
                    shape.properties[name] = None
            texts = [each for each in node.shapes or () if isinstance(each, Words | String)]
            if len(texts) > 1 or any(each.checks for each in texts):
                raise UnsupportedSchema(
                    inners[0].place.pointer,
                    "schema",
                    "is a choice, which is not compiled for names",
                )
            if not texts:
                shape.additional = None
            elif isinstance(texts[0], String):
                shape.names = texts[0]
            else:
                for word in texts[0].words:
                    shape.properties.setdefault(word, shape.additional)
                shape.additional = None
        for name in sorted(shape.required.union(*shape.dependent.values())):
            if name not in shape.properties:  # it is written, although nothing is said of it
                allowed = shape.names is None or fits_string(shape.names, name)
                shape.properties[name] = shape.additional if allowed else None

    def _has_room(self, shape: Object) -> bool:
        if any(shape.properties[name] is None for name in shape.required):
            return False
        known = sum(node is not None for node in shape.properties.values())
        if shape.additional is None and known < shape.least:
            return False
        return max(len(shape.required), shape.least) <= shape.most

    def _array(self, parts: Sequence[Part]) -> Array | None:
        shape = Array((), None)
        found = [items_of(part) for part in parts]
        length = max((len(prefix) for prefix, _ in found), default=0)
        self._spend(length, parts[0].place if parts else Place(None))
        nodes: list[Node] = []
        for index in range(length + 1):
            inners = [
                each
                for prefix, rest in found
                if (each := prefix[index] if index < len(prefix) else rest) is not None
            ]
            nodes.append(self._node(inners))
        shape.prefix, shape.items = tuple(nodes[:-1]), nodes[-1]
        for part in parts:
            shape.least = max(shape.least, count_of(part, "minItems") or 0)
            most = count_of(part, "maxItems")
            shape.most = shape.most if most is None else min(shape.most, most)
            if part.schema.get("uniqueItems") is True:
                shape.unique = self.has_unique_items = True
        return shape if shape.least <= shape.most else None


def _common(one: list[Any], other: list[Any]) -> list[Any]:
    kept = {identity(value) for value in other}
    return [value for value in one if identity(value) in kept]


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def compile_nodes(schema: Any, root: Any, limits: Limits) -> tuple[Node, Compiler]:
    """Return a schema's node, and its compiler, which knows what has to be checked later.

    Raises InvalidSchema and UnsupportedSchema.
    """
    compiler = Compiler(root, limits)
    base = Place(root)
    place = base if schema is root else Place(root, base, "(schema)")
    try:
        return compiler.compile(Part(schema, place)), compiler
    except SchemaError:
        raise
    except RecursionError:
        raise UnsupportedSchema("#", "schema", "is nested too deeply") from None
