"""How `show` and `ps` print: text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from ..types import EncoderInfo, LoadedModel, ModelDetails
from .output import (
    BOLD,
    columns_of,
    display_width,
    human_size,
    human_time,
    styled,
    table,
    use_colour,
)
from .streams import printable

_NARROWEST = 16
"""Columns that are left of a value beside its name."""


def details_json(details: ModelDetails) -> str:
    """Return all details as one JSON object."""
    values = asdict(details)
    for turn, message in zip(values["messages"], details.messages, strict=True):
        turn["content"] = message.text
    return json.dumps(values, indent=2, ensure_ascii=False, default=dict)


def details_text(details: ModelDetails) -> str:
    """Return what people look for first, in sections."""
    info = details.info
    rows = [
        ("name", info.name),
        ("description", details.metadata.get("general.description")),
        ("file", info.path),
        ("size", human_size(info.size)),
        ("modified", human_time(info.modified)),
        ("family", info.family),
        ("parameters", info.parameter_size),
        ("quantization", info.quantization),
        ("platform", info.platform),
        ("context length", info.context_length),
        ("made from", details.parent),
        ("capabilities", ", ".join(details.capabilities)),
    ]
    sections = [("Model", two_columns(rows))]
    if details.encoder is not None:
        sections.append(("Pictures", two_columns(_encoder_rows(details.encoder))))
    if details.parameters:
        sections.append(("Parameters", two_columns(details.parameters)))
    if details.system:
        sections.append(("System", _indented(details.system)))
    if details.template_guess:
        sections.append(("Note", _indented(details.template_guess)))
    if details.notes:
        sections.append(("Ignored", _indented("\n".join(details.notes))))
    if details.license:
        first = "\n".join(details.license.splitlines()[:2])
        sections.append(("License", _indented(first)))
    if use_colour(sys.stdout):
        sections = [(styled(head, BOLD, sys.stdout), printable(text)) for head, text in sections]
    texts = (f"{head}\n{text}" for head, text in sections)
    return "\n".join(texts).rstrip("\n")


def _encoder_rows(encoder: EncoderInfo) -> list[tuple[str, object]]:
    pixels = f"{encoder.width} x {encoder.height} pixels" if encoder.width else None
    return [
        ("encoder", encoder.path),
        ("size", human_size(encoder.size)),
        ("input", pixels),
        ("tokens per picture", encoder.tokens),
        ("seen", "those of the last question" if encoder.newest_only else None),
        ("platform", ", ".join(encoder.platforms)),
        ("not used", encoder.problem),
    ]


def part_text(details: ModelDetails, part: str) -> str:
    """Return one part alone, as it is: modelfile, template, parameters, system or license; "" without it."""
    if part == "parameters":
        return "".join(f"{name:<18}{value}\n" for name, value in details.parameters)
    text: str | None = getattr(details, part)
    return text or ""


def two_columns(
    rows: Sequence[tuple[str, object]], *, indent: str = "  ", stream: TextIO | None = None
) -> str:
    """Return names and values beside each other; what is too long for the terminal of `stream` (stdout)
    goes on below where it began, and where that leaves no room, below the name. A row without a value is
    left out.
    """
    filled = [(name, value) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in filled), default=0)
    columns = columns_of(stream or sys.stdout)
    begin = len(indent) + width + 2
    below = 0 < columns < begin + _NARROWEST
    begin = len(indent) + 4 if below else begin
    lines = []
    for name, value in filled:
        first, *more = _wrapped(str(value), columns - begin)
        gap = "\n" + " " * begin if below else " " * (width + 2 - len(name))
        lines.append(f"{indent}{name}{gap}{first}")
        lines += [" " * begin + line for line in more]
    return "".join(f"{line}\n" for line in lines)


def _indented(text: str) -> str:
    columns = columns_of(sys.stdout)
    lines = (line for long in text.splitlines() for line in _wrapped(long, columns - 2))
    return "".join(f"  {line}\n" for line in lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Return a line as several that need no more than `width` columns; with less than ten as it is."""
    if width < 10 or display_width(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        if line and display_width(line) + 1 + display_width(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while display_width(line) > width:
            fits = next(n for n in range(len(line), 0, -1) if display_width(line[:n]) <= width)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line]


def loaded_json(loaded: Sequence[LoadedModel]) -> str:
    """Return the models in memory as a JSON list."""
    return json.dumps([asdict(model) for model in loaded], indent=2, ensure_ascii=False) + "\n"


def loaded_text(loaded: Sequence[LoadedModel]) -> str:
    """Return the models in memory as a table."""
    lines = [
        (
            model.info.name,
            human_size(model.info.size if model.memory is None else model.memory),
            str(model.context_length or "-"),
            model.runtime or "-",
            model.state,
            until_text(model),
        )
        for model in loaded
    ]
    head = ("NAME", "SIZE", "CONTEXT", "RUNTIME", "STATE", "UNTIL")
    return table(head, lines, lesser=("RUNTIME", "CONTEXT", "SIZE"))


def until_text(model: LoadedModel) -> str:
    """Return how long a model stays in memory, in words."""
    if model.state in ("loading", "busy"):
        return "in use"
    if model.expires is None:
        return "forever"
    left = max(0, round(model.expires - time.time()))
    minutes, seconds = divmod(left, 60)
    return f"in {minutes} min {seconds} s" if minutes else f"in {seconds} s"
