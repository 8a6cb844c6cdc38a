"""The small files beside a model: its chat template, the ids that end an answer, its context length.

A model in a folder of its own has them under their usual names (tokenizer_config.json, …); a model
that lies directly in the models directory, beside others, only as `<its stem>.tokenizer_config.json`.
All of them are optional, and a broken one is passed over with a note: it must not hide the model.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..types import TemplateSource
from .filename import strip_extension
from .scan import may_follow, open_nonblocking

CONFIG = "config.json"
NAMES = (
    "chat_template.jinja",
    "tokenizer_config.json",
    "chat_template.json",
    "generation_config.json",
    CONFIG,
)
SIZE_LIMIT = 20 << 20
_LARGEST_ID = 1 << 31

SidecarStamp = tuple[tuple[str, int, int], ...]
"""Path, size and mtime_ns of each file that is there: equal stamps mean equal contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """What the files beside a model say. `notes` tell which were passed over, and why."""

    template: TemplateSource | None = None
    eos_tokens: tuple[int, ...] = ()
    context_length: int | None = None
    notes: tuple[str, ...] = ()


def stamp_sidecars(model: str, root: str, names: tuple[str, ...] = NAMES) -> SidecarStamp:
    """Return the files of these names beside the model at the path `model` in the models directory `root`."""
    return tuple(_stamps(model, root, names))


def _stamps(model: str, root: str, names: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    folder, file = os.path.split(model)
    stem = os.path.join(folder, strip_extension(file))
    for name in names:
        paths = [f"{stem}.{name}"]
        if folder != root:
            paths.append(os.path.join(folder, name))
        for path in paths:
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
                yield path, status.st_size, status.st_mtime_ns
                break


def read_sidecars(stamp: SidecarStamp, root: str) -> Sidecars:
    """Return what the files of a stamp say; raises nothing."""
    notes: list[str] = []
    texts: dict[str, str] = {}
    for path, size, _ in stamp:
        name = next(name for name in NAMES if path.endswith(name))
        text = _read(path, size, root, notes)
        if text is not None:
            texts[name] = text
    tokenizer = _parse(texts, "tokenizer_config.json", notes)
    config = _parse(texts, CONFIG, notes)
    generation = _parse(texts, "generation_config.json", notes)
    source = _template(texts, tokenizer, _parse(texts, "chat_template.json", notes))
    return Sidecars(
        template=source and _template_source(*source, tokenizer),
        eos_tokens=_eos_tokens(generation, config, tokenizer),
        context_length=_context_length(config),
        notes=tuple(notes),
    )


def _read(path: str, size: int, root: str, notes: list[str]) -> str | None:
    name = os.path.basename(path)
    if size > SIZE_LIMIT:
        notes.append(f"{name} is ignored: it is too large ({size} bytes)")
    elif not may_follow(path, root):
        notes.append(f"{name} is ignored: it is a link of somebody else's")
    else:
        try:
            with open(path, encoding="utf-8-sig", newline="", opener=open_nonblocking) as stream:
                return stream.read(SIZE_LIMIT)
        except (OSError, ValueError) as error:
            notes.append(f"{name} is ignored: {error}")
    return None


def _parse(texts: dict[str, str], name: str, notes: list[str]) -> dict[str, Any]:
    """Return a file's JSON object, {} if it has none."""
    if name not in texts:
        return {}
    try:
        value = json.loads(texts[name])
    except (ValueError, RecursionError) as error:
        notes.append(f"{name} is ignored: {error}")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{name} is ignored: it contains no JSON object")
        return {}
    return value


# --- The template ------------------------------------------------------------------------------


def _template(
    texts: dict[str, str], tokenizer: dict[str, Any], processor: dict[str, Any]
) -> tuple[str, str] | None:
    """Return the template's text and the file it is from, in the order that transformers looks them up."""
    candidates = (
        (texts.get("chat_template.jinja"), "chat_template.jinja"),
        (_chosen(tokenizer.get("chat_template")), "tokenizer_config.json"),
        (_chosen(processor.get("chat_template")), "chat_template.json"),
    )
    return next(((text, name) for text, name in candidates if text and text.strip()), None)


def _chosen(template: object) -> str | None:
    """Return a template's text; of several named ones, "default"."""
    if isinstance(template, str):
        return template
    if isinstance(template, list):
        named = {
            item.get("name"): item["template"]
            for item in template
            if isinstance(item, dict) and isinstance(item.get("template"), str)
            if isinstance(item.get("name"), str)
        }
        return named.get("default") or next(iter(named.values()), None)
    return None


def _template_source(text: str, origin: str, tokenizer: dict[str, Any]) -> TemplateSource:
    return TemplateSource(
        source=text,
        origin=origin,
        bos_token=_token(tokenizer.get("bos_token")),
        eos_token=_token(tokenizer.get("eos_token")),
    )


def _token(value: object) -> str:
    """Return a token's text, which can be wrapped in an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


# --- Figures -----------------------------------------------------------------------------------


def _eos_tokens(
    generation: dict[str, Any], config: dict[str, Any], tokenizer: dict[str, Any]
) -> tuple[int, ...]:
    """Return the ids that end an answer: generation_config.json's, else config.json's, and the
    tokenizer's.
    """
    ids = _ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id"))
    text = _token(tokenizer.get("eos_token"))
    added = tokenizer.get("added_tokens_decoder")
    if text and isinstance(added, dict):
        ids += [
            int(number)
            for number, token in added.items()
            if number.isdecimal() and len(number) < 10 and _token(token) == text
        ]
    return tuple(dict.fromkeys(ids))


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if type(number) is int and 0 <= number < _LARGEST_ID]


def _context_length(config: dict[str, Any]) -> int | None:
    """Return what the model was trained for; a vision model has it in its text part's configuration."""
    for part in (config, config.get("text_config"), config.get("llm_config")):
        if isinstance(part, dict):
            length = part.get("max_position_embeddings")
            if type(length) is int and 0 < length < _LARGEST_ID:
                return length
    return None
