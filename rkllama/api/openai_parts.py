"""What OpenAI's Chat Completions and Responses share: errors, messages, content, tools, sampling,
log-probabilities.

The two APIs write the same things at different depths, so these readers take the object at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS
from ..errors import InvalidRequest, PromptTooLong, RKLLamaError, Unsupported
from ..types import (
    Message,
    Part,
    SamplingParams,
    SentImage,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
    fold_seed,
    joined_parts,
    text_parts,
)
from .common import (
    Fields,
    Think,
    client_text,
    data_text,
    join_think,
    left_out,
    read_arguments,
    read_effort,
    sent_now,
)
from .content.pictures import IMAGE_KINDS, image_part
from .options import read_thinking

Format = Literal["json"] | Mapping[str, Any] | None

_ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 499: "api_error"}
_LEAST_LOGPROB = -9999.0
"""What the API writes for a probability of zero, for which JSON has no number."""


def error_body(error: RKLLamaError) -> dict[str, Any]:
    """Return the body of an error; a prompt that is too long has the code by which clients know it."""
    client = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    return {
        "error": {
            "message": client_text(error),
            "type": _ERROR_TYPES.get(error.status, client),
            "param": getattr(error, "param", None),
            "code": error_code(error),
        }
    }


def error_code(error: RKLLamaError) -> str:
    """Return the error's own code, except where clients look for OpenAI's."""
    return "context_length_exceeded" if isinstance(error, PromptTooLong) else error.code


def refuse(body: Fields, reasons: Mapping[str, str]) -> None:
    """Unsupported for the first of `reasons` that the body sets to more than false or empty."""
    for name, reason in reasons.items():
        if body.raw(name) not in (None, False, [], {}, ""):
            raise Unsupported(f"'{name}' is not supported: {reason}", param=name)


def refuse_several(body: Fields, name: str) -> None:
    """Unsupported where `name` asks for more than one answer."""
    if (body.integer(name, 1) or 1) > 1:
        raise Unsupported(f"'{name}' must be 1: one request gives one answer", param=name)


def model_name(body: Fields) -> str:
    """Return the model, which OpenAI's APIs require."""
    name = body.need("model", body.text)
    if not name:
        raise body.fail("model", "the name of a model")
    return name


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """`messages` of a chat completion, in their order; the roles and fields that OpenAI has replaced
    (function, function_call) are read like their successors. Raises InvalidRequest.
    """
    messages = fields.need("messages", fields.objects)
    if not messages:
        raise fields.fail("messages", "a list of at least one message")
    now = sent_now([message.text("role") for message in messages])
    return tuple(_message(message, at == now) for at, message in enumerate(messages))


def _message(message: Fields, now: bool) -> Message:
    role = message.need("role", message.text)
    if role == "user":
        return Message.of("user", _content(message, refuse=now))
    if role in ("system", "developer"):
        return Message.of("system", _content(message))
    if role == "assistant":
        return _assistant(message)
    if role == "tool":
        return Message.of(
            "tool",
            content(message, refuse=False) or (),
            tool_call_id=message.need("tool_call_id", message.text),
            tool_name=message.text("name"),
        )
    if role == "function":
        name = message.need("name", message.text)
        return Message.of("tool", content(message, refuse=False) or (), tool_name=name)
    raise message.fail("role", "system, developer, user, assistant or tool")


def _content(message: Fields, *, refuse: bool = True) -> tuple[Part, ...]:
    return message.need("content", lambda name: content(message, name, refuse=refuse))


def _assistant(message: Fields) -> Message:
    said = content(message, refuse=False)
    refusal = message.text("refusal")
    reasoning = message.text("reasoning_content")
    return Message.of(
        "assistant",
        refusal or "" if said is None else said,
        reasoning=message.text("reasoning") if reasoning is None else reasoning,
        tool_calls=_tool_calls(message),
    )


def _tool_calls(message: Fields) -> tuple[ToolCall, ...]:
    calls = [_tool_call(call) for call in message.objects("tool_calls") or ()]
    deprecated = message.object("function_call")
    if deprecated is not None:
        calls.append(_called("", deprecated))
    return tuple(calls)


def _tool_call(call: Fields) -> ToolCall:
    if "type" in call:
        need_function(call)
    return _called(call.need("id", call.text), call.need("function", call.object))


def _called(call_id: str, function: Fields) -> ToolCall:
    name = function.need("name", function.text)
    return ToolCall(id=call_id, name=name, arguments=arguments(function))


