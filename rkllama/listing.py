"""`rkllama list`, from the running server or from the directory itself.

It needs no dataclass, no Typer and no rich, and prints its few columns by itself: it must start in
no more than three times what a bare interpreter takes.
"""

from __future__ import annotations

import os
import sys
import time

from .config import Settings, is_this_machine, load_settings, server_address
from .errors import RKLLamaError, ServerUnreachable


def run(models: str | None, *, as_json: bool) -> int:
    """Print the models; answers the exit code."""
    try:
        rows = collect(models)
    except RKLLamaError as error:
        sys.stderr.write(f"Error: {error.text}\n")
        return 1
    try:
        sys.stdout.write(_json(rows) if as_json else _table(rows))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def collect(models: str | None = None) -> list[dict[str, object]]:
    """One dict per model: name, file, size, format, quantization, platform, modified (epoch seconds).

    With `models` that directory is read, else a running server is asked first.
    """
    settings = load_settings({"models": models})
    rows = None if models else _from_server(settings)
    return _from_directory(settings) if rows is None else rows


def _from_directory(settings: Settings) -> list[dict[str, object]]:
    from .names import parse_model_name
    from .scan import scan

    rows: list[dict[str, object]] = []
    for entry in scan(settings.models):
        told = parse_model_name(entry.file, entry.folder or None)
        rows.append(
            {
                "name": entry.name,
                "file": entry.file,
                "size": entry.size,
                "format": entry.format,
                "quantization": told.quantization,
                "platform": told.platform,
                "modified": entry.modified,
            }
        )
    return rows


def _from_server(settings: Settings) -> list[dict[str, object]] | None:
    """The server's models; None when none runs where one would run by default."""
    from .http1 import request

    host, port = server_address(settings.host)
    headers = {"Authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}
    try:
        with request(host, port, "GET", "/api/tags", None, headers, timeout=30.0) as response:
            if "rkllama" not in response.headers.get("server", ""):
                return None  # something else listens there
            data = response.read()
            status = response.status
    except ServerUnreachable:
        if is_this_machine(host):
            return None
        raise  # the user has named another machine: its silence is an error
    import json

    body = json.loads(data)
    if status != 200:
        raise RKLLamaError.from_dict({"message": str(body.get("error")), **body})
    return [_row(model) for model in body["models"]]


def _row(model: dict[str, object]) -> dict[str, object]:
    details = model.get("details")
    assert isinstance(details, dict)
    return {
        "name": str(model["name"]).removesuffix(":latest"),
        "file": model.get("file"),
        "size": model["size"],
        "format": details.get("format"),
        "quantization": details.get("quantization_level") or None,
        "platform": details.get("platform"),
        "modified": model.get("modified"),
    }


def _json(rows: list[dict[str, object]]) -> str:
    import json

    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _table(rows: list[dict[str, object]]) -> str:
    if not rows:
        sys.stderr.write("No models yet. Fetch one: rkllama pull USER/REPO/FILE.rkllm\n")
    lines = [("NAME", "SIZE", "QUANT", "PLATFORM", "MODIFIED")]
    for row in rows:
        modified = row["modified"]
        lines.append(
            (
                str(row["name"]),
                human_size(row["size"]),
                str(row["quantization"] or "-"),
                str(row["platform"] or "-"),
                human_time(modified) if isinstance(modified, int | float) else "-",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    form = "  ".join(f"{{:<{width}}}" for width in widths) + "  {}\n"
    return "".join(form.format(*line) for line in lines)


def human_size(size: object) -> str:
    """Bytes as people read them, in powers of 1000: "1.9 GB"."""
    if not isinstance(size, int | float):
        return "-"
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.95 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def human_time(moment: float) -> str:
    """Local date and time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
