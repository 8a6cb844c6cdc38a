"""waitress, hardened: slow and greedy clients, uploads of any size, errors in the dialects' words.

It overrides methods that waitress does not call public, so pyproject.toml pins its version.
"""

from __future__ import annotations

import contextlib
import http
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, Protocol

import waitress.adjustments
import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.utilities

from ..config import Settings
from ..errors import BodyTooLarge, ConfigError, InvalidRequest, RKLLamaError
from ..service import Upload

log = logging.getLogger("rkllama")

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

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Frontend(Protocol):
    """What the transport asks before a request is complete; `environ` has its path and headers."""

    def error_body(self, error: RKLLamaError, environ: Mapping[str, Any]) -> bytes:
        """The JSON that reports `error` in the dialect of the request's path."""

    def open_upload(self, environ: Mapping[str, Any], size: int) -> Upload | None:
        """Where the body of an upload goes, `size` bytes long (0: not known).

        None for every other request, and for an upload of somebody who may not: of that no more is read
        than of any request.
        """


class _JSONErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """An error of waitress itself (a malformed or too large request), in the dialect of its path."""

    def execute(self) -> None:
        error, server = self.request.error, self.channel.server
        problem: RKLLamaError = InvalidRequest(f"{error.reason}: {error.body}")
        if isinstance(error, _Refusal):
            problem = error.problem
        elif error.code == 413:
            problem = BodyTooLarge(server.max_body)
        body = server.frontend.error_body(problem, _environ(self.request))
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _environ(request: Any) -> dict[str, Any]:
    """A request's path and headers as WSGI names them, as far as they have come."""
    headers = {f"HTTP_{name}": text for name, text in request.headers.items()}
    return {"PATH_INFO": getattr(request, "path", "/"), **headers}


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """A request as it comes. The body of an upload goes to where it is kept, and has any size."""

    adj: Any
    completed: bool

    def __init__(self, adj: Any, frontend: Frontend) -> None:
        super().__init__(adj)
        self._frontend = frontend
        self._upload: Upload | None = None
        self._began = time.time()

    def received(self, data: bytes) -> int:
        """Take the bytes that belong to this request.

        An upload that does not fit on the disk is rejected before its end, and the framing of chunks is
        limited like a header. A request that is already rejected, or has no body, needs no "100 Continue",
        after which waitress would wait for a body.
        """
        consumed: int = super().received(data)
        if self._upload is not None and self._upload.failure is not None:
            self._refuse(_Refusal(self._upload.failure))
        elif self.chunked and not self.completed and self._framing() >= _MAX_HEADER:
            limit = f"exceeds max_header of {_MAX_HEADER}"
            self._refuse(waitress.utilities.RequestHeaderFieldsTooLarge(limit))
        if self.completed:
            self.expect_continue = False
        return consumed

    def _framing(self) -> int:
        """Return how many bytes of chunk framing are kept."""
        return len(self.body_rcv.control_line) + len(self.body_rcv.trailer)

    def _refuse(self, error: Any) -> None:
        self.error = error
        self.completed = True

    def is_overdue(self, now: float) -> bool:
        """Return whether the request comes too slowly; a byte now and then does not reset the clock."""
        received = self.header_bytes_received + self.body_bytes_received
        return bool(now - self._began > _SENDING + received / _SLOWEST)

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the header; any error in it is the client's fault, even a number too long for int()."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise waitress.parser.ParsingError(f"Invalid header: {error}") from None
        if self.body_rcv is None or self.command != "POST":
            return
        upload = self._frontend.open_upload(_environ(self), self.content_length)
        if upload is not None:
            self._upload = self.body_rcv.buf = upload
            self.adj = copy(self.adj)
            self.adj.max_request_body_size = sys.maxsize


class _Refusal(waitress.utilities.Error):  # type: ignore[misc]
    """An RKLLama error in the form of waitress's own."""

    def __init__(self, problem: RKLLamaError) -> None:
        super().__init__(problem.text)
        self.problem = problem
        self.code, self.reason = problem.status, http.HTTPStatus(problem.status).phrase


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. A client that does not read its response cannot occupy the model forever.

    What is written beyond outbuf_high_watermark waits for the client: per answer the server's
    `send_timeout` seconds in all, then the connection is cut, and that cancels the answer.
    """

    error_task_class = _JSONErrorTask
    _patience = 0.0

    def parser_class(self, adj: Any) -> _Parser:
        """A new request on this connection."""
        return _Parser(adj, self.server.frontend)

    def service(self) -> None:
        self._patience = self.server.send_timeout
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
                log.warning("%s does not read its response: connection closed", self.addr[0])
                self.hang_up()

    def _is_low(self) -> bool:
        low: bool = self.total_outbufs_len <= self.adj.outbuf_high_watermark
        return low or not self.connected

    def sends_too_slowly(self, now: float) -> bool:
        """Return whether it waits for the rest of a request that is overdue; while it answers it reads
        none.
        """
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


class Server(waitress.server.TcpWSGIServer):  # type: ignore[misc]
    """waitress on a socket that listens already. `pull_trigger` wakes it from any thread."""

    channel_class = _Channel

    def __init__(
        self, app: WSGI, listener: socket.socket, settings: Settings, frontend: Frontend
    ) -> None:
        threads = settings.max_queue + settings.max_loaded + _SPARE_THREADS
        dispatcher = waitress.task.ThreadedTaskDispatcher()
        dispatcher.set_thread_count(threads)
        super().__init__(
            app,
            _sock=listener,
            dispatcher=dispatcher,
            adj=_adjustments(settings, listener, threads),
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        self.frontend = frontend
        self.max_body = settings.max_body
        self.send_timeout = settings.send_timeout
        # Every request that finds all threads busy would be logged as a warning: the queue is ours.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def run_until(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set, then cut off the clients that do not read."""
        while not stopping.is_set():
            self.asyncore.loop(timeout=_IDLE, map=self._map, use_poll=True, count=1)
        for channel in list(self.active_channels.values()):
            if channel.total_outbufs_len > _UNREAD:
                channel.hang_up()

    def maintenance(self, now: float) -> None:
        """waitress's own closing of idle connections, for those too whose client reads nothing, and for
        those that take too long to send a request.
        """
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.will_close or channel.sends_too_slowly(now):
                channel.hang_up()

    def shut_down(self) -> None:
        """Wait up to two seconds for what is being answered, and stop listening."""
        self.task_dispatcher.shutdown(timeout=2)
        self.close()


def _adjustments(settings: Settings, listener: socket.socket, threads: int) -> Any:
    return waitress.adjustments.Adjustments(
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


def _most_connections(threads: int) -> int:
    """Return how many connections may be open: at most half of what the process may open at all.

    The rest is for requests and models. With nothing left, accepting would fail thousands of times a
    second, each time with a traceback in the log.
    """
    plenty = max(512, 2 * threads)
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return plenty if descriptors == resource.RLIM_INFINITY else min(plenty, descriptors // 2)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigError where the address cannot be used."""
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
            hint="Choose another address with --host and --port, or stop the program that listens there.",
        ) from None
