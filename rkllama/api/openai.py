"""OpenAI's Chat Completions, Completions, Models and Embeddings.

What is asked and cannot be honoured is a 400 that names the field. Ignored without harm: hints and
bookkeeping (user, metadata, store, service_tier, prediction, verbosity, prompt_cache_*, a user's name).
An answer that did not meet its JSON schema says why in `refusal`, so that the official client's parse()
does not parse it, and in an `error` beside the finish_reason; one that was cut off finishes with "length".
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, RKLLamaError, Unsupported
from ..types import (
    Alias,
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    Finished,
    ModelInfo,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from . import openai_parts as parts
from .common import (
    SSE_TYPE,
    Fields,
    Generation,
    cut_off,
    dump_text,
    dumps,
    fold_complete,
    new_id,
    sse,
    sse_comment,
)
from .openai_parts import error_body, read_messages

__all__ = [
    "ChatEncoder",
    "CompletionEncoder",
    "EmbeddingCall",
    "decode_chat",
    "decode_completion",
    "decode_embeddings",
    "error_body",
    "model_body",
    "models_body",
]

_NO_LOGIT_BIAS = "the runtime cannot change token probabilities"
_NOT_IN_CHAT = {
    "audio": "models here produce only text",
    "functions": "use 'tools'",
    "function_call": "use 'tool_choice'",
    "logit_bias": _NO_LOGIT_BIAS,
    "web_search_options": "there is no web search",
    "moderation": "there is no moderation",
}
_NOT_IN_COMPLETIONS = {
    "echo": "send the prompt's text yourself",
    "logit_bias": _NO_LOGIT_BIAS,
}
_FINISH_REASONS = {"length": "length", "tool_calls": "tool_calls"}
_DONE = b"data: [DONE]\n\n"
_TOKENS_FOR_TEXT = "send text, not tokens (LangChain: check_embedding_ctx_length=False)"


# --- Chat completions --------------------------------------------------------------------------


def decode_chat(
    body: object, *, answer_id: str | None = None, created: int | None = None
) -> Generation:
    """`POST /v1/chat/completions`. `answer_id` and `created` are made up unless given.

    Raises InvalidRequest.
    """
    fields = Fields(body)
    parts.refuse(fields, _NOT_IN_CHAT)
    parts.refuse_several(fields, "n")
    _refuse_modalities(fields)
    request = _chat_request(fields)
    encoder = ChatEncoder(
        request.model or "",
        answer_id=answer_id,
        created=created,
        include_usage=_include_usage(fields),
        logprobs=request.top_logprobs is not None,
        one_call=fields.flag("parallel_tool_calls") is False,
    )
    return Generation(request=request, stream=fields.flag("stream") or False, encoder=encoder)


def _chat_request(fields: Fields) -> ChatRequest:
    tools = _tools(fields)
    limit = parts.max_tokens(fields, "max_completion_tokens")
    think, variables = parts.thinking(fields)
    older_limit = parts.max_tokens(fields, "max_tokens")
    return ChatRequest(
        model=parts.model_name(fields),
        messages=read_messages(fields),
        sampling=parts.sampling(fields),
        max_tokens=older_limit if limit is None else limit,
        stop=parts.stop_strings(fields),
        think=think,
        template_variables=variables,
        tools=parts.allowed_tools(fields, tools),
        tool_choice=parts.tool_choice(fields, tools, lambda choice: choice.object("function")),
        format=parts.output_format(
            fields.object("response_format"), lambda form: form.need("json_schema", form.object)
        ),
        top_logprobs=_chat_logprobs(fields),
    )


def _refuse_modalities(fields: Fields) -> None:
    if any(kind != "text" for kind in fields.items("modalities") or ()):
        raise Unsupported("'modalities' may only be [\"text\"]", param="modalities")


def _include_usage(fields: Fields) -> bool:
    options = fields.object("stream_options")
    return options is not None and bool(options.flag("include_usage"))


def _chat_logprobs(fields: Fields) -> int | None:
    top = fields.integer("top_logprobs", 0, 20)
    if not fields.flag("logprobs"):
        if top:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        return None
    return top or 0


def _tools(fields: Fields) -> tuple[Tool, ...]:
    tools = []
    for entry in fields.objects("tools") or ():
        parts.need_function(entry)
        tools.append(parts.tool(entry.need("function", entry.object)))
    return tuple(tools)


class ChatEncoder:
    """Chunks that share id, time and model, or one chat.completion; `one_call` keeps only the first
    call, as `parallel_tool_calls: false` asks.
    """

    content_type = SSE_TYPE

    def __init__(
        self,
        model: str,
        *,
        answer_id: str | None = None,
        created: int | None = None,
        include_usage: bool = False,
        logprobs: bool = False,
        one_call: bool = False,
    ) -> None:
        self._head = _head(answer_id or new_id("chatcmpl-"), created, model)
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._one_call = one_call
        self._begun = False
        self._before = _chunk_head(self._head, "chat.completion.chunk", include_usage)
        self._before_text = self._before + b'"delta":{"content":'

    def encode(self, event: Event) -> bytes:
        """Return the chunks of one event; the first ones begin with the role's, the last ones are
        the finish_reason, the usage if it was asked for, and [DONE].
        """
        start = b"" if self._begun else self._begin()
        match event:
            case TextDelta(text, logprobs):
                scores = dumps(self._scores(logprobs)) if self._logprobs else b"null"
                after = b'},"logprobs":%b,"finish_reason":null}]}\n\n' % scores
                return start + self._before_text + dump_text(text) + after
            case ReasoningDelta(text):
                quoted = dump_text(text)
                return start + self._delta(
                    b'{"reasoning_content":%b,"reasoning":%b}' % (quoted, quoted)
                )
            case ToolCallDelta(index, call):
                if self._one_call and index:
                    return start
                calls = [{"index": index, **_call_body(call)}]
                return start + self._delta(dumps({"tool_calls": calls}))
            case Finished():
                error = cut_off(event)
                return start + (self._finish(event) if error is None else self.error(error))

    def error(self, error: RKLLamaError) -> bytes:
        """The frame on which OpenAI's clients raise APIError."""
        return sse(error_body(error))

    def alive(self, before: int) -> bytes:
        """Return a comment."""
        return sse_comment(before)

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return a chat.completion. Raises Cancelled where the model was unloaded meanwhile."""
        answer = fold_complete(events)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        message["refusal"] = _refusal(answer.finished)
        if answer.reasoning:
            message |= {"reasoning_content": answer.reasoning, "reasoning": answer.reasoning}
        if answer.tool_calls:
            calls = answer.tool_calls[:1] if self._one_call else answer.tool_calls
            message["content"] = answer.text or None
            message["tool_calls"] = [_call_body(call) for call in calls]
        scores = self._scores(answer.logprobs) if self._logprobs else None
        choice = {"index": 0, "message": message, "logprobs": scores} | _ending(answer.finished)
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_body(answer.finished.usage),
        }

    def _begin(self) -> bytes:
        self._begun = True
        return self._delta(b'{"role":"assistant","content":""}')

    def _delta(self, delta: bytes) -> bytes:
        return self._before + b'"delta":%b,"logprobs":null,"finish_reason":null}]}\n\n' % delta

    def _finish(self, finished: Finished) -> bytes:
        refusal = _refusal(finished)
        delta = {} if refusal is None else {"refusal": refusal}
        rest = dumps({"delta": delta, "logprobs": None, **_ending(finished)})
        frames = self._before + rest[1:] + b"]}\n\n"
        if self._include_usage:
            frames += _usage_frame(self._head, "chat.completion.chunk", finished.usage)
        return frames + _DONE

    @staticmethod
    def _scores(logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        return {"content": parts.logprob_items(logprobs), "refusal": None}


def _head(answer_id: str, created: int | None, model: str) -> dict[str, Any]:
    when = int(time.time()) if created is None else created
    return {"id": answer_id, "created": when, "model": model}


def _chunk_head(head: dict[str, Any], kind: str, usage: bool) -> bytes:
    """Everything of a chunk up to the inside of its only choice. Where the usage comes in a chunk of
    its own, it is null in all others.
    """
    shared = head | {"object": kind} | ({"usage": None} if usage else {})
    return b"data: " + dumps(shared)[:-1] + b',"choices":[{"index":0,'


def _usage_frame(head: dict[str, Any], kind: str, usage: Usage) -> bytes:
    return sse({**head, "object": kind, "choices": [], "usage": usage_body(usage)})


def _call_body(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": dumps(call.arguments).decode()}
    return {"id": call.id, "type": "function", "function": function}


def _refusal(finished: Finished) -> str | None:
    """Return why the answer has not the format, unless it was only cut off."""
    return None if finished.reason == "length" else finished.error


def _ending(finished: Finished) -> dict[str, Any]:
    reason = _FINISH_REASONS.get(finished.reason, "stop")
    if finished.error is not None:
        error = {"message": finished.error, "code": "format_not_met"}
        return {"finish_reason": reason, "error": error}
    return {"finish_reason": reason}


def usage_body(usage: Usage) -> dict[str, Any] | None:
    """Token counts, None where the backend has none (see `is_known`)."""
    if not parts.is_known(usage):
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage.cached_tokens is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return body


# --- Completions -------------------------------------------------------------------------------


def decode_completion(
    body: object, *, answer_id: str | None = None, created: int | None = None
) -> Generation:
    """`POST /v1/completions`: the prompt is continued as it is, without a chat template; with a
    `suffix` the template puts the two where the model fills in. Raises InvalidRequest.
    """
    fields = Fields(body)
    parts.refuse(fields, _NOT_IN_COMPLETIONS)
    parts.refuse_several(fields, "n")
    parts.refuse_several(fields, "best_of")
    suffix = fields.text("suffix") or None
    request = ChatRequest(
        model=parts.model_name(fields),
        prompt=_prompt(fields),
        raw=suffix is None,
        suffix=suffix,
        sampling=parts.sampling(fields),
        max_tokens=parts.max_tokens(fields, "max_tokens"),
        stop=parts.stop_strings(fields),
        top_logprobs=fields.integer("logprobs", 0, 20),
    )
    encoder = CompletionEncoder(
        request.model or "",
        answer_id=answer_id,
        created=created,
        include_usage=_include_usage(fields),
        logprobs=request.top_logprobs is not None,
    )
    return Generation(request=request, stream=fields.flag("stream") or False, encoder=encoder)


def _prompt(fields: Fields) -> str:
    value = fields.raw("prompt")
    if isinstance(value, list) and value and not isinstance(value[0], str):
        raise Unsupported("'prompt' must be text, not tokens", param="prompt")
    prompts = fields.need("prompt", fields.texts)
    if len(prompts) != 1:
        raise Unsupported("'prompt' must be one text: one request gives one answer", param="prompt")
    if not prompts[0]:
        raise fields.fail("prompt", "a text that is not empty")
    return prompts[0]


class CompletionEncoder:
    """Chunks of text_completion, or a whole one."""

    content_type = SSE_TYPE

    def __init__(
        self,
        model: str,
        *,
        answer_id: str | None = None,
        created: int | None = None,
        include_usage: bool = False,
        logprobs: bool = False,
    ) -> None:
        self._head = _head(answer_id or new_id("cmpl-"), created, model)
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._offset = 0
        self._before = _chunk_head(self._head, "text_completion", include_usage)

    def encode(self, event: Event) -> bytes:
        """Return one chunk per text; there is no field for thinking, so it is part of the text here, and
        tools cannot be asked for.
        """
        match event:
            case TextDelta(text, logprobs):
                scores = dumps(self._scores(logprobs)) if self._logprobs else b"null"
                after = b',"logprobs":%b,"finish_reason":null}]}\n\n' % scores
                return self._before + b'"text":' + dump_text(text) + after
            case ReasoningDelta(text):
                return self.encode(TextDelta(text))
            case ToolCallDelta():
                return b""
            case Finished():
                error = cut_off(event)
                return self._finish(event) if error is None else self.error(error)

    def error(self, error: RKLLamaError) -> bytes:
        """The frame on which OpenAI's clients raise APIError."""
        return sse(error_body(error))

    def alive(self, before: int) -> bytes:
        """Return a comment."""
        return sse_comment(before)

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return a text_completion. Raises Cancelled where the model was unloaded meanwhile."""
        answer = fold_complete(events)
        scores = self._scores(answer.logprobs) if self._logprobs else None
        choice = {"index": 0, "text": answer.reasoning + answer.text, "logprobs": scores}
        return {
            **self._head,
            "object": "text_completion",
            "choices": [choice | _ending(answer.finished)],
            "usage": usage_body(answer.finished.usage),
        }

    def _finish(self, finished: Finished) -> bytes:
        rest = dumps({"text": "", "logprobs": None, **_ending(finished)})
        frames = self._before + rest[1:] + b"]}\n\n"
        if self._include_usage:
            frames += _usage_frame(self._head, "text_completion", finished.usage)
        return frames + _DONE

    def _scores(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        offsets = []
        for item in logprobs:
            offsets.append(self._offset)
            self._offset += len(item.token)
        return {
            "tokens": [item.token for item in logprobs],
            "token_logprobs": [parts.finite(item.logprob) for item in logprobs],
            "top_logprobs": [
                {other.token: parts.finite(other.logprob) for other in item.top}
                for item in logprobs
            ],
            "text_offset": offsets,
        }


# --- Models and embeddings ---------------------------------------------------------------------


def models_body(
    models: Iterable[ModelInfo],
    aliases: Iterable[Alias] = (),
    states: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`GET /v1/models`. `states` is how the models in memory are, by path."""
    data = [model_body(model, states=states) for model in models]
    data += [model_body(a.info, a.name, states) for a in aliases if a.info is not None]
    return {"object": "list", "data": data}


