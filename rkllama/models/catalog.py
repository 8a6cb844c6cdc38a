"""What is there, looked at again and again, and which model a name means.

A folder whose mtime is unchanged has the same files in it, so only what changed costs a real scan: else
a look costs a `stat` or two per model. A name is only ever compared with the names that the scan found,
never made into a path: "..", "/etc", "%2e%2e" and the like are simply not the name of any model.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import AmbiguousName, InvalidRequest, ModelNotFound
from .filename import parse_model_name, strip_extension, without_registry
from .labels import origins
from .scan import SETTLED_NS, Entry, PathStamp, Scan, index_entries, stamp_at

if TYPE_CHECKING:
    from .reference import Reference

_LONGEST = 512
_SHOWN = 100
"""Characters of an unknown name that an error repeats."""
_CANDIDATES = 10
_REMEMBERED = 1000
"""Names that were found and are not one of an entry."""


class Watch:
    """The entries of the directory `models`, and whether they still are what they were.

    Not safe for several threads at once.
    """

    def __init__(self, models: str) -> None:
        self._models = models
        self._entries: tuple[Entry, ...] = ()
        self._root = ""
        """The directory's real path, by the last look."""
        self._looked = -math.inf
        self._seen: dict[str, PathStamp | None] = {}
        self.incomplete: tuple[Entry, ...] = ()
        self.passed_over: tuple[str, ...] = ()
        self.encoders: set[str] = set()
        """What looked like a model and is none, by the last look: name and reason."""

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries now; the very same tuple as before where nothing has changed.

        Raises ModelsDirMissing, ConfigError.
        """
        looked = time.monotonic()
        if not self._seen or not all(map(self._unchanged, self._seen)):
            self._seen = {}  # should the scan fail, nothing is known
            seen: dict[str, PathStamp] = {}
            settled = time.time_ns() - SETTLED_NS
            look = Scan(self._models, seen)
            entries = tuple(look.entries())
            self._root = look.root
            self.incomplete = tuple(look.incomplete)
            self.passed_over = tuple(look.passed_over)
            self.encoders = look.encoders
            self._entries = entries if entries != self._entries else self._entries
            self._seen = {path: at if at[0] < settled else None for path, at in seen.items()}
        self._looked = looked
        return self._entries

    def age(self) -> float:
        """Return the seconds since `entries` last looked."""
        return time.monotonic() - self._looked

    def is_current(self, entry: Entry) -> bool:
        """Return whether a model, its folder, and which folders there are is as it was: three stats, and two
        more for an alias.
        """
        # Not the real path of the directory, which takes a call to the system for each of its parts: where
        # a link there leads elsewhere by now, the stamp is another one.
        if stamp_at(self._models) != self._seen.get(self._root):
            return False
        around = {os.path.dirname(entry.path), entry.path}
        if entry.parent:
            around |= {os.path.dirname(entry.modelfile), entry.modelfile}
        return all(path in self._seen and self._unchanged(path) for path in around)

    def _unchanged(self, path: str) -> bool:
        return self._seen[path] == stamp_at(path)


class Catalog:
    """The entries of one scan with every spelling that finds them."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self._by_name = {entry.name: entry for entry in self.entries}
        self._index: dict[str, list[Entry]] | None = None
        self._found: dict[str, Entry] = {}

    def known(self, name: str) -> Entry | None:
        """Return the entry of this name, or what `find` has found for it."""
        return self._by_name.get(name) or self._found.get(name)

    def exact(self, name: str) -> Entry | None:
        """Return the entry of exactly this name."""
        return self._by_name.get(name)

    def has(self, name: str) -> bool:
        """Return whether `name` is an entry's own, in any spelling; beginnings do not count."""
        query = without_registry(name.strip())
        return query in self._by_name or bool(self._by_spelling(query))

    def find(self, name: str, *, prefix: bool = True) -> Entry:
        """Return the one entry that `name` means: exact, in any case, with or without extension or `:latest`,
        by file, by folder, as it was pulled, and then (`prefix`) by a beginning that only one has, which
        may have a size or quantisation after it: `name:size`. Raises ModelNotFound, AmbiguousName.
        """
        query = without_registry(name.strip())
        if not query or len(query) > _LONGEST or not query.isprintable():
            raise ModelNotFound(query[:_SHOWN])
        exact = self._by_name.get(query)
        if exact is not None:
            return exact
        match = self._found[name] = self._match(query, prefix)
        return match

    def _match(self, query: str, prefix: bool) -> Entry:
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        matches = self._by_spelling(query) or self._by_origin(query)
        if not matches and prefix:
            matches = self._by_tag(query) or self._by_prefix(query)
        if not matches:
            raise ModelNotFound(query[:_SHOWN], candidates=self._near(query))
        if len(matches) > 1:
            names = sorted((entry.name for entry in matches), key=str.lower)
            raise AmbiguousName(query, tuple(names[:_CANDIDATES]))
        return matches[0]

    def _by_spelling(self, query: str) -> list[Entry]:
        if self._index is None:
            self._index = index_entries(self.entries)
        for spelling in _spellings(query):
            matches = self._index.get(spelling)
            if matches:
                return _preferred(matches, spelling)
        return []

    def _by_tag(self, query: str) -> list[Entry]:
        """`qwen2.5:1.5b`: models whose name begins with what stands before the colon, of that kind."""
        base, colon, tag = query.lower().rpartition(":")
        if not colon or not base:
            return []
        return [entry for entry in self._starting_with(base) if tag in _tags(entry)]

    def _by_origin(self, query: str) -> list[Entry]:
        """`[hf/]USER/REPO[/FILE][@REVISION]`: what clients of Ollama call the model that they pulled."""
        if "/" not in query:
            return []
        from .reference import is_tagged, parse_reference

        try:
            reference = parse_reference(query.removesuffix(":latest"))
        except InvalidRequest:
            return []
        file = (reference.file or "").rpartition("/")[2]
        return [
            entry
            for entry in self.entries
            if not entry.parent
            and file in ("", entry.file)
            and reference.name in (None, entry.name)
            and (reference.tag is None or is_tagged(entry.file, reference.tag))
            and any(_is_from(origin, reference) for origin in origins(entry))
        ]

    def _by_prefix(self, query: str) -> list[Entry]:
        for spelling in _spellings(query):
            matches = self._starting_with(spelling)
            if matches:
                return matches
        return []

    def _starting_with(self, beginning: str) -> list[Entry]:
        assert self._index is not None
        matches = {
            entry.name: entry
            for key, entries in self._index.items()
            if key.startswith(beginning)
            for entry in entries
        }
        return list(matches.values())

    def _near(self, query: str) -> tuple[str, ...]:
        from difflib import get_close_matches

        names = {entry.name.lower(): entry.name for entry in self.entries}
        near = get_close_matches(strip_extension(query).lower()[:_SHOWN], names, cutoff=0.5)
        return tuple(names[name] for name in near)


