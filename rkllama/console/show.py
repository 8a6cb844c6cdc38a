"""How `show` and `ps` print: text for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from ..types import LoadedModel, ModelDetails
from .output import human_size, human_time, table


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
    text = "Model\n" + _rows(rows)
    if details.parameters:
        text += "\nParameters\n" + _rows(details.parameters)
    if details.system:
        text += "\nSystem\n" + _indented(details.system)
    if details.template_guess:
        text += "\nNote\n" + _indented(details.template_guess)
    if details.notes:
        text += "\nIgnored\n" + _indented("\n".join(details.notes))
    if details.license:
        text += "\nLicense\n" + _indented("\n".join(details.license.splitlines()[:2]))
    return text.rstrip("\n")


def part_text(details: ModelDetails, part: str) -> str:
    """Return one part alone, as it is: modelfile, template, parameters, system or license; "" without it."""
    if part == "parameters":
        return "".join(f"{name:<18}{value}\n" for name, value in details.parameters)
    text: str | None = getattr(details, part)
    return text or ""


def _rows(rows: Sequence[tuple[str, object]]) -> str:
    filled = [(name, value) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in filled), default=0)
    return "".join(f"  {name:<{width}}  {value}\n" for name, value in filled)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


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
            _until(model),
        )
        for model in loaded
    ]
    return table(("NAME", "SIZE", "CONTEXT", "RUNTIME", "STATE", "UNTIL"), lines)


def _until(model: LoadedModel) -> str:
    if model.state in ("loading", "busy"):
        return "in use"
    if model.expires is None:
        return "forever"
    left = max(0, round(model.expires - time.time()))
    minutes, seconds = divmod(left, 60)
    return f"in {minutes} min {seconds} s" if minutes else f"in {seconds} s"
