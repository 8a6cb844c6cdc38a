"""The search for models on the Hub: a few cheap questions, and what is to be believed of the answers.

Not every publisher sets the tag `rkllm`, so the answer is the union of three searches. One that fails takes
nothing from the others. Answers are kept for an hour in <home>/cache, and then asked for by their ETag.
Numbers, sizes and characters are bounded, whoever answers; a file's size stands in another answer, and is
asked for when the file is wanted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ..errors import HubGated, PullError
from ..files import write_file
from ..models.filename import parse_platform
from ..models.reference import is_model, is_repository
from .api import Hub
from .offers import Offer, offers_of
from .partial import read_json
from .placement import read_record
from .reading import Reading, read_words

FRESH = 3600.0
"""Seconds for which an answer is used again."""
LIMIT = 100
"""Repositories that one question may bring."""
_FILES = 1000
"""Files of one repository that are looked at."""
_EXPANDED = ("siblings", "downloads", "likes", "lastModified", "tags", "gated")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.A)
_HYPHENATED = frozenset({"llama", "gemma", "phi", "granite", "glm", "exaone", "falcon", "telechat"})
"""Families whose repositories are called Llama-3.2-1B, not Llama3.2-1B."""

Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A search of the Hub, and what it is called in a report of progress."""

    words: str
    tag: str | None = None

    @property
    def label(self) -> str:
        """The question for people."""
        return f"{self.words} [{self.tag}]" if self.tag else self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search brought; `failures` tells which of its questions were not answered, and why."""

    offers: tuple[Offer, ...] = ()
    failures: tuple[str, ...] = ()


def questions(text: str, format: str, soc: str | None) -> tuple[Question, ...]:
    """Return what to ask the Hub about a text that somebody typed."""
    words = _searched(read_words(text)) or " ".join(text.replace(":", " ").split())
    if format == "gguf":
        return (Question(words=words, tag="gguf"),)
    asked = [Question(words=words, tag="rkllm"), Question(words=f"{words} rkllm")]
    if soc:
        asked.append(Question(words=f"{words} {parse_platform(soc) or soc.lower()}"))
    return tuple(asked)


def _searched(reading: Reading) -> str:
    """Return a model's name as repositories have it; without the size, which not every one tells."""
    if reading.brand is None:
        return ""
    name, version = reading.brand, reading.version
    if version:
        # InternVL3_5 is 3.5 with a character of its own.
        version = version.partition(".")[0] if name in ("internvl", "minicpm-v") else version
        name += f"-{version}" if name in _HYPHENATED else version
    return " ".join((name, *sorted(reading.words - {"abliterated"}), *sorted(reading.rest)))


def search(
    hub: Hub,
    asked: Iterable[Question],
    *,
    cache: str | None = None,
    refresh: bool = False,
    models: str | None = None,
) -> Generator[str, None, Found]:
    """Ask the Hub each question and return the union; yields what is being asked.

    `cache` is the directory for the answers, `models` that of what is here. Raises the first error where
    no question is answered.
    """
    repositories: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    first: PullError | None = None
    answered = False
    for question in asked:
        yield question.label
        try:
            rows = _answer(hub, question, cache, refresh)
        except PullError as error:
            first = first or error
            failures.append(f"{question.label}: {error.message}")
            if isinstance(error, HubGated):
                break  # the token is wrong for every question
            continue
        answered = True
        repositories.update({row["id"]: row for row in rows if row["id"] not in repositories})
    if first is not None and not answered:
        raise first
    here = frozenset(pulled_files(models)) if models else frozenset()
    offers = [
        offer
        for row in repositories.values()
        for offer in offers_of(
            row["id"],
            row["files"],
            downloads=row["downloads"],
            likes=row["likes"],
            updated=row["updated"],
            gated=row["gated"],
            here=here,
        )
    ]
    return Found(offers=tuple(offers), failures=tuple(failures))


