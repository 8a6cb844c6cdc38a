"""The HTTP server: the route table on Bottle, served by waitress.

Nothing of a dialect is known here, and only this module imports Bottle.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import bottle
import waitress.channel
import waitress.server
import waitress.task

from .api.common import dumps
from .config import Settings, is_loopback, server_address
from .errors import (
    BodyTooLarge,
    ConfigError,
    InvalidRequest,
    MethodNotAllowed,
    NoSuchRoute,
    RKLLamaError,
)
from .guard import Guard
from .local import LocalService
from .routes import anthropic, native, ollama, openai, status
from .routes.base import Call, Dialect, Reply, Route, retry_headers

log = logging.getLogger("rkllama")
access_log = logging.getLogger("rkllama.access")

_SPARE_THREADS = 16
"""For what never waits for a model: lists, health, downloads. The others are bounded by the queue."""


def routes() -> tuple[Route, ...]:
    """The route table."""
    return (*native.ROUTES, *ollama.ROUTES, *openai.ROUTES, *anthropic.ROUTES, *status.ROUTES)


def dialect_of(path: str) -> Dialect:
    """Who words the errors of a path that no route has."""
    if path.startswith("/v1/messages"):
        return anthropic.error
    if path.startswith("/v1/"):
        return openai.error
    return ollama.error if path.startswith("/api/") else native.error


def create_app(service: LocalService, settings: Settings, host: str = "127.0.0.1") -> bottle.Bottle:
    """The WSGI application over a service; `host` is the address that it is served on."""
    app = bottle.Bottle(autojson=False)
    guard = Guard(host, settings.api_keys, settings.origins)
    allowed: dict[str, list[str]] = {}
    for route in routes():
        allowed.setdefault(route.path, []).extend(route.methods)
        app.route(route.path, list(route.methods), _adapter(route, service, settings, guard))

    for path, methods in allowed.items():
        app.route(path, ["OPTIONS"], _preflight(guard, ", ".join(methods)))

    def unrouted(error: Any, make: Callable[[str, str, str], RKLLamaError]) -> bytes:
        environ = bottle.request.environ
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        allow = str(error.get_header("Allow", ""))
        call = Call(service=service, store=service.store, settings=settings, environ=environ)
        status, body = dialect_of(path)(make(method, path, allow), call)
        bottle.response.status = status
        bottle.response.content_type = "application/json"
        return dumps(body)

    app.error(404)(lambda error: unrouted(error, lambda _, path, __: NoSuchRoute(path)))
    app.error(405)(lambda error: unrouted(error, MethodNotAllowed))
    app.error(400)(lambda error: unrouted(error, lambda *_: InvalidRequest("bad request")))
    app.error(500)(lambda error: unrouted(error, lambda *_: RKLLamaError("internal error")))
    return app


def _preflight(guard: Guard, methods: str) -> Callable[..., Any]:
    def answer(**_: str) -> Any:
        headers = guard.preflight_headers(bottle.request.environ, methods)
        return bottle.HTTPResponse(b"", 204, **dict(headers))

    return answer


def _adapter(
    route: Route, service: LocalService, settings: Settings, guard: Guard
) -> Callable[..., Any]:
    """A Bottle callback around a handler: guards, body limit, errors in the dialect's shape."""

    def answer(**parameters: str) -> Any:
        environ = bottle.request.environ
        call = Call(
            service=service,
            store=service.store,
            settings=settings,
            environ=environ,
            parameters=parameters,
        )
        reply = _handle(route, call, guard, settings.max_body)
        response = bottle.HTTPResponse(reply.body, reply.status)
        response.content_type = reply.content_type
        for name, value in (*reply.headers, *guard.cors_headers(environ)):
            response.set_header(name, value)
        if isinstance(reply.body, bytes):
            call.close()
        else:
            response.body = _closing(reply.body, call)
        return response

    return answer


