"""Anthropic's Messages API, its token count and its models.

What is asked and cannot be honoured is a 400 that names the field. Ignored without harm: metadata,
service_tier, cache_control, a thinking budget (there is no way to bound thinking apart from
max_tokens) and effort. "adaptive" thinking is the model's own default. An answer that did not meet
its JSON schema stops with "refusal" and says why in stop_details.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS
from ..errors import InvalidRequest, PromptTooLong, RKLLamaError, Unsupported
from ..types import (
    Alias,
    ChatRequest,
    Event,
    Finished,
    Message,
    ModelInfo,
    Part,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from . import anthropic_parts as content
from .anthropic_parts import read_tool
from .common import (
    SSE_TYPE,
    Fields,
    Generation,
    client_text,
    cut_off,
    dump_text,
    dumps,
    new_id,
    sent_now,
    sse,
    timestamp,
)

__all__ = [
    "MessageEncoder",
    "count_body",
    "decode_count",
    "decode_messages",
    "error_body",
    "model_body",
    "models_body",
]

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    499: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_REFUSED = {
    "container": "there is no code execution",
    "mcp_servers": "there are no server-side tools",
    "thread": "nothing is stored here; send the whole conversation as 'messages'",
}
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def error_body(error: RKLLamaError) -> dict[str, Any]:
    """Return the body of an error."""
    default = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    return {
        "type": "error",
        "error": {
            "type": _ERROR_TYPES.get(error.status, default),
            "message": _message_of(error),
            **_details(error),
        },
    }


def _message_of(error: RKLLamaError) -> str:
    """Return the text of an error; clients read both figures out of that of a prompt that is too long."""
    if isinstance(error, PromptTooLong) and error.prompt_tokens and error.context_length:
        figures = f"{error.prompt_tokens} tokens > {error.context_length} maximum"
        hint = f". {error.hint}" if error.hint else ""
        return f"prompt is too long: {figures}{hint}"
    return client_text(error)


def _details(error: RKLLamaError) -> dict[str, Any]:
    """Return what tells the SDKs' threads and tool runners to go on with the whole conversation."""
    if not isinstance(error, Unsupported) or error.param != "thread":
        return {}
    return {"details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}


# --- The request -------------------------------------------------------------------------------


def decode_messages(body: object, *, answer_id: str | None = None) -> Generation:
    """`POST /v1/messages`. `answer_id` is made up unless given. Raises InvalidRequest."""
    fields = Fields(body)
    request = _request(fields, fields.need("max_tokens", lambda name: fields.integer(name, 1)))
    if request.messages[-1].role == "assistant":
        raise Unsupported(
            "the last message must not be the assistant's: answers cannot be prefilled",
            param="messages",
        )
    choice = fields.object("tool_choice")
    encoder = MessageEncoder(
        request.model or "",
        answer_id=answer_id,
        stops=request.stop,
        one_call=choice is not None and bool(choice.flag("disable_parallel_tool_use")),
    )
    return Generation(request=request, stream=fields.flag("stream") or False, encoder=encoder)


def decode_count(body: object) -> ChatRequest:
    """`POST /v1/messages/count_tokens`: the request whose prompt is to be counted. The conversation may
    end with the assistant's answer. Raises InvalidRequest.
    """
    return _request(Fields(body), None)


def count_body(tokens: int | None) -> dict[str, Any]:
    """Return the count; Unsupported where the model's backend cannot count."""
    if tokens is None:
        raise Unsupported("this model's runtime cannot count tokens")
    return {"input_tokens": tokens}


def _request(fields: Fields, max_tokens: int | None) -> ChatRequest:
    _refuse(fields)
    tools = tuple(read_tool(entry) for entry in fields.objects("tools") or ())
    return ChatRequest(
        model=fields.need("model", fields.text) or None,
        messages=(*_system(fields), *_messages(fields)),
        sampling=SamplingParams(
            temperature=fields.number("temperature", 0, 2),
            top_k=fields.integer("top_k", *INTEGER_BOUNDS["top_k"]),
            top_p=fields.number("top_p", *NUMBER_BOUNDS["top_p"]),
        ),
        max_tokens=max_tokens,
        stop=tuple(stop for stop in fields.texts("stop_sequences") or () if stop),
        think=_think(fields),
        tools=tools,
        tool_choice=_tool_choice(fields, tools),
        format=_format(fields),
    )


def _refuse(fields: Fields) -> None:
    for name, reason in _REFUSED.items():
        if fields.raw(name) not in (None, [], {}):
            raise Unsupported(f"'{name}' is not supported: {reason}", param=name)


def _think(fields: Fields) -> bool | None:
    thinking = fields.object("thinking")
    if thinking is None:
        return None
    thinking.integer("budget_tokens", 1)
    kinds: Mapping[str, bool | None] = {
        "enabled": True,
        "disabled": False,
        "adaptive": None,
        "between_tools": None,
    }
    kind = thinking.need("type", thinking.text)
    if kind not in kinds:
        raise thinking.fail("type", "enabled, disabled or adaptive")
    return kinds[kind]


def _format(fields: Fields) -> Mapping[str, Any] | None:
    """Return the schema in `output_config`, or in `output_format`, where packages of 2025 put it."""
    config = fields.object("output_config")
    form = None if config is None else config.object("format")
    if form is None:
        form = fields.object("output_format")
    if form is None:
        return None
    if form.need("type", form.text) != "json_schema":
        raise form.fail("type", "json_schema")
    return form.need("schema", form.mapping)


def _tool_choice(fields: Fields, tools: Sequence[Tool]) -> str:
    choice = fields.object("tool_choice")
    if choice is None:
        return "auto"
    kind = choice.need("type", choice.text)
    if kind == "tool":
        name = choice.need("name", choice.text)
        if all(tool.name != name for tool in tools):
            raise InvalidRequest(
                f"'tool_choice' names '{name}', which is not among the tools", param="tool_choice"
            )
        return f"function:{name}"
    if kind not in _TOOL_CHOICES:
        raise choice.fail("type", "auto, any, tool or none")
    if kind == "any" and not tools:
        raise InvalidRequest("'tool_choice' is any, but there are no tools", param="tools")
    return _TOOL_CHOICES[kind]


# --- The conversation --------------------------------------------------------------------------


def _system(fields: Fields) -> tuple[Message, ...]:
    text = content.contents(fields, "system") if "system" in fields else ()
    return (Message.of("system", text),) if text else ()


def _messages(fields: Fields) -> list[Message]:
    entries = fields.need("messages", fields.objects)
    if not entries:
        raise fields.fail("messages", "a list of at least one message")
    now = sent_now([entry.text("role") for entry in entries])
    messages: list[Message] = []
    for at, entry in enumerate(entries):
        messages += _turn(entry, at == now)
    return messages


def _turn(entry: Fields, now: bool) -> list[Message]:
    role = entry.need("role", entry.text)
    if role == "user":
        return _user(entry, now)
    if role == "assistant":
        return [_assistant(entry)]
    if role == "system":
        return [Message.of("system", content.contents(entry, "content"))]
    raise entry.fail("role", "user, assistant or system")


def _user(entry: Fields, now: bool) -> list[Message]:
    """Return a user's turn and the tool results in it, each a message of its own, in their order. A picture
    beside results is the tool's.
    """
    blocks = content.blocks(entry, "content")
    refuse = now and all(block.text("type") != "tool_result" for block in blocks)
    messages: list[Message] = []
    said: list[tuple[Part, ...]] = []
    for block in blocks:
        if block.text("type") != "tool_result":
            said.append(content.content(block, refuse=refuse))
            continue
        if said:
            messages.append(Message.of("user", content.apart(said)))
            said = []
        messages.append(_tool_result(block))
    if said or not messages:
        messages.append(Message.of("user", content.apart(said)))
    return messages


def _tool_result(block: Fields) -> Message:
    """Return a tool's answer; that it is an error is said in its text, since templates have no field for
    it.
    """
    given = content.contents(block, "content", refuse=False) if "content" in block else ()
    return Message.of(
        "tool",
        (TextPart("Error: "), *given) if block.flag("is_error") else given,
        tool_call_id=block.need("tool_use_id", block.text),
    )


def _assistant(entry: Fields) -> Message:
    text, reasoning, calls = "", "", []
    for block in content.blocks(entry, "content"):
        kind = block.need("type", block.text)
        if kind == "text":
            text += block.need("text", block.text)
        elif kind == "thinking":
            reasoning += block.need("thinking", block.text)
        elif kind == "tool_use":
            calls.append(_tool_use(block))
        elif kind != "redacted_thinking":
            text += content.unreadable(block, refuse=False).text
    return Message.of("assistant", text, reasoning=reasoning or None, tool_calls=tuple(calls))


def _tool_use(block: Fields) -> ToolCall:
    return ToolCall(
        id=block.need("id", block.text),
        name=block.need("name", block.text),
        arguments=block.need("input", block.mapping),
    )


# --- The answer --------------------------------------------------------------------------------


class MessageEncoder:
    """Events with contiguous block indexes, or a whole message.

    `stops` are the stop sequences of the request; `one_call` keeps only the first call, as
    `disable_parallel_tool_use` asks.
    """

    content_type = SSE_TYPE

    def __init__(
        self,
        model: str,
        *,
        answer_id: str | None = None,
        stops: Sequence[str] = (),
        one_call: bool = False,
    ) -> None:
        self._head = {
            "id": answer_id or new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._stops = stops
        self._one_call = one_call
        self._begun = False
        self._index = -1
        self._open_kind: Literal["text", "thinking"] | None = None
        self._before_delta = b""

    def encode(self, event: Event) -> bytes:
        """Return the events of one event: the message's and the block's start, the delta, the end."""
        start = b"" if self._begun else self._begin()
        match event:
            case TextDelta(text):
                return start + self._open("text") + self._delta(text)
            case ReasoningDelta(text):
                return start + self._open("thinking") + self._delta(text)
            case ToolCallDelta(index, call):
                return start + (b"" if self._one_call and index else self._call(call))
            case Finished():
                error = cut_off(event)
                return start + (self._finish(event) if error is None else self.error(error))

    def error(self, error: RKLLamaError) -> bytes:
        """Return the error event, on which the official clients raise."""
        return sse(error_body(error), "error")

    def alive(self, before: int) -> bytes:  # noqa: ARG002 - the API has no word for it
        """Return a ping, after the message's start: clients expect that first."""
        start = b"" if self._begun else self._begin()
        return start + _event("ping")

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return a message; its blocks are in the order of the events. Raises Cancelled where the model was
        unloaded meanwhile.
        """
        blocks: list[dict[str, Any]] = []
        for event in events:
            match event:
                case TextDelta(text):
                    _grow(blocks, "text", text)
                case ReasoningDelta(text):
                    _grow(blocks, "thinking", text)
                case ToolCallDelta(index, call):
                    if not (self._one_call and index):
                        blocks.append(_call_block(call, call.arguments))
                case Finished():
                    if (error := cut_off(event)) is not None:
                        raise error
                    usage = {"input_tokens": 0, **_usage_body(event.usage)}
                    return {
                        **self._head,
                        "content": blocks,
                        **self._ending(event),
                        "usage": usage,
                    }
        raise RuntimeError("an answer's events ended without Finished")

    def _begin(self) -> bytes:
        """Return the start; how many tokens the prompt has is not known yet, and the API has no word for
        that: the figures come with message_delta.
        """
        self._begun = True
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def _open(self, kind: Literal["text", "thinking"]) -> bytes:
        """Begin a block, unless it is the one that grows already."""
        if kind == self._open_kind:
            return b""
        frames = self._close()
        self._index += 1
        self._open_kind = kind
        self._before_delta = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":'
            % (self._index, kind.encode(), kind.encode())
        )
        block = _text_block(kind, "")
        return frames + _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        if self._open_kind is None:
            return b""
        self._open_kind = None
        return _event("content_block_stop", index=self._index)

    def _delta(self, text: str) -> bytes:
        return self._before_delta + dump_text(text) + b"}}\n\n"

    def _call(self, call: ToolCall) -> bytes:
        frames = self._close()
        self._index += 1
        delta = {"type": "input_json_delta", "partial_json": dumps(call.arguments).decode()}
        block = _call_block(call, {})
        return (
            frames
            + _event("content_block_start", index=self._index, content_block=block)
            + _event("content_block_delta", index=self._index, delta=delta)
            + _event("content_block_stop", index=self._index)
        )

    def _finish(self, finished: Finished) -> bytes:
        usage = _usage_body(finished.usage)
        return (
            self._close()
            + _event("message_delta", delta=self._ending(finished), usage=usage)
            + _event("message_stop")
        )

    def _ending(self, finished: Finished) -> dict[str, Any]:
        """Return why it stopped; a stop string is named only where the request asked for it."""
        if finished.error is not None and finished.reason != "length":
            details = {"type": "refusal", "category": None, "explanation": finished.error}
            return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
        if finished.reason == "stop" and finished.stop in self._stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop}
        reason = _STOP_REASONS.get(finished.reason, "end_turn")
        return {"stop_reason": reason, "stop_sequence": None}


def _event(name: str, /, **values: Any) -> bytes:
    return sse({"type": name, **values}, name)


def _text_block(kind: str, text: str) -> dict[str, Any]:
    """Return a block of text or thinking; nothing here signs thinking."""
    signature = {"signature": ""} if kind == "thinking" else {}
    return {"type": kind, kind: text, **signature}


def _grow(blocks: list[dict[str, Any]], kind: str, text: str) -> None:
    if not blocks or blocks[-1]["type"] != kind:
        blocks.append(_text_block(kind, ""))
    blocks[-1][kind] += text


def _call_block(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts. The API counts what came from the cache apart from `input_tokens`, and needs an
    integer for `output_tokens`: an unknown one is 0.
    """
    body: dict[str, Any] = {"output_tokens": usage.completion_tokens or 0}
    if usage.prompt_tokens is not None:
        cached = usage.cached_tokens or 0
        body["input_tokens"] = usage.prompt_tokens - cached
        if usage.cached_tokens is not None:
            body["cache_read_input_tokens"] = cached
    return body


# --- Models ------------------------------------------------------------------------------------


def models_body(
    models: Iterable[ModelInfo],
    aliases: Iterable[Alias] = (),
    states: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`GET /v1/models`: all of them on one page. See openai.models_body."""
    data = [model_body(model, states=states) for model in models]
    data += [model_body(a.info, a.name, states) for a in aliases if a.info is not None]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def model_body(
    model: ModelInfo, alias: str | None = None, states: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`GET /v1/models/{id}`, which is the `alias` where there is one."""
    return {
        "type": "model",
        "id": alias or model.name,
        "display_name": model.name,
        "created_at": timestamp(model.modified),
        "lifecycle": "active",
        "max_input_tokens": model.context_length,
        "state": (states or {}).get(model.path, "unloaded"),
    }
