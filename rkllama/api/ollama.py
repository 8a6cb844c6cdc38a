"""The Ollama dialect's answers: `/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`, errors.

Written after Ollama's own `api/types.go`. What Ollama has no field for comes under further keys, which
its clients ignore and RKLLama's own client reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import InvalidRequest, ModelNotFound, QueueFull, RKLLamaError
from ..types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    Finished,
    Message,
    ReasoningDelta,
    Role,
    SamplingParams,
    SentImage,
    TextDelta,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from .common import (
    Fields,
    Generation,
    dump_text,
    dumps,
    fold,
    left_out,
    read_arguments,
    sent_now,
    timestamp,
)
from .content.pictures import read_content, sent_image
from .options import read_format, read_keep_alive, read_options, read_thinking

API_VERSION = "0.14.0"
"""The Ollama whose API is implemented here: the first one with `/v1/responses` and `/v1/messages`.

Clients compare it with what they need (VS Code: 0.6.4, Codex: 0.13.4).
"""

_ROLES: tuple[Role, ...] = get_args(Role)
_NOT_MET = "format_not_met"
"""`done_reason` of an answer that did not meet its format: the package `ollama` drops the key "error"."""
_BUSY = "server busy, please try again.  maximum pending requests exceeded"


# --- Errors and times --------------------------------------------------------------------------


def error_body(error: RKLLamaError) -> dict[str, Any]:
    """Return the body of an error: `error` in Ollama's words, the rest to build the same exception
    elsewhere.
    """
    body = {"error": _error_text(error), **error.to_dict()}
    body.pop("log", None)  # the last words of a model's process are the server's business
    return body


def _error_text(error: RKLLamaError) -> str:
    if isinstance(error, ModelNotFound):
        return error.message
    return _BUSY if isinstance(error, QueueFull) else error.text


def error_line(error: RKLLamaError) -> bytes:
    """Return the line that ends a stream in which something went wrong."""
    return dumps(error_body(error)) + b"\n"


def nanoseconds(seconds: float) -> int:
    """Return a duration as Ollama writes it."""
    return round(seconds * 1e9)


# --- What is asked -----------------------------------------------------------------------------


def read_body(body: object) -> Fields:
    """Return the body of a request; None, for an empty one, is answered in Ollama's words."""
    if body is None:
        raise InvalidRequest("missing request body")
    return Fields(body)


def read_model(fields: Fields, *keys: str) -> str:
    """Return the model's name, under the first of `keys` ("model" by default) that has one."""
    for key in keys or ("model",):
        if name := (fields.text(key) or "").strip():
            return name
    raise InvalidRequest("model is required", param="model")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCall:
    """A `/api/chat` or `/api/generate` without a word: it loads its model, or unloads it with a
    `keep_alive` of 0. The answer is never streamed: aiohttp's clients read it as application/json.
    """

    model: str
    keep_alive: float | None
    context_length: int | None
    sampling: SamplingParams
    format: Literal["json"] | Mapping[str, Any] | None
    """It shapes nothing here, but is refused like any other request's."""
    encoder: ChatEncoder | GenerateEncoder

    @property
    def unloads(self) -> bool:
        """Whether the model is to be unloaded."""
        return self.keep_alive == 0


def decode_chat(body: object) -> Generation | LoadCall:
    """A `POST /api/chat`."""
    fields = read_body(body)
    model = read_model(fields)
    options = read_options(fields)
    entries = fields.objects("messages") or []
    now = sent_now([_lower(item.text("role")) for item in entries])
    messages = tuple(_message(item, at, at == now) for at, item in enumerate(entries))
    think, variables = read_thinking(fields)
    request = ChatRequest(
        model=model,
        messages=messages,
        template=fields.text("template") or None,
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        stop=options.stop,
        think=think,
        template_variables=variables,
        tools=tuple(_tool(item) for item in fields.objects("tools") or ()),
        tool_choice=_tool_choice(fields),
        format=read_format(fields),
        context_length=options.context_length,
        keep_alive=read_keep_alive(fields),
        top_logprobs=_top_logprobs(fields),
        truncate=fields.flag("truncate") is not False,
    )
    return _generation_or_load(request, _stream(fields), ChatEncoder(model))


