"""The conversation of a Responses request: items in, messages out.

Items that stand for what a server did itself (a search, a program that ran) are told to the model as
calls and their results, or left out where nothing of them can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..errors import InvalidRequest, NotStored, Unsupported
from ..types import Message, Part, ToolCall
from . import openai_parts as parts
from .common import Fields, dumps, sent_now
from .responses_tools import read_call

_LEFT_OUT = (
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "compaction",
    "compaction_summary",
    "context_compaction",
    "compaction_trigger",
    "ghost_snapshot",
    "additional_tools",
)
"""Bookkeeping, and what only OpenAI's servers can read."""
_ASKED = ("action", "actions", "operation", "queries", "code", "arguments", "execution")
_FOUND = ("output", "outputs", "results", "tools", "error")


_MADE_HERE = re.compile(r"[a-z]+_(.+)_i?\d+")
_MOST_LISTED = 100


class Memory(Protocol):
    """The responses to which a request may refer."""

    def conversation(self, response_id: str) -> list[Any]:
        """Return the items up to a response, its own included. Raises NoPreviousResponse."""

    def item(self, item_id: str) -> Any:
        """Return an item, None where it is not kept."""

    def keep(self, response: Mapping[str, Any], inputs: Sequence[Any]) -> None:
        """Keep a response and the items that it answers, without those of the response before it."""


# --- Items -------------------------------------------------------------------------------------


def earlier_items(fields: Fields, memory: Memory | None) -> list[Fields]:
    """Return the items of the conversation that `previous_response_id` goes on from."""
    name = "previous_response_id"
    previous = fields.text(name)
    if not previous:
        return []
    if memory is None:
        raise Unsupported(f"'{name}' is not supported: nothing is kept here", param=name)
    items = memory.conversation(previous)
    return [Fields(item, f"{name}.items[{i}].") for i, item in enumerate(items)]


def own_items(fields: Fields, memory: Memory | None) -> list[Fields]:
    """Return the items of `input`; a reference becomes its item. Raises NotStored, InvalidRequest."""
    value = fields.need("input", fields.raw)
    if isinstance(value, str):
        return [Fields({"type": "message", "role": "user", "content": value})]
    if not isinstance(value, list) or not value:
        raise fields.fail("input", "a text or a list of at least one item")
    return [_looked_up(item, memory) for item in fields.objects("input") or ()]


def _looked_up(item: Fields, memory: Memory | None) -> Fields:
    """Return the item, or the one to which it refers."""
    kind = item.text("type")
    if kind != "item_reference" and (kind or "role" in item or "id" not in item):
        return item
    item_id = item.need("id", item.text)
    found = None if memory is None else memory.item(item_id)
    if found is None:
        raise NotStored("item", item_id, param=f"{item.where}id")
    return Fields(found, item.where)


def identified(items: Iterable[Fields], response_id: str) -> list[Mapping[str, Any]]:
    """Return the items as they are kept: each with an id that leads to the response."""
    suffix = response_id.removeprefix("resp_")
    return [
        {**item.values, "id": item.raw("id") or f"item_{suffix}_i{number}"}
        for number, item in enumerate(items)
    ]


def response_of_item(item_id: str) -> str:
    """Return the id of the response that an item belongs to, "" for an id that was not made here."""
    match = _MADE_HERE.fullmatch(item_id)
    return f"resp_{match[1]}" if match else ""


def items_body(items: Sequence[Any], query: Mapping[str, str]) -> dict[str, Any]:
    """`GET /v1/responses/{id}/input_items`: a page, newest first unless `order` is asc."""
    order, after = query.get("order", "desc"), query.get("after")
    limit = query.get("limit", "20")
    if order not in ("asc", "desc"):
        raise InvalidRequest("'order' must be asc or desc", param="order")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST_LISTED:
        raise InvalidRequest(f"'limit' must be between 1 and {_MOST_LISTED}", param="limit")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item.get("id") for item in ordered]
    if after is not None and after not in ids:
        raise InvalidRequest("'after' must be the id of an item in the list", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0].get("id") if page else None,
        "last_id": page[-1].get("id") if page else None,
        "has_more": start + len(page) < len(ordered),
    }


