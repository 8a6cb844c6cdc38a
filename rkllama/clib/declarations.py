"""A C header as data: what of it stands in which release, and its declarations taken apart.

The tables in rkllm/abi.py and rknn/abi.py quote the C declarations in their header's order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class C(NamedTuple):
    """A C declaration as the header writes it, in the releases `since` <= release < `before`.

    Without `since` it is in the first one, without `before` in the last.
    """

    text: str
    since: str | None = None
    before: str | None = None


class Block(NamedTuple):
    """An enum, a struct, or (without a name: anonymous) a union or struct inside one."""

    kind: str
    name: str
    entries: tuple[C | Block, ...]
    since: str | None = None
    before: str | None = None


class Member(NamedTuple):
    """A struct's member: `length` elements of the C type `type` (0: no array), or a nested `block`."""

    type: str
    name: str
    length: int = 0
    block: Struct | None = None


class Struct(NamedTuple):
    """A struct or union and its members, in order."""

    kind: str
    name: str
    members: tuple[Member, ...]


class Signature(NamedTuple):
    """A function or callback: its C return type, its name and its arguments as written in C."""

    returns: str
    name: str
    arguments: tuple[str, ...]


class Header(NamedTuple):
    """What one release declares, by name, in the header's order."""

    release: str
    enums: Mapping[str, Mapping[str, int]]
    structs: Mapping[str, Struct]
    callbacks: Mapping[str, Signature]
    functions: Mapping[str, Signature]


_DECLARATOR = re.compile(r"(?P<type>.+?)\s*\b(?P<name>\w+)(?:\[(?P<length>\d*)\])?")
_PROTOTYPE = re.compile(
    r"(?:typedef )?(?P<returns>\w+) (?:\(\*)?(?P<name>\w+)\)?\((?P<arguments>.*)\)"
)


def declared(entries: Sequence[C | Block], releases: Sequence[str], release: str) -> Header:
    """Return what `release`, one of `releases` (oldest first), declares; raises ValueError for another."""
    if release not in releases:
        raise ValueError(
            f"the header of release {release} is not known, only those of {', '.join(releases)}"
        )
    picker = _Picker(releases, release)
    result = Header(release, {}, {}, {}, {})
    tables: dict[str, Any] = result._asdict()
    for entry in picker.standing(entries):
        if isinstance(entry, C):
            table = "callbacks" if entry.text.startswith("typedef") else "functions"
            signature = _signature(entry.text)
            tables[table][signature.name] = signature
        elif entry.kind == "enum":
            tables["enums"][entry.name] = picker.values(entry)
        else:
            tables["structs"][entry.name] = picker.struct(entry)
    return result


class _Picker:
    """Picks the declarations of one release."""

    def __init__(self, releases: Sequence[str], release: str) -> None:
        self._releases = releases
        self._index = releases.index(release)

    def standing(self, entries: Sequence[C | Block]) -> Iterator[C | Block]:
        for entry in entries:
            since = self._releases.index(entry.since) if entry.since else 0
            before = self._releases.index(entry.before) if entry.before else len(self._releases)
            if since <= self._index < before:
                yield entry

    def values(self, block: Block) -> dict[str, int]:
        texts = (e.text for e in self.standing(block.entries) if isinstance(e, C))
        return {name: int(value) for name, value in (text.split(" = ") for text in texts)}

    def struct(self, block: Block) -> Struct:
        members = tuple(map(self._member, self.standing(block.entries)))
        return Struct(block.kind, block.name, members)

    def _member(self, entry: C | Block) -> Member:
        if isinstance(entry, Block):
            return Member(entry.kind, entry.name, block=self.struct(entry))
        return declarator(entry.text)


def declarator(text: str) -> Member:
    """Return a member or an argument such as "uint8_t reserved[104]", taken apart. An array of no length is
    a pointer, as in C.
    """
    match = _DECLARATOR.fullmatch(text)
    assert match, text
    if match["length"] == "":
        return Member(f"{match['type']}*", match["name"])
    return Member(match["type"], match["name"], int(match["length"] or 0))


def _signature(text: str) -> Signature:
    match = _PROTOTYPE.fullmatch(text)
    assert match, text
    arguments = tuple(match["arguments"].split(", ")) if match["arguments"] else ()
    return Signature(match["returns"], match["name"], arguments)
