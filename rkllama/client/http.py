"""The smallest HTTP client that is enough for a command line next to its own server.

http.client would cost more to import than all else that `rkllama list` does (measured: nearly three
bare interpreter starts). A request of version 1.0 makes do with a socket: the server closes the
connection after its answer, so the body ends where the stream ends and never comes in chunks. Closing
a response closes the connection, which cancels whatever the server is doing for it.
"""

from __future__ import annotations

import re
import socket
import time

from ..config import server_url
from ..errors import InvalidRequest, ServerUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the connection; a server of ours accepts at once, however busy it is."""
HEAD_LIMIT = 64 << 10
LINE_LIMIT = 16 << 20
_CHUNK = 1 << 16
_STRANGER = "the program listening there does not speak HTTP"
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5]\d\d)(?: .*)?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


class Response:
    """An answer whose `status` and `headers` (names in lower case) are here; its body may still come.

    Iterate for the body's lines, or `read` it whole. Both raise ServerUnreachable when the connection
    breaks or ends before the announced length.
    """

    def __init__(
        self,
        connection: socket.socket,
        url: str,
        method: str = "GET",
        until: float | None = None,
    ) -> None:
        """`until` is when it has to be there whole, by the monotonic clock."""
        self.status = 0
        self._until = until
        self.headers: dict[str, str] = {}
        self._socket = connection
        self._url = url
        self._rest = b""
        while self.status < 200:  # 100 Continue and its kin come before the answer
            self.status, self.headers = self._parse(self._read_head())
        self._left = self._body_length(method)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body's lines as they come, without their ends; blank ones are left out."""
        buffer = bytearray()
        while chunk := self._receive():
            buffer += chunk
            if b"\n" in chunk:
                *lines, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                yield from filter(None, map(bytes.strip, lines))
            if len(buffer) > LINE_LIMIT:
                raise self._broken(f"it sent a line of more than {LINE_LIMIT} bytes")
        if last := bytes(buffer).strip():
            yield last

    def read(self, limit: int | None = None) -> bytes:
        """Return the rest of the body. One of more than `limit` bytes is broken."""
        body = bytearray()
        while chunk := self._receive():
            body += chunk
            if limit is not None and len(body) > limit:
                raise self._broken(f"it sent more than {limit} bytes")
        return bytes(body)

    def close(self) -> None:
        """Hang up. The server notices, and so does a thread that is waiting for the body."""
        try:  # noqa: SIM105 - contextlib is an import that `rkllama list` can do without
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _receive(self) -> bytes:
        """Return the next bytes of the body, none at its end."""
        if self._left == 0:
            return b""
        chunk, self._rest = self._rest or self._receive_any(), b""
        if self._left is not None:
            if not chunk:
                raise self._broken(f"{self._left} bytes of its response are missing")
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        return chunk

    def _receive_any(self) -> bytes:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise self._broken("it did not finish its response in time")
            timeout = self._socket.gettimeout()
            self._socket.settimeout(left if timeout is None else min(timeout, left))
        try:
            return self._socket.recv(_CHUNK)
        except TimeoutError:
            timeout = self._socket.gettimeout()
            raise self._broken(f"it has sent nothing for {timeout:.3g} seconds") from None
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from None

    def _read_head(self) -> str:
        while b"\r\n\r\n" not in self._rest:
            if len(self._rest) > HEAD_LIMIT or not b"HTTP/1.".startswith(self._rest[:7]):
                raise self._broken(_STRANGER)
            chunk = self._receive_any()
            if not chunk:
                raise self._broken("it closed the connection without a response")
            self._rest += chunk
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def _parse(self, head: str) -> tuple[int, dict[str, str]]:
        first, *lines = head.split("\r\n")
        status = _STATUS_LINE.fullmatch(first)
        if status is None:
            raise self._broken(_STRANGER)
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise self._broken("its response has a malformed header")
            name = header[1].lower()
            headers[name] = f"{headers[name]}, {header[2]}" if name in headers else header[2]
        if "transfer-encoding" in headers:
            raise self._broken("its response is chunked, which an HTTP/1.0 client cannot read")
        return int(status[1]), headers

    def _body_length(self, method: str) -> int | None:
        """Return bytes of the body; None = until the connection ends."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        length = self.headers.get("content-length")
        if length is not None and not re.fullmatch(r"[0-9]{1,15}", length):
            raise self._broken("its response has a malformed length")
        return None if length is None else int(length)

    def _broken(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self._url, reason)


def request(
    host: str,
    port: int,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float | None = None,
    within: float | None = None,
) -> Response:
    """Send a request and wait for the head of its answer.

    A body in pieces needs a Content-Length among the headers. `timeout` is how many seconds the server
    may be silent; None waits as long as it takes. `within` is how many all of its answer may take, which a
    stranger could send byte by byte. Raises ServerUnreachable when nobody listens, the
    connection breaks or what answers does not speak HTTP, and InvalidRequest for a path or header that
    could not be sent as one.
    """
    url = server_url(host, port)
    named = {"Host": url.removeprefix("http://"), **(headers or {})}
    if isinstance(body, bytes):
        named["Content-Length"] = str(len(body))
        body = (body,)
    head = _head(method, path, named)
    try:
        connection = socket.create_connection((host, port), CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
        raise ServerUnreachable(url, getattr(error, "strerror", None) or str(error)) from None
    try:
        connection.settimeout(timeout)
        # A server that refuses a large body answers and hangs up without reading all of it.
        try:
            connection.sendall(head)
            for piece in body or ():
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        until = None if within is None else time.monotonic() + within
        return Response(connection, url, method, until)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise ServerUnreachable(url, error.strerror or str(error)) from None
        raise


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request, which asks for an answer that ends with the connection."""
    lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {text}" for name, text in headers.items())]
    target = f"{method}{path}"
    if " " in target or not all(line.isascii() and line.isprintable() for line in (target, *lines)):
        raise InvalidRequest(
            f"'{target}' cannot be requested: it or a header contains a control character"
        )
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii")
