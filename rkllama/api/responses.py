"""OpenAI's Responses API.

What is asked and cannot be honoured is a 400 that names the field; bookkeeping (user, metadata,
service_tier, prompt_cache_*) is ignored. An answer that did not meet its JSON schema is incomplete without
`incomplete_details`, whose words do not fit, and carries the reason in `error`. Thinking is a reasoning
item: its summary where the request asks for one, else its content, never both, since there are clients
that show both. What may be referred to later is kept by a `Memory`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidRequest, RKLLamaError, Unsupported
from ..types import (
    ChatRequest,
    Event,
    Finished,
    Message,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from . import openai_parts as parts
from .common import (
    SSE_TYPE,
    Fields,
    Generation,
    client_text,
    cut_off,
    dump_text,
    dumps,
    new_id,
    sse,
    sse_comment,
)
from .openai_parts import error_body
from .responses_input import Memory, earlier_items, identified, items_body, own_items, read_messages
from .responses_tools import CallItem, Origin, ToolSet, read_choice, read_tools

__all__ = [
    "ResponseEncoder",
    "decode_input_tokens",
    "decode_response",
    "deleted_body",
    "error_body",
    "input_tokens_body",
    "items_body",
]

_REFUSED = {
    "conversation": "go on with 'previous_response_id', or send the whole conversation as 'input'",
    "prompt": "there are no stored prompts",
    "background": "answers cannot be generated in the background",
    "moderation": "there is no moderation",
    "context_management": "send the conversation as the model should see it",
}
_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"


# --- The request -------------------------------------------------------------------------------


def decode_response(
    body: object,
    *,
    memory: Memory | None = None,
    answer_id: str | None = None,
    created: int | None = None,
) -> Generation:
    """`POST /v1/responses`. `memory` is what the request may refer to, and keeps its answer unless `store` is
    false. `answer_id` and `created` are made up unless given. Raises InvalidRequest, NotStored.
    """
    fields = Fields(body)
    answer_id = answer_id or new_id("resp_")
    offered, items = read_tools(fields), own_items(fields, memory)
    request = _request(fields, offered, [*earlier_items(fields, memory), *items])
    encoder = ResponseEncoder(
        _echo(fields, request, offered),
        answer_id=answer_id,
        created=created,
        logprobs=request.top_logprobs is not None,
        origins=offered.origins,
        sealed=_SEALED in (fields.items("include") or ()),
    )
    if memory is not None and _is_stored(fields):
        encoder.keep_in(memory, identified(items, answer_id))
    return Generation(request=request, stream=fields.flag("stream") or False, encoder=encoder)


def decode_input_tokens(body: object, *, memory: Memory | None = None) -> ChatRequest:
    """`POST /v1/responses/input_tokens`: the request whose prompt is to be counted."""
    # The fields that count nothing are checked, too.
    return decode_response(body, memory=memory).request


def input_tokens_body(tokens: int | None) -> dict[str, Any]:
    """Return the count; Unsupported where the model's backend cannot count."""
    if tokens is None:
        raise Unsupported("this model's runtime cannot count tokens")
    return {"object": "response.input_tokens", "input_tokens": tokens}


def deleted_body(response_id: str) -> dict[str, Any]:
    """`DELETE /v1/responses/{id}`."""
    return {"id": response_id, "object": "response", "deleted": True}


def _is_stored(fields: Fields) -> bool:
    return fields.flag("store") is not False


def _request(fields: Fields, offered: ToolSet, items: Iterable[Fields]) -> ChatRequest:
    parts.refuse(fields, _REFUSED)
    if fields.text("truncation") not in (None, "disabled", "auto"):
        raise fields.fail("truncation", "auto or disabled")
    text = fields.object("text")
    think, variables = parts.thinking(fields)
    instructions = fields.text("instructions")
    system = [Message.of("system", instructions)] if instructions else []
    return ChatRequest(
        model=parts.model_name(fields),
        messages=(*system, *read_messages(items)),
        sampling=parts.sampling(fields),
        max_tokens=parts.max_tokens(fields, "max_output_tokens"),
        think=think,
        template_variables=variables,
        tools=parts.allowed_tools(fields, offered.tools),
        tool_choice=read_choice(fields, offered),
        format=parts.output_format(text and text.object("format"), lambda form: form),
        top_logprobs=_top_logprobs(fields),
        truncate=fields.text("truncation") == "auto",
    )


def _top_logprobs(fields: Fields) -> int | None:
    """How many, where `include` asks for them or `top_logprobs` for some; its default is 0."""
    top = fields.integer("top_logprobs", 0, 20) or 0
    asked = _LOGPROBS in (fields.items("include") or ())
    return top if asked or top else None


