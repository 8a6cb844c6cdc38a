"""The server's door: `serve` until it is told to stop, `create_app` for another WSGI server."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from .board.soc import read_soc
from .config import Settings, is_loopback, server_address, server_url
from .engine.service import LocalService
from .errors import ModelsDirMissing, RKLLamaError
from .files import make_directory
from .models.uploads import clear_leftovers
from .rkllm.installed import UNKNOWN, Runtimes
from .rkllm.library import look_for_library
from .server.app import Application, access_logged, create_app, routes
from .server.bodies import keep_little_memory
from .server.status.drain import Drain
from .server.transport import Chore, Server, listen
from .systemd.activation import activated_socket
from .systemd.notify import Heartbeat, Notifier

__all__ = ["create_app", "routes", "serve"]

log = logging.getLogger("rkllama")


def serve(
    settings: Settings, model: str | None = None, ready: Callable[[str], object] = print
) -> None:
    """Serve until SIGTERM, Ctrl-C or the end of a drain; `ready` is called with the URL once requests are
    answered.

    Raises ConfigError when the address cannot be used, ModelsDirMissing for a directory that the user
    named and that is not there, ModelNotFound for an unknown `model`.
    """
    notifier = Notifier(os.environ)
    listener = activated_socket(os.environ)
    keep_little_memory()
    _make_own_directory(settings)
    clear_leftovers(settings.models)
    if listener is None:
        listener = listen(*server_address(settings.host))
    else:
        _say_what_was_not_asked(listener, settings)
    host, port = listener.getsockname()[:2]
    url = server_url(host, port)
    service = LocalService(settings, "rkllama serve", url)
    try:
        if model is not None:
            service.store.resolve(model)
        app = Application(service, settings, host)
        server = Server(access_logged(app.wsgi), listener, settings, app)
        app.drain.ends, app.drain.on_begin = True, server.drain
        ending = _Ending(settings.drain_timeout)
        stopping = ending.stopping
        if not is_loopback(host) and not settings.api_keys:
            log.warning("anyone who can reach %s may use this server: no API key is set", host)
        if model is not None:
            service.keep(model)
        _say_what_is_here(settings, service)
        ready(url)
        notifier.ready(f"Listening on {url}")
        chores = _chores(notifier, settings, server, service, stopping)
        chores.append(_Draining(ending, app.drain, notifier, server, service))
        server.run_until(stopping, chores)
        notifier.stopping("Ending")
        service.close()
        server.shut_down()
    finally:
        service.close()
        listener.close()


def _say_what_was_not_asked(listener: socket.socket, settings: Settings) -> None:
    """Log that systemd's socket has another address than the one in the settings, if it has."""
    actual = listener.getsockname()[:2]
    with contextlib.suppress(OSError):
        wanted = socket.getaddrinfo(*server_address(settings.host), type=socket.SOCK_STREAM)
        if actual in [address[:2] for *_, address in wanted]:
            return
    log.warning(
        "listening on %s, as the socket unit of systemd says, and not on %s, as the setting host does",
        server_url(*actual),
        settings.host,
    )


def _chores(
    notifier: Notifier,
    settings: Settings,
    server: Server,
    service: LocalService,
    stopping: threading.Event,
) -> list[Chore]:
    chores: list[Chore] = []
    if notifier.watchdog is not None:
        import faulthandler

        # Its abort shows in the log where each thread was.
        faulthandler.enable()
        chores.append(Heartbeat(notifier, notifier.watchdog))
    if settings.exit_idle is not None:
        chores.append(_exit_when_idle(settings.exit_idle, server, service, stopping))
    return chores


def _exit_when_idle(
    patience: float, server: Server, service: LocalService, stopping: threading.Event
) -> Chore:
    """Return a chore that sets `stopping` when nothing has been asked for so many seconds, and no model is
    in memory: one that is kept for a while or forever keeps the server, too.
    """

    def look(now: float) -> float:
        left = server.last_used + patience - now
        if left > 0:
            return left
        if service.loaded() or not server.is_unused():
            return patience
        if server.has_news():
            return 0.0
        log.info("no request for %g s: the server ends", patience)
        stopping.set()
        return 0.0

    return look


