"""With whom a command works: a running server, or, without one, this process itself."""

from __future__ import annotations

from ..board.lock import holder
from ..client.remote import RemoteService, is_serving
from ..config import Settings, is_this_machine, load_settings, server_address
from ..service import Service


def connect(settings: Settings, command: str) -> Service:
    """The server of the settings or the one that owns the NPU, else this process as `command`.

    Raises ServerUnreachable where the settings name another machine and it is silent.
    """
    return running_server(settings) or here(settings, command)


def here(settings: Settings, command: str) -> Service:
    """This process, whatever runs beside it."""
    from ..engine.service import LocalService
    from .terminal import show_warnings

    show_warnings()
    return LocalService(settings, f"rkllama {command}", exact_sampling=True)


def running_server(settings: Settings) -> Service | None:
    """The server at RKLLAMA_HOST, or the one that owns the NPU at another address."""
    if not is_this_machine(server_address(settings.host)[0]):
        remote = RemoteService(settings)
        remote.version()  # the user has named another machine: its silence is an error
        return remote
    if is_serving(settings):
        return RemoteService(settings)
    owner = holder(settings.lock)
    if owner and owner.get("url"):
        elsewhere = load_settings({"host": owner["url"]})
        if is_serving(elsewhere):
            return RemoteService(elsewhere)
    return None
