"""The server's description of itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ..api.common import dumps
from .native import error
from .routing import Call, Reply, Route


def description_of(routes: tuple[Route, ...]) -> Route:
    """The route that describes `routes` and itself. The document is made when it is first asked for."""

    @cache
    def document() -> bytes:
        from .openapi import describe

        return dumps(describe((*routes, route)))

    route = _route(lambda _call: Reply(body=document()))
    return route


def _route(handler: Callable[[Call], Reply]) -> Route:
    return Route(
        methods=("GET",),
        path="/openapi.json",
        handler=handler,
        dialect=error,
        summary="This description",
    )
