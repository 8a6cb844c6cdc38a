"""The tools of Anthropic's API: the request's own, and the known ones that clients run themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import Unsupported
from ..types import Tool
from .common import Fields

Schema = Mapping[str, Any]


def _schema(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_TEXT: Schema = {"type": "string"}
_LINE: Schema = {"type": "integer"}
_RANGE: Schema = {"type": "array", "items": _LINE, "description": "First and last line to show"}
_EDITS = {
    "path": {"type": "string", "description": "Absolute path of a file or directory"},
    "view_range": _RANGE,
    "file_text": {"type": "string", "description": "For create: the file's content"},
    "old_str": {"type": "string", "description": "For str_replace: the text to replace"},
    "new_str": {"type": "string", "description": "For str_replace: the new text"},
    "insert_line": {"type": "integer", "description": "For insert: the line after which"},
    "insert_text": {"type": "string", "description": "For insert: the new text"},
}


def _commands(*names: str) -> Schema:
    return {"type": "string", "enum": list(names)}


_BASH = Tool(
    name="bash",
    description="Run a command in a persistent bash session.",
    parameters=_schema(
        (), command=_TEXT, restart={"type": "boolean", "description": "Start a new session"}
    ),
)
_EDITOR = Tool(
    name="str_replace_based_edit_tool",
    description="View, create and edit text files.",
    parameters=_schema(
        ("command", "path"), command=_commands("view", "create", "str_replace", "insert"), **_EDITS
    ),
)
_OLD_EDITOR = Tool(
    name="str_replace_editor",
    description=_EDITOR.description,
    parameters=_schema(
        ("command", "path"),
        command=_commands("view", "create", "str_replace", "insert", "undo_edit"),
        **{name: schema for name, schema in _EDITS.items() if name != "insert_text"},
    ),
)
_MEMORY = Tool(
    name="memory",
    description="Read and write files below /memories, which last from one conversation to the next.",
    parameters=_schema(
        ("command",),
        command=_commands("view", "create", "str_replace", "insert", "delete", "rename"),
        **_EDITS,
        old_path=_TEXT,
        new_path=_TEXT,
    ),
)
_KNOWN: tuple[tuple[str, Tool], ...] = (
    (r"bash_\d{8}", _BASH),
    (r"text_editor_202(41022|50124)", _OLD_EDITOR),
    (r"text_editor_\d{8}", _EDITOR),
    (r"memory_\d{8}", _MEMORY),
)
"""Client-side tools whose schema is known by their type, the first pattern that fits counts."""


def read_tool(entry: Fields) -> Tool:
    """Return a tool with its schema. Raises InvalidRequest."""
    kind = entry.text("type")
    if kind not in (None, "custom"):
        return _known(entry, kind)
    name = entry.need("name", entry.text)
    if not name:
        raise entry.fail("name", "the name of a tool")
    return Tool(
        name=name,
        description=entry.text("description") or "",
        parameters=entry.need("input_schema", entry.mapping),
    )


def _known(entry: Fields, kind: str) -> Tool:
    for pattern, tool in _KNOWN:
        if re.fullmatch(pattern, kind):
            return tool
    computer = re.fullmatch(r"computer_\w+", kind)
    reason = (
        "models here cannot see a screen" if computer else "there are no server-side tools here"
    )
    raise Unsupported(f"'{entry.where}type' is '{kind[:40]}': {reason}", param=f"{entry.where}type")
