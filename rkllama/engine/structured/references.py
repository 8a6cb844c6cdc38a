"""References in a JSON schema: each has to lead somewhere, and none back to where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from referencing import Registry, Resource
    from referencing._core import Resolver

_KEYS = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
"""Keywords whose schemas are about the same value, so that a circle of them has no end."""


def no_documents() -> Registry[Any]:
    """Return what a schema's references to other documents are looked up in: nothing."""
    from referencing import Registry

    return Registry()


def find_dead_reference(schema: Mapping[str, Any], metaschema: Mapping[str, Any]) -> dict[str, str]:
    """Return why a schema's references make it `unusable`, or nothing; other documents are not fetched."""
    from referencing.jsonschema import DRAFT202012, specification_with

    draft = specification_with(metaschema.get("$schema", ""), default=DRAFT202012)
    root = draft.create_resource(schema)
    search = _Search(draft)
    reason = search.run(root, no_documents().resolver_with_root(root))
    return {} if reason is None else {"unusable": reason}


class _Search:
    def __init__(self, draft: Any) -> None:
        self._draft = draft
        self._targets: dict[int, list[Any]] = {}
        """By a schema's identity: the schemas that its references lead to."""

    def run(self, root: Resource[Any], resolver: Resolver[Any]) -> str | None:
        """Return what is wrong with the references below `root`."""
        waiting = [(root, resolver)]
        while waiting:
            resource, resolver = waiting.pop()
            contents = resource.contents
            if id(contents) in self._targets or not isinstance(contents, Mapping):
                continue
            resolver = resolver.in_subresource(resource)
            targets = self._targets[id(contents)] = []
            for reference in (contents[key] for key in _KEYS if key in contents):
                try:
                    found = resolver.lookup(reference)
                except Exception:  # whatever a client may write there
                    return f"{str(reference)[:200]!r} refers to nothing in it"
                targets.append(found.contents)
                waiting.append((self._draft.create_resource(found.contents), found.resolver))
            waiting += ((inner, resolver) for inner in resource.subresources())
        return "it refers to itself without end" if self._has_circle(root.contents) else None

    def _has_circle(self, root: Any) -> bool:
        """Return whether some schema's value has to meet that same schema first."""
        done: set[int] = set()
        by_identity = {id(root): root}
        for targets in self._targets.values():
            by_identity.update((id(target), target) for target in targets)
        for start in by_identity.values():
            path: set[int] = set()
            waiting: list[tuple[Any, bool]] = [(start, False)]
            while waiting:
                schema, left = waiting.pop()
                if left:
                    path.discard(id(schema))
                    done.add(id(schema))
                elif id(schema) in path:
                    return True
                elif isinstance(schema, Mapping) and id(schema) not in done:
                    path.add(id(schema))
                    waiting.append((schema, True))
                    waiting += ((inner, False) for inner in self._in_place(schema))
        return False

    def _in_place(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        yield from self._targets.get(id(schema), ())
        for name in _IN_PLACE_LISTS:
            yield from schema.get(name) or ()
        yield from (schema[name] for name in _IN_PLACE if name in schema)
