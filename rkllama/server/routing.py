"""What all routes share: the request as a handler sees it, the reply, the group that words errors, and the
one way to stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from ..api.common import AliveEncoder, FrameEncoder, Generation, dumps, load_json
from ..config import LONGEST_WAIT, Settings
from ..errors import (
    Cancelled,
    InvalidRequest,
    LoadFailed,
    NPUBusy,
    QueueFull,
    RKLLamaError,
    ServerStopping,
    TooManyBodies,
)
from ..service import WATCH_QUEUE, Caller, ServerService, Signs
from ..states.key import owner_of
from .bodies import Bodies, decode, decoder_of
from .guard import key_number
from .response_store import ResponseStore
from .status.drain import Drain
from .status.headers import Tally, format_header
from .status.session import session_headers

T = TypeVar("T")

log = logging.getLogger("rkllama")

JSON = "application/json"
_WATCH_QUEUE = "HTTP_" + WATCH_QUEUE.upper().replace("-", "_")
_LOGGED = 1000
"""Characters of a client's text in a log line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and a body: bytes, or an iterator of bytes that is closed when the client has gone."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The routes of one API."""

    name: str
    """In the server's description."""
    prefix: str | None
    """How the paths begin that are this API's, with a route or without; None: those with a route only."""
    word_error: Callable[[RKLLamaError, Mapping[str, Any]], tuple[int, dict[str, Any]]]
    """Status and body of an error, for the request that a WSGI environment holds."""

    def error_reply(self, error: RKLLamaError, environ: Mapping[str, Any]) -> Reply:
        """The report of an error before the first byte of an answer."""
        status, body = self.word_error(error, environ)
        return Reply(status=status, body=dumps(body), headers=_retry_headers(error))


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the route table: all that is known of an endpoint.

    `path` may hold `<name>` and `<name:path>`; the rest is for the server's description.
    """

    methods: tuple[str, ...]
    path: str
    handler: Callable[[Call], Reply]
    summary: str
    _: KW_ONLY
    group: Group
    accepts: str | None = None
    """The name in schemas.BODIES of what it takes."""
    query: tuple[str, ...] = ()
    """The names of parameters behind its path, which may be missing."""
    returns: tuple[str, ...] = ()
    """The keys that a JSON answer has; none: it is empty, or not JSON."""
    content_type: str | None = None
    """Of an answer that is streamed, or that is not JSON."""
    status: int = 200
    """Of an answer when all went well."""
    text_errors: bool = False
    """Whether some of its errors are a line of text."""
    public: bool = False
    """Served without an API key."""
    page: bool = False
    """A browser gets the page in the place of its answer, without an API key."""
    upload: bool = False
    """Its body is a file of any size: an Upload under waitress, elsewhere any stream."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request: the parsed URL, the body on demand, and the service that answers it."""

    service: ServerService
    settings: Settings
    responses: ResponseStore
    environ: Mapping[str, Any]
    bodies: Bodies
    drain: Drain
    begin: Callable[[Reply], Callable[[bytes], object]]
    """Sends the head of a reply whose body is not here yet; what it returns sends a part of the body. What
    the handler then returns is the rest, whatever head it has."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    _client: int = -1
    _taken: int = 0
    """Bytes of the room for bodies that unpacking has taken."""

    @property
    def path(self) -> str:
        """The URL's path."""
        return str(self.environ.get("PATH_INFO", "/"))

    def query(self) -> dict[str, str]:
        """Return the parameters behind the path, the last one of each name."""
        return dict(parse_qsl(str(self.environ.get("QUERY_STRING", ""))))

    def raw_body(self) -> bytes:
        """Return the body's bytes, unpacked. Raises UnsupportedEncoding, InvalidRequest, BodyTooLarge,
        TooManyBodies.
        """
        decoder = decoder_of(self.environ.get("HTTP_CONTENT_ENCODING", ""))
        size = int(self.environ.get("CONTENT_LENGTH") or 0)
        data: bytes = self.environ["wsgi.input"].read(size)
        if decoder is None or not data:
            return data
        pieces = []
        for piece in decode(data, decoder, self.settings.max_body):
            if not self.bodies.take(len(piece)):
                raise TooManyBodies(self.bodies.limit)
            self._taken += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def json(self) -> Any:
        """Return the body as JSON, whatever its Content-Type says. Raises InvalidRequest."""
        data = self.raw_body()
        if not data.strip():
            raise InvalidRequest("missing request body")
        return load_json(data)

    @property
    def watching(self) -> bool:
        """Whether the client is to be told its place in the queue at once."""
        return _WATCH_QUEUE in self.environ

    def caller(self, signs: Signs | None = None) -> Caller:
        """The client, whose hang-up cancels what is done for it, where the server can tell.

        Its socket is a duplicate: the server may close the connection while a handler still waits on it.
        """
        if self._client < 0:
            probe = self.environ.get("waitress.client_disconnected")
            sock = getattr(getattr(probe, "__self__", None), "socket", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    self._client = os.dup(sock.fileno())
        key = self._key()
        # Whose saved conversations are used: those of clients with one API key are theirs.
        owner = "" if self.settings.share_states else owner_of(key)
        return Caller(self._client, owner, signs, key=key)

    def _key(self) -> str:
        """Return the API key that the client has sent, "" where there are none."""
        keys = self.settings.api_keys
        number = key_number(self.environ, keys) if keys else -1
        return keys[number] if number >= 0 else ""

    def close(self) -> None:
        """Free what `caller` and unpacking took."""
        self.bodies.give_back(self._taken)
        self._taken = 0
        if self._client >= 0:
            os.close(self._client)
            self._client = -1


def states(service: ServerService) -> dict[str, str]:
    """Return how the models in memory are, by path."""
    return {model.info.path: model.state for model in service.loaded()}


def ok(value: object, status: int = 200) -> Reply:
    """Return a JSON answer."""
    return Reply(body=dumps(value), status=status)


def one_line(text: str) -> str:
    """Return what a client sent, as it may stand in a log: printable, so that no client writes lines of its
    own.
    """
    shown = text if len(text) <= _LOGGED else text[:_LOGGED] + "…"
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode()


def _retry_headers(error: RKLLamaError) -> tuple[tuple[str, str], ...]:
    """Retry-After for an error that passes by itself, and x-should-retry for a model that cannot be loaded:
    the official clients of OpenAI and Anthropic repeat what fails with 5xx, and would have it loaded thrice.
    """
    if isinstance(error, QueueFull | TooManyBodies | ServerStopping):
        return (("Retry-After", str(error.retry_after)),)
    if isinstance(error, LoadFailed) and not isinstance(error, NPUBusy):
        return (("x-should-retry", "false"),)
    return ()


class EarlyStream:
    """A stream that may have to begin before its first event is there, with signs of life."""

    def __init__(
        self, call: Call, encoder: AliveEncoder[T], headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """`headers` are those of its head besides the usual ones."""
        self._call = call
        self._encoder = encoder
        self._headers = headers
        self._write: Callable[[bytes], object] | None = None

    @property
    def begun(self) -> bool:
        """Whether the status is out."""
        return self._write is not None

    def caller(self) -> Caller:
        """The client, which gets a sign of life when one is due."""
        interval, watching = self._call.settings.alive_interval, self._call.watching
        if not (interval or watching):
            return self._call.caller()
        return self._call.caller(Signs(self._give, interval or LONGEST_WAIT, watching=watching))

    def _give(self, before: int) -> None:
        """Send a sign of life, also between two events: it is due in the midst of what makes the next."""
        frame = self._encoder.alive(before)
        if self._write is None:
            self._write = self._call.begin(_streamed((), self._encoder, self._headers))
        try:
            self._write(frame)
        except Exception as error:  # each server has its own for a client that has gone
            raise Cancelled from error

    def failed(self, error: Exception) -> Reply:
        """Return the rest of a stream that has begun and failed before its first event."""
        return stream(self._call, self._encoder, _raising([error]))


def _raising(errors: list[Exception]) -> Generator[Any, None, None]:
    """Raise the one error when the first item is asked for. Kept here, it would be in a cycle."""
    raise errors.pop()
    yield


def generate(call: Call, generation: Generation) -> Reply:
    """Answer with text, streamed or folded. The first event is awaited before the status goes out, unless
    it is so long in coming that signs of life have to be given.
    """
    encoder = generation.encoder
    headers = session_headers(call.environ, generation.request)
    if not generation.stream:
        caller = call.caller()
        events = call.service.stream(generation.request, caller)
        tally = Tally(events)
        with contextlib.closing(events):
            reply = ok(encoder.whole(tally))
        return replace(reply, headers=(*headers, *format_header(caller), *tally.headers()))
    early = EarlyStream(call, encoder, headers)
    try:
        caller = early.caller()
        events = call.service.stream(generation.request, caller)
        first = next(events)
        headers = (*headers, *format_header(caller))
        return _streamed(_frames(call, encoder, events, (first,)), encoder, headers)
    except Exception as error:
        if not early.begun:
            raise
        return early.failed(error)


def stream(
    call: Call, encoder: FrameEncoder[T], rest: Generator[T, None, None], *first: T
) -> Reply:
    """Answer with frames. What comes first is here already: from now on an error is a frame, too."""
    return _streamed(_frames(call, encoder, rest, first), encoder)


def _streamed(
    frames: Iterable[bytes],
    encoder: FrameEncoder[Any],
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Return the reply of a stream; nginx would keep its frames back until it has a page of them."""
    headers = (("X-Accel-Buffering", "no"), *headers)
    return Reply(body=iter(frames), content_type=encoder.content_type, headers=headers)


def _frames(
    call: Call, encoder: FrameEncoder[T], rest: Generator[T, None, None], first: tuple[T, ...]
) -> Iterator[bytes]:
    try:
        for item in chain(first, rest):
            if data := encoder.encode(item):
                yield data
    except Cancelled:
        return
    except RKLLamaError as error:
        log.error("%s: %s", call.path, one_line(error.text))
        yield encoder.error(error)
    except Exception:
        log.exception("%s: internal error in a stream", call.path)
        yield encoder.error(
            RKLLamaError("internal error", hint="See the server's log for details.")
        )
    finally:
        rest.close()