def _make_own_directory(settings: Settings) -> None:
    """Make the default models directory, so that a fresh server has no models rather than an error.

    A directory named by the user is not created: it may be on a disk that is not mounted.
    """
    if settings.models == os.path.join(settings.home, "models"):
        try:
            make_directory(settings.models)
        except OSError as error:
            log.warning("%s cannot be created: %s", settings.models, error.strerror)
    elif not os.path.isdir(settings.models):
        raise ModelsDirMissing(settings.models)


def _say_what_is_here(settings: Settings, service: LocalService) -> None:
    """Log what this server works with: its models, the runtime and the SoC."""
    count = 0
    with contextlib.suppress(RKLLamaError):  # the first request tells it
        count = len(service.models())
    log.info("models: %s (%d)", settings.models, count)
    with contextlib.suppress(RKLLamaError):
        for text in service.store.passed_over():
            log.warning("passed over: %s", text)
        for alias in service.aliases():
            if alias.problem is not None:
                log.warning("the alias %s (%s): %s", alias.name, alias.target, alias.problem)
    soc = read_soc()
    _say_which_runtime(settings, soc)
    if settings.llama_server:
        log.info(".gguf models run on %s", settings.llama_server[0])
    log.info("SoC: %s", soc or "none of Rockchip's")


def _say_which_runtime(settings: Settings, soc: str | None) -> None:
    """Log the library that was set, else each release that is here."""
    own = os.path.join(settings.home, "lib")
    if settings.rkllm_lib:
        where = f"at {settings.rkllm_lib}"
        path, version = look_for_library(settings.rkllm_lib, os.environ)
        found = [(version or UNKNOWN, path)] if path else []
    else:
        where = f"in {own} or the system's library paths"
        found = [(one.release, one.path) for one in Runtimes(settings.home).installed()]
    for release, path in found:
        known = "release unknown" if release == UNKNOWN else f"release {release}"
        log.info("runtime: %s (%s)", path, known)
    if not found:
        log.log(
            logging.INFO if soc is None else logging.WARNING,
            "runtime: no librkllmrt.so %s; models in .gguf format run without it. For those in .rkllm "
            "format run `rkllama runtime install`, copy the vendor's to %s, or set RKLLAMA_RKLLM_LIB to it",
            where,
            own,
        )


class _Ending:
    """How the server is told to end: the first SIGTERM has it drain, if that may take `patience` seconds; the
    second, and any SIGINT, ends it at once.

    A handler that raised would be swallowed when it strikes inside one of waitress's own handlers; and one
    that drained could wait for a lock that the loop holds. So they only leave word for the loop, which every
    signal wakes.
    """

    def __init__(self, patience: float | None) -> None:
        self.stopping = threading.Event()
        """Set: the server is to end at once."""
        self.patience = patience
        self.asked = False
        """Whether there was a first SIGTERM."""
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._interrupt)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self.patience is None or self.asked:
            self._interrupt(number, frame)
        else:
            self.asked = True

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping.set()


class _Draining:
    """The chore that begins to drain after a SIGTERM, and sets `ending.stopping` when a drain is over,
    whoever has begun it.
    """

    def __init__(
        self,
        ending: _Ending,
        drain: Drain,
        notifier: Notifier,
        server: Server,
        service: LocalService,
    ) -> None:
        self._ending = ending
        self._drain = drain
        self._notifier = notifier
        self._server = server
        self._service = service
        self._begun = self._told = False

    def __call__(self, now: float) -> float:
        patience = self._ending.patience
        if self._ending.asked and patience is not None and not self._begun:
            self._begun = True
            self._notifier.stopping("Draining")
            self._drain.begin(patience)
        left = self._drain.look(self._server, now)
        if left is None:
            state = "drained" if self._drain.done else "the time to drain is over"
            log.info("%s: the server ends", state)
            self._ending.stopping.set()
            return 0.0
        if self._drain.begun and not self._told:
            self._told = True
            self._tell()
        return left

    def _tell(self) -> None:
        self._notifier.status("Draining")
        load = self._service.load_now()
        log.info(
            "draining: running requests: %d, waiting: %d, at most %.0f s",
            load.running,
            load.waiting,
            self._drain.left,
        )
