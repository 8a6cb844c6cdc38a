"""Where the references in a schema lead: to parts of the same document, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidSchema

_VALUES = frozenset(("const", "enum", "default", "examples", "example"))
"""Keywords that hold values and not schemas."""


class Place:
    """Where a part of a schema stands."""

    __slots__ = ("_name", "_outer", "base")

    def __init__(self, base: Any, outer: Place | None = None, name: str = "") -> None:
        self.base = base
        """The schema that "#" is: the root, or the nearest around it with an `$id` of its own."""
        self._outer = outer
        self._name = name

    def inner(self, *names: str | int) -> Place:
        """Return the place of a part, `names` further down."""
        place = self
        for name in names:
            place = Place(place.base, place, str(name))
        return place

    def entered(self, schema: Mapping[str, Any]) -> Place:
        """Return this place as seen from inside the schema that stands there."""
        identifier = _id_of(schema)
        if not identifier or identifier.startswith("#") or schema is self.base:
            return self
        return Place(schema, self._outer, self._name)

    @property
    def pointer(self) -> str:
        """A JSON pointer as the fragment of a URI: "#/properties/a"."""
        names: list[str] = []
        place: Place | None = self
        while place is not None and place._outer is not None:
            names.append(place._name.replace("~", "~0").replace("/", "~1"))
            place = place._outer
        return "/".join(["#", *reversed(names)])


def _id_of(schema: Mapping[str, Any]) -> str:
    identifier = schema.get("$id")
    return identifier if isinstance(identifier, str) else ""


class References:
    """The references of one document."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._documents: dict[str, Any] | None = None
        self._uris: dict[int, str] = {}

    def resolve(self, reference: object, place: Place) -> tuple[Any, Place]:
        """Return the schema that a reference at a place leads to, and where that one stands.

        Raises InvalidSchema for a reference that leads nowhere. Other documents are not fetched.
        """
        if not isinstance(reference, str):
            raise InvalidSchema(place.pointer, "$ref", "is not a string")
        uri, _, fragment = reference.partition("#")
        base = place.base if not uri else self._document(uri, place)
        if base is None:
            raise _dead(reference, place)
        start = Place(base) if base is self._root else Place(base, Place(base), f"({uri or '$id'})")
        if not fragment:
            return base, start
        if not fragment.startswith("/"):
            return _anchored(base, fragment, start, reference, place)
        found = _walk(base, fragment, start)
        if found is None:
            raise _dead(reference, place)
        return found

    def _document(self, uri: str, place: Place) -> Any:
        """The part of the schema with an `$id` that is this URI."""
        from urllib.parse import urljoin

        if self._documents is None:
            self._documents = {}
            self._collect(self._root, "")
        try:
            full = urljoin(self._uris.get(id(place.base), ""), uri)
        except ValueError:
            return None
        return self._documents.get(full)

    def _collect(self, root: Any, uri: str) -> None:
        from urllib.parse import urljoin

        assert self._documents is not None
        waiting = [(root, uri)]
        while waiting:
            part, uri = waiting.pop()
            if isinstance(part, Mapping):
                if identifier := _id_of(part):
                    try:
                        uri = urljoin(uri, identifier).removesuffix("#")
                    except ValueError:
                        continue
                    self._documents.setdefault(uri, part)
                    self._uris[id(part)] = uri
                waiting += ((each, uri) for name, each in part.items() if name not in _VALUES)
            elif isinstance(part, list):
                waiting += ((each, uri) for each in part)


def _dead(reference: str, place: Place) -> InvalidSchema:
    return InvalidSchema(
        place.pointer, "$ref", f"{reference[:200]!r} refers to nothing in the schema"
    )


def _walk(base: Any, pointer: str, place: Place) -> tuple[Any, Place] | None:
    from urllib.parse import unquote

    part = base
    for name in unquote(pointer).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping):
            place = place.entered(part)
            if name not in part:
                return None
            part = part[name]
        elif isinstance(part, list) and name.isdigit() and int(name) < len(part):
            part = part[int(name)]
        else:
            return None
        place = place.inner(name)
    return part, place


def _anchored(
    base: Any, anchor: str, start: Place, reference: str, place: Place
) -> tuple[Any, Place]:
    for part, found in _parts(base, start):
        if (
            anchor in (part.get("$anchor"), part.get("$dynamicAnchor"))
            or _id_of(part) == "#" + anchor
        ):
            return part, found
    raise _dead(reference, place)


def _parts(base: Any, place: Place) -> Iterator[tuple[Mapping[str, Any], Place]]:
    """All that may be a schema in a document, but not in those inside it."""
    waiting = [(base, place)]
    while waiting:
        part, place = waiting.pop()
        if isinstance(part, Mapping):
            if part is not base and _id_of(part) and not _id_of(part).startswith("#"):
                continue
            yield part, place
            waiting += (
                (each, place.inner(name)) for name, each in part.items() if name not in _VALUES
            )
        elif isinstance(part, list):
            waiting += ((each, place.inner(index)) for index, each in enumerate(part))
