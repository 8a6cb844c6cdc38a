"""The blocks of Anthropic's messages as parts: texts, and pictures for the models that see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Unsupported
from ..types import Part, SentImage, TextPart, joined_parts
from .common import Fields, data_text, left_out
from .pictures import sent_image, unreadable_image


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