def decode_generate(body: object) -> Generation | LoadCall:
    """A `POST /api/generate`."""
    fields = read_body(body)
    model = read_model(fields)
    options = read_options(fields)
    prompt = fields.text("prompt") or None
    think, variables = read_thinking(fields)
    request = ChatRequest(
        model=model,
        prompt=prompt,
        images=tuple(_images(fields, now=True)),
        raw=_raw(fields),
        system=fields.text("system") or None,
        template=fields.text("template") or None,
        suffix=fields.text("suffix") or None,
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        stop=options.stop,
        think=think,
        template_variables=variables,
        format=read_format(fields),
        context_length=options.context_length,
        keep_alive=read_keep_alive(fields),
        top_logprobs=_top_logprobs(fields),
    )
    return _generation_or_load(request, _stream(fields), GenerateEncoder(model))


def _generation_or_load(
    request: ChatRequest, stream: bool, encoder: ChatEncoder | GenerateEncoder
) -> Generation | LoadCall:
    if request.messages or request.prompt is not None:
        return Generation(request=request, stream=stream, encoder=encoder)
    assert request.model is not None, "read_model has found one"
    return LoadCall(
        model=request.model,
        keep_alive=request.keep_alive,
        context_length=request.context_length,
        sampling=request.sampling,
        format=request.format,
        encoder=encoder,
    )


def _stream(fields: Fields) -> bool:
    stream = fields.flag("stream")
    return True if stream is None else stream


def _raw(fields: Fields) -> bool:
    """`raw`; `context`, the older way to continue a conversation, is accepted and not used."""
    context = fields.items("context")
    raw = fields.flag("raw") or False
    if raw and (context or fields.text("template") or fields.text("system")):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    return raw


def _top_logprobs(fields: Fields) -> int | None:
    top = fields.integer("top_logprobs") or 0
    if not 0 <= top <= 20:
        raise InvalidRequest("top_logprobs must be between 0 and 20", param="top_logprobs")
    return top if fields.flag("logprobs") else None


def _images(fields: Fields, *, now: bool, text: bool = True) -> Iterator[SentImage]:
    """`images`, which belong before the message's text, where it has some."""
    fields.items("images")  # a text alone is none
    images = fields.texts("images") or ()
    for left, image in zip(range(len(images) - 1, -1, -1), images, strict=True):
        yield sent_image(
            image,
            f"{fields.where}images",
            refusal="this model does not support images" if now else None,
            instead=left_out("image") + ("\n" if text or left else ""),
        )


def _lower(text: str | None) -> str | None:
    return text and text.lower()


def _message(fields: Fields, position: int, now: bool) -> Message:
    role = fields.need("role", fields.text).lower()
    if role not in _ROLES:
        raise fields.fail("role", "system, user, assistant or tool")
    calls = fields.objects("tool_calls") or ()
    content = read_content(fields, refuse=now) or ()
    return Message.of(
        next(known for known in _ROLES if known == role),
        [*_images(fields, now=now, text=bool(content)), *content],
        reasoning=fields.text("thinking") or None,
        tool_calls=tuple(_call(call, f"call_{position}_{i}") for i, call in enumerate(calls)),
        tool_call_id=fields.text("tool_call_id") or None,
        tool_name=fields.text("tool_name") or fields.text("name") or None,
    )


def _call(fields: Fields, default_id: str) -> ToolCall:
    function = fields.need("function", fields.object)
    return ToolCall(
        id=fields.text("id") or default_id,
        name=function.need("name", function.text),
        arguments=read_arguments(function),
    )


