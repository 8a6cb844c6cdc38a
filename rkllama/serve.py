"""The HTTP server: the route table on Bottle, served by waitress.

Nothing of a dialect is known here, and only this module imports Bottle.
"""

from __future__ import annotations

import contextlib
import http
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from types import FrameType
from typing import Any

import bottle
import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.utilities

from .api.common import dumps
from .config import Settings, is_loopback, server_address, server_url
from .engine.service import LocalService
from .errors import (
    BodyTooLarge,
    ConfigError,
    InvalidRequest,
    MethodNotAllowed,
    NoSuchRoute,
    RKLLamaError,
)
from .models.uploads import Upload
from .server import native, ollama, status, v1
from .server.guard import Guard
from .server.routing import Call, Dialect, Reply, Route, one_line, retry_headers

log = logging.getLogger("rkllama")
access_log = logging.getLogger("rkllama.access")

_IDLE = 30.0
"""Seconds after which waitress looks for idle connections to close."""
_UNREAD = 1 << 20
"""Bytes of answers that are kept for a client that does not read."""
_MAX_HEADER = 64 << 10
_RECEIVED = 64 << 10
"""Bytes read at once: with waitress's 8 KiB an upload takes a third longer."""
_SENDING = 60.0
"""Seconds that a client may take to send a request, and one more for every _SLOWEST bytes of it."""
_SLOWEST = 1000
_SPARE_THREADS = 16
"""For what never waits for a model: lists, health, downloads. The others are bounded by the queue."""


def routes() -> tuple[Route, ...]:
    """The route table."""
    table = (*native.ROUTES, *ollama.ROUTES, *v1.ROUTES, *status.ROUTES)
    return (*table, status.description_of(table))


def dialect_of(path: str) -> Dialect:
    """Who words the errors of a path that no route has."""
    if path.startswith("/v1/messages"):
        return v1.anthropic_error
    if path.startswith("/v1/"):
        return v1.openai_error
    return ollama.error if path.startswith("/api/") else native.error


def create_app(service: LocalService, settings: Settings, host: str = "127.0.0.1") -> bottle.Bottle:
    """The WSGI application over a service; `host` is the address that it is served on."""
    app = bottle.Bottle()
    app.config["json.enable"] = False
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

    app.error(404)(lambda error: unrouted(error, lambda _, path, __: NoSuchRoute(path[:200])))
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
        service.metrics.requests.add(1, route.path, str(reply.status))
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
        if not _is_utf8(call.environ):
            raise NoSuchRoute(call.path[:200])
        guard.check(call.environ, route.public)
        if not route.upload and int(call.environ.get("CONTENT_LENGTH") or 0) > max_body:
            raise BodyTooLarge(max_body)
        return route.handler(call)
    except RKLLamaError as error:
        level = logging.ERROR if error.status >= 500 else logging.INFO
        log.log(level, "%s: %s", one_line(call.path), one_line(error.text))
        problem = error
    except Exception:
        log.exception("%s: internal error", one_line(call.path))
        problem = RKLLamaError("internal error", hint="The server's log tells more.")
    status, body = route.dialect(problem, call)
    return Reply(status=status, body=dumps(body), headers=retry_headers(problem))


def _is_utf8(environ: Mapping[str, Any]) -> bool:
    """Bottle leaves out of a path what is not UTF-8: /%ffmodels would be /models."""
    path = environ["PATH_INFO"]
    return bool(environ.get("bottle.raw_path", path).encode("latin-1") == path.encode())


class _closing:  # noqa: N801 - reads as the function it replaces
    """An iterator of bytes that frees its generator and its call when the server is done with it."""

    def __init__(self, frames: Iterator[bytes], call: Call) -> None:
        self._frames = frames
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._frames
        finally:  # Bottle drops what turns out to be empty without closing it
            self.close()

    def close(self) -> None:
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
        self._call.close()


# --- waitress ----------------------------------------------------------------------------------


