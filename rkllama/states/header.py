"""The header of a state: a small JSON file beside the runtime's own, which is read by its path alone.

It is written last. A state without a header, or with one that does not hold, is not a state.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

VERSION = 1
LARGEST = 4096
"""Bytes that a header has at most."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of a state. `length` and `size` are bytes: of the prefix in UTF-8, and of the file."""

    key: str
    """See key.state_key."""
    tokens: int
    """All that its file holds."""
    prefill: float
    """Seconds per prompt token of the run that wrote it."""
    model: str
    pinned: bool = False
    proven: str = ""
    """White space after which the runtime has shown that a token ends, with text behind it."""
    prefix: str = ""
    """sha256 of the text."""
    prefix_crc: int = 0
    length: int = 0
    size: int = 0
    crc: int = 0
    """CRC-32 of the file: it tells damage, and is as fast as the disk on every board."""
    created: float = 0.0
    answer: int = 0
    """Tokens of the answer, which come after those of the text."""

    @property
    def prompt_tokens(self) -> int:
        """Those of the text."""
        return self.tokens - self.answer


def encode(header: Header) -> bytes:
    """Return a header as JSON, with a hash of itself."""
    values = asdict(header)
    return json.dumps(
        {"version": VERSION, **values, "check": _check(values)}, ensure_ascii=True
    ).encode()


def decode(content: bytes) -> Header | None:
    """Return what `encode` was given; None for anything else."""
    try:
        values: Any = json.loads(content)
        check, version = values.pop("check"), values.pop("version")
        header = Header(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if version != VERSION or check != _check(values) or not _is_sound(header):
        return None
    return header


def _check(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_sound(header: Header) -> bool:
    types = {"str": str, "int": int, "float": float, "bool": bool}
    if any(
        type(getattr(header, field.name)) is not types[str(field.type)] for field in fields(header)
    ):
        return False
    numbers = (header.length, header.prompt_tokens, header.size, header.prefill)
    sound = min(numbers) > 0 and header.answer >= 0
    return sound and all(map(_HEX.fullmatch, (header.key, header.prefix)))
