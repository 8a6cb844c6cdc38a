"""The models directory, and what keeps its models from being used.

There may be hundreds: of each only its name, its first and its last bytes are looked at, and a check tells
of all of them in one finding.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator

from ...files import gigabytes
from ...models.filename import least_size
from ...models.gguf import GGUFError, read_header
from ...models.labels import pull_reference, total_size
from ...models.scan import Entry, open_nonblocking
from ...rkllm.model_file import what_else
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models

_HEAD, _TAIL = 512, 4096
"""Bytes at the beginning and at the end of a file that are looked at."""


def check_models(subject: Subject) -> Iterator[Finding]:
    """Can the models directory be read, and what is in it?"""
    models = read_models(subject)
    directory = subject.settings.models
    is_default = directory == os.path.join(subject.settings.home, "models")
    if models.fault is not None and not (is_default and not os.path.lexists(directory)):
        yield Finding(
            check="models",
            status="broken",
            title="Models",
            found=models.fault.message,
            advice=models.fault.hint or "Set RKLLAMA_MODELS to a directory that you may read.",
            source=directory,
        )
        return
    if subject.model is not None:
        return
    size = sum(entry.size for entry in models.entries if not entry.parent)
    count = len(models.entries)
    yield Finding(
        check="models",
        status="good",
        title="Models",
        found=f"{count} model{'' if count == 1 else 's'}, {gigabytes(size)}"
        if count
        else "none yet",
        advice=None if count else "`rkllama search` shows what there is for this board.",
        source=directory,
    )


# --- The files themselves ----------------------------------------------------------------------


def check_model_files(subject: Subject) -> Iterator[Finding]:
    """Is each file a whole model?"""
    entries = [one for one in read_models(subject).entries if one.format and not one.parent]
    defects = [(entry, defect) for entry in entries if (defect := _defect(entry))]
    for defect in dict.fromkeys(defect for _, defect in defects):
        damaged = [entry for entry, other in defects if other == defect]
        names = name_some(entry.name for entry in damaged)
        yield Finding(
            check="model-files",
            status="broken",
            title="Model files",
            found=f"{names}: {defect}",
            advice="Fetch it again, or remove it." if len(damaged) == 1 else "Fetch them again.",
            cure=_fetch_again(damaged),
            source=damaged[0].path,
        )


def _defect(entry: Entry) -> str | None:
    """Return what a file is instead of a model, as far as its ends and its size tell."""
    try:
        with open(entry.path, "rb", opener=open_nonblocking, buffering=0) as stream:
            head = stream.read(_HEAD)
            stream.seek(max(0, entry.size - _TAIL))
            tail = stream.read(_TAIL)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if entry.format == "gguf":
        return _defect_of_gguf(entry, head)
    # A look of its own only where the little that was read is strange.
    if entry.size < 1 << 20 or not head.strip(b"\0") or not tail.strip(b"\0") or _unfinished(entry):
        other = what_else(entry.path)
        if other is not None:
            return other.message
    least = least_size(entry.file)
    if least is not None and entry.size < least:
        return (
            f"it has {gigabytes(entry.size)}, too few for its size: its download or copy broke off"
        )
    return None


def _unfinished(entry: Entry) -> bool:
    return any(os.path.exists(entry.path + ending) for ending in (".aria2", ".st"))


def _defect_of_gguf(entry: Entry, head: bytes) -> str | None:
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which stands for the file"
    try:
        read_header(entry.path, brief=True)
    except GGUFError as error:
        return error.message.partition(": ")[2]
    return None


def _fetch_again(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the lines that fetch models again, as far as it is known where they came from."""
    references = {entry.name: pull_reference(entry) for entry in entries}
    return tuple(
        line
        for name, reference in references.items()
        if reference is not None
        for line in (
            f"rkllama rm {shlex.quote(name)}",
            f"rkllama pull {shlex.quote(reference)}",
        )
    )


# --- What is no model --------------------------------------------------------------------------


def check_downloads(subject: Subject) -> Iterator[Finding]:
    """Are there downloads that have broken off?"""
    parts = read_models(subject).incomplete
    if not parts:
        return
    references = [reference for part in parts if (reference := pull_reference(part))]
    yield Finding(
        check="downloads",
        status="warning",
        title="Downloads",
        found=f"incomplete: {name_some(_progress(part) for part in parts)}",
        advice="Continue them, or remove what is there with `rkllama rm`.",
        cure=tuple(f"rkllama pull {shlex.quote(reference)}" for reference in references),
        source=parts[0].path,
    )


def _progress(part: Entry) -> str:
    total = total_size(part)
    of = f" of {gigabytes(total)}" if total else ""
    return f"{part.name} ({gigabytes(part.size)}{of})"


def check_passed_over(subject: Subject) -> Iterator[Finding]:
    """Is there something that looks like a model and cannot be one?"""
    models = read_models(subject)
    lost = [
        f"{entry.name}: it is made from {entry.parent or 'nothing'}, which is not there"
        for entry in models.entries
        if not entry.format
    ]
    told = [*models.passed_over, *lost]
    if told:
        yield Finding(
            check="passed-over",
            status="warning",
            title="Passed over",
            found="; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else ""),
            advice="Correct or remove them.",
            source=subject.settings.models,
        )


CHECKS: tuple[Check, ...] = (check_models, check_model_files, check_downloads, check_passed_over)