def _tool(fields: Fields) -> Tool:
    if (fields.text("type") or "function") != "function":
        raise fields.fail("type", '"function"')
    function = fields.need("function", fields.object)
    name = function.need("name", function.text)
    if not name:
        raise function.fail("name", "the name of a function")
    return Tool(
        name=name,
        description=function.text("description") or "",
        parameters=function.mapping("parameters") or {},
    )


def _tool_choice(fields: Fields) -> str:
    """Not in Ollama's API; RKLLama's own client sends it in core's spelling."""
    choice = fields.text("tool_choice") or "auto"
    if choice not in ("auto", "none", "required") and not choice.startswith("function:"):
        raise fields.fail("tool_choice", '"auto", "none", "required" or "function:NAME"')
    return choice


def decode_embed(body: object) -> EmbeddingRequest:
    """Decode a `POST /api/embed`; without `input`, or with "", it loads the model and there are no
    vectors.
    """
    fields = read_body(body)
    truncate = fields.flag("truncate")
    return EmbeddingRequest(
        model=read_model(fields),
        inputs=() if fields.raw("input") == "" else fields.texts("input") or (),
        truncate=True if truncate is None else truncate,
        dimensions=fields.integer("dimensions", 0, 1 << 20) or None,
        context_length=read_options(fields).context_length,
        keep_alive=read_keep_alive(fields),
    )


def decode_embeddings(body: object) -> EmbeddingRequest:
    """Decode a `POST /api/embeddings`, the older form: one input at most."""
    fields = read_body(body)
    prompt = fields.text("prompt")
    return EmbeddingRequest(
        model=read_model(fields),
        inputs=(prompt,) if prompt else (),
        context_length=read_options(fields).context_length,
        keep_alive=read_keep_alive(fields),
    )


# --- What is answered --------------------------------------------------------------------------


def embed_body(model: str, result: EmbeddingResult) -> dict[str, Any]:
    """Return the answer of `/api/embed`; `model` as the client wrote it."""
    embeddings = [list(vector) for vector in result.vectors]
    return {"model": model, "embeddings": embeddings, **_figures(result.usage, result.timings)}


def embeddings_body(result: EmbeddingResult) -> dict[str, Any]:
    """Return the answer of `/api/embeddings`."""
    return {"embedding": list(result.vectors[0]) if result.vectors else []}


def _figures(usage: Usage, timings: Timings) -> dict[str, int]:
    """Ollama's metrics and our own; what the runtime did not report is left out, as Ollama does."""
    seconds = {
        "total_duration": timings.total,
        "load_duration": timings.load,
        "prompt_eval_duration": timings.prompt,
        "eval_duration": timings.generation,
        "queue_duration": timings.queue,
    }
    counts = {
        "prompt_eval_count": usage.prompt_tokens,
        "eval_count": usage.completion_tokens,
        "cached_count": usage.cached_tokens,
    }
    figures = {name: nanoseconds(value) for name, value in seconds.items() if value is not None}
    figures.update((name, value) for name, value in counts.items() if value is not None)
    return figures


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top]}
        if token.top
        else _logprob(token)
        for token in tokens
    ]


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    # JSON has no minus infinity, which is what a token that a grammar forbids has.
    logprob = max(token.logprob, -9999.0)
    return {"token": token.token, "logprob": logprob, "bytes": list(token.token.encode())}


def _tool_call(index: int, call: ToolCall) -> dict[str, Any]:
    function = {"index": index, "name": call.name, "arguments": dict(call.arguments)}
    return {"id": call.id, "function": function}


