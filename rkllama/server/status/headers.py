"""What an answer's header tells besides its body: the board, its load in the form of ORCA, the cached tokens,
and what gives the answer its format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...service import Caller
from ...types import Event, Finished, Load
from .session import NAME as SESSION

BOARD = "x-rkllama-board"
CACHED_TOKENS = "x-rkllama-cached-tokens"
FORMAT = "x-rkllama-format"
EXPOSED = f"{BOARD}, {CACHED_TOKENS}, {FORMAT}, {SESSION}"
"""What the scripts of web pages may read."""
_ORCA_FORMAT, _ORCA = "HTTP_ENDPOINT_LOAD_METRICS_FORMAT", "endpoint-load-metrics"


def wants_load(environ: Mapping[str, Any]) -> bool:
    """Return whether a request asks for the server's load, in a form that is known here."""
    return _ORCA_FORMAT in environ and environ[_ORCA_FORMAT].upper() in ("TEXT", "JSON")


def load_header(environ: Mapping[str, Any], load: Load) -> tuple[str, str]:
    """Return an ORCA load report, in the form that the request asks for.

    `application_utilization` is requests per place, so more than 1 where some wait; the names of the
    others are those of the Gateway API's inference extension.
    """
    named = {
        "kv_cache_utilization": round(load.cache_use, 4),
        "num_requests_running": load.running,
        "num_requests_waiting": load.waiting,
    }
    use = round((load.running + load.waiting) / max(1, load.places), 4)
    if environ[_ORCA_FORMAT].upper() == "JSON":
        report = json.dumps({"application_utilization": use, "named_metrics": named})
        return _ORCA, f"JSON {report}"
    fields = [f"application_utilization={use}"]
    fields += [f"named_metrics.{name}={value}" for name, value in named.items()]
    return _ORCA, f"TEXT {', '.join(fields)}"


def format_header(caller: Caller) -> tuple[tuple[str, str], ...]:
    """Return the header that tells how an answer gets its format; none where no format was demanded."""
    return () if caller.shaped_by is None else ((FORMAT, caller.shaped_by),)


class Tally:
    """The events of an answer that is not streamed, and how many tokens of its prompt were cached."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = events
        self._cached: int | None = None

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if isinstance(event, Finished):
                self._cached = event.usage.cached_tokens
            yield event

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header that tells it; none where the runtime does not."""
        return () if self._cached is None else ((CACHED_TOKENS, str(self._cached)),)
