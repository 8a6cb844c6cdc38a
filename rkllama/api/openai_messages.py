"""The conversation of a chat completion, as messages.

The roles and fields that OpenAI has replaced (function, function_call) are read like their successors.
"""

from __future__ import annotations

from ..types import Message, ToolCall
from . import openai_parts as parts
from .common import Fields


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """`messages`, in their order. Raises InvalidRequest."""
    messages = fields.need("messages", fields.objects)
    if not messages:
        raise fields.fail("messages", "a list of at least one message")
    return tuple(_message(message) for message in messages)


def _message(message: Fields) -> Message:
    role = message.need("role", message.text)
    if role == "user":
        return Message(role="user", content=_content(message))
    if role in ("system", "developer"):
        return Message(role="system", content=_content(message))
    if role == "assistant":
        return _assistant(message)
    if role == "tool":
        return Message(
            role="tool",
            content=parts.content(message) or "",
            tool_call_id=message.need("tool_call_id", message.text),
            tool_name=message.text("name"),
        )
    if role == "function":
        name = message.need("name", message.text)
        return Message(role="tool", content=parts.content(message) or "", tool_name=name)
    raise message.fail("role", "system, developer, user, assistant or tool")


def _content(message: Fields) -> str:
    return message.need("content", lambda name: parts.content(message, name))


def _assistant(message: Fields) -> Message:
    text = parts.content(message)
    refusal = message.text("refusal")
    reasoning = message.text("reasoning_content")
    return Message(
        role="assistant",
        content=refusal or "" if text is None else text,
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
        parts.need_function(call)
    return _called(call.need("id", call.text), call.need("function", call.object))


def _called(call_id: str, function: Fields) -> ToolCall:
    name = function.need("name", function.text)
    return ToolCall(id=call_id, name=name, arguments=parts.arguments(function))
