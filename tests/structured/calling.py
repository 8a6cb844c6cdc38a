"""A model that misbehaves in the arguments of a call that it makes by itself, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from rkllama.chat.parser import AnswerParser
from rkllama.engine.structured.calls import grammars_of, mended
from rkllama.types import Event, Finished, FinishReason, Tool, ToolCallDelta
from tests.structured.model import Model

_BEFORE = 'I look.\n<tool_call>\n{"name": "f", "arguments": '
_BEHIND = "}\n</tool_call>"


class Caller:
    """Writes a call whose arguments are a model's document; see calls.Writer."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.ended: FinishReason | Literal["repeats"] = "stop"

    @property
    def varies(self) -> bool:
        return self._model.varies

    def reply(self) -> Iterator[str]:
        """The first run."""
        yield _BEFORE
        yield from self._model.run("")
        yield _BEHIND

    def think(self) -> Iterator[Event]:
        return iter(())

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        rest = written.removeprefix(_BEFORE)
        if _is_json(rest.removesuffix("}")):
            yield _BEHIND.removeprefix("}")
        else:
            yield from self._model.run(rest, again=again)
        self.ended = self._model.ended

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        return self._model.ask(written.removeprefix(_BEFORE), question)

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


def call(schema: Mapping[str, Any], model: Model) -> Called:
    """Have a model call a tool with parameters of a schema."""
    tools = (Tool(name="f", parameters=schema),)
    parser = AnswerParser(tools=tools, tool_format="hermes", grammars=grammars_of(tools))
    writer = Caller(model)
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
