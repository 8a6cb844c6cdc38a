"""The blocks of Anthropic's messages as text: what is written is read, a picture is told or refused."""

from __future__ import annotations

from ..errors import Unsupported
from .common import Fields, data_text, left_out


def blocks(entry: Fields, name: str) -> list[Fields]:
    """Return a content's blocks; a string is one block of text."""
    value = entry.need(name, entry.raw)
    if isinstance(value, str):
        return [Fields({"type": "text", "text": value}, f"{entry.where}{name}.")]
    if not isinstance(value, list):
        raise entry.fail(name, "a string or a list of blocks")
    return entry.objects(name) or []


def texts(entry: Fields, name: str, *, refuse: bool = True) -> str:
    """Return a content as text; its blocks stand apart as paragraphs. See `text`."""
    return "\n\n".join(text(block, refuse=refuse) for block in blocks(entry, name))


def text(block: Fields, *, refuse: bool = True) -> str:
    """Return a block as text. What is not text is Unsupported, or told in words unless `refuse`."""
    kind = block.need("type", block.text)
    if kind == "text":
        return block.need("text", block.text)
    if kind == "search_result":
        head = [block.text("title"), block.text("source")]
        return _under(head, texts(block, "content", refuse=refuse))
    if kind == "document":
        return _document(block, refuse)
    return unreadable(block, refuse)


def unreadable(block: Fields, refuse: bool) -> str:
    """Return the words in place of a block that cannot be read, or raise Unsupported."""
    kind = block.text("type") or ""
    if not refuse:
        return left_out(kind, block.text("title") or block.text("name"))
    raise Unsupported(
        f"'{block.where}type' is '{kind[:40]}': models here accept only text",
        param=f"{block.where}type",
    )


def _document(block: Fields, refuse: bool) -> str:
    source = block.need("source", block.object)
    kind = source.need("type", source.text)
    found: str | None = None
    if kind == "text":
        found = source.need("data", source.text)
    elif kind == "content":
        found = texts(source, "content", refuse=refuse)
    elif kind == "base64":
        found = data_text(source.text("media_type") or "", source.text("data") or "")
    if found is not None:
        return _under([block.text("title"), block.text("context")], found)
    if not refuse:
        return unreadable(block, refuse)
    raise Unsupported(
        f"'{block.where}source' holds no text: models here accept only text",
        param=f"{block.where}source",
    )


def _under(head: list[str | None], body: str) -> str:
    """Return a text under its title and the like."""
    return "\n\n".join([*filter(None, ["\n".join(filter(None, head)), body])])
