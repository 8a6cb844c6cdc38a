"""Answers fed to the parser in pieces, and what came out, joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rkllama.chat.parser import AnswerParser
from rkllama.types import Event, ReasoningDelta, TextDelta, Tool, ToolCallDelta

_NUMBERS = {"a": {"type": "integer"}, "b": {"type": "array"}}
TOOLS = (Tool(name="get_weather"), Tool(name="add", parameters={"properties": _NUMBERS}))


def joined(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """("text", T), ("reasoning", T) and ("call", index, name, arguments), neighbours put together."""
    parts: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, ToolCallDelta):
            parts.append(("call", event.index, event.call.name, dict(event.call.arguments)))
            continue
        assert isinstance(event, TextDelta | ReasoningDelta)
        assert event.text
        kind = "text" if isinstance(event, TextDelta) else "reasoning"
        if parts and parts[-1][0] == kind:
            parts[-1] = (kind, parts[-1][1] + event.text)
        else:
            parts.append((kind, event.text))
    return parts


def parse(pieces: Sequence[str], **options: Any) -> tuple[list[tuple[Any, ...]], str | None]:
    """What a parser with these options makes of the pieces, and what stopped it."""
    parser = AnswerParser(**options)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    events += parser.finish()
    return joined(events), parser.stopped
