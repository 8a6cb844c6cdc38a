"""Running single checks in tests, and the files that they look at."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from rkllama.config import usable_settings
from rkllama.doctor.finding import Check, Finding, Subject

AARCH64, ARMHF, X86_64 = 0xB7, 0x28, 0x3E


def look(check: Check, model: str | None = None) -> list[Finding]:
    """What a check finds with the settings of this test."""
    return list(check(Subject(settings=usable_settings()[0], model=model)))


def wrong(check: Check, model: str | None = None) -> list[Finding]:
    """What is not good of that."""
    return [finding for finding in look(check, model) if finding.status != "good"]


def write_library(
    path: Path, version: str | None = "1.2.3", machine: int = AARCH64, needed: Sequence[str] = ()
) -> Path:
    """Write the ELF file of a library as the checks read it: a header, what it needs, its version."""
    wide = machine != ARMHF
    names = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    starts = [1 + sum(len(name) + 1 for name in needed[:at]) for at in range(len(needed))]
    head, entry = (64, 56) if wide else (52, 32)
    pair = "<QQ" if wide else "<II"
    table = head + 2 * entry
    strings = table + struct.calcsize(pair) * (len(needed) + 3)
    dynamic = b"".join(struct.pack(pair, 1, start) for start in starts)
    for tag, value in ((5, strings), (10, len(names)), (0, 0)):
        dynamic += struct.pack(pair, tag, value)
    marker = b"" if version is None else f"RKLLM SDK (version: {version} | target: Linux)".encode()
    content = names + marker + b"\0"
    if wide:
        start = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, entry, 2, 0, 0, 0)
        rows = [(1, 5, 0, 0, 0, strings + len(content)), (2, 6, table, table, table, len(dynamic))]
        segments = b"".join(struct.pack("<IIQQQQQQ", *row, row[-1], 8) for row in rows)
    else:
        start = struct.pack("<HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, entry, 2, 0, 0, 0)
        short = [(1, 0, 0, 0, strings + len(content)), (2, table, table, table, len(dynamic))]
        segments = b"".join(struct.pack("<IIIIIIII", *row, row[-1], 5, 4) for row in short)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ident + start + segments + dynamic + content)
    return path


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7000000\n"