def _spellings(query: str) -> Iterator[str]:
    """Yield a name as it may be spelt on disk, the likeliest first."""
    lower = query.lower()
    plain = lower.removesuffix(":latest")
    for text in (lower, plain, lower.replace(":", "-"), plain.replace(":", "-")):
        yield text
        yield strip_extension(text)


def is_spelt(name: str, entry: Entry) -> bool:
    """Return whether a name that means an entry is the entry's own, in any case, with or without its
    extension or `:latest`: no other entry that comes can take it.
    """
    return entry.name.lower() in _spellings(name.strip())


def _is_from(origin: str, reference: Reference) -> bool:
    repository, _, revision = origin.partition("@")
    return repository == reference.repo and reference.revision in (None, revision)


def _preferred(matches: list[Entry], spelling: str) -> list[Entry]:
    """Return the one of several with exactly that name; in a folder, the one its Modelfile is for."""
    if len(matches) > 1:
        for better in (
            [entry for entry in matches if entry.name.lower() == spelling],
            [entry for entry in matches if entry.modelfile and entry.folder.lower() == spelling],
        ):
            if len(better) == 1:
                return better
    return matches


def _tags(entry: Entry) -> set[str]:
    parsed = parse_model_name(entry.file, entry.folder)
    return {
        str(value).lower()
        for value in (parsed.parameter_size, parsed.quantization, parsed.platform)
        if value is not None
    }
