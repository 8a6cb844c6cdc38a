"""What every dialect needs: typed access to a JSON body, JSON bytes, and the shape of an encoder."""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from json.encoder import encode_basestring
from typing import Any, Literal, Protocol, TypeVar

from ..errors import Cancelled, InvalidRequest, PromptTooLong, RKLLamaError
from ..types import (
    ChatRequest,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

Think = bool | Literal["low", "medium", "high"] | None

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


_DEEPEST = 128
"""Levels of nesting in a request: what is deeper could be read here, but not written out again everywhere."""


def load_json(data: bytes | str) -> Any:
    """JSON that can be written out again: finite numbers only, at most 128 levels deep.

    Raises InvalidRequest.
    """
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if _is_deeper(value, _DEEPEST):
        raise InvalidRequest(f"the body is nested deeper than {_DEEPEST} levels")
    return value


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal[:40]} is not a JSON number")
    return number


def _is_deeper(value: object, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def client_text(error: RKLLamaError) -> str:
    """`error.text`, begun with the words by which clients know a prompt that is too long."""
    return f"prompt is too long: {error.text}" if isinstance(error, PromptTooLong) else error.text


def dumps(value: object) -> bytes:
    """Compact JSON in UTF-8, one line for every client."""
    text = _encode(value)
    return text.encode() if text.isascii() else _one_line(text)


def dump_text(text: str) -> bytes:
    """Return what `dumps` makes of a string, at half its price: for the frames that hold one token."""
    quoted = encode_basestring(text)
    return quoted.encode() if quoted.isascii() else _one_line(quoted)


def _one_line(text: str) -> bytes:
    """JSON without what the official clients take for a line's end, and without lone surrogates.

    httpx, below several of them, splits lines as str.splitlines does: at these three too.
    """
    for char, escape in (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        if char in text:
            text = text.replace(char, escape)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return clean_text(text).encode()


SSE_TYPE = "text/event-stream; charset=utf-8"
"""Server-sent events are always UTF-8, but `requests` takes text without a charset for Latin-1."""
NDJSON_TYPE = "application/x-ndjson"
"""A JSON object per line."""


def sse(value: object, event: str | None = None) -> bytes:
    """Return one server-sent event whose data is JSON."""
    name = b"event: %s\n" % event.encode() if event else b""
    return name + b"data: " + dumps(value) + b"\n\n"


def sse_comment(before: int) -> bytes:
    """Return what clients of server-sent events skip, with how many requests are before this one."""
    return b": queue position %d\n\n" % before


def timestamp(when: float) -> str:
    """RFC 3339 in UTC with microseconds, as datetime.fromisoformat of Python 3.10 reads it too."""
    seconds = min(max(when, 0.0), 253402300799.0)
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def new_id(prefix: str) -> str:
    """`prefix` and 24 hex digits."""
    return prefix + secrets.token_hex(12)


class FrameEncoder(Protocol[T_contra]):
    """Turns what is reported one by one (the events of an answer, the steps of a download) into frames."""

    content_type: str
    """Of the streamed answer."""

    def encode(self, item: T_contra, /) -> bytes:
        """The frames of one item, b"" for none. Those of the last one close the stream."""

    def error(self, error: RKLLamaError) -> bytes:
        """Return the frame that ends a stream which has begun."""


class AliveEncoder(FrameEncoder[T_contra], Protocol):
    """One whose first item may be long in coming."""

    def alive(self, before: int, /) -> bytes:
        """Return a sign of life that clients ignore; `before` requests are before this one."""


class Encoder(AliveEncoder[Event], Protocol):
    """Turns one answer's events into one dialect's bytes. It pins what all frames share: id, time, role."""

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return the answer that is not streamed: a fold over the same events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A decoded request for text, and how its answer is written."""

    request: ChatRequest
    stream: bool
    encoder: Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer, for the encoders whose format does not keep the order of its parts."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]
    finished: Finished


def fold(events: Iterable[Event]) -> Completion:
    """Return the events of one answer, joined."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    logprobs: list[TokenLogprob] = []
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
                logprobs.extend(event.logprobs)
            case ReasoningDelta():
                reasoning.append(event.text)
            case ToolCallDelta():
                calls.append(event.call)
            case Finished():
                return Completion(
                    text="".join(text),
                    reasoning="".join(reasoning),
                    tool_calls=tuple(calls),
                    logprobs=tuple(logprobs),
                    finished=event,
                )
    raise RuntimeError("an answer's events ended without Finished")


def cut_off(finished: Finished) -> Cancelled | None:
    """Return the error in place of the end of an answer whose model was unloaded before that, for the APIs
    that have no word for it: half an answer must not pass for a whole one.
    """
    if finished.reason != "cancelled":
        return None
    return Cancelled("the model was unloaded before its answer was complete")


def fold_complete(events: Iterable[Event]) -> Completion:
    """`fold`, for the same APIs. Raises Cancelled."""
    answer = fold(events)
    if (error := cut_off(answer.finished)) is not None:
        raise error
    return answer


def sent_now(roles: Sequence[str | None]) -> int:
    """Where the message stands that the user sends with these, -1 where the last one is not a user's.

    Only that one is refused for a picture in it. In older ones, and in what tools gave back, a picture is
    told in words (`left_out`), so that a conversation goes on that another model began.
    """
    for position in range(len(roles) - 1, -1, -1):
        if roles[position] not in ("system", "developer"):
            return position if roles[position] == "user" else -1
    return -1


def left_out(kind: str, name: str | None = None) -> str:
    """Return the words in place of what is not text."""
    named = f" {json.dumps(name[:100], ensure_ascii=False)}" if name else ""
    return f"[{kind[:40]}{named} left out: this model reads only text]"


def data_text(media_type: str, data: str) -> str | None:
    """Return what a file in base64 holds, None where its type does not say that it is text."""
    plain = media_type.partition(";")[0].strip().lower()
    if not plain.startswith("text/") and plain not in _TEXT_TYPES:
        return None
    try:
        return clean_text(base64.b64decode(data, validate=True).decode())
    except ValueError:
        return None


_TEXT_TYPES = ("application/json", "application/xml", "application/yaml", "application/x-yaml")


class Fields:
    """A JSON object read field by field: a missing field or null is None, a wrong type is InvalidRequest.

    `where` is put before the names in messages ("messages[2].").
    """

    __slots__ = ("_values", "where")

    def __init__(self, values: object, where: str = "") -> None:
        if not isinstance(values, dict):
            raise InvalidRequest(f"{where.rstrip('.') or 'the body'} must be a JSON object")
        self._values: dict[str, Any] = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    @property
    def values(self) -> Mapping[str, Any]:
        """The object as it came."""
        return self._values

    def raw(self, name: str) -> Any:
        """Return the value as it came, None when absent."""
        return self._values.get(name)

    def fail(self, name: str, expected: str) -> InvalidRequest:
        """Return the error for a field whose value is not what was expected."""
        return InvalidRequest(f"'{self.where}{name}' must be {expected}", param=self.where + name)

    def need(self, name: str, read: Callable[[str], T | None]) -> T:
        """`read(name)`, where the field must be there."""
        value = read(name)
        if value is None:
            raise InvalidRequest(f"'{self.where}{name}' is required", param=self.where + name)
        return value

    def text(self, name: str) -> str | None:
        """Return a string, made safe by `clean_text`."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fail(name, "a string")
        return clean_text(value)

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def integer(self, name: str, low: int = -(1 << 31), high: int = (1 << 31) - 1) -> int | None:
        """Return an integer within bounds; 3.0 counts as one, since many clients send it so."""
        value = self.number(name, low, high)
        if value is None:
            return None
        if value != int(value):
            raise self.fail(name, "an integer")
        return int(value)

    def number(self, name: str, low: float = -1e38, high: float = 1e38) -> float | None:
        """Return a finite number within bounds."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, "a number")
        if not low <= value <= high or math.isnan(value):
            raise self.fail(name, f"between {low:.10g} and {high:.10g}")
        return value

    def items(self, name: str) -> list[Any] | None:
        """Return a list."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, list):
            raise self.fail(name, "a list")
        return value

    def objects(self, name: str) -> list[Fields] | None:
        """Return a list of JSON objects."""
        values = self.items(name)
        if values is None:
            return None
        return [Fields(item, f"{self.where}{name}[{i}].") for i, item in enumerate(values)]

    def object(self, name: str) -> Fields | None:
        """Return a JSON object, to be read on."""
        value = self._values.get(name)
        return None if value is None else Fields(value, f"{self.where}{name}.")

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return a JSON object as it came."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.fail(name, "a JSON object")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a string or a list of strings, as `stop` and `input` are."""
        value = self._values.get(name)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self.fail(name, "a string or a list of strings")
        return tuple(clean_text(item) for item in values)


_EFFORTS: Mapping[str, Think] = {
    "none": False,
    "off": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}
"""What clients call the efforts of thinking; templates know three."""
_SET_HERE = (
    "add_generation_prompt",
    "bos_token",
    "chat_template",
    "continue_final_message",
    "documents",
    "eos_token",
    "messages",
    "tools",
)
"""Variables of a chat template that are not a client's to set."""


def read_effort(body: Fields, name: str) -> Think:
    """Return an effort of thinking as `think`, in three levels; "none" turns it off."""
    value = body.raw(name)
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in _EFFORTS:
        raise body.fail(name, f"one of {', '.join(_EFFORTS)}")
    return _EFFORTS[value.lower()]


def join_think(said: Iterable[Think]) -> Think:
    """Return what several fields say of thinking together: whatever turns it off wins, then an effort."""
    wishes = [think for think in said if think is not None]
    if False in wishes:
        return False
    efforts = [think for think in wishes if think is not True]
    return (efforts or wishes or [None])[0]


def read_template_variables(body: Fields) -> tuple[Think, dict[str, Any]]:
    """`chat_template_kwargs`: what a chat template is given besides its usual variables; what it says of
    thinking stands apart.
    """
    variables = dict(body.mapping("chat_template_kwargs") or {})
    given = body.object("chat_template_kwargs") or Fields({})
    for name in variables:
        if name in _SET_HERE:
            where = f"{given.where}{name}"
            raise InvalidRequest(f"'{where}' cannot be set: the server does", param=where)
    think = join_think(
        (
            given.flag("enable_thinking"),
            given.flag("thinking"),
            read_effort(given, "reasoning_effort"),
        )
    )
    for name in ("enable_thinking", "thinking", "reasoning_effort"):
        variables.pop(name, None)
    return think, variables


def read_arguments(call: Fields, name: str = "arguments") -> dict[str, Any]:
    """Return the arguments of a call in a conversation: a JSON object, or one written as a text.

    A model may have written something else: that stands under "arguments", so that the conversation goes on.
    """
    value = call.raw(name)
    if isinstance(value, str):
        text = call.text(name) or ""
        try:
            value = load_json(text) if text.strip() else {}
        except InvalidRequest:
            value = text
        return value if isinstance(value, dict) else {"arguments": value}
    return dict(call.mapping(name) or {})


def clean_text(text: str) -> str:
    """`text` as any backend can take it: lone surrogates and NUL (it ends a C string) become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
