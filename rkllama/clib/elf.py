"""What the header of an ELF file tells: for which machine it is, how long it has to be, what it needs.

All of it is read from the file; nothing is loaded.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import NamedTuple

_NAMES = {0x03: "x86", 0x28: "armhf", 0x3E: "x86-64", 0xB7: "aarch64", 0xF3: "riscv"}
_LOAD, _DYNAMIC = 1, 2
"""Types of segments."""
_END, _NEEDED, _STRING_TABLE, _STRING_SIZE = 0, 1, 5, 10
"""Tags of the dynamic section."""
_MOST = 1 << 20
"""Bytes that are read of a table."""
_FARTHEST = 1 << 40
"""Files are shorter; what a damaged header says need not be."""


class Machine(NamedTuple):
    """A word size in bits and the number that ELF has for a machine."""

    bits: int
    number: int

    @property
    def name(self) -> str:
        """As the vendor names it, "aarch64" or "armhf"; "machine 8" for one without a name here."""
        return _NAMES.get(self.number, f"machine {self.number}")

    def __str__(self) -> str:
        return f"{self.name} ({self.bits} bit)"


def machine_of(path: str) -> Machine | None:
    """Return the machine that an ELF file is for, None for another file. Raises OSError."""
    with open(path, "rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    number = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
    return Machine(64 if head[4] == 2 else 32, number)


def own_machine() -> Machine | None:
    """Return the machine that this Python was made for."""
    return machine_of(os.path.realpath(sys.executable)) or machine_of("/proc/self/exe")


def machine() -> str | None:
    """Return that machine as the vendor names it, "aarch64" or "armhf"; None for one without a name."""
    ours = own_machine()
    return None if ours is None else _NAMES.get(ours.number)


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


class _Head(NamedTuple):
    """Where the table of segments is, and what stands in it."""

    start: int
    length: int
    segments: tuple[_Segment, ...]


def size_of(path: str) -> int:
    """Return how long a little-endian ELF file has to be for what the loader maps of it. Raises OSError."""
    head = _read_head(path)
    ends = [head.start + head.length]
    return max(ends + [segment.offset + segment.size for segment in head.segments])


def needed_by(path: str) -> tuple[str, ...]:
    """Return the names of the libraries that an ELF file needs, "libgomp.so.1"; none where it does not
    tell. Raises OSError.
    """
    segments = _read_head(path).segments
    dynamic = next((one for one in segments if one.kind == _DYNAMIC), None)
    wide = _is_wide(path)
    if dynamic is None or dynamic.offset > _FARTHEST:
        return ()
    with open(path, "rb") as stream:
        stream.seek(dynamic.offset)
        table = stream.read(min(dynamic.size, _MOST))
        entries = [*struct.iter_unpack("<qQ" if wide else "<iI", _whole(table, 16 if wide else 8))]
        end = next((at for at, entry in enumerate(entries) if entry[0] == _END), len(entries))
        address = next((value for tag, value in entries[:end] if tag == _STRING_TABLE), None)
        names = [value for tag, value in entries[:end] if tag == _NEEDED]
        offset = None if address is None else _offset_of(address, segments)
        if offset is None or offset > _FARTHEST or not names:
            return ()
        stream.seek(offset)
        strings = stream.read(_MOST)
    texts = (strings[at:].partition(b"\0")[0].decode("ascii", "replace") for at in names)
    return tuple(text for text in texts if text.isprintable() and text)


def _offset_of(address: int, segments: tuple[_Segment, ...]) -> int | None:
    """Return where in the file lies what the loader maps to an address."""
    for segment in segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    return None


def _is_wide(path: str) -> bool:
    found = machine_of(path)
    return found is not None and found.bits == 64


def _read_head(path: str) -> _Head:
    wide = _is_wide(path)
    table, entry_size, count = (32, 54, 56) if wide else (28, 42, 44)
    with open(path, "rb") as stream:
        head = stream.read(64).ljust(64, b"\0")
        (start,) = struct.unpack_from("<Q" if wide else "<I", head, table)
        length, number = (struct.unpack_from("<H", head, at)[0] for at in (entry_size, count))
        stream.seek(min(start, _FARTHEST))
        content = _whole(stream.read(length * number), length)
    parts = (content[at : at + length] for at in range(0, len(content), length or 1))
    return _Head(start, length * number, tuple(_segment(part, wide) for part in parts))


def _segment(entry: bytes, wide: bool) -> _Segment:
    if wide:
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", entry.ljust(40, b"\0"))
    else:
        kind, offset, address, _, size = struct.unpack_from("<IIIII", entry.ljust(20, b"\0"))
    return _Segment(kind, offset, address, size)


def _whole(table: bytes, size: int) -> bytes:
    """Return a table without the part of an entry at its end."""
    return table[: len(table) - len(table) % size] if size else b""


def stand_in(path: str, text: bytes = b"") -> bytes:
    """Return a small file of which this module tells the same as of the ELF file at `path`, but for the
    size. `text` stands at its end. Raises OSError.
    """
    with open(path, "rb") as stream:
        head = bytearray(stream.read(64).ljust(64, b"\0"))
    wide = _is_wide(path)
    names = b"\0" + b"".join(name.encode() + b"\0" for name in needed_by(path))
    starts = [at + 1 for at, byte in enumerate(names[:-1]) if not byte]
    entry, pair = (56, "<qQ") if wide else (32, "<iI")
    first = 64 + 2 * entry
    table = [(_NEEDED, start) for start in starts]
    strings = first + struct.calcsize(pair) * (len(table) + 3)
    table += [(_STRING_TABLE, strings), (_STRING_SIZE, len(names)), (_END, 0)]
    dynamic = b"".join(struct.pack(pair, *one) for one in table)
    end = strings + len(names) + len(text)
    segments = (
        _Segment(_LOAD, 0, 0, end),
        _Segment(_DYNAMIC, first, first, len(dynamic)),
    )
    places = (32, 54, 56) if wide else (28, 42, 44)
    struct.pack_into("<Q" if wide else "<I", head, places[0], 64)
    struct.pack_into("<H", head, places[1], entry)
    struct.pack_into("<H", head, places[2], len(segments))
    packed = b"".join(_packed(segment, wide) for segment in segments)
    return bytes(head) + packed + dynamic + names + text


def _packed(segment: _Segment, wide: bool) -> bytes:
    kind, offset, address, size = segment
    if wide:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, address, address, size, size, 1)
    return struct.pack("<IIIIIIII", kind, offset, address, address, size, size, 4, 1)