def content(
    message: Fields, name: str = "content", *, refuse: bool = True
) -> tuple[Part, ...] | None:
    """What came as a string or as parts; None when absent. What is neither text nor picture is Unsupported,
    or told in words unless `refuse`; so is a picture, once it is known that the model has no eyes.
    """
    value = message.raw(name)
    if value is None:
        return None
    if isinstance(value, str):
        return text_parts(message.text(name) or "")
    if not isinstance(value, list):
        raise message.fail(name, "a string or a list of parts")
    return joined_parts(_part(part, refuse) for part in message.objects(name) or ())


def text_content(message: Fields, name: str = "content") -> str:
    """Return the text of what `content` reads, "" when absent; a picture is told in words."""
    parts = content(message, name, refuse=False) or ()
    return "".join(p.instead if isinstance(p, SentImage) else p.text for p in parts)


_NOT_TEXT = frozenset(
    {"image_file", "input_audio", "file", "input_file", "input_video"}
    | {"video_url", "audio_url", "computer_screenshot"}
)


def _part(part: Fields, refuse: bool) -> Part:
    kind = part.need("type", part.text)
    if kind in IMAGE_KINDS:
        return image_part(part, refuse=refuse)
    return TextPart(_text(part, kind, refuse))


def _text(part: Fields, kind: str, refuse: bool) -> str:
    if kind in ("text", "input_text", "output_text", "summary_text", "reasoning_text"):
        return part.need("text", part.text)
    if kind == "refusal":
        return part.need("refusal", part.text)
    holder = part.object("file") if kind == "file" else part if kind == "input_file" else None
    if holder is not None and (text := _file_text(holder)) is not None:
        return text
    if not refuse and kind in _NOT_TEXT:
        name = None if holder is None else holder.text("filename")
        return left_out(kind.removeprefix("input_").removesuffix("_url"), name)
    raise Unsupported(
        f"'{part.where}type' is '{kind[:40]}': models here accept only text and pictures",
        param=f"{part.where}type",
    )


def _file_text(file: Fields) -> str | None:
    """Return the text of a file that came as a data URL of a text type, under its name."""
    head, comma, data = (file.text("file_data") or "").partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    text = data_text(head.removeprefix("data:").removesuffix(";base64"), data)
    name = file.text("filename")
    return text if text is None or not name else f"{name}:\n\n{text}\n\n"


def arguments(call: Fields) -> Mapping[str, Any]:
    """Return a call's `arguments`, which have to be there; see `read_arguments`."""
    call.need("arguments", call.raw)
    return read_arguments(call)


def sampling(body: Fields) -> SamplingParams:
    """Return the sampling fields; top_k, min_p and repeat_penalty are not OpenAI's, but what servers of
    local models take. A seed may have 64 bits: equal seeds stay equal in the 31 that backends take.
    """
    seed = body.integer("seed", *INTEGER_BOUNDS["seed"])
    return SamplingParams(
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", *NUMBER_BOUNDS["top_p"]),
        top_k=body.integer("top_k", *INTEGER_BOUNDS["top_k"]),
        min_p=body.number("min_p", *NUMBER_BOUNDS["min_p"]),
        repeat_penalty=body.number("repeat_penalty", *NUMBER_BOUNDS["repeat_penalty"]),
        frequency_penalty=body.number("frequency_penalty", *NUMBER_BOUNDS["frequency_penalty"]),
        presence_penalty=body.number("presence_penalty", *NUMBER_BOUNDS["presence_penalty"]),
        seed=None if seed is None else fold_seed(seed),
    )


def max_tokens(body: Fields, name: str) -> int | None:
    """Return a limit of at least one token; -1, which several clients send for "no limit", is passed on."""
    limit = body.integer(name, -1)
    if limit == 0:
        raise body.fail(name, "at least 1")
    return limit


def stop_strings(body: Fields) -> tuple[str, ...]:
    """`stop`; an empty string would end every answer at once and is dropped."""
    return tuple(stop for stop in body.texts("stop") or () if stop)


def thinking(body: Fields) -> tuple[Think, dict[str, Any]]:
    """Return `think`, by whichever of its names it is set, and the further variables of the template.

    These names are `reasoning_effort` and `reasoning.effort` (OpenAI, OpenRouter), `enable_thinking`
    (Qwen), `think` (Ollama), `thinking.type` (GLM, DeepSeek), and the template's own in
    `chat_template_kwargs` (vLLM).
    """
    think, variables = read_thinking(body)
    reasoning = body.object("reasoning") or Fields({})
    said = (
        think,
        body.flag("enable_thinking"),
        _thinking_type(body),
        reasoning.flag("enabled"),
        read_effort(reasoning, "effort"),
        read_effort(body, "reasoning_effort"),
    )
    return join_think(said), variables


