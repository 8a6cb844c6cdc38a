"""Calls of tools in a free answer: their arguments are made valid where the model has not written them so.

Nothing is done to a call that is right as it is written. Where its arguments cannot go on, the model is
stopped, and they are written together with it from there on, as in `guided`; then it is free again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ...chat.parser import AnswerParser, StrayArguments
from ...chat.tool_calls.arguments import Grammars, Place
from ...types import Event, Finished, FinishReason, TextDelta, Tool, ToolCallDelta
from . import guided
from .schema import grammar_of
from .tool_choice import forced_call_schema

if TYPE_CHECKING:
    from ...schema.grammar import Grammar


class Writer(guided.Writer, Protocol):
    """Writes the rest of an answer in several runs of a model."""

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        """The end of the answer; `stop` is the stop string that ended it."""


def grammars_of(tools: Sequence[Tool]) -> Grammars:
    """Return where the arguments of each tool begin; None for those that no grammar holds."""

    def start(name: str) -> Place | None:
        grammar = _grammar(name, tools)
        return None if grammar is None else grammar.start()

    return start


def _grammar(name: str, tools: Sequence[Tool]) -> Grammar | None:
    tool = next((tool for tool in tools if tool.name == name), None)
    return None if tool is None else grammar_of(dict(tool.parameters) or {"type": "object"})


def _calls_grammar(name: str, tools: Sequence[Tool], *, several: bool) -> Grammar | None:
    schema = forced_call_schema(tools, f"function:{name}")
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    if several:
        schema = {"type": "array", "items": schema, "minItems": 1}
    return grammar_of({**schema, **definitions})


def mended(
    writer: Writer,
    parser: AnswerParser,
    tools: Sequence[Tool],
    raw: str,
    *,
    called: bool,
    pieces: Iterator[str] | None = None,
) -> Iterator[Event]:
    """The rest of an answer from arguments on that cannot go on as they do, Finished last.

    `parser` has read `raw`, which the model has written, and stands at them, or `pieces` are the rest of the
    run; `called` is whether there was a whole call before.
    """
    answer = _Answer(writer, parser, tools, raw, pieces)
    for event in answer.events():
        called |= isinstance(event, ToolCallDelta)
        yield event
    reason: FinishReason = "length" if answer.ended == "repeats" else answer.ended
    if called and reason == "stop" and answer.error is None:
        reason = "tool_calls"
    yield writer.finished(reason, answer.error, None if parser.ended else parser.stopped)


class _Answer:
    """What the model has written, and what has been put in the place of a part of it."""

    def __init__(
        self,
        writer: Writer,
        parser: AnswerParser,
        tools: Sequence[Tool],
        raw: str,
        pieces: Iterator[str] | None,
    ) -> None:
        self._writer = writer
        self._parser = parser
        self._tools = tools
        self._raw = raw
        self._pieces = pieces
        self.ended: FinishReason | Literal["repeats"] = "stop"
        self.error: str | None = None

    def events(self) -> Iterator[Event]:
        """The events up to the end of the answer, which is `ended` then, perhaps with an `error`."""
        if self._pieces is not None:
            yield from self._read(self._pieces)
        while (stray := self._parser.stray) is not None and self.ended in ("stop", "repeats"):
            text, end = self._rewritten(stray)
            self.ended, self.error = end.reason, end.error
            if end.error is not None or end.reason != "stop":
                yield from self._parser.put(text)
                break
            text += stray.closers
            self._raw = self._raw.removesuffix(stray.text) + text
            yield from self._parser.put(text)
            yield from self._read(self._writer.run(self._raw))
        yield from self._parser.finish()

    def _rewritten(self, stray: StrayArguments) -> tuple[str, Finished]:
        """Return arguments as they are written together with the model, and how that ended."""
        if stray.whole:
            several = stray.begun.startswith("[")
            grammar, root = _calls_grammar(stray.tool, self._tools, several=several), "$"
        else:
            grammar, root = _grammar(stray.tool, self._tools), "$.arguments"
        writer = _ArgumentsWriter(self._writer, self._raw.removesuffix(stray.text), stray.begun)
        if grammar is None:  # none holds it as a part of a call
            return stray.text, writer.finished("stop")
        *texts, end = guided.guided(grammar, writer, root=root, begun=True)
        assert isinstance(end, Finished)
        return "".join(event.text for event in texts if isinstance(event, TextDelta)), end

    def _read(self, pieces: Iterator[str]) -> Iterator[Event]:
        """What the model writes freely, up to arguments that cannot go on."""
        parser = self._parser
        for piece in pieces:
            self._raw += piece
            yield from parser.feed(piece)
            if parser.stopped is not None or parser.stray is not None:
                self._writer.stop()
        self.ended = self._writer.ended
        if self.ended in ("stop", "repeats") and parser.stray is None:
            parser.check_end()


class _ArgumentsWriter:
    """Writes the arguments of a call; what the model has written of them is its first run."""

    def __init__(self, writer: Writer, before: str, begun: str) -> None:
        self._writer = writer
        self._before = before
        self._begun = begun
        self.ended: FinishReason | Literal["repeats"] = "stop"

    @property
    def varies(self) -> bool:
        return self._writer.varies

    def think(self) -> Iterator[Event]:
        return iter(())

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        if self._begun:
            begun, self._begun = self._begun, ""
            yield begun
            return
        yield from self._writer.run(self._before + written, again=again)
        self.ended = self._writer.ended

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        if written:
            written = self._before + written
            begun = self._before + begun if begun else ""
        yield from self._writer.ask(written, question, begun=begun, again=again)
        self.ended = self._writer.ended

    def stop(self) -> None:
        self._writer.stop()

    def finished(self, reason: FinishReason, error: str | None = None) -> Finished:
        return Finished(reason=reason, model="", error=error)
