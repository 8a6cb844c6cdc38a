"""The parts of Anthropic's requests: blocks of texts, and pictures for the models that see; and tools, the
request's own and the known ones that clients run themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import Unsupported
from ..types import Part, SentImage, TextPart, Tool, joined_parts
from .common import Fields, data_text, left_out
from .content.pictures import sent_image, unreadable_image

# --- Blocks ------------------------------------------------------------------------------------


def blocks(entry: Fields, name: str) -> list[Fields]:
    """Return a content's blocks; a string is one block of text."""
    value = entry.need(name, entry.raw)
    if isinstance(value, str):
        return [Fields({"type": "text", "text": value}, f"{entry.where}{name}.")]
    if not isinstance(value, list):
        raise entry.fail(name, "a string or a list of blocks")
    return entry.objects(name) or []


def contents(entry: Fields, name: str, *, refuse: bool = True) -> tuple[Part, ...]:
    """Return a content; its blocks stand apart as paragraphs. See `content`."""
    return apart([content(block, refuse=refuse) for block in blocks(entry, name)])


def apart(contents: Sequence[Iterable[Part]]) -> tuple[Part, ...]:
    """Return these contents in one, as paragraphs."""
    parts: list[Part] = []
    for at, content in enumerate(contents):
        parts += [TextPart("\n\n"), *content] if at else content
    return joined_parts(parts)


def content(block: Fields, *, refuse: bool = True) -> tuple[Part, ...]:
    """Return what a block holds. What is neither text nor picture is Unsupported, or told in words unless
    `refuse`; so is a picture, once it is known that the model has no eyes.
    """
    kind = block.need("type", block.text)
    if kind == "text":
        return (TextPart(block.need("text", block.text)),)
    if kind == "image":
        return (_image(block, refuse),)
    if kind == "search_result":
        head = [block.text("title"), block.text("source")]
        return _under(head, contents(block, "content", refuse=refuse))
    if kind == "document":
        return _document(block, refuse)
    return (unreadable(block, refuse),)


def _image(block: Fields, refuse: bool) -> SentImage:
    where = f"{block.where}type"
    refusal = f"'{where}' is 'image': this model accepts only text" if refuse else None
    source = block.object("source")
    kind = source and source.text("type")
    if source is None or kind not in ("base64", "url"):
        return unreadable_image(where, refusal=refusal)
    data = source.raw("data" if kind == "base64" else "url")
    return sent_image(data if isinstance(data, str) else "", where, refusal=refusal)


def unreadable(block: Fields, refuse: bool) -> TextPart:
    """Return the words in place of a block that cannot be read, or raise Unsupported."""
    kind = block.text("type") or ""
    if not refuse:
        return TextPart(left_out(kind, block.text("title") or block.text("name")))
    raise Unsupported(
        f"'{block.where}type' is '{kind[:40]}': models here accept only text and pictures",
        param=f"{block.where}type",
    )


def _document(block: Fields, refuse: bool) -> tuple[Part, ...]:
    source = block.need("source", block.object)
    kind = source.need("type", source.text)
    head = [block.text("title"), block.text("context")]
    if kind == "content":
        return _under(head, contents(source, "content", refuse=refuse))
    found: str | None = None
    if kind == "text":
        found = source.need("data", source.text)
    elif kind == "base64":
        found = data_text(source.text("media_type") or "", source.text("data") or "")
    if found is not None:
        return _under(head, (TextPart(found),))
    if not refuse:
        return (unreadable(block, refuse),)
    raise Unsupported(
        f"'{block.where}source' holds no text: models here accept only text and pictures",
        param=f"{block.where}source",
    )


def _under(head: list[str | None], body: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return a content under its title and the like."""
    title = "\n".join(filter(None, head))
    body = joined_parts(body)
    return apart([(TextPart(title),), body]) if title and body else body or (TextPart(title),)


# --- Tools -------------------------------------------------------------------------------------

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