def _thinking_type(body: Fields) -> bool | None:
    """`thinking`: an object whose type is enabled, disabled or auto."""
    thinking = body.object("thinking")
    kind = None if thinking is None else thinking.text("type")
    return {"enabled": True, "disabled": False}.get(kind or "")


def output_format(form: Fields | None, schema_at: Callable[[Fields], Fields | None]) -> Format:
    """Return a format object; `schema_at` finds the one in it that holds `schema`. Without a schema,
    json_schema means any JSON.
    """
    kind = None if form is None else form.need("type", form.text)
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        raise form.fail("type", "text, json_object or json_schema")
    holder = schema_at(form)
    schema = None if holder is None else holder.mapping("schema")
    return "json" if schema is None else schema


def tool(function: Fields) -> Tool:
    """Return a function's definition."""
    name = function.need("name", function.text)
    if not name:
        raise function.fail("name", "the name of a function")
    return Tool(
        name=name,
        description=function.text("description") or "",
        parameters=function.mapping("parameters") or {},
    )


def need_function(entry: Fields) -> None:
    """Unsupported for a tool that is not a function: there are no built-in ones here."""
    kind = entry.need("type", entry.text)
    if kind != "function":
        raise Unsupported(
            f"'{entry.where}type' is '{kind[:40]}': only function tools are supported",
            param=f"{entry.where}type",
        )


def tool_choice(
    body: Fields, tools: Sequence[Tool], named: Callable[[Fields], Fields | None]
) -> str:
    """`tool_choice` in the core's words; `named` finds the object with the name of a forced function."""
    value = body.raw("tool_choice")
    if value is None:
        return "auto"
    if isinstance(value, dict):
        choice = body.need("tool_choice", body.object)
        if choice.text("type") != "allowed_tools":
            return _forced(choice, tools, named)
        allowed = _allowed(choice)
        value, tools = allowed.text("mode") or "auto", allowed_tools(body, tools)
        if value not in ("auto", "required"):
            raise allowed.fail("mode", "auto or required")
    if value not in ("none", "auto", "required"):
        raise body.fail("tool_choice", "none, auto, required or a function")
    if value == "required" and not tools:
        raise InvalidRequest("'tool_choice' is required, but there are no tools", param="tools")
    return str(value)


def allowed_tools(body: Fields, tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Return those of the tools that a `tool_choice` of the type allowed_tools names; all, without one."""
    choice = body.object("tool_choice") if isinstance(body.raw("tool_choice"), dict) else None
    if choice is None or choice.text("type") != "allowed_tools":
        return tuple(tools)
    names = set()
    for entry in _allowed(choice).objects("tools") or ():
        holder = entry.object("function") or entry
        if entry.text("type") in ("function", "custom", None):
            names.add(holder.need("name", holder.text))
    for name in names:
        _need_tool(name, tools)
    return tuple(tool for tool in tools if tool.name in names)


def _need_tool(name: str, tools: Sequence[Tool]) -> None:
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(
            f"'tool_choice' names '{name}', which is not among the tools", param="tool_choice"
        )


def _allowed(choice: Fields) -> Fields:
    """Return the object with mode and tools: Chat Completions has it one level deeper than Responses."""
    allowed = choice.object("allowed_tools") or choice
    allowed.need("tools", allowed.items)
    return allowed


def _forced(choice: Fields, tools: Sequence[Tool], named: Callable[[Fields], Fields | None]) -> str:
    need_function(choice)
    holder = named(choice)
    if holder is None:
        raise InvalidRequest("'tool_choice' does not name a function", param="tool_choice")
    name = holder.need("name", holder.text)
    _need_tool(name, tools)
    return f"function:{name}"


def logprob_items(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities with the bytes of each token and its alternatives."""
    return [
        {**_logprob(item), "top_logprobs": [_logprob(other) for other in item.top]}
        for item in logprobs
    ]


def _logprob(item: TokenLogprob) -> dict[str, Any]:
    return {
        "token": item.token,
        "logprob": finite(item.logprob),
        "bytes": list(item.token.encode("utf-8", "replace")),
    }


def finite(logprob: float) -> float:
    """Return the log-probability as a number that JSON has."""
    return max(logprob, _LEAST_LOGPROB)


def is_known(usage: Usage) -> bool:
    """Return whether the backend counted all. Where it did not, there is no usage at all: its fields are
    integers, which clients add up, but the whole may be null.
    """
    return usage.prompt_tokens is not None and usage.completion_tokens is not None
