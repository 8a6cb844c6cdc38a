"""Services over saved conversations that end and begin anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rkllama.config import load_settings
from rkllama.engine.service import LocalService

Start = Callable[..., LocalService]


@contextmanager
def restarting(model: str, **settings: object) -> Iterator[Start]:
    """What starts the service anew, with further settings; the model's digest is known."""
    services: list[LocalService] = []

    def start(**more: object) -> LocalService:
        if services:
            services[-1].close()
        service = LocalService(load_settings({**settings, **more}), "test")
        services.append(service)
        service.digest(service.store.resolve(model).info)
        assert service.store.settle(20.0)
        return service

    yield start
    services[-1].close()