# --- Messages ----------------------------------------------------------------------------------


def read_messages(items: Iterable[Fields]) -> list[Message]:
    """Return the conversation. Raises InvalidRequest.

    Thinking, text and calls in a row become one assistant's turn, as they were generated, so that the
    prompt begins with what the model has seen.
    """
    items = list(items)
    now = sent_now([_role_of(item) for item in items])
    messages: list[Message] = []
    for at, item in enumerate(items):
        _add_item(messages, item, at == now)
    return [message for message in messages if not _is_only_reasoning(message)]


def _role_of(item: Fields) -> str | None:
    """Return the role of a message, None for other items."""
    return item.text("role") if item.raw("type") in (None, "message") else None


def _add_item(messages: list[Message], item: Fields, now: bool) -> None:
    kind = item.text("type") or ("message" if "role" in item else "")
    if kind == "message":
        _add_message(messages, item, now)
    elif kind == "reasoning":
        reasoning = parts.text_content(item) or parts.text_content(item, "summary")
        messages += [Message(role="assistant", reasoning=reasoning)] if reasoning else []
    elif kind in ("function_call", "custom_tool_call"):
        _add_call(messages, read_call(item))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        output = item.need("output", lambda name: parts.content(item, name, refuse=False))
        _add_result(messages, item.need("call_id", item.text), output)
    elif kind.endswith(("_call", "_output")):
        _add_hosted(messages, item, kind)
    elif kind not in _LEFT_OUT:
        raise Unsupported(
            f"'{item.where}type' is '{kind[:40]}', which is not an item that can be read here",
            param=f"{item.where}type",
        )


def _add_message(messages: list[Message], item: Fields, now: bool) -> None:
    role = item.need("role", item.text)
    refuse = now or role in ("system", "developer")
    content = item.need("content", lambda name: parts.content(item, name, refuse=refuse))
    if role == "assistant" and messages and _is_only_reasoning(messages[-1]):
        messages[-1] = replace(messages[-1], content=content)
    elif role in ("system", "developer"):
        messages.append(Message.of("system", content))
    elif role == "assistant":
        messages.append(Message.of("assistant", content))
    elif role == "user":
        messages.append(Message.of("user", content))
    else:
        raise item.fail("role", "user, assistant, system or developer")


def _add_call(messages: list[Message], call: ToolCall) -> None:
    if messages and messages[-1].role == "assistant":
        messages[-1] = replace(messages[-1], tool_calls=(*messages[-1].tool_calls, call))
    else:
        messages.append(Message(role="assistant", tool_calls=(call,)))


def _add_result(messages: list[Message], call_id: str, content: str | Iterable[Part]) -> None:
    messages.append(Message.of("tool", content, tool_call_id=call_id))


def _add_hosted(messages: list[Message], item: Fields, kind: str) -> None:
    """Add a call of a hosted tool, its result, or both where one item holds both."""
    call_id = item.text("call_id") or item.text("id") or kind
    result = _told(item, _FOUND)
    if kind.endswith("_call"):
        name = item.text("name") or kind.removesuffix("_call")
        _add_call(messages, ToolCall(id=call_id, name=name, arguments=_asked(item)))
        if "call_id" in item:
            return
    _add_result(messages, call_id, result or item.text("status") or "")


def _asked(item: Fields) -> dict[str, object]:
    """What a hosted tool was asked, under the names that its item has for it."""
    return {name: item.raw(name) for name in _ASKED if name in item}


def _told(item: Fields, names: Iterable[str]) -> str:
    """The first of these fields that is there, as text."""
    value = next((item.raw(name) for name in names if name in item), "")
    return value if isinstance(value, str) else dumps(value).decode()


def _is_only_reasoning(message: Message) -> bool:
    return message.reasoning is not None and not message.content and not message.tool_calls
