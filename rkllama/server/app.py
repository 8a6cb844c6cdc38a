"""The route table as a Bottle application: guards, limits, errors in the dialects' words, access log.

Only this module imports Bottle, and nothing of a dialect is known here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import bottle

from ..config import Settings, load_settings
from ..errors import (
    BodyTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NoSuchRoute,
    NoWebSocket,
    RKLLamaError,
)
from ..service import ServerService, Upload
from . import native, ollama, page, v1
from .addresses import Addresses
from .bodies import Bodies, decoder_of
from .guard import Guard
from .response_store import ResponseStore
from .routing import Call, Group, Reply, Route, one_line
from .status import routes as status
from .status.drain import Drain
from .status.headers import BOARD, load_header, wants_load

log = logging.getLogger("rkllama")
access_log = logging.getLogger("rkllama.access")

_BODIES = 8
"""How many of the largest bodies there is room for at once."""


def routes() -> tuple[Route, ...]:
    """Return the route table."""
    table = (*native.ROUTES, *ollama.ROUTES, *v1.ROUTES, *status.ROUTES)
    return (*table, status.description_of(table))


def create_app(
    service: ServerService, settings: Settings | None = None, host: str = "127.0.0.1"
) -> bottle.Bottle:
    """The WSGI application over a service; `host` is the address that it is served on.

    Without `settings` those of the environment hold.
    """
    return Application(service, load_settings() if settings is None else settings, host).wsgi


class Application:
    """The routes over a service. `wsgi` answers requests, the methods what comes before those."""

    def __init__(self, service: ServerService, settings: Settings, host: str) -> None:
        self._service = service
        self._settings = settings
        self._guard = Guard(host, settings.api_keys, settings.origins)
        self._responses = ResponseStore()
        self.drain = Drain(service, settings.drain_timeout)
        table = routes()
        self._groups = {
            route.group.prefix: route.group for route in table if route.group.prefix is not None
        }
        self._uploads = tuple(route.path.partition("<")[0] for route in table if route.upload)
        self._addresses = Addresses([route.path for route in table])
        self.bodies = Bodies(_BODIES * settings.max_body)
        self.wsgi = _Bottle()
        self.wsgi.config["json.enable"] = False
        self.wsgi.add_hook("before_request", self._correct_path)
        self._add_routes(table)
        self._add_errors()

    def _add_routes(self, table: tuple[Route, ...]) -> None:
        allowed: dict[str, list[str]] = {}
        for route in table:
            allowed.setdefault(route.path, []).extend(route.methods)
            self.wsgi.route(route.path, list(route.methods), self._adapter(route))
        for path, methods in allowed.items():
            self.wsgi.route(path, ["OPTIONS"], self._preflight(", ".join(methods)))

    def _correct_path(self) -> None:
        environ = bottle.request.environ
        path = environ["PATH_INFO"]
        meant = self._addresses.canonical(path)
        if meant != path and _is_utf8(environ):
            environ["PATH_INFO"] = meant
            environ["bottle.raw_path"] = meant.encode().decode("latin-1")

    def _add_errors(self) -> None:
        def unrouted(error: Any, make: Callable[[str, str, str], RKLLamaError]) -> Any:
            environ = bottle.request.environ
            path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
            allow = str(error.get_header("Allow", ""))
            reply = self._group_of(path).error_reply(make(method, path, allow), environ)
            bottle.response.status = reply.status
            bottle.response.content_type = reply.content_type
            return reply.body

        app = self.wsgi
        app.error(404)(lambda error: unrouted(error, lambda _, path, __: NoSuchRoute(path[:200])))
        app.error(405)(lambda error: unrouted(error, _wrong_method))
        app.error(400)(lambda error: unrouted(error, lambda *_: InvalidRequest("bad request")))
        app.error(500)(lambda error: unrouted(error, lambda *_: RKLLamaError("internal error")))

    def _group_of(self, path: str) -> Group:
        """The API that a path belongs to, whether there is a route or not."""
        path = f"{self._addresses.canonical(path)}/"
        return self._groups[max(filter(path.startswith, self._groups), key=len)]

    def _preflight(self, methods: str) -> Callable[..., Any]:
        def answer(**_: str) -> Any:
            headers = self._guard.preflight_headers(bottle.request.environ, methods)
            return bottle.HTTPResponse(b"", 204, **dict(headers))

        return answer

    def _adapter(self, route: Route) -> Callable[..., Any]:
        """A Bottle callback around a handler."""

        def answer(**parameters: str) -> Any:
            environ = bottle.request.environ
            call = Call(
                service=self._service,
                settings=self._settings,
                responses=self._responses,
                environ=environ,
                bodies=self.bodies,
                drain=self.drain,
                begin=lambda reply: _head_of(environ).begin(
                    self._with_headers(route, reply, environ)
                ),
                parameters=parameters,
            )
            reply = self._handle(route, call)
            self._service.count_request(route.path, reply.status)
            response = self._with_headers(route, reply, environ)
            if isinstance(reply.body, bytes):
                call.close()
            else:
                response.body = _Frames(reply.body, call)
            return response

        return answer

    def _with_headers(self, route: Route, reply: Reply, environ: Mapping[str, Any]) -> Any:
        response = bottle.HTTPResponse(reply.body, reply.status)
        response.content_type = reply.content_type
        about = self._headers_about(route, reply, environ)
        for name, value in (*reply.headers, *about, *self._cors_headers(environ)):
            response.add_header(name, value)
        return response

    def _headers_about(
        self, route: Route, reply: Reply, environ: Mapping[str, Any]
    ) -> list[tuple[str, str]]:
        """Return what the header of a reply tells of this server, if who asks may know it."""
        if reply.status in (401, 403):
            return []
        public = self._is_public(route, environ)
        headers = [] if public else [(BOARD, self._settings.board_name)]
        if wants_load(environ):
            headers.append(load_header(environ, self._service.load_now()))
        return headers

    def _is_public(self, route: Route, environ: Mapping[str, Any]) -> bool:
        return route.public or (route.page and page.is_wanted(self._settings, environ))

    def _handle(self, route: Route, call: Call) -> Reply:
        """The handler's reply behind the guard and the limit of a body, or the error in its place."""
        try:
            if not _is_utf8(call.environ):
                raise NoSuchRoute(call.path[:200])
            self._guard.check(call.environ, self._is_public(route, call.environ))
            max_body = self._settings.max_body
            if not route.upload and int(call.environ.get("CONTENT_LENGTH") or 0) > max_body:
                raise BodyTooLarge(max_body)
            return route.handler(call)
        except RKLLamaError as error:
            level = logging.ERROR if error.status >= 500 else logging.INFO
            log.log(level, "%s: %s", one_line(call.path), one_line(error.text))
            # Its traceback holds this frame, and so the body: nothing would free them before the collector.
            problem = error.with_traceback(None)
        except Exception:
            log.exception("%s: internal error", one_line(call.path))
            problem = RKLLamaError("internal error", hint="See the server's log for details.")
        return route.group.error_reply(problem, call.environ)

    # --- Before a request is complete; see transport.Frontend ----------------------------------

    def error_reply(self, error: RKLLamaError, environ: Mapping[str, Any]) -> Reply:
        """The report of an error in the words of the API that the request's path belongs to."""
        reply = self._group_of(environ["PATH_INFO"]).error_reply(error, environ)
        return replace(reply, headers=(*reply.headers, *self._cors_headers(environ)))

    def _cors_headers(self, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        with contextlib.suppress(InvalidRequest):  # the Origin itself may be what is wrong
            return self._guard.cors_headers(environ)
        return ()

    def admits(self, environ: Mapping[str, Any]) -> bool:
        """Whether the guard lets the request pass, and its body can be unpacked. No endpoint that is open
        to all has a body.
        """
        try:
            self._guard.check(environ, False)
            decoder_of(environ.get("HTTP_CONTENT_ENCODING", ""))
        except RKLLamaError:
            return False
        return True

    def open_upload(self, environ: Mapping[str, Any], size: int) -> Upload | None:
        """Where the body of a POST goes that is an upload."""
        path = self._addresses.canonical(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] != "POST" or not path.startswith(self._uploads):
            return None
        return self._service.open_upload(size)


def _wrong_method(method: str, path: str, allowed: str) -> RKLLamaError:
    if bottle.request.environ.get("HTTP_UPGRADE", "").lower() == "websocket":
        return NoWebSocket(path, allowed)
    return MethodNotAllowed(method, path, allowed)


def _is_utf8(environ: Mapping[str, Any]) -> bool:
    """Bottle leaves out of a path what is not UTF-8: /%ffmodels would be /models."""
    path = environ["PATH_INFO"]
    return bool(environ.get("bottle.raw_path", path).encode("latin-1") == path.encode())


_HEAD = "rkllama.head"


class _Bottle(bottle.Bottle):  # type: ignore[misc]
    """An application whose handlers can send a reply's head before they return it."""

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ[_HEAD] = head = _Head(start_response)
        return super().wsgi(environ, head.start)


class _Head:
    """The head of a reply, which goes out once."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start = start_response
        self._write: Callable[[bytes], object] | None = None

    def begin(self, response: Any) -> Callable[[bytes], object]:
        """Send it before the body, if it is not out; what this returns sends a part of that."""
        if self._write is None:
            self._write = self._start(response.status_line, response.headerlist)
        return self._write

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """WSGI's start_response; where it is out already, only an exception counts."""
        if self._write is None or exc_info is not None:
            self._write = self._start(status, headers, exc_info)
        return self._write


def _head_of(environ: Mapping[str, Any]) -> _Head:
    head: _Head = environ[_HEAD]
    return head


class _Frames:
    """A streamed body that frees its generator and its call when the server is done with it."""

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


# --- Access log --------------------------------------------------------------------------------


_WATCHED = frozenset({"/api/ps", "/api/rkllama/board", "/health", "/metrics", "/ready"})
"""What balancers, monitors and `rkllama top` ask every second or so: that they get an answer is no news."""


def access_logged(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return a line per request, when its answer is complete."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        started, status = time.monotonic(), ["500"]

        def start(line: str, headers: Any, exc_info: Any = None) -> Any:
            status[0] = line[:3]
            return start_response(line, headers, exc_info)

        def done() -> None:
            watches = status[0] in ("200", "503") and environ["PATH_INFO"] in _WATCHED
            access_log.log(
                logging.DEBUG if watches else logging.INFO,
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