def _handle(route: Route, call: Call, guard: Guard, max_body: int) -> Reply:
    try:
        guard.check(call.environ, route.public)
        if int(call.environ.get("CONTENT_LENGTH") or 0) > max_body:
            raise BodyTooLarge(max_body)
        return route.handler(call)
    except RKLLamaError as error:
        level = logging.ERROR if error.status >= 500 else logging.INFO
        log.log(level, "%s: %s", call.path, error.text)
        problem = error
    except Exception:
        log.exception("%s: internal error", call.path)
        problem = RKLLamaError("internal error", hint="The server's log tells more.")
    status, body = route.dialect(problem, call)
    return Reply(status=status, body=dumps(body), headers=retry_headers(problem))


class _closing:  # noqa: N801 - reads as the function it replaces
    """An iterator of bytes that frees its generator and its call when the server is done with it."""

    def __init__(self, frames: Iterator[bytes], call: Call) -> None:
        self._frames = frames
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return self._frames

    def close(self) -> None:
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
        self._call.close()


# --- waitress ----------------------------------------------------------------------------------


class _JSONErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """What waitress itself refuses (a malformed or too large request), as JSON like everything else."""

    def execute(self) -> None:
        error = self.request.error
        body = dumps({"error": f"{error.reason}: {error.body}"})
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    error_task_class = _JSONErrorTask


class _Stop(BaseException):
    """SIGTERM or Ctrl-C, in the main thread."""


def serve(
    settings: Settings, model: str | None = None, ready: Callable[[str], object] = print
) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is called with the URL once requests are answered.

    Raises ConfigError when the address cannot be used, ModelNotFound for an unknown `model`.
    """
    host, port = server_address(settings.host)
    server = None
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    service = LocalService(settings, "rkllama serve", url)
    try:
        if model is not None:
            service.store.resolve(model)
        app = _access_logged(create_app(service, settings, host))
        server = _listen(app, host, port, settings)
        _catch_signals()
        if not is_loopback(host) and not settings.api_keys:
            log.warning("anyone who can reach %s may use this server: no API key is set", host)
        if model is not None:
            _load_in_background(service, model)
        bound = f"http://{host}:{server.effective_port}" if port == 0 else url
        ready(bound)
        server.run()
    except _Stop:
        pass
    finally:
        _ignore_signals()
        service.close()
        if server is not None:
            server.task_dispatcher.shutdown(timeout=2)
            server.close()


def _listen(app: Callable[..., Any], host: str, port: int, settings: Settings) -> Any:
    threads = settings.max_queue + settings.max_loaded + _SPARE_THREADS
    try:
        server = waitress.server.create_server(
            app,
            host=host,
            port=port,
            threads=threads,
            ident="rkllama",
            max_request_body_size=settings.max_body,
            connection_limit=max(256, 2 * threads),
            channel_timeout=60,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True,
            expose_tracebacks=False,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error}",
            hint="Choose another address with --host and --port, or stop what listens there.",
        ) from None
    server.channel_class = _Channel
    # Every request that finds all threads busy would be logged as a warning: the queue is ours.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return server


def _catch_signals() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stop

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _ignore_signals() -> None:
    """Stopping is under way: a second Ctrl-C must not break it off and leave a child behind."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _load_in_background(service: LocalService, name: str) -> None:
    def load() -> None:
        with contextlib.suppress(RKLLamaError):
            try:
                service.load(name, keep_alive=-1.0)
            except RKLLamaError as error:
                log.error("%s could not be loaded: %s", name, error.text)
                raise

    threading.Thread(target=load, name="load", daemon=True).start()


def _access_logged(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """A line per request, when its answer is complete."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        started, status = time.monotonic(), ["500"]

        def start(line: str, headers: Any, exc_info: Any = None) -> Any:
            status[0] = line[:3]
            return start_response(line, headers, exc_info)

        def done() -> None:
            access_log.info(
                '%s "%s %s" %s %.3f s',
                environ.get("REMOTE_ADDR", "-"),
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                status[0],
                time.monotonic() - started,
            )

        return _Logged(app(environ, start), done)

    return application


class _Logged:
    """An answer that reports its end."""

    def __init__(self, body: Iterable[bytes], done: Callable[[], None]) -> None:
        self._body = body
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._done()
