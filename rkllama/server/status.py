"""The server itself: how it is, for load balancers and monitoring, and its own description."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from .. import __version__
from ..api.common import dumps
from ..engine.metrics import CONTENT_TYPE, family, sample
from .native import error
from .routing import Call, Reply, Route, ok


def _health(call: Call) -> Reply:
    """200 as soon as the server serves; the models tell what it is busy with."""
    residents = call.service.residents
    return ok(
        {
            "status": "ok",
            "version": __version__,
            "queue": residents.scheduler.waiting,
            "models": [
                {"name": model.info.name, "state": model.state} for model in call.service.loaded()
            ],
        }
    )


def _metrics(call: Call) -> Reply:
    return Reply(body=("\n".join(_lines(call)) + "\n").encode(), content_type=CONTENT_TYPE)


def _lines(call: Call) -> Iterator[str]:
    residents, loaded = call.service.residents, call.service.loaded()
    yield from call.service.metrics.expose()
    yield from family(
        "gauge",
        "rkllama_queue_length",
        "Requests that wait for their turn.",
        [sample("rkllama_queue_length", (), residents.scheduler.waiting)],
    )
    yield from family(
        "counter",
        "rkllama_worker_restarts_total",
        "Model processes that died or had to be ended since the start.",
        [sample("rkllama_worker_restarts_total", (), residents.restarts)],
    )
    yield from family(
        "gauge",
        "rkllama_model_memory_bytes",
        "Memory of a loaded model as the runtime reports it.",
        [
            sample("rkllama_model_memory_bytes", [("model", model.info.name)], model.memory)
            for model in loaded
            if model.memory is not None
        ],
    )
    yield from family(
        "gauge",
        "rkllama_model_state",
        "The models in memory, by state.",
        [
            sample("rkllama_model_state", [("model", m.info.name), ("state", m.state)], 1)
            for m in loaded
        ],
    )


ROUTES = (
    Route(
        methods=("GET",),
        path="/health",
        handler=_health,
        dialect=error,
        summary="Whether the server answers, and what is loaded",
        public=True,
    ),
    Route(
        methods=("GET",),
        path="/metrics",
        handler=_metrics,
        dialect=error,
        summary="Figures for Prometheus",
    ),
)


def description_of(routes: tuple[Route, ...]) -> Route:
    """The route that describes `routes` and itself. The document is made when it is first asked for."""

    @cache
    def document() -> bytes:
        from .openapi import describe

        return dumps(describe((*routes, route)))

    route = _description(lambda _call: Reply(body=document()))
    return route


def _description(handler: Callable[[Call], Reply]) -> Route:
    return Route(
        methods=("GET",),
        path="/openapi.json",
        handler=handler,
        dialect=error,
        summary="This description",
    )
