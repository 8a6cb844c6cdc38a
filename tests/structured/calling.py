"""A model that misbehaves in the arguments of a call that it makes by itself, and what comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from rkllama.chat.parser import AnswerParser
from rkllama.engine.structured.calls import grammars_of, mended
from rkllama.types import Event, Finished, FinishReason, Tool, ToolCallDelta
from tests.structured.model import END, Model

_BEFORE = 'I look.\n<tool_call>\n{"name": "f", "arguments": '
_BEHIND = "}\n</tool_call>"
_TAGS_BEFORE = "I look.\n<tool_call>\n<function=f>\n"
_NAME = re.compile(r"[^<>\n]{1,64}")


class Caller:
    """Writes a call whose arguments are a model's document; see calls.Writer. `tags`: in tags."""

    def __init__(self, model: Model, *, tags: bool = False) -> None:
        self._model = model
        self._tags = tags
        self._before = _TAGS_BEFORE if tags else _BEFORE
        self.ended: FinishReason | Literal["repeats"] = "stop"

    @property
    def varies(self) -> bool:
        return self._model.varies

    def reply(self) -> Iterator[str]:
        """The first run."""
        yield self._before
        if self._tags:
            yield from self._in_tags()
            return
        yield from self._model.run("")
        yield _BEHIND

    def _in_tags(self) -> Iterator[str]:
        for key, value in self._model.document.items():
            said, ends, _ = self._model.said(self._model.json(value), (key,)).partition(END)
            text = said[1:-1] if isinstance(value, str) and said[-1:] == '"' else said
            yield f"<parameter={key}>\n{text}"
            if ends:
                return
            yield "\n</parameter>\n"
        yield "</function>\n</tool_call>"

    def think(self) -> Iterator[Event]:
        return iter(())

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        rest = written.removeprefix(self._before)
        if self._tags and rest.endswith("</function>"):
            yield "\n</tool_call>"
        elif _is_json(rest.removesuffix("}")):
            yield _BEHIND.removeprefix("}")
        else:
            yield from self._model.run(rest, again=again)
        self.ended = self._model.ended

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        return self._model.ask(written.removeprefix(self._before), question)

    def stop(self) -> None:
        self._model.stop()

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        return Finished(reason=reason, model="test", error=error, stop=stop)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class Called(NamedTuple):
    """What came of it: the arguments, or what is missing; neither where no call was recognised."""

    arguments: Mapping[str, Any] | None
    error: str | None


def fits_tags(document: Mapping[str, Any]) -> bool:
    """Whether tags can hold a document."""
    return all(map(_NAME.fullmatch, document)) and "</parameter>" not in json.dumps(document)


def call(schema: Mapping[str, Any], model: Model, *, tags: bool = False) -> Called:
    """Have a model call a tool with parameters of a schema."""
    tools = (Tool(name="f", parameters=schema),)
    parser = AnswerParser(tools=tools, tool_format="hermes", grammars=grammars_of(tools))
    writer = Caller(model, tags=tags)
    events: list[Event] = []
    raw = ""
    for piece in writer.reply():
        if parser.stray is not None:
            break
        raw += piece
        events += parser.feed(piece)
    parser.check_end()
    error = None
    if parser.stray is None:
        events += parser.finish()
    else:
        *more, end = mended(writer, parser, tools, raw, called=False)
        assert isinstance(end, Finished)
        error = end.error
        events += more
    calls = [event.call.arguments for event in events if isinstance(event, ToolCallDelta)]
    return Called(calls[0] if calls else None, error)
