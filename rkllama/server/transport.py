"""waitress, hardened: slow and greedy clients, uploads of any size, errors in the dialects' words.

It overrides methods that waitress does not call public, so pyproject.toml pins its version.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import waitress.adjustments
import waitress.channel
import waitress.server
import waitress.task

from ..board.proc import describe_listener
from ..config import Settings
from ..errors import BodyTooLarge, ConfigError, InvalidRequest, RKLLamaError
from .incoming import MAX_HEADER, Frontend, Parser, Refusal, environ_of

log = logging.getLogger("rkllama")

_IDLE = 30.0
"""Seconds after which waitress looks for idle connections to close."""
_MOMENT = 5.0
"""Seconds within which a connection's first byte comes, and the last ones of a request that was refused."""
_DISCARDED = 64 << 20
"""Bytes that are read and dropped after a refusal."""
_ACCEPTED = 64
"""Connections accepted in one turn of the loop."""
_UNREAD = 1 << 20
"""Bytes of answers that are kept for a client that does not read."""
_RECEIVED = 64 << 10
"""Bytes read at once: with waitress's 8 KiB an upload takes a third longer."""
_SPARE_THREADS = 16
"""For what never waits for a model: lists, health, downloads. The others are bounded by the queue."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Chore = Callable[[float], float]
"""What the loop does beside serving. It is called in each turn with the time of time.monotonic(), and returns
after how many seconds at the latest it wants to be called again."""


class _HeaderWithBody:
    """A task whose header goes out in one write with what comes first of the body: a stream's first event
    would follow in a packet of its own.
    """

    channel: Any
    complete: bool
    wrote_header: bool
    build_response_header: Callable[[], bytes]

    def write(self, data: bytes) -> None:
        if self.complete and not self.wrote_header:
            self.channel.head = self.build_response_header()
            self.wrote_header = True
        super().write(data)  # type: ignore[misc]
        if self.channel.head:  # nothing has been written after it
            self.channel.write_soon(b"")


class _Task(_HeaderWithBody, waitress.task.WSGITask):  # type: ignore[misc]
    """A request's answer. While the server drains its connection is not kept for another one."""

    request: Any

    def build_response_header(self) -> bytes:
        if self.channel.server.draining:
            self.request.headers["CONNECTION"] = "close"
        return bytes(super().build_response_header())


