"""The server itself: how it is, for load balancers and monitoring, and its own description."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from .. import __version__
from ..api.common import dumps
from ..api.native import board_body
from .native import GROUP
from .routing import Call, Reply, Route, ok

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


def _board(call: Call) -> Reply:
    return ok(board_body(call.service.board()))


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
        "/api/rkllama/board",
        _board,
        "How the board is doing: clocks, governors, load, temperatures, memory",
        group=GROUP,
        returns=("memory",),
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
        from .openapi import openapi_document

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
