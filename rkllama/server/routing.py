"""What all routes share: the request as a handler sees it, the reply, and the one way to answer with text."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.common import Generation, dumps, load_json
from ..api.native import language
from ..config import Settings
from ..errors import Cancelled, InvalidRequest, LoadFailed, NPUBusy, QueueFull, RKLLamaError
from ..service import Caller, ServerService

log = logging.getLogger("rkllama")

JSON = "application/json"
_LOGGED = 1000
"""Characters of a client's text in a log line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and a body: bytes, or an iterator of bytes that is closed when the client has gone."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Dialect = Callable[[RKLLamaError, "Call"], tuple[int, dict[str, Any]]]
"""How a dialect reports an error before the first byte: status and JSON body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the route table. `path` may hold `<name>` and `<name:path>`; `summary` is for docs."""

    methods: tuple[str, ...]
    path: str
    handler: Callable[[Call], Reply]
    dialect: Dialect
    summary: str
    public: bool = False
    """Answers without an API key."""
    upload: bool = False
    """Its body is a file of any size: an Upload under waitress, elsewhere any stream."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request: the parsed URL, the body on demand, and the service that answers it."""

    service: ServerService
    settings: Settings
    environ: Mapping[str, Any]
    parameters: Mapping[str, str] = field(default_factory=dict)
    _client: int = -1

    @property
    def path(self) -> str:
        """The URL's path."""
        return str(self.environ.get("PATH_INFO", "/"))

    @property
    def language(self) -> Any:
        """The language of the native API's texts, from Accept-Language."""
        return language(self.environ.get("HTTP_ACCEPT_LANGUAGE"))

    def raw_body(self) -> bytes:
        """The body's bytes."""
        size = int(self.environ.get("CONTENT_LENGTH") or 0)
        data: bytes = self.environ["wsgi.input"].read(size)
        return data

    def json(self) -> Any:
        """The body as JSON, whatever its Content-Type says. Raises InvalidRequest."""
        data = self.raw_body()
        if not data.strip():
            raise InvalidRequest("missing request body")
        return load_json(data)

    def caller(self) -> Caller:
        """The client, whose hang-up cancels what is done for it, where the server can tell.

        Its socket is a duplicate: the server may close the connection while a handler still waits on it.
        """
        if self._client < 0:
            probe = self.environ.get("waitress.client_disconnected")
            sock = getattr(getattr(probe, "__self__", None), "socket", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    self._client = os.dup(sock.fileno())
        return Caller(self._client)

    def close(self) -> None:
        """Free what `caller` took."""
        if self._client >= 0:
            os.close(self._client)
            self._client = -1


def ok(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(body=dumps(value), status=status)


def one_line(text: str) -> str:
    """What a client sent, as it may stand in a log: printable, so that no client writes lines of its own."""
    shown = text if len(text) <= _LOGGED else text[:_LOGGED] + "…"
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode()


def retry_headers(error: RKLLamaError) -> tuple[tuple[str, str], ...]:
    """Retry-After for an error that passes by itself, and x-should-retry for a model that cannot be loaded:
    the official clients of OpenAI and Anthropic repeat what fails with 5xx, and would have it loaded thrice.
    """
    if isinstance(error, QueueFull):
        return (("Retry-After", str(error.retry_after)),)
    if isinstance(error, LoadFailed) and not isinstance(error, NPUBusy):
        return (("x-should-retry", "false"),)
    return ()


def generate(call: Call, generation: Generation) -> Reply:
    """Answer with text, streamed or folded. The first event is awaited before the status goes out."""
    events = call.service.stream(generation.request, call.caller())
    encoder = generation.encoder
    if not generation.stream:
        with contextlib.closing(events):
            return ok(encoder.whole(events))
    first = next(events)
    return Reply(body=_frames(call, encoder, first, events), content_type=encoder.content_type)


def _frames(call: Call, encoder: Any, first: Any, events: Any) -> Iterator[bytes]:
    try:
        if data := encoder.encode(first):
            yield data
        for event in events:
            if data := encoder.encode(event):
                yield data
    except Cancelled:
        return
    except RKLLamaError as error:
        log.error("%s: %s", call.path, one_line(error.text))
        yield encoder.error(error)
    except Exception:
        log.exception("%s: internal error in a stream", call.path)
        yield encoder.error(RKLLamaError("internal error", hint="The server's log tells more."))
    finally:
        events.close()
