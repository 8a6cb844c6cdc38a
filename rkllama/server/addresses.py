"""Paths as clients write them: with slashes too many, and with an API's prefix missing or doubled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_SLASHES = re.compile("/{2,}")
_DOUBLED = ("/v1/v1/", "/v1/api/", "/api/v1/", "/api/api/")


class Addresses:
    """The paths of the routes `patterns`, each of which may end in a `<name>`."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._whole = frozenset(pattern for pattern in patterns if "<" not in pattern)
        self._beginnings = tuple(
            pattern.partition("<")[0] for pattern in patterns if "<" in pattern
        )

    def canonical(self, path: str) -> str:
        """Return the route's path that `path` means; `path` as it is where it means none."""
        if path in self._whole:
            return path
        return next(filter(self._is_route, _spellings(path)), path)

    def _is_route(self, path: str) -> bool:
        return path in self._whole or path.startswith(self._beginnings)


def _spellings(path: str) -> Iterator[str]:
    """Yield what a path may mean, the likeliest first. Clients append theirs to a base address that has
    /v1 or /api already, or should have had it.
    """
    plain = _SLASHES.sub("/", path).rstrip("/") or "/"
    yield plain
    if plain.startswith(_DOUBLED):
        plain = plain[plain.index("/", 1) :]
        yield plain
    if not plain.startswith("/v1/"):
        yield f"/v1{plain.removeprefix('/api')}"
