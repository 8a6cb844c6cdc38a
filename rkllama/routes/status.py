"""How the server is: for load balancers and monitoring."""

from __future__ import annotations

from .. import __version__
from .base import Call, Reply, Route, ok
from .native import error


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


ROUTES = (
    Route(
        methods=("GET",),
        path="/health",
        handler=_health,
        dialect=error,
        summary="Whether the server answers, and what is loaded",
        public=True,
    ),
)
