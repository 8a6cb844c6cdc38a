"""The keywords that combine schemas, resolved: what is left is a choice between plain schemas.

A branch is some plain schemas that one value has to meet together, and some that it must not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .. import limits as bounds
from ..errors import InvalidSchema, UnsupportedSchema
from .references import Place, References

OUTSIDE = (
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
)
"""Keywords of which a grammar knows nothing."""
_OLD_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07")
"""In these, nothing counts beside a `$ref`."""
_MAX_NESTING = 64


class Part(NamedTuple):
    """A schema and where it stands."""

    schema: Any
    place: Place


class Branch(NamedTuple):
    """Plain schemas that have to be met together; and parts of which none may be met."""

    plain: tuple[Part, ...] = ()
    excluded: tuple[Part, ...] = ()


class Branches:
    """Takes schemas apart. `are_apart` tells whether no value meets two of some parts."""

    def __init__(
        self,
        root: Any,
        are_apart: Callable[[Sequence[Part]], bool],
        spend: Callable[[int, Place], None],
    ) -> None:
        self._references = References(root)
        self._are_apart = are_apart
        self._spend = spend
        dialect = root.get("$schema") if isinstance(root, Mapping) else None
        self._ref_stands_alone = isinstance(dialect, str) and any(
            draft in dialect for draft in _OLD_DRAFTS
        )
        self._around: list[int] = []
        self._entered: dict[object, list[int]] = {}
        self._made: list[Any] = []
        """Schemas that are not in the document: they are known by their identity, and so have to stay."""

    def enter(self, node: object) -> bool:
        """Begin with the parts of another node. Return False where that has begun already."""
        if node in self._entered:
            return False
        self._entered[node] = self._around
        self._around = []
        return True

    def leave(self, node: object) -> None:
        """Go on where another node was begun."""
        self._around = self._entered.pop(node)

    def of(self, parts: Iterable[Part]) -> list[Branch]:
        """Return the branches of parts that have to be met together."""
        branches = [Branch()]
        for part in parts:
            branches = self._product(branches, self._of_part(part), part.place)
        return branches

    def _product(self, branches: list[Branch], others: list[Branch], place: Place) -> list[Branch]:
        count = len(branches) * len(others)
        if count > bounds.MAX_ALTERNATIVES:
            raise UnsupportedSchema(place.pointer, "schema", "has too many alternatives")
        if count:
            self._spend(count * (len(branches[0].plain) + len(others[0].plain)), place)
        return [
            Branch(one.plain + other.plain, one.excluded + other.excluded)
            for one in branches
            for other in others
        ]

    def _of_part(self, part: Part) -> list[Branch]:
        schema, place = part
        if schema is True:
            return [Branch()]
        if schema is False:
            return []
        if not isinstance(schema, Mapping):
            raise InvalidSchema(place.pointer, "schema", "is neither an object nor a boolean")
        if id(schema) in self._around:
            raise InvalidSchema(place.pointer, "schema", "refers to itself without end")
        if len(self._around) >= _MAX_NESTING:
            raise UnsupportedSchema(place.pointer, "schema", "is nested too deeply")
        self._around.append(id(schema))
        try:
            return self._of_schema(schema, place.entered(schema))
        finally:
            self._around.pop()

    def _of_schema(self, schema: Mapping[str, Any], place: Place) -> list[Branch]:
        for keyword in OUTSIDE:
            if keyword in schema and not _says_nothing(keyword, schema[keyword]):
                raise UnsupportedSchema(place.pointer, keyword, "is outside of what is compiled")
        branches = [Branch((Part(schema, place),))]
        if "$ref" in schema:
            found = self._of_part(Part(*self._references.resolve(schema["$ref"], place)))
            if self._ref_stands_alone:
                return found
            branches = self._product(branches, found, place)
        for others in self._combined(schema, place):
            branches = self._product(branches, others, place)
        return branches

    def _combined(self, schema: Mapping[str, Any], place: Place) -> Iterator[list[Branch]]:
        """The branches of each keyword that combines schemas."""
        for part in _list_of(schema, "allOf", place):
            yield self._of_part(part)
        if "anyOf" in schema:
            yield self._any(_list_of(schema, "anyOf", place))
        if "oneOf" in schema:
            yield self._one(_list_of(schema, "oneOf", place))
        if "not" in schema:
            yield self._not(Part(schema["not"], place.inner("not")))
        if "if" in schema and ("then" in schema or "else" in schema):
            condition = Part(schema["if"], place.inner("if"))
            then = Part(schema.get("then", True), place.inner("then"))
            otherwise = Part(schema.get("else", True), place.inner("else"))
            yield self._if(condition, then, otherwise)
        for name, dependent in _dependent_schemas(schema, place):
            condition = self._keep({"type": "object", "required": [name]})
            yield self._if(Part(condition, place), dependent, Part(True, place))

    def _keep(self, schema: Any) -> Any:
        self._made.append(schema)
        return schema

    def _any(self, parts: Sequence[Part]) -> list[Branch]:
        return [branch for part in parts for branch in self._of_part(part)]

    def _one(self, parts: Sequence[Part]) -> list[Branch]:
        if len(parts) < 2 or self._are_apart(parts):
            return self._any(parts)
        if len(parts) > 64:
            raise UnsupportedSchema(parts[0].place.pointer, "oneOf", "has too many alternatives")
        branches: list[Branch] = []
        for index, part in enumerate(parts):
            others = tuple(
                other
                for at, other in enumerate(parts)
                if at != index and not self._are_apart((part, other))
            )
            branches += (
                Branch(branch.plain, branch.excluded + others) for branch in self._of_part(part)
            )
        return branches

    def _not(self, part: Part) -> list[Branch]:
        if part.schema is True or part.schema == {}:
            return []
        return [Branch() if part.schema is False else Branch((), (part,))]

    def _if(self, condition: Part, then: Part, otherwise: Part) -> list[Branch]:
        met = self._product(self._of_part(condition), self._of_part(then), then.place)
        unmet = self._product(self._not(condition), self._of_part(otherwise), otherwise.place)
        return met + unmet


def _says_nothing(keyword: str, value: Any) -> bool:
    if keyword == "patternProperties":
        return bool(value == {})
    return keyword.startswith("unevaluated") and value is True


def _list_of(schema: Mapping[str, Any], keyword: str, place: Place) -> list[Part]:
    schemas = schema.get(keyword, [])
    if not isinstance(schemas, list) or (keyword in schema and not schemas):
        raise InvalidSchema(place.pointer, keyword, "is not a list of schemas")
    if len(schemas) > bounds.MAX_ALTERNATIVES:
        raise UnsupportedSchema(place.pointer, keyword, "has too many alternatives")
    return [Part(each, place.inner(keyword, at)) for at, each in enumerate(schemas)]


def _dependent_schemas(schema: Mapping[str, Any], place: Place) -> Iterator[tuple[str, Part]]:
    for keyword in ("dependentSchemas", "dependencies"):
        found = schema.get(keyword, {})
        if not isinstance(found, Mapping):
            raise InvalidSchema(place.pointer, keyword, "is not an object")
        for name, each in found.items():
            if keyword == "dependentSchemas" or not isinstance(each, list):
                yield name, Part(each, place.inner(keyword, name))
