"""The server itself: how it is, for load balancers and monitoring, and its own description."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from ... import __version__
from ...api.common import NDJSON_TYPE, dumps, load_json
from ...api.native import board_body
from ...errors import Cancelled
from ...types import DRAINING, Unready
from ..native import GROUP
from ..routing import Call, Reply, Route, ok
from .wire import decode_drain, drain_body, ready_body

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def _health(call: Call) -> Reply:
    """200 as soon as the server serves; the models tell what it is busy with."""
    return ok(
        {
            "status": "ok",
            "version": __version__,
            "queue": call.service.queue_length(),
            "models": [
                {"name": model.info.name, "state": model.state} for model in call.service.loaded()
            ],
        }
    )


def _ready(call: Call) -> Reply:
    """200 only while a request, for `?model=NAME` or any, would be served at once or after its wait."""
    if call.drain.note_question(str(call.environ.get("REMOTE_ADDR", ""))):
        unready: Unready | None = DRAINING
    else:
        unready = call.service.unready(call.query().get("model") or None)
    return ok(ready_body(unready), status=200 if unready is None else 503)


def _drain(call: Call) -> Reply:
    """Begin to drain; a body may be missing."""
    data = call.raw_body()
    wanted = decode_drain(load_json(data) if data.strip() else {})
    call.drain.begin(wanted.timeout)
    if not wanted.wait:
        return ok(_drain_state(call, "draining"))
    return Reply(body=_drain_lines(call), content_type=NDJSON_TYPE)


def _drain_state(call: Call, status: str) -> dict[str, Any]:
    return drain_body(status, call.service.load_now(), call.drain.left)


def _drain_lines(call: Call) -> Iterator[bytes]:
    yield dumps(_drain_state(call, "draining")) + b"\n"
    with contextlib.suppress(Cancelled):
        done = call.drain.wait(call.caller())
        yield dumps(_drain_state(call, "drained" if done else "timed out")) + b"\n"


def _board(call: Call) -> Reply:
    return ok(board_body(call.service.board()))


def _doctor(call: Call) -> Reply:
    return ok(call.service.doctor())


def _metrics(call: Call) -> Reply:
    return Reply(body=call.service.metrics().encode(), content_type=_PROMETHEUS)


ROUTES = (
    Route(
        ("GET",),
        "/health",
        _health,
        "Whether the server answers, and what is loaded",
        group=GROUP,
        returns=("status", "version", "queue", "models"),
        public=True,
    ),
    Route(
        ("GET",),
        "/ready",
        _ready,
        "Whether a request would be served now, for one model or any",
        group=GROUP,
        query=("model",),
        returns=("status",),
        public=True,
    ),
    Route(
        ("POST",),
        "/api/rkllama/drain",
        _drain,
        "Take no new requests, answer those that are here, and end",
        group=GROUP,
        accepts="Drain",
        returns=("status", "running", "waiting", "timeout"),
        content_type=NDJSON_TYPE,
    ),
    Route(
        ("GET",),
        "/api/rkllama/board",
        _board,
        "How the board is doing: clocks, governors, load, temperatures, memory",
        group=GROUP,
        returns=("memory",),
    ),
    Route(
        ("GET",),
        "/api/rkllama/doctor",
        _doctor,
        "What keeps this board from running models, and how to cure it",
        group=GROUP,
        returns=("version", "rkllama", "soc", "model", "status", "findings"),
    ),
    Route(
        ("GET",),
        "/metrics",
        _metrics,
        "Metrics for Prometheus",
        group=GROUP,
        content_type=_PROMETHEUS,
    ),
)


def description_of(routes: tuple[Route, ...]) -> Route:
    """Return the route that describes `routes` and itself. The document is made when it is first asked
    for.
    """

    @cache
    def document() -> bytes:
        from ..openapi import openapi_document

        return dumps(openapi_document((*routes, route)))

    route = _description(lambda _call: Reply(body=document()))
    return route


def _description(handler: Callable[[Call], Reply]) -> Route:
    return Route(
        ("GET",),
        "/openapi.json",
        handler,
        "This description",
        group=GROUP,
        returns=("openapi", "info", "paths"),
    )
