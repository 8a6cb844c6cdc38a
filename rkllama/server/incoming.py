"""A request as it comes: what HTTP allows, and where its body goes.

It overrides methods that waitress does not call public, so pyproject.toml pins its version.
"""

from __future__ import annotations

import http
import re
import sys
import time
from collections.abc import Mapping
from copy import copy
from typing import Any, Protocol

import waitress.parser
import waitress.utilities

from ..errors import InvalidRequest, RKLLamaError
from ..service import Upload
from .bodies import Bodies, Body
from .guard import host_name
from .routing import Reply

MAX_HEADER = 64 << 10
"""Bytes that a header may have."""
_SENDING = 60.0
"""Seconds that a client may take to send a request, and one more for every _SLOWEST bytes of it."""
_SLOWEST = 1000


class Frontend(Protocol):
    """What the transport asks before a request is complete; `environ` has its method, path and headers."""

    bodies: Bodies
    """The room for all bodies."""

    def error_reply(self, error: RKLLamaError, environ: Mapping[str, Any]) -> Reply:
        """The report of `error` in the dialect of the request's path."""

    def admits(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the body of this request may be read; the application will say why not."""

    def open_upload(self, environ: Mapping[str, Any], size: int) -> Upload | None:
        """Where the body of an upload goes, `size` bytes long (0: not known); None for others."""


class Refusal(waitress.utilities.Error):  # type: ignore[misc]
    """An RKLLama error in the form of waitress's own."""

    def __init__(self, problem: RKLLamaError) -> None:
        super().__init__(problem.text)
        self.problem = problem
        self.code, self.reason = problem.status, http.HTTPStatus(problem.status).phrase


def environ_of(request: Any) -> dict[str, Any]:
    """A request's method, path and headers as WSGI names them, as far as they have come."""
    headers = {f"HTTP_{name}": text for name, text in request.headers.items()}
    method, path = getattr(request, "command", "GET"), getattr(request, "path", "/")
    return {"REQUEST_METHOD": method, "PATH_INFO": path, **headers}


class Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """A request as it comes. The body of an upload goes to where it is kept, and has any size; that of
    somebody who may not call is not read.
    """

    adj: Any
    body_rcv: Any
    completed: bool
    cut_short = False
    """Whether it is answered before all of it has been read."""

    def __init__(self, adj: Any, frontend: Frontend) -> None:
        super().__init__(adj)
        self._frontend = frontend
        self._body: Body | Upload | None = None
        self._began = time.time()

    def received(self, data: bytes) -> int:
        """Take the bytes that belong to this request; of one that is cut short, whatever comes.

        A body for which there is no room is rejected before its end, and the framing of chunks is limited
        like a header. A request that is already rejected, or has no body, needs no "100 Continue", after
        which waitress would wait for a body.
        """
        consumed: int = super().received(data)
        if self._body is not None and self._body.failure is not None:
            self._refuse(Refusal(self._body.failure))
        elif self.chunked and not self.completed:
            self._check_chunk()
        if self.completed:
            self.expect_continue = False
        if self.error:
            self.cut_short = True
        return len(data) if self.cut_short else consumed

    def _check_chunk(self) -> None:
        """Limit the framing that is kept, and what a chunk that has just begun says of its size."""
        chunks = self.body_rcv
        if len(chunks.control_line) + len(chunks.trailer) >= MAX_HEADER:
            limit = f"exceeds max_header of {MAX_HEADER}"
            self._refuse(waitress.utilities.RequestHeaderFieldsTooLarge(limit))
        elif len(chunks) + chunks.chunk_remainder >= self.adj.max_request_body_size:
            self._refuse(waitress.utilities.RequestEntityTooLarge("exceeds max_body"))

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
            _check_framing(header_plus)
            super().parse_header(header_plus)
            _check_version(self.version, self.headers)
        except (ValueError, InvalidRequest) as error:
            raise waitress.parser.ParsingError(f"Invalid header: {error}") from None
        if self.body_rcv is None:
            return
        environ = environ_of(self)
        if self._frontend.admits(environ):
            self._body = self.body_rcv.buf = self._open_body(environ)
        else:
            self._leave_out_body()

    def _open_body(self, environ: Mapping[str, Any]) -> Body | Upload:
        upload = self._frontend.open_upload(environ, self.content_length)
        if upload is None:
            return Body(self._frontend.bodies)
        self.adj = copy(self.adj)
        self.adj.max_request_body_size = sys.maxsize
        return upload

    def _leave_out_body(self) -> None:
        """Have the request answered as if it had none, and the connection closed after that."""
        self.cut_short = True
        self.body_rcv, self.chunked, self.content_length = None, False, 0
        self.headers["CONNECTION"] = "close"


_FOLDED = re.compile(rb"\r\n[ \t]")
_TRANSFER_ENCODING = re.compile(rb"^transfer-encoding:[ \t]*([^\r]*)", re.I | re.M)
_CONTENT_LENGTH = re.compile(rb"^content-length:", re.I | re.M)
_VERSION = re.compile(rb"HTTP/1\.1\r")


def _check_framing(header: bytes) -> None:
    """Raise ValueError for a header of which two readers could find two ends of the request: so requests
    are smuggled past a proxy.
    """
    if _FOLDED.search(header):
        raise ValueError("a line is folded")
    encodings = _TRANSFER_ENCODING.findall(header)
    if not encodings:
        return
    if len(encodings) > 1 or b"," in encodings[0] or not encodings[0]:
        raise ValueError("Transfer-Encoding must be chunked, once")
    if _CONTENT_LENGTH.search(header):
        raise ValueError("Content-Length beside Transfer-Encoding")
    if not _VERSION.search(header.partition(b"\n")[0]):
        raise ValueError("Transfer-Encoding needs HTTP/1.1")


def _check_version(version: str, headers: Mapping[str, str]) -> None:
    """Raise ValueError for another HTTP than 1.0 and 1.1, and for 1.1 without a Host; InvalidRequest for a
    Host that is none.
    """
    if version not in ("1.0", "1.1"):
        raise ValueError(
            f"HTTP/{version} is not served, only 1.0 and 1.1" if version else "no HTTP version"
        )
    host = headers.get("HOST")
    if host is not None:
        host_name(host)
    elif version == "1.1":
        raise ValueError("Host is missing")
