"""`rkllama list`, from the running server or from the directory itself.

It needs no dataclass, no Typer and no rich, and prints its few columns by itself: it must start in
no more than three times what a bare interpreter takes.
"""

from __future__ import annotations

import os
import sys

from ..client.discover import (
    ServerAddress,
    find_server,
    has_other_models,
    unused_settings,
)
from ..config import Settings, load_settings
from ..errors import ModelsDirMissing, RKLLamaError
from .output import (
    DIM,
    GREEN,
    YELLOW,
    forget_stdout,
    human_size,
    human_time,
    print_error,
    print_note,
    styled,
    table,
    write_styled,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from ..models.scan import Entry


def run(models: str | None, *, as_json: bool) -> int:
    """Print the models and return the exit code."""
    try:
        settings = load_settings({"models": models})
        server = None if models else find_server(settings)
        found = _from_directory(settings) if server is None else _from_server(server)
        loaded = [] if server is None or as_json else _loaded(server)
    except RKLLamaError as error:
        print_error(error)
        return 1
    if server is not None and not as_json:
        say_server(server, settings)
    try:
        if not found.models and not as_json:
            _say_empty(settings, server)
        if as_json:
            sys.stdout.write(_json(found.models))
        else:
            write_styled(_table(found, loaded), sys.stdout)
        sys.stdout.flush()
        for text in found.passed_over:
            print_note(f"passed over {text}.")
    except BrokenPipeError:
        forget_stdout()
    return 0


def collect(models: str | None = None) -> list[dict[str, object]]:
    """Return one dict per model: name, file, size (bytes), format, parameter_size ("1.5B"), quantization,
    platform, modified (epoch seconds), vision.

    With `models` that directory is read, else a running server is asked first.
    """
    settings = load_settings({"models": models})
    server = None if models else find_server(settings)
    return (_from_directory(settings) if server is None else _from_server(server)).models


def say_server(server: ServerAddress, settings: Settings) -> None:
    """Tell on a terminal whose models these are, and anywhere what of the user's is not used for it."""
    unused = unused_settings(server, settings)
    if unused or sys.stderr.isatty():
        text = f"Through the server at {server.url}{'; ' * bool(unused)}{unused}."
        write_styled(f"{styled(text, DIM, sys.stderr)}\n", sys.stderr)


def _say_empty(settings: Settings, server: ServerAddress | None) -> None:
    """Tell what to do without models; behind a server the user's own directory may have some."""
    how = "Find one: rkllama search qwen3; download it: rkllama pull NAME\n"
    text = f"No models yet. {how}"
    if server is not None:
        there = f" in {server.models}" * bool(server.models)
        text = f"The server at {server.url} has no models{there} yet. {how}"
        if has_other_models(server, settings):
            text += _own_models(settings)
    sys.stderr.write(f"{text}Or try the built-in guide: rkllama run guide\n")


def _own_models(settings: Settings) -> str:
    """Return a line on how many models lie in the user's own directory, which a server does not serve."""
    try:
        own = len(_from_directory(settings).models)
    except RKLLamaError:
        own = 0
    if not own:
        return f"Your own directory {settings.models} has none either.\n"
    models = "is 1 model" if own == 1 else f"are {own} models"
    how = f"rkllama --models {settings.models} list"
    return f"There {models} in {settings.models}, which it does not serve: {how}\n"


class _Found:
    """What a directory or a server has: models, incomplete downloads, and what is passed over."""

    def __init__(
        self,
        models: list[dict[str, object]],
        incomplete: list[dict[str, Any]],
        passed_over: Sequence[str] = (),
    ) -> None:
        self.models = models
        self.incomplete = incomplete
        self.passed_over = passed_over


def _from_directory(settings: Settings) -> _Found:
    from ..models.labels import labels, total_size
    from ..models.scan import Scan

    look = Scan(settings.models)
    try:
        entries = look.entries()
    except ModelsDirMissing:
        if settings.models != os.path.join(settings.home, "models"):
            raise  # the user named it: a typo, or a disk that is not mounted
        entries = []  # it is created with the first model
    rows: list[dict[str, object]] = []
    seeing = _seeing(entries, look.encoders, settings)
    for entry in entries:
        if not entry.format:  # an alias that leads nowhere
            continue
        label = labels(entry)
        rows.append(
            {
                "name": entry.name,
                "file": entry.file,
                "size": entry.size,
                "format": entry.format,
                "parameter_size": label.parameter_size,
                "quantization": label.quantization,
                "platform": label.platform,
                "modified": round(entry.modified, 6),
                "vision": entry.name in seeing,
            }
        )
    parts = [
        {
            "name": part.name,
            "completed": part.size,
            "total": total_size(part),
            "modified": part.modified,
        }
        for part in look.incomplete
    ]
    found = _Found(rows, parts, look.passed_over)
    return _with_aliases(found, settings) if settings.aliases else found


def _seeing(entries: list[Entry], encoders: set[str], settings: Settings) -> Collection[str]:
    """Return the names of the models that see; what finds it out is imported where there may be some."""
    from ..models.labels import may_see

    if not any(may_see(entry, encoders) for entry in entries):
        return ()
    from ..models.store import Store

    return Store(settings.models, rknn_lib=settings.rknn_lib).seeing()


def _with_aliases(found: _Found, settings: Settings) -> _Found:
    """Return what is in the directory with the aliases of the settings; those without a model are told."""
    from ..models.store import Store

    rows, notes = {row["name"]: row for row in found.models}, [*found.passed_over]
    for alias in Store(settings.models, settings.aliases).aliases():
        if alias.info is None:
            notes.append(f"the alias {alias.name} ({alias.target}): {alias.problem}")
        elif alias.info.name in rows:
            row = rows[alias.info.name]
            found.models.append({**row, "name": alias.name, "alias_of": alias.info.name})
    return _Found(found.models, found.incomplete, notes)


def _from_server(server: ServerAddress) -> _Found:
    """Return a server's models. Raises ServerUnreachable, also if something other than RKLLama responds."""
    body = server.get("/api/tags")
    try:
        return _Found([_row(model) for model in body["models"]], body.get("incomplete", []))
    except (KeyError, TypeError, ValueError):
        raise server.stranger() from None


def _loaded(server: ServerAddress) -> list[str]:
    """Return the names of a server's models in memory; none where it does not tell: they are only marked."""
    try:
        return [_untagged(model["name"]) for model in server.get("/api/ps")["models"]]
    except (RKLLamaError, KeyError, TypeError):
        return []


def _row(model: dict[str, Any]) -> dict[str, object]:
    details = model["details"]
    alias = {"alias_of": model["alias_of"]} if "alias_of" in model else {}
    return {
        "name": _untagged(model["name"]),
        "file": details["file"],
        "size": model["size"],
        "format": details["format"],
        "parameter_size": details["parameter_size"] or None,
        "quantization": details["quantization_level"] or None,
        "platform": details["platform"],
        "modified": _moment(model["modified_at"]),
        "vision": model.get("vision") is True,
        **alias,
    }


def _untagged(name: object) -> str:
    return str(name).removesuffix(":latest")


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def _json(rows: list[dict[str, object]]) -> str:
    import json

    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


_HEAD = ("NAME", "SIZE", "PARAMS", "QUANT", "PLATFORM", "MODIFIED", "VISION", "STATE")
_LESSER = ("PLATFORM", "PARAMS", "QUANT", "MODIFIED")


def _table(found: _Found, loaded: Sequence[str]) -> str:
    """Return the models, and the incomplete downloads among them. Whether models see is told if one does, and
    a state has only what has a special one.
    """
    lines: list[tuple[str, ...]] = [
        (
            str(row["name"]),
            human_size(row["size"]),
            str(row["parameter_size"] or "-"),
            str(row["quantization"] or "-"),
            str(row["platform"] or "-"),
            human_time(row["modified"]),
            "yes" if row["vision"] else "-",
            _state(row, loaded),
        )
        for row in found.models
    ]
    if found.incomplete or any("alias_of" in row for row in found.models):
        lines += map(_incomplete_line, found.incomplete)
        lines.sort(key=lambda line: (line[0].lower(), line[0]))
    states = [line[-1] for line in lines]
    shown = [*range(len(_HEAD) - 2)]
    shown += [6] * any(row["vision"] for row in found.models) + [7] * any(states)
    return table(
        [_HEAD[column] for column in shown],
        [[line[column] for column in shown] for line in lines],
        lesser=_LESSER,
        styles=[_style(state) for state in states],
    )


def _state(row: dict[str, object], loaded: Sequence[str]) -> str:
    if "alias_of" in row:
        return f"= {row['alias_of']}"
    return "loaded" if row["name"] in loaded else ""


def _style(state: str) -> str:
    if state == "loaded":
        return GREEN
    return YELLOW if state.startswith("incomplete") else ""


def _incomplete_line(part: dict[str, Any]) -> tuple[str, ...]:
    percent = f" {part['completed'] * 100 // part['total']}%" if part["total"] else ""
    size, modified = human_size(part["completed"]), human_time(part["modified"])
    return part["name"], size, "-", "-", "-", modified, "-", f"incomplete{percent}"