def finish(
    steps: Generator[Step, None, Result], tell: Callable[[Step], object] = lambda _: None
) -> Result:
    """Run a search to its end, telling each of its steps, and return what it returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        tell(step)


def pulled_files(models: str) -> Iterator[str]:
    """Yield USER/REPO/FILE of what `pull` brought into the directory `models`."""
    with contextlib.suppress(OSError), os.scandir(models) as folders:
        for folder in folders:
            if record := read_record(folder.path):
                yield f"{record.get('repo')}/{record.get('file')}"


# --- Answers -----------------------------------------------------------------------------------


def _answer(hub: Hub, question: Question, cache: str | None, refresh: bool) -> list[dict[str, Any]]:
    parameters: dict[str, str | list[str]] = {
        "search": question.words[:200],
        "sort": "downloads",
        "limit": str(LIMIT),
        "expand": list(_EXPANDED),
    }
    if question.tag:
        parameters["filter"] = question.tag
    path = _cached(cache, hub.endpoint, parameters)
    kept = _read(path) if path is not None else None
    if kept is not None and kept.fresh and not refresh:
        return kept.rows
    answer, etag = hub.list_models(parameters, kept.etag if kept else None)
    if answer is None and kept is not None:
        rows = kept.rows
    else:
        rows = [row for entry in _listed(answer) if (row := _believed(entry))]
    if path is not None:
        _keep(path, rows, etag)
    return rows


def _listed(answer: object) -> list[object]:
    if not isinstance(answer, list):
        raise PullError(
            "the Hub's answer to a search is no list",
            hint="Check HF_ENDPOINT and the proxy settings.",
        )
    return answer[:LIMIT]


def _believed(entry: object) -> dict[str, Any] | None:
    """Return what is used of a repository's entry; None for one that is none, or has no model."""
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("id")
    if not isinstance(name, str) or len(name) > 200 or not is_repository(name):
        return None
    siblings = entry.get("siblings")
    names = [
        sibling.get("rfilename")
        for sibling in (siblings if isinstance(siblings, list) else [])[:_FILES]
        if isinstance(sibling, Mapping)
    ]
    files = [name for name in names if isinstance(name, str) and _is_of_use(name)]
    if not any(is_model(name) for name in files):
        return None
    updated = entry.get("lastModified")
    return {
        "id": name,
        "files": files,
        "downloads": _counted(entry.get("downloads")),
        "likes": _counted(entry.get("likes")),
        "updated": updated if isinstance(updated, str) and _MOMENT.fullmatch(updated) else None,
        "gated": bool(entry.get("gated")),
    }


def _counted(number: object) -> int | None:
    return number if isinstance(number, int) and 0 <= number < 1 << 50 else None


def _is_of_use(file: str) -> bool:
    return (
        len(file) <= 300
        and file.isprintable()
        and file.lower().endswith((".rkllm", ".gguf", ".rknn"))
    )


# --- The cache ---------------------------------------------------------------------------------


def _cached(cache: str | None, endpoint: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the path of the answer's file."""
    if cache is None:
        return None
    key = json.dumps([endpoint, parameters], sort_keys=True).encode()
    return os.path.join(cache, f"search-{hashlib.sha256(key).hexdigest()[:32]}.json")


class _Kept(NamedTuple):
    """An answer of an earlier search; a `fresh` one is not asked about again."""

    rows: list[dict[str, Any]]
    etag: str | None
    fresh: bool


def _read(path: str) -> _Kept | None:
    """Return a kept answer; what the file holds is not believed either."""
    try:
        age = time.time() - os.stat(path).st_mtime
    except OSError:
        return None
    kept = read_json(path)
    rows = kept.get("rows") if isinstance(kept, dict) else None
    if not isinstance(kept, dict) or not isinstance(rows, list):
        return None
    etag = kept.get("etag")
    usable = isinstance(etag, str) and len(etag) < 200 and etag.isascii() and etag.isprintable()
    entries = (
        {
            **row,
            "siblings": [{"rfilename": file} for file in row.get("files") or ()],
            "lastModified": row.get("updated"),
        }
        for row in rows
        if isinstance(row, dict)
    )
    believed = [row for entry in entries if (row := _believed(entry))]
    return _Kept(believed, etag if usable else None, 0 <= age < FRESH)


def _keep(path: str, rows: list[dict[str, Any]], etag: str | None) -> None:
    """Keep an answer, and none that is older than a day; a disk that takes none costs nothing."""
    folder = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        with os.scandir(folder) as entries:
            for entry in entries:
                old = (
                    entry.name.startswith("search-") and entry.stat().st_mtime < time.time() - 86400
                )
                if old:
                    os.unlink(entry.path)
        write_file(path, json.dumps({"etag": etag, "rows": rows}).encode())