class _AnswerEncoder:
    """What chat and generate share; they differ in where the text stands (`_part`)."""

    content_type = "application/x-ndjson"

    def __init__(self, model: str) -> None:
        self._model = model
        mark = dump_text("\0")
        line = dumps({"model": model, "created_at": "\0", **self._part("\0"), "done": False})
        self._head, self._middle, self._tail = line.split(mark)
        self._tail += b"\n"
        self._second = -1
        self._clock = b""

    def _part(
        self, text: str, thinking: str = "", calls: tuple[dict[str, Any], ...] = ()
    ) -> dict[str, Any]:
        raise NotImplementedError

    def encode(self, event: Event) -> bytes:
        """Return one line per event."""
        if type(event) is TextDelta and not event.logprobs:
            text = dump_text(event.text)
            return b"".join((self._head, self._now(), self._middle, text, self._tail))
        return dumps(self._object(event)) + b"\n"

    def _now(self) -> bytes:
        """Return the time as a JSON string. It is asked for every token, so each second is formatted once."""
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._clock = second, timestamp(second).encode()[:20]
        return b'"%s%06d+00:00"' % (self._clock, rest // 1000)

    def _object(self, event: Event) -> dict[str, Any]:
        if isinstance(event, Finished):
            return self._last(self._part(""), event)
        extra: dict[str, Any] = {}
        if isinstance(event, TextDelta):
            part = self._part(event.text)
            extra = {"logprobs": _logprobs(event.logprobs)}
        elif isinstance(event, ReasoningDelta):
            part = self._part("", thinking=event.text)
        elif isinstance(event, ToolCallDelta):
            part = self._part("", calls=(_tool_call(event.index, event.call),))
        return {**self._start(), **part, "done": False, **extra}

    def _start(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": timestamp(time.time())}

    def without_words(self, reason: Literal["load", "unload"], timings: Timings) -> dict[str, Any]:
        """The answer to a request that only loads or unloads."""
        return self._end(self._part(""), reason, Usage(), timings)

    def _end(
        self, part: Mapping[str, Any], reason: str, usage: Usage, timings: Timings
    ) -> dict[str, Any]:
        figures = _figures(usage, timings)
        return {**self._start(), **part, "done": True, "done_reason": reason, **figures}

    def _last(self, part: Mapping[str, Any], finished: Finished) -> dict[str, Any]:
        reason: str = "stop" if finished.reason == "tool_calls" else finished.reason
        if finished.error is not None and reason == "stop":
            reason = _NOT_MET
        last = self._end(part, reason, finished.usage, finished.timings)
        if finished.stop is not None:
            last["stop_string"] = finished.stop
        if finished.dropped:
            last["dropped_messages"] = finished.dropped
        if finished.repeats:
            last["repeats"] = True
        if finished.error is not None:
            # On a last line with "error" Ollama's clients raise; one that was cut off is no failure.
            last["incomplete" if reason == "length" else "error"] = finished.error
        return last

    def error(self, error: RKLLamaError) -> bytes:
        """Return the line that ends a stream in which something went wrong."""
        return error_line(error)

    def alive(self, before: int) -> bytes:
        """Return a line without text, with the place in the queue."""
        line = {**self._start(), **self._part(""), "done": False, "queue_position": before}
        return dumps(line) + b"\n"

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return the answer in one object: the last line with all text in it."""
        answer = fold(events)
        calls = tuple(_tool_call(index, call) for index, call in enumerate(answer.tool_calls))
        whole = self._last(self._part(answer.text, answer.reasoning, calls), answer.finished)
        if answer.logprobs:
            whole["logprobs"] = _logprobs(answer.logprobs)
        return whole


class ChatEncoder(_AnswerEncoder):
    """The answer of `/api/chat`."""

    def _part(
        self, text: str, thinking: str = "", calls: tuple[dict[str, Any], ...] = ()
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = list(calls)
        return {"message": message}


class GenerateEncoder(_AnswerEncoder):
    """The answer of `/api/generate`."""

    def _part(
        self, text: str, thinking: str = "", calls: tuple[dict[str, Any], ...] = ()
    ) -> dict[str, Any]:
        part: dict[str, Any] = {"response": text}
        if thinking:
            part["thinking"] = thinking
        if calls:
            part["tool_calls"] = list(calls)
        return part
