"""A tool call that the client demands: the JSON it must be, and the call that such JSON is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...chat.parser import new_call_id
from ...chat.tool_calls.json_text import loads
from ...errors import InvalidRequest
from ...types import Tool, ToolCall
from .schema import validate_answer


def forced_call_schema(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """Return the JSON schema of a call of any tool ("required") or of one ("function:NAME").

    Raises InvalidRequest when the named tool is not among `tools`.
    """
    wanted = choice.partition(":")[2] if choice.startswith("function:") else None
    allowed = [tool for tool in tools if wanted is None or tool.name == wanted]
    if not allowed:
        raise InvalidRequest(
            f"tool_choice names {wanted!r}, which is not in tools", param="tool_choice"
        )
    shared: dict[str, Any] = {}
    shapes = [_call_schema(tool, shared) for tool in allowed]
    shape = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {**shape, "$defs": shared} if shared else shape


def _call_schema(tool: Tool, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a call. Parameters that refer to their own parts go to `shared`, the root's
    `$defs`: in another place their references would lead nowhere.
    """
    parameters = dict(tool.parameters) or {"type": "object"}
    name = str(len(shared))
    moved = _moved(parameters, f"#/$defs/{name}")
    if moved != parameters:
        shared[name] = moved
        parameters = {"$ref": f"#/$defs/{name}"}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, root: str) -> Any:
    """Return a schema whose references to its own parts find them below `root`."""
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {
        name: value if name in ("const", "enum", "default", "examples") else _moved(value, root)
        for name, value in schema.items()
    }
    reference = moved.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = root + reference[1:]
    return moved


def forced_call(text: str) -> ToolCall | None:
    """Return the call that an answer of that schema is; None for text that is not one."""
    try:
        values = loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        return None
    arguments = values.get("arguments")
    if not isinstance(arguments, Mapping):
        return None
    return ToolCall(id=new_call_id(), name=values["name"], arguments=arguments)


def call_text(call: ToolCall) -> str:
    """Return the JSON that such an answer would have been."""
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)


def find_call_error(calls: Sequence[ToolCall], schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with calls that the model made in a form of its own; None where all fit the
    schema.

    Raises InvalidRequest for a schema that cannot be used.
    """
    for call in calls:
        if error := validate_answer(call_text(call), schema):
            return error
    return None
