"""Corners of JSON schema, each with texts that meet it and texts that do not: `corners.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple


class Corner(NamedTuple):
    """A schema, and texts."""

    schema: Any
    valid: list[str]
    invalid: list[str]


def _read() -> dict[str, Corner]:
    found: dict[str, Corner] = {}
    lines = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        case = json.loads(line)
        found[f"{case['about']}, line {number}"] = Corner(
            case["schema"], case["valid"], case["invalid"]
        )
    return found


CORNERS = _read()
NARROWER = {'"٣٣٣-١٢٣٤"', '"٣"', '"é"', '"\\u2028"'}
"""Texts that some readers of patterns take, and others do not: they are not accepted."""
