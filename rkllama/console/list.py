"""`rkllama list`, from the running server or from the directory itself.

It needs no dataclass, no Typer and no rich, and prints its few columns by itself: it must start in
no more than three times what a bare interpreter takes.
"""

from __future__ import annotations

import os
import sys

from ..config import Settings, is_this_machine, load_settings, server_address, server_url
from ..errors import ConfigError, ModelsDirMissing, RKLLamaError, ServerUnreachable
from .output import forget_stdout, human_size, human_time, print_error, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(models: str | None, *, as_json: bool) -> int:
    """Print the models; answers the exit code."""
    try:
        rows = collect(models)
    except RKLLamaError as error:
        print_error(error)
        return 1
    try:
        sys.stdout.write(_json(rows) if as_json else _table(rows))
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
    return 0


def collect(models: str | None = None) -> list[dict[str, object]]:
    """One dict per model: name, file, size (bytes), format, parameter_size ("1.5B"), quantization,
    platform, modified (epoch seconds).

    With `models` that directory is read, else a running server is asked first.
    """
    settings = load_settings({"models": models})
    rows = None if models else _from_server(settings)
    return _from_directory(settings) if rows is None else rows


def _from_directory(settings: Settings) -> list[dict[str, object]]:
    from ..models.labels import labels
    from ..models.scan import scan

    try:
        entries = scan(settings.models)
    except ModelsDirMissing:
        if settings.models != os.path.join(settings.home, "models"):
            raise  # the user has named it: a typo, or a disk that is not mounted
        entries = []  # it comes with the first model
    rows: list[dict[str, object]] = []
    for entry in entries:
        quantization, platform, size = labels(entry)
        rows.append(
            {
                "name": entry.name,
                "file": entry.file,
                "size": entry.size,
                "format": entry.format,
                "parameter_size": size,
                "quantization": quantization,
                "platform": platform,
                "modified": round(entry.modified, 6),
            }
        )
    return rows


def _from_server(settings: Settings) -> list[dict[str, object]] | None:
    """The models of the server that the other commands would work through, too; None without one."""
    host, port = server_address(settings.host)
    if not is_this_machine(host):
        return _ask(host, port, settings)  # the user has named it: its silence is an error
    if _serves(host, port, settings):
        return _ask(host, port, settings)
    from ..board.lock import holder

    owner = holder(settings.lock)
    if owner and owner.get("url"):
        host, port = server_address(owner["url"])
        if _serves(host, port, settings):
            return _ask(host, port, settings)
    return None


def _serves(host: str, port: int, settings: Settings) -> bool:
    """Whether RKLLama answers there; told by its body, as proxies put their own name into `Server`."""
    try:
        return _listens(host, port) and "rkllama" in _get(host, port, "/api/version", settings)
    except ConfigError:
        raise  # it asks for a key
    except RKLLamaError:
        return False


def _listens(host: str, port: int) -> bool:
    """Whether somebody may listen there; a cheap "no" spares the imports of a request."""
    if not host.startswith("127."):
        return True
    import _socket  # socket takes as long to import as all of the list to print

    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        probe.connect((host, port))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _ask(host: str, port: int, settings: Settings) -> list[dict[str, object]]:
    """A server's models. Raises ServerUnreachable, also where something else than RKLLama answers."""
    body = _get(host, port, "/api/tags", settings)
    try:
        return [_row(model) for model in body["models"]]
    except (KeyError, TypeError, ValueError):
        raise _stranger(host, port) from None


def _get(host: str, port: int, path: str, settings: Settings) -> dict[str, Any]:
    """The JSON object that a server answers with. Raises what it reports, or ServerUnreachable."""
    from ..client.http import request

    headers = {"Authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}
    with request(host, port, "GET", path, None, headers, timeout=30.0) as response:
        status, data = response.status, response.read()
    import json

    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _stranger(host, port)
    if status == 401:
        raise ConfigError(
            f"the server at {server_url(host, port)} asks for an API key",
            hint="Set RKLLAMA_API_KEY to one of its keys.",
        )
    if status != 200:
        raise RKLLamaError.from_dict({"message": str(body.get("error")), **body})
    return body


def _stranger(host: str, port: int) -> ServerUnreachable:
    return ServerUnreachable(server_url(host, port), "what answers there is not RKLLama")


def _row(model: dict[str, Any]) -> dict[str, object]:
    details = model["details"]
    return {
        "name": str(model["name"]).removesuffix(":latest"),
        "file": details["file"],
        "size": model["size"],
        "format": details["format"],
        "parameter_size": details["parameter_size"] or None,
        "quantization": details["quantization_level"] or None,
        "platform": details["platform"],
        "modified": _moment(model["modified_at"]),
    }


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def _json(rows: list[dict[str, object]]) -> str:
    import json

    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _table(rows: list[dict[str, object]]) -> str:
    if not rows:
        sys.stderr.write(
            "No models yet. Fetch one: rkllama pull USER/REPO/FILE.rkllm\n"
            "Or try the built-in guide: rkllama run guide\n"
        )
    lines = [
        (
            str(row["name"]),
            human_size(row["size"]),
            str(row["parameter_size"] or "-"),
            str(row["quantization"] or "-"),
            str(row["platform"] or "-"),
            human_time(row["modified"]),
        )
        for row in rows
    ]
    return table(("NAME", "SIZE", "PARAMS", "QUANT", "PLATFORM", "MODIFIED"), lines)
