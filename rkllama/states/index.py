"""Which states there are, and which of them a prompt begins with. In memory; no text is kept."""

from __future__ import annotations

import hashlib
import zlib
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass

from .folder import Stamp
from .header import Header


@dataclass(slots=True, eq=False)
class Entry:
    """A state that can be loaded."""

    state: str
    """Its name in the folder."""
    header: Header
    used: int
    """When it was last used, nanoseconds since the epoch; no two of a store have the same."""
    stamp: Stamp | None = None
    """Of its file, once that has been found whole in this process."""
    committed: bool = True
    """Whether its header is on the disk."""


class Index:
    """The entries by key and by prefix."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lengths: dict[str, list[int]] = {}
        """By key, the lengths of the prefixes, ascending."""
        self._prefixes: dict[tuple[str, int, int], list[Entry]] = {}
        """By key, length and CRC-32."""
        self._per_token: dict[str, float] = {}
        self.size = 0
        """Bytes of all files."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry) -> bool:
        return self._entries.get(entry.state) is entry

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        header = entry.header
        self._entries[entry.state] = entry
        self._prefixes.setdefault(_place(header), []).append(entry)
        lengths = self._lengths.setdefault(header.key, [])
        insort(lengths, header.length)
        self._per_token[header.key] = header.size / header.tokens
        self.size += header.size

    def remove(self, entry: Entry) -> None:
        """Remove an entry, if it is here."""
        if self._entries.pop(entry.state, None) is None:
            return
        header = entry.header
        self.size -= header.size
        same = self._prefixes[_place(header)]
        same.remove(entry)
        if not same:
            del self._prefixes[_place(header)]
        self._lengths[header.key].remove(header.length)
        if not self._lengths[header.key]:
            del self._lengths[header.key]

    def matches(self, key: str, text: bytes) -> Iterator[Entry]:
        """Yield the states of `key` whose prefix `text` begins with, the longest first."""
        view, crc, at = memoryview(text), 0, 0
        likely: list[Entry] = []
        for length in self._lengths.get(key, ()):
            if length > len(text):
                break
            if length > at:
                crc, at = zlib.crc32(view[at:length], crc), length
                likely += self._prefixes.get((key, length, crc), ())
        for entry in reversed(likely):
            if hashlib.sha256(view[: entry.header.length]).hexdigest() == entry.header.prefix:
                yield entry

    def bytes_per_token(self, key: str) -> float | None:
        """Return the bytes that a token takes in the states of `key`; None where none has told."""
        return self._per_token.get(key)


def _place(header: Header) -> tuple[str, int, int]:
    return header.key, header.length, header.prefix_crc
