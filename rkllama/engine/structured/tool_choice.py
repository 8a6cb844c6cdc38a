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
    if "$id" in parameters and not _refers_to_uris(parameters):
        del parameters["$id"]  # of no use, and another tool may have the same
    name = str(len(shared))
    moved = parameters if "$id" in parameters else _moved(parameters, name)
    if moved != parameters or "$id" in parameters:
        shared[name] = moved
        parameters = {"$ref": f"#/$defs/{name}"}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


_VALUES = frozenset(("const", "enum", "default", "examples"))
"""Keywords that hold values, and no schemas."""
_BY_NAME = frozenset(
    ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
)
"""Keywords that hold schemas by name, and the name may be that of a keyword."""
_REFERENCES = ("$ref", "$dynamicRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")


def _refers_to_uris(schema: Any) -> bool:
    """Return whether a reference in a schema is more than a fragment."""
    if isinstance(schema, list):
        return any(map(_refers_to_uris, schema))
    if not isinstance(schema, dict):
        return False
    references = [schema[name] for name in _REFERENCES if isinstance(schema.get(name), str)]
    if any(not reference.startswith("#") for reference in references):
        return True
    return any(map(_refers_to_uris, schema.values()))


def _moved(schema: Any, name: str) -> Any:
    """Return a schema whose references to its own parts find them where it is `#/$defs/name`."""
    if isinstance(schema, list):
        return [_moved(each, name) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$id"), str) and not schema["$id"].startswith("#"):
        return schema  # its references count from itself
    moved: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _BY_NAME and isinstance(value, dict):
            moved[keyword] = {each: _moved(inner, name) for each, inner in value.items()}
        elif keyword in _REFERENCES and isinstance(value, str):
            moved[keyword] = _moved_reference(value, name)
        elif keyword in _ANCHORS and isinstance(value, str):
            moved[keyword] = f"tool{name}.{value}"
        else:
            moved[keyword] = value if keyword in _VALUES else _moved(value, name)
    return moved


def _moved_reference(reference: str, name: str) -> str:
    if reference == "#" or reference.startswith("#/"):
        return f"#/$defs/{name}{reference[1:]}"
    return f"#tool{name}.{reference[1:]}" if reference.startswith("#") else reference


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