def _echo(fields: Fields, request: ChatRequest, offered: ToolSet) -> dict[str, Any]:
    """Return what every response object repeats of its request."""
    text, reasoning = fields.mapping("text"), fields.object("reasoning")
    return {
        "background": False,
        "instructions": fields.text("instructions"),
        "max_output_tokens": request.max_tokens,
        "metadata": fields.mapping("metadata") or {},
        "model": request.model,
        "parallel_tool_calls": fields.flag("parallel_tool_calls") is not False,
        "previous_response_id": fields.text("previous_response_id") or None,
        "reasoning": {
            "effort": reasoning and reasoning.text("effort"),
            "summary": reasoning
            and (reasoning.text("summary") or reasoning.text("generate_summary")),
        },
        "store": False,  # see keep_in
        "temperature": request.sampling.temperature,
        "text": text or {"format": {"type": "text"}},
        "tool_choice": fields.raw("tool_choice") or "auto",
        "tools": list(offered.echo),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.sampling.top_p,
        "truncation": "auto" if request.truncate else "disabled",
        "user": fields.text("user"),
    }


# --- The answer --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """An output item that grows by text: its names, where its text stands in it, and the events that tell
    of that.
    """

    item: Literal["message", "reasoning"]
    prefix: str
    list: Literal["content", "summary"]
    part: Literal["output_text", "reasoning_text", "summary_text"]
    part_event: str
    text_event: str
    index: str
    extras: Mapping[str, Any]


_MESSAGE = _Kind(
    item="message",
    prefix="msg_",
    list="content",
    part="output_text",
    part_event="response.content_part",
    text_event="response.output_text",
    index="content_index",
    extras={"role": "assistant"},
)
_THOUGHTS = _Kind(
    item="reasoning",
    prefix="rs_",
    list="content",
    part="reasoning_text",
    part_event="response.content_part",
    text_event="response.reasoning_text",
    index="content_index",
    extras={"summary": []},
)
_SUMMARY = _Kind(
    item="reasoning",
    prefix="rs_",
    list="summary",
    part="summary_text",
    part_event="response.reasoning_summary_part",
    text_event="response.reasoning_summary_text",
    index="summary_index",
    extras={},
)


class ResponseEncoder:
    """A response object that grows item by item, and the events that tell of it.

    `echo` is what the object repeats of its request; thinking is a summary where that asks for one.
    `sealed` gives it an `encrypted_content`: clients that ask for that send back no thinking without it.
    """

    content_type = SSE_TYPE

    def __init__(
        self,
        echo: Mapping[str, Any],
        *,
        answer_id: str | None = None,
        created: int | None = None,
        logprobs: bool = False,
        origins: Mapping[str, Origin] | None = None,
        sealed: bool = False,
    ) -> None:
        self._origins = origins or {}
        self._suffix = (answer_id or new_id("resp_")).removeprefix("resp_")
        self._created = int(time.time()) if created is None else created
        self._echo = echo
        self._logprobs = logprobs
        self._thinking = _SUMMARY if echo["reasoning"]["summary"] else _THOUGHTS
        self._sealed = sealed
        self._one_call = echo.get("parallel_tool_calls") is False
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._kind: _Kind | None = None
        self._text: list[str] = []
        self._scores: list[dict[str, Any]] = []
        self._before_delta = b""
        self._final: dict[str, Any] | None = None
        self._keep: Callable[[Mapping[str, Any]], None] | None = None

    def keep_in(self, memory: Memory, inputs: Sequence[Any]) -> None:
        """Have the complete response kept, with the items that it answers."""
        self._echo = {**self._echo, "store": True}
        self._keep = lambda response: memory.keep(response, inputs)

    def encode(self, event: Event) -> bytes:
        """Return the events of one event: of the item that it opens, of its text, of the end."""
        start = b"" if self._sequence else self._begin()
        match event:
            case TextDelta(text, logprobs):
                return start + self._open(_MESSAGE) + self._text_delta(text, logprobs)
            case ReasoningDelta(text):
                return start + self._open(self._thinking) + self._delta(text, b"")
            case ToolCallDelta(index, call):
                return start + (b"" if self._one_call and index else self._call(call))
            case Finished():
                error = cut_off(event)
                return start + (self._finish(event) if error is None else self.error(error))

    def error(self, error: RKLLamaError) -> bytes:
        """Return an error event and response.failed. The official clients raise on the event's `error`, which
        their types do not have: these have code, message and param in the event itself.
        """
        start = b"" if self._sequence else self._begin()
        code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
        failed = self._response("failed", error={"code": code, "message": client_text(error)})
        body = error_body(error)
        told = {name: body["error"][name] for name in ("code", "message", "param")}
        return (
            start
            + self._event("error", **told, **body)
            + self._event("response.failed", response=failed)
        )

    def alive(self, before: int) -> bytes:
        """Return a comment."""
        return sse_comment(before)

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return the response object. Raises Cancelled where the model was unloaded meanwhile."""
        for event in events:
            if isinstance(event, Finished) and (error := cut_off(event)) is not None:
                raise error
            self.encode(event)
        if self._final is None:
            raise RuntimeError("an answer's events ended without Finished")
        return self._final

    # Frames

    def _event(self, name: str, /, **values: Any) -> bytes:
        sequence, self._sequence = self._sequence, self._sequence + 1
        return sse({"type": name, **values, "sequence_number": sequence}, name)

    def _begin(self) -> bytes:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _text_delta(self, text: str, logprobs: Iterable[TokenLogprob]) -> bytes:
        if not self._logprobs:
            return self._delta(text, b',"logprobs":[]')
        scores = parts.logprob_items(logprobs)
        self._scores.extend(scores)
        return self._delta(text, b',"logprobs":' + dumps(scores))

    def _delta(self, text: str, rest: bytes) -> bytes:
        self._text.append(text)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return b'%b%b%b,"sequence_number":%d}\n\n' % (
            self._before_delta,
            dump_text(text),
            rest,
            sequence,
        )

    def _open(self, kind: _Kind) -> bytes:
        """Begin an item of text, unless it is the one that grows already."""
        if kind is self._kind:
            return b""
        frames = self._close()
        self._kind, self._text, self._scores = kind, [], []
        where = self._where()
        name = f"{kind.text_event}.delta"
        head = dumps({"type": name, **where, kind.index: 0})
        self._before_delta = b'event: %b\ndata: %b,"delta":' % (name.encode(), head[:-1])
        return (
            frames
            + self._item_event("added", self._item(kind, "in_progress", []))
            + self._event(
                f"{kind.part_event}.added", **where, **{kind.index: 0}, part=self._part(kind, "")
            )
        )

    def _close(self, status: str = "completed") -> bytes:
        """End the item of text that grows, if there is one."""
        kind = self._kind
        if kind is None:
            return b""
        text, where = "".join(self._text), self._where() | {kind.index: 0}
        scores = {"logprobs": self._scores} if kind is _MESSAGE else {}
        part = self._part(kind, text)
        item = self._item(kind, status, [part])
        frames = (
            self._event(f"{kind.text_event}.done", **where, text=text, **scores)
            + self._event(f"{kind.part_event}.done", **where, part=part)
            + self._item_event("done", item)
        )
        self._kind = None
        self._output.append(item)
        return frames

    def _call(self, call: ToolCall) -> bytes:
        frames = self._close()
        made = CallItem.of(call, self._origins.get(call.name))
        item = {
            "type": made.type,
            "id": self._item_id(made.prefix),
            "call_id": call.id,
            **made.names,
            made.grows: made.text,
            "status": "completed",
        }
        where = {"item_id": item["id"], "output_index": len(self._output)}
        frames += (
            self._item_event("added", item | {made.grows: "", "status": "in_progress"})
            + self._event(f"{made.events}.delta", **where, delta=made.text)
            + self._event(f"{made.events}.done", **where, **made.done)
            + self._item_event("done", item)
        )
        self._output.append(item)
        return frames

    def _item_event(self, what: str, item: Mapping[str, Any]) -> bytes:
        return self._event(
            f"response.output_item.{what}", output_index=len(self._output), item=item
        )

    def _finish(self, finished: Finished) -> bytes:
        """Return the end; an answer without any item gets an empty message, as clients look for one."""
        reason = "max_output_tokens" if finished.reason == "length" else None
        unmet = finished.error if reason is None else None
        status = "completed" if reason is None and unmet is None else "incomplete"
        frames = b"" if self._output or self._kind else self._open(_MESSAGE)
        frames += self._close(status)
        self._final = self._response(
            status,
            error=unmet and {"code": "server_error", "message": unmet},
            incomplete_details=reason and {"reason": reason},
            usage=_usage_body(finished.usage),
        )
        if self._keep is not None:
            self._keep(self._final)
        return frames + self._event(f"response.{status}", response=self._final)

    # Objects

    def _response(self, status: str, **values: Any) -> dict[str, Any]:
        return {
            "id": f"resp_{self._suffix}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            **self._echo,
            "output": list(self._output),
            "usage": None,
            **values,
        }

    def _where(self) -> dict[str, Any]:
        """Return the open item's id and place, as each of its events tells them."""
        assert self._kind is not None
        return {
            "item_id": self._item_id(self._kind.prefix),
            "output_index": len(self._output),
        }

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}{self._suffix}_{len(self._output)}"

    def _item(self, kind: _Kind, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        item_id = self._item_id(kind.prefix)
        seal = {"encrypted_content": item_id} if self._sealed and kind is not _MESSAGE else {}
        return {
            "type": kind.item,
            "id": item_id,
            "status": status,
            **kind.extras,
            **seal,
            kind.list: content,
        }

    def _part(self, kind: _Kind, text: str) -> dict[str, Any]:
        if kind is not _MESSAGE:
            return {"type": kind.part, "text": text}
        return {"type": kind.part, "text": text, "annotations": [], "logprobs": self._scores}


def _usage_body(usage: Usage) -> dict[str, Any] | None:
    """Token counts, None where the backend has none (see `is_known`)."""
    if not parts.is_known(usage):
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
