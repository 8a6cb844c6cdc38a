"""waitress, hardened: slow and greedy clients, uploads of any size, errors in the dialects' words.

It overrides methods that waitress does not call public, so pyproject.toml pins its version.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import waitress.adjustments
import waitress.channel
import waitress.server
import waitress.task

from ..config import Settings
from ..errors import BodyTooLarge, ConfigError, InvalidRequest, RKLLamaError
from .incoming import MAX_HEADER, Frontend, Parser, Refusal, environ_of

log = logging.getLogger("rkllama")

_IDLE = 30.0
"""Seconds after which waitress looks for idle connections to close."""
_UNREAD = 1 << 20
"""Bytes of answers that are kept for a client that does not read."""
_RECEIVED = 64 << 10
"""Bytes read at once: with waitress's 8 KiB an upload takes a third longer."""
_SPARE_THREADS = 16
"""For what never waits for a model: lists, health, downloads. The others are bounded by the queue."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _JSONErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """An error of waitress itself (a malformed or too large request), in the dialect of its path."""

    def execute(self) -> None:
        error, server = self.request.error, self.channel.server
        problem: RKLLamaError = InvalidRequest(f"{error.reason}: {error.body}")
        if isinstance(error, Refusal):
            problem = error.problem
        elif error.code == 413:
            problem = BodyTooLarge(server.max_body)
        body = server.frontend.error_body(problem, environ_of(self.request))
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. A client that does not read its response cannot occupy the model forever.

    What is written beyond outbuf_high_watermark waits for the client: per answer the server's
    `send_timeout` seconds in all, then the connection is cut, and that cancels the answer.
    """

    error_task_class = _JSONErrorTask
    _patience = 0.0

    def parser_class(self, adj: Any) -> Parser:
        """A new request on this connection."""
        return Parser(adj, self.server.frontend)

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
        max_request_header_size=MAX_HEADER,
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