class _JSONErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """What waitress itself refuses (a malformed or too large request), in the dialect of its path."""

    def execute(self) -> None:
        error, blank = self.request.error, self.channel.server.blank_call
        problem: RKLLamaError = InvalidRequest(f"{error.reason}: {error.body}")
        if isinstance(error, _Refusal):
            problem = error.problem
        elif error.code == 413:
            problem = BodyTooLarge(blank.settings.max_body)
        path = getattr(self.request, "path", "/")
        accepted = self.request.headers.get("ACCEPT_LANGUAGE")
        environ = {"PATH_INFO": path, "HTTP_ACCEPT_LANGUAGE": accepted}
        _, value = dialect_of(path)(problem, replace(blank, environ=environ))
        body = dumps(value)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """A request as it comes. The body of an upload goes to where it is kept, and has any size."""

    guard: Guard
    models: str
    uploads: tuple[str, ...]
    """How the paths begin that files are sent to."""
    adj: Any
    completed: bool
    upload: Upload | None = None

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self._began = time.time()

    def received(self, data: bytes) -> int:
        """Take what is this request's.

        An upload that finds no room is answered before its end, and what stands around chunks is limited
        as a header is. What is refused already, or has no body, needs no "100 Continue", after which
        waitress would wait for a body.
        """
        consumed: int = super().received(data)
        if self.upload is not None and self.upload.failure is not None:
            self._refuse(_Refusal(self.upload.failure))
        elif self.chunked and not self.completed and self._framing() >= _MAX_HEADER:
            limit = f"exceeds max_header of {_MAX_HEADER}"
            self._refuse(waitress.utilities.RequestHeaderFieldsTooLarge(limit))
        if self.completed:
            self.expect_continue = False
        return consumed

    def _framing(self) -> int:
        """Bytes kept of what stands around the chunks."""
        return len(self.body_rcv.control_line) + len(self.body_rcv.trailer)

    def _refuse(self, error: Any) -> None:
        self.error = error
        self.completed = True

    def is_overdue(self, now: float) -> bool:
        """Whether the request comes too slowly. A byte now and then keeps no connection for ever."""
        received = self.header_bytes_received + self.body_bytes_received
        return bool(now - self._began > _SENDING + received / _SLOWEST)

    def parse_header(self, header_plus: bytes) -> None:
        """Everything that is wrong with a header is the client's fault, numbers too long for int() too."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise waitress.parser.ParsingError(f"Invalid header: {error}") from None
        if self.body_rcv is not None and self._may_upload():
            self.upload = self.body_rcv.buf = Upload(self.models, self.content_length)
            self.adj = copy(self.adj)
            self.adj.max_request_body_size = sys.maxsize

    def _may_upload(self) -> bool:
        """Whether this is an upload, of somebody who may: of others no more is read than of any request."""
        if self.command != "POST" or not self.path.startswith(self.uploads):
            return False
        try:
            self.guard.check({f"HTTP_{name}": text for name, text in self.headers.items()}, False)
        except RKLLamaError:
            return False
        return True


class _Refusal(waitress.utilities.Error):  # type: ignore[misc]
    """An error of ours, as waitress passes its own on."""

    def __init__(self, problem: RKLLamaError) -> None:
        super().__init__(problem.text)
        self.problem = problem
        self.code, self.reason = problem.status, http.HTTPStatus(problem.status).phrase


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. A client that does not read its answer cannot hold the model for ever.

    What is written beyond outbuf_high_watermark waits for the client: per answer `send_timeout`
    seconds in all, then the connection is cut, and that cancels the answer.
    """

    error_task_class = _JSONErrorTask
    parser_class = _Parser
    send_timeout = 30.0
    _patience = 30.0

    def service(self) -> None:
        self._patience = self.send_timeout
        super().service()

    def _flush_outbufs_below_high_watermark(self) -> None:
        if self._is_low():
            return
        with self.outbuf_lock:
            began = time.monotonic()
            self.server.pull_trigger()
            in_time = self.outbuf_lock.wait_for(self._is_low, max(0.0, self._patience))
            self._patience -= time.monotonic() - began
            if not in_time:
                log.warning("%s does not read its answer: cut off", self.addr[0])
                self.hang_up()

    def _is_low(self) -> bool:
        low: bool = self.total_outbufs_len <= self.adj.outbuf_high_watermark
        return low or not self.connected

    def sends_too_slowly(self, now: float) -> bool:
        """Whether it waits for the rest of a request that is overdue; while it answers it reads none."""
        request = self.request
        return request is not None and not self.requests and bool(request.is_overdue(now))

    def hang_up(self) -> None:
        """Cut the connection. waitress alone would wait until the client reads."""
        with self.outbuf_lock:
            self.connected = False
            self.will_close = True
            with contextlib.suppress(OSError, AttributeError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.outbuf_lock.notify_all()
        self.server.pull_trigger()


def _maintain(server: Any) -> Callable[[float], None]:
    """waitress's own closing of idle connections, for those too whose client reads nothing, and for
    those that take too long to send a request.
    """
    original = server.maintenance

    def maintenance(now: float) -> None:
        original(now)
        for channel in list(server.active_channels.values()):
            if channel.will_close or channel.sends_too_slowly(now):
                channel.hang_up()

    return maintenance


def serve(
    settings: Settings, model: str | None = None, ready: Callable[[str], object] = print
) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is called with the URL once requests are answered.

    Raises ConfigError when the address cannot be used, ModelNotFound for an unknown `model`.
    """
    host, port = server_address(settings.host)
    listener = _listen(host, port)
    url = server_url(host, listener.getsockname()[1])
    _make_own_directory(settings)
    service = LocalService(settings, "rkllama serve", url)
    try:
        if model is not None:
            service.store.resolve(model)
        app = _access_logged(create_app(service, settings, host))
        server = _waitress(app, listener, settings)
        server.blank_call = Call(
            service=service, store=service.store, settings=settings, environ={}
        )
        stopping = _stop_on_signals(server)
        if not is_loopback(host) and not settings.api_keys:
            log.warning("anyone who can reach %s may use this server: no API key is set", host)
        if model is not None:
            _load_in_background(service, model)
        ready(url)
        while not stopping.is_set():
            server.asyncore.loop(timeout=_IDLE, map=server._map, use_poll=True, count=1)
        for channel in list(server.active_channels.values()):
            if channel.total_outbufs_len > _UNREAD:
                channel.hang_up()
        service.close()
        server.task_dispatcher.shutdown(timeout=2)
        server.close()
    finally:
        service.close()
        listener.close()


def _make_own_directory(settings: Settings) -> None:
    """Make the default models directory, so that a fresh server has no models rather than an error.

    One that somebody named is not made: it may be on a disk that is not mounted.
    """
    if settings.models == os.path.join(settings.home, "models"):
        with contextlib.suppress(OSError):
            os.makedirs(settings.models, exist_ok=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=256)
        # What is accepted inherits it: the system would keep megabytes for a client that reads nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD // 4)
        return listener
    except OSError as error:
        number = error.errno or 0  # below 0 where a name is not found: getaddrinfo's own
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason}",
            hint="Choose another address with --host and --port, or stop what listens there.",
        ) from None


def _waitress(app: Callable[..., Any], listener: socket.socket, settings: Settings) -> Any:
    threads = settings.max_queue + settings.max_loaded + _SPARE_THREADS
    server = waitress.server.create_server(
        app,
        sockets=[listener],
        threads=threads,
        ident="rkllama",
        max_request_body_size=settings.max_body + 1,  # waitress refuses this very size too
        max_request_header_size=_MAX_HEADER,
        recv_bytes=_RECEIVED,
        outbuf_high_watermark=_UNREAD,
        outbuf_overflow=4 * _UNREAD,  # never on disk: that may be an SD card
        connection_limit=_most_connections(threads),
        channel_timeout=60,
        clear_untrusted_proxy_headers=True,
        expose_tracebacks=False,
    )
    server.channel_class = type(
        "Channel",
        (_Channel,),
        {"send_timeout": settings.send_timeout, "parser_class": _parser_class(settings)},
    )
    server.maintenance = _maintain(server)
    # Every request that finds all threads busy would be logged as a warning: the queue is ours.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return server


def _parser_class(settings: Settings) -> type[_Parser]:
    host = server_address(settings.host)[0]
    known = {
        "guard": Guard(host, settings.api_keys, settings.origins),
        "models": settings.models,
        "uploads": tuple(route.path.partition("<")[0] for route in routes() if route.upload),
    }
    return type("Parser", (_Parser,), known)


def _most_connections(threads: int) -> int:
    """How many connections may be open: at most half of what the process may open at all.

    The rest is for requests and models. With nothing left, accepting would fail thousands of times a
    second, each time with a traceback in the log.
    """
    wanted = max(512, 2 * threads)
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if descriptors == resource.RLIM_INFINITY else min(wanted, descriptors // 2)


def _stop_on_signals(server: Any) -> threading.Event:
    """An event that SIGTERM and SIGINT set; further ones change nothing, stopping is under way.

    A handler that raised would be swallowed when it strikes inside one of waitress's own handlers.
    """
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        server.pull_trigger()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


def _load_in_background(service: LocalService, name: str) -> None:
    def load() -> None:
        try:
            service.load(name, keep_alive=-1.0)
        except RKLLamaError as error:
            log.error("--model %s: %s", name, error.text)

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
                one_line(environ["PATH_INFO"]),
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
