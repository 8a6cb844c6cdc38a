"""The tools of a Responses request: functions, functions in namespaces, and tools that take free text.

The model knows them all as functions; `ToolSet.origins` tells how the client knows each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..types import Tool, ToolCall
from . import openai_parts as parts
from .common import Fields, dumps

_OWN = ("function", "custom", "namespace", None)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A tool as its client knows it; a `custom` one takes one text instead of arguments."""

    name: str
    namespace: str | None = None
    custom: bool = False

    @property
    def full_name(self) -> str:
        """The name by which the model knows it."""
        return f"{self.namespace}__{self.name}" if self.namespace else self.name

    @property
    def client_name(self) -> dict[str, str]:
        """`name`, and `namespace` where there is one, as items and choices have them."""
        space = {} if self.namespace is None else {"namespace": self.namespace}
        return {"name": self.name, **space}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSet:
    """The functions for the model, the client's names by theirs, and what a response repeats of them."""

    tools: tuple[Tool, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    echo: tuple[Mapping[str, Any], ...] = ()


# --- What is offered ---------------------------------------------------------------------------


def read_tools(fields: Fields) -> ToolSet:
    """`tools`. Those that the server would have to run are an offer under "auto", and left out.

    Raises InvalidRequest.
    """
    tools: dict[str, Tool] = {}
    origins: dict[str, Origin] = {}
    echo: list[Mapping[str, Any]] = []
    optional = fields.raw("tool_choice") in (None, "auto", "none")

    def take(entry: Fields, namespace: str | None) -> Mapping[str, Any]:
        tool, custom = _read(entry)
        origin = Origin(name=tool.name, namespace=namespace, custom=custom)
        origins[origin.full_name] = origin
        tools[origin.full_name] = replace(tool, name=origin.full_name)
        return _body(entry, tool, custom)

    for entry in fields.objects("tools") or ():
        kind = entry.text("type")
        if kind == "namespace":
            space = entry.need("name", entry.text)
            inner = [take(each, space) for each in entry.objects("tools") or ()]
            description = entry.text("description") or ""
            echo.append({"type": kind, "name": space, "description": description, "tools": inner})
        elif optional and kind not in _OWN:
            _log.info("left out the tool of type %r: it is not available here", (kind or "")[:40])
        else:
            echo.append(take(entry, None))
    return ToolSet(tools=tuple(tools.values()), origins=origins, echo=tuple(echo))


def _read(entry: Fields) -> tuple[Tool, bool]:
    """Return a function, and whether it stands for a tool that takes free text."""
    if entry.text("type") == "custom":
        return _custom(entry), True
    parts.need_function(entry)
    return parts.tool(entry), False


def _custom(entry: Fields) -> Tool:
    """Return the function with one text in place of a tool that takes free text. A grammar is told: it cannot
    be enforced within a function's arguments.
    """
    tool = parts.tool(entry)
    form = entry.object("format")
    grammar = None if form is None else form.text("definition")
    rule = f"\n\nThe input follows this grammar:\n{grammar}" if grammar else ""
    parameters = {
        "type": "object",
        "properties": {"input": {"type": "string", "description": "The tool's whole input"}},
        "required": ["input"],
    }
    return replace(tool, description=tool.description + rule, parameters=parameters)


def _body(entry: Fields, tool: Tool, custom: bool) -> Mapping[str, Any]:
    if custom:
        form = entry.mapping("format") or {"type": "text"}
        description = entry.text("description") or ""
        return {"type": "custom", "name": tool.name, "description": description, "format": form}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


def read_choice(fields: Fields, offered: ToolSet) -> str:
    """`tool_choice` in the core's words. A tool in a namespace is named in full or as the client has it."""
    choice = fields.raw("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("function", "custom"):
        named = fields.need("tool_choice", fields.object)
        name = _full_name(named, offered)
        fields = Fields({"tool_choice": {"type": "function", "name": name}})
    return parts.tool_choice(fields, offered.tools, lambda choice: choice)


def _full_name(named: Fields, offered: ToolSet) -> str:
    name = named.need("name", named.text)
    full = Origin(name=name, namespace=named.text("namespace")).full_name
    same = [known for known, origin in offered.origins.items() if origin.name == name]
    return same[0] if full not in offered.origins and len(same) == 1 else full


# --- What is called ----------------------------------------------------------------------------


def read_call(item: Fields) -> ToolCall:
    """A `function_call` or `custom_tool_call` of a conversation. Raises InvalidRequest."""
    origin = Origin(name=item.need("name", item.text), namespace=item.text("namespace"))
    custom = item.text("type") == "custom_tool_call"
    return ToolCall(
        id=item.need("call_id", item.text),
        name=origin.full_name,
        arguments={"input": item.need("input", item.text)} if custom else parts.arguments(item),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallItem:
    """A call as the client reads it: its item, the field that grows, and the events that tell of that.
    `done` is what the last of these holds.
    """

    prefix: str
    type: str
    grows: str
    events: str
    text: str
    names: Mapping[str, str]
    done: Mapping[str, str]

    @staticmethod
    def of(call: ToolCall, origin: Origin | None) -> CallItem:
        """The item for what the model called, which is `origin` unless the model made the name up."""
        origin = origin or Origin(name=call.name)
        if origin.custom:
            text = _input_of(call)
            return CallItem(
                prefix="ctc_",
                type="custom_tool_call",
                grows="input",
                events="response.custom_tool_call_input",
                text=text,
                names=origin.client_name,
                done={"input": text},
            )
        text = dumps(call.arguments).decode()
        return CallItem(
            prefix="fc_",
            type="function_call",
            grows="arguments",
            events="response.function_call_arguments",
            text=text,
            names=origin.client_name,
            done={"name": origin.name, "arguments": text},
        )


def _input_of(call: ToolCall) -> str:
    """Return the text for a tool that takes one; a model may have written other arguments than asked."""
    text = call.arguments.get("input")
    return text if isinstance(text, str) else dumps(call.arguments).decode()
