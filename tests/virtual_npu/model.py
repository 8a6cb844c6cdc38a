"""Writing models and directives for the virtual NPU, and reading its trace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

MAGIC = "vnpu model 1"


def write_model(path: str | os.PathLike[str], *, size: int = 0, **config: object) -> str:
    """Write a model file whose keys (see README.md) script the virtual NPU; return its path.

    With `size` the file is made that many bytes long, without taking them on the disk; its end is
    not all zero, as that of a model.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [MAGIC, *(f"{key}={escape(_text(value))}" for key, value in config.items()), "end", ""]
    target.write_text("\n".join(lines))
    if size > target.stat().st_size:
        with target.open("rb+") as stream:
            stream.seek(size - 1)
            stream.write(b"\1")
    return str(target)


def directive(**config: object) -> str:
    """Return a piece of prompt text that sets keys for the run it is in."""
    pairs = ";".join(f"{key}={escape(_text(value))}" for key, value in config.items())
    return "@vnpu{" + pairs + "}"


def escape(text: str) -> str:
    """`text` as a value of a model file or directive: ASCII, no control token in sight."""
    plain = {"\\": "\\\\", "\n": "\\n"}
    return "".join(plain.get(c) or (c if c.isalnum() and c.isascii() else _hex(c)) for c in text)


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """Return what a traced virtual NPU was given, run by run; its model has `trace_prompt`."""
    return [str(event["prompt"]) for event in read_trace(path) if event["event"] == "run"]


def read_trace(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the events that a traced virtual NPU wrote so far, oldest first."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]  # a line may be in the middle of being written
    return [json.loads(line) for line in whole.splitlines()]


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _hex(character: str) -> str:
    if character in " .,:!?_-/+=*'()":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