def model_body(
    model: ModelInfo, alias: str | None = None, states: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`GET /v1/models/{id}`; with the name of an `alias` of the model, that is its id, and the model its
    root. `state` is "unloaded" for what is not in memory.
    """
    body = {
        "id": alias or model.name,
        "object": "model",
        "created": int(model.modified),
        "owned_by": "rkllama",
        "state": (states or {}).get(model.path, "unloaded"),
    }
    return body if alias is None else {**body, "root": model.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """A decoded request for vectors; `base64` is how they are written (little-endian float32)."""

    request: EmbeddingRequest
    base64: bool

    def body(self, result: EmbeddingResult) -> dict[str, Any]:
        """Return the answer, without `usage` where the backend has no count."""
        write = _packed if self.base64 else _plain
        data = [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(result.vectors)
        ]
        body: dict[str, Any] = {"object": "list", "data": data, "model": self.request.model}
        if (tokens := result.usage.prompt_tokens) is not None:
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return body


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _plain(vector: Sequence[float]) -> list[float]:
    return [float(value) for value in vector]


def decode_embeddings(body: object) -> EmbeddingCall:
    """`POST /v1/embeddings`. As at OpenAI, an input that is too long or empty is an error.

    Raises InvalidRequest.
    """
    fields = Fields(body)
    encoding = fields.text("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise fields.fail("encoding_format", "float or base64")
    request = EmbeddingRequest(
        model=parts.model_name(fields),
        inputs=_inputs(fields),
        truncate=False,
        dimensions=fields.integer("dimensions", 1),
    )
    return EmbeddingCall(request=request, base64=encoding == "base64")


def _inputs(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("input")
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise Unsupported("'input' contains tokens", param="input", hint=_TOKENS_FOR_TEXT)
    inputs = fields.need("input", fields.texts)
    if not inputs or not all(inputs):
        raise fields.fail("input", "one or more texts that are not empty")
    return inputs
