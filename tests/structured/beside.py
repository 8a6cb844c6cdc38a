"""A model that answers beside tools that it may call, and does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from rkllama.chat.parser import AnswerParser
from rkllama.engine.structured.calls import grammars_of
from rkllama.engine.structured.optional_call import answer_or_calls
from rkllama.schema.grammar import Grammar
from rkllama.types import Event, Finished, FinishReason, Tool
from tests.structured.model import Model

TOOLS = (Tool(name="get_weather", parameters={"type": "object"}), Tool(name="now"))


class _Beside:
    """Passes on what a model writes; see optional_call.Writer."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.think, self.run, self.ask, self.stop = model.think, model.run, model.ask, model.stop

    @property
    def varies(self) -> bool:
        return self._model.varies

    @property
    def ended(self) -> FinishReason | Literal["repeats"]:
        return self._model.ended

    def expect_no_calls(self) -> None:
        """It calls none anyway."""

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        return self._model.finished(reason, error)


def beside_tools(grammar: Grammar, model: Model) -> Iterator[Event]:
    """Have a model write an answer of a grammar where it may call tools instead."""
    parser = AnswerParser(tools=TOOLS, tool_format="hermes", grammars=grammars_of(TOOLS))
    writer: Any = _Beside(model)
    return answer_or_calls(grammar, writer, parser, TOOLS)