class _JSONErrorTask(_HeaderWithBody, waitress.task.ErrorTask):  # type: ignore[misc]
    """An error of waitress itself (a malformed or too large request), in the dialect of its path."""

    def execute(self) -> None:
        error, server = self.request.error, self.channel.server
        problem: RKLLamaError = InvalidRequest(f"{error.reason}: {error.body}")
        if isinstance(error, Refusal):
            problem = error.problem
        elif error.code == 413:
            problem = BodyTooLarge(server.max_body)
        reply = server.frontend.error_reply(problem, environ_of(self.request))
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", reply.content_type), *reply.headers]
        self.set_close_on_finish()
        self.content_length = len(reply.body)
        self.write(reply.body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection. A client that does not read its response cannot occupy the model forever.

    What is written beyond outbuf_high_watermark waits for the client: per answer the server's
    `send_timeout` seconds in all, then the connection is cut, and that cancels the answer.
    """

    task_class = _Task
    error_task_class = _JSONErrorTask
    head = b""
    """A header that goes out with what is written next."""
    _patience = 0.0
    _cut_short = False
    """Whether a request was answered before all of it had been read: the client may still be sending."""
    _to_discard: int | None = None
    """Bytes that are still read and dropped before the connection is closed; None: it is in use."""

    def parser_class(self, adj: Any) -> Parser:
        """A new request on this connection."""
        return Parser(adj, self.server.frontend)

    def service(self) -> None:
        self._patience = self.server.send_timeout
        self._cut_short = self.requests[0].cut_short
        with self.server.serving(self):
            super().service()

    def write_soon(self, data: Any) -> int:
        if self.head:
            data, self.head = self.head + data, b""
        rest = data[self._send_at_once(data) :] if isinstance(data, bytes) else data
        return int(super().write_soon(rest))

    def _send_at_once(self, data: bytes) -> int:
        """Return how many bytes a client took that waits for nothing else: waitress would put each token
        through a buffer.
        """
        if self.total_outbufs_len or not self.connected:
            return 0
        with self.outbuf_lock:
            if self.total_outbufs_len:
                return 0
            try:
                sent = int(self.send(data, do_close=False))
            except OSError:  # waitress meets it again, and ends the connection
                return 0
            self.last_activity = time.time()
            return sent

    def readable(self) -> bool:
        return self._to_discard is not None or bool(super().readable())

    def handle_read(self) -> None:
        if self._to_discard is None:
            self.server.last_used = time.monotonic()
            self.server.unwatch(self)
            super().handle_read()
            return
        self._to_discard -= len(self.recv(self.adj.recv_bytes))  # which closes at the client's end
        if self._to_discard <= 0:
            self.handle_close()

    def writable(self) -> bool:
        return self._to_discard is None and bool(super().writable())

    def handle_close(self) -> None:
        """Close it, but for a client that may still be sending: on closing at once the system would tell it
        that the connection was reset, and simple clients would not see the answer.
        """
        if self._cut_short and self.connected and self._to_discard is None:
            self._linger()
        else:
            super().handle_close()

    def _linger(self) -> None:
        self._to_discard = _DISCARDED
        self.will_close = False
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.server.watch(self)

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.watch(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.unwatch(self)
        super().del_channel(map)

    def is_unused(self) -> bool:
        """Return whether nothing of a request has come that is not answered yet."""
        return self.request is None and self.is_idle()

    def is_idle(self) -> bool:
        """Return whether no request of it is being read, beyond its header, or answered."""
        coming = self.request is not None and self.request.headers_finished
        return not (coming or self.requests or self.total_outbufs_len)

    def idleness(self) -> tuple[bool, float]:
        """Return what is smaller, the longer it is idle; a header that has begun counts for something."""
        return self.request is not None, self.last_activity

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
        answers = settings.max_loaded * settings.parallel
        threads = settings.max_queue + answers + _SPARE_THREADS
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
        # What is accepted inherits it: the system would keep megabytes for a client that reads nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD // 4)
        self.frontend = frontend
        self.max_body = settings.max_body
        self.send_timeout = settings.send_timeout
        self.last_used = time.monotonic()
        """When something of a request last came, or its answer ended."""
        self.draining = False
        """Whether the loop is to look again when a request has been answered."""
        self._serving: set[_Channel] = set()
        self._watched: dict[_Channel, float] = {}
        # Every request that finds all threads busy would be logged as a warning: the queue is ours.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def run_until(self, stopping: threading.Event, chores: Sequence[Chore] = ()) -> None:
        """Serve until `stopping` is set, by a chore or a signal's handler for one, then cut off the clients
        that do not read.
        """
        with self._woken_by_signals():
            while not stopping.is_set():
                now = time.monotonic()
                patience = min([self._patience(), *(chore(now) for chore in chores)])
                if stopping.is_set():
                    break
                self.asyncore.loop(timeout=patience, map=self._map, use_poll=True, count=1)
                self.close_overdue(time.monotonic())
        for channel in list(self.active_channels.values()):
            if channel.total_outbufs_len > _UNREAD:
                channel.hang_up()

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Have a signal end the loop's wait, after which its handler is called. By itself one does not that
        comes just before the wait, or to another thread.
        """
        pipe = self.trigger.trigger
        os.set_blocking(pipe, False)
        before = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def pull_trigger(self) -> None:
        """Wake the loop, from any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full of what wakes the loop
            super().pull_trigger()

    # --- Whether it may end ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def serving(self, channel: _Channel) -> Iterator[None]:
        """Count what the block does as use. It ends after the request has left the channel's queue."""
        self._serving.add(channel)
        try:
            yield
        finally:
            self.last_used = time.monotonic()
            self._serving.discard(channel)
            if self.draining:
                self.pull_trigger()

    def drain(self) -> None:
        """Close each connection after its next answer, and have the loop look at once what is left."""
        self.draining = True
        self.pull_trigger()

    def busy(self) -> int:
        """Return on how many connections a request is coming, being answered, or not sent whole yet."""
        channels = list(self.active_channels.values())
        used = {channel for channel in channels if not channel.is_unused()}
        return len(used | self._serving)

    def is_unused(self) -> bool:
        """Return whether no request is coming, waiting or being answered. A connection that is merely kept
        open is no use.
        """
        channels = list(self.active_channels.values())
        return not (self._serving or self._watched) and all(map(_Channel.is_unused, channels))

    def has_news(self) -> bool:
        """Return whether the kernel has a connection or bytes that the loop has not taken yet: a loop that
        ends without any loses no request.
        """
        news = select.poll()
        for waiting in (self, *self.active_channels.values()):
            news.register(waiting.socket, select.POLLIN)
        return bool(news.poll(0))

    # --- Connections that have a moment left: for their first byte, or for their client's last ones -----

    def watch(self, channel: _Channel) -> None:
        """Close a connection in a moment, unless `unwatch` is called before."""
        self._watched[channel] = time.monotonic() + _MOMENT

    def unwatch(self, channel: _Channel) -> None:
        """Leave a connection alone, watched or not."""
        self._watched.pop(channel, None)

    def close_overdue(self, now: float) -> None:
        """Close the connections whose moment is over at `now`, which is of time.monotonic()."""
        for channel in [each for each, end in self._watched.items() if end <= now]:
            channel.handle_close()

    def _patience(self) -> float:
        """Seconds until something has to be looked at, if nothing happens; the first watched is the next."""
        end = next(iter(self._watched.values()), None)
        return _IDLE if end is None else min(_IDLE, max(0.0, end - time.monotonic()) + 0.001)

    # --- How many connections there may be ----------------------------------------------------------

    def readable(self) -> bool:
        """Return whether the next connection may come. When the limit is reached, the longest idle one makes
        room; only with none idle does a new one wait.
        """
        if len(self._map) >= self.adj.connection_limit:
            for channel in self._longest_idle_last()[-1:]:
                channel.handle_close()
        return bool(super().readable())

    def handle_accept(self) -> None:
        """Take what waits, not one in each turn of the loop: a turn looks at every connection."""
        idle: list[_Channel] | None = None
        for _ in range(_ACCEPTED):
            before = len(self._map)
            super().handle_accept()
            if len(self._map) == before:
                break
            if len(self._map) >= self.adj.connection_limit:
                idle = self._longest_idle_last() if idle is None else idle
                if not idle:
                    break
                idle.pop().handle_close()

    def _longest_idle_last(self) -> list[_Channel]:
        idle = filter(_Channel.is_idle, self.active_channels.values())
        return sorted(idle, key=_Channel.idleness, reverse=True)

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
        inbuf_overflow=sys.maxsize,  # bodies have a buffer of their own
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
        return socket.create_server(address[:2], family=family, backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {describe_listener(port)} does already",
                hint="Stop it, or choose another port with --port.",
            ) from None
        number = error.errno or 0  # below 0 where a name is not found: getaddrinfo's own
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason}",
            hint="Choose another address with --host and --port, or stop the program that listens there.",
        ) from None
