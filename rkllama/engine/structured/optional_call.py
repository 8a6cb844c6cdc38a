"""An answer of a schema, in whose place the model may call a tool.

It is free until it has begun the one or the other. A call is written as in any free answer, with its
arguments made valid where they are not; all else is the answer, and what comes before that is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ...chat.parser import AnswerParser
from ...types import Event, Finished, FinishReason, TextDelta, Tool, ToolCallDelta
from . import calls
from .guided import StopString, guided

if TYPE_CHECKING:
    from ...schema.grammar import Grammar

_LONGEST_PROSE = 500
"""Characters of what a model says before it calls a tool: two or three sentences."""
_OPENERS = frozenset('{["')


class Writer(calls.Writer, Protocol):
    """Writes an answer in several runs of a model, or calls of tools."""

    def expect_no_calls(self) -> None:
        """From here on all is the answer, which the caller's stop strings end."""


def answer_or_calls(
    grammar: Grammar, writer: Writer, parser: AnswerParser, tools: Sequence[Tool]
) -> Iterator[Event]:
    """A completion that is of `grammar`, or calls of `tools`, which `parser` looks for; Finished last."""
    beginning = _Beginning(writer, parser)
    try:
        for event in guided(grammar, beginning, begun=True):
            if isinstance(event, TextDelta):
                beginning.expect_no_calls()
            yield event
    except _Called as found:
        if beginning.text:
            yield TextDelta(beginning.text)
        yield from found.events
        called = any(isinstance(event, ToolCallDelta) for event in found.events)
        raw, pieces = beginning.raw, beginning.pieces
        yield from calls.mended(writer, parser, tools, raw, called=called, pieces=pieces)


class _Called(Exception):
    """The model has begun a call; `events` come with that."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events


class _Beginning:
    """Writes an answer whose first run may turn out to be a call; see guided.Writer."""

    def __init__(self, writer: Writer, parser: AnswerParser) -> None:
        self._writer = writer
        self._parser = parser
        self._may_call = True
        self.raw = self.text = ""
        """What the first run has written, and what of it is neither a thought nor a call."""
        self.pieces: Iterator[str] = iter(())
        """What it will write yet."""

    @property
    def varies(self) -> bool:
        return self._writer.varies

    @property
    def ended(self) -> FinishReason | Literal["repeats"]:
        return self._writer.ended

    def think(self) -> Iterator[Event]:
        return self._writer.think()

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        if not self._may_call:
            yield from self._writer.run(written, again=again)
            return
        self.pieces = self._writer.run("")
        for piece in self.pieces:
            self.raw += piece
            yield from self._texts(self._parser.feed(piece))
            if self._parser.stopped is not None:
                self._writer.stop()
        if self.ended in ("stop", "repeats"):
            self._parser.check_end()
        yield from self._texts(self._parser.finish() if self._parser.stray is None else [])
        if self._parser.stopped is not None and not self._parser.ended:
            raise StopString(self._parser.stopped)
        self.expect_no_calls()

    def _texts(self, events: list[Event]) -> Iterator[str]:
        """The texts among events. Raises _Called."""
        for at, event in enumerate(events):
            if isinstance(event, ToolCallDelta) and self._may_call:
                self._call(events[at:])
            if isinstance(event, TextDelta):
                self.text += event.text
                yield event.text
        if self._parser.stray is not None and self._may_call:
            self._call([])

    def _call(self, events: list[Event]) -> None:
        if self._parser.stray is not None or self._parser.stopped is not None:
            self._writer.stop()
        raise _Called(events)

    def expect_no_calls(self) -> None:
        """Take what comes for the answer, whatever it looks like."""
        if self._may_call:
            self._may_call = False
            self._parser.expect_no_calls()
            self._writer.expect_no_calls()

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        return self._writer.ask(written, question, begun=begun, again=again)

    def stop(self) -> None:
        """End the run, but not for a sentence that a call may follow."""
        is_prose = len(self.text) <= _LONGEST_PROSE and _OPENERS.isdisjoint(self.text)
        if not (self._may_call and is_prose):
            self._writer.stop()

    def finished(self, reason: FinishReason, error: str | None = None) -> Finished:
        stop = None if self._parser.ended else self._parser.stopped
        return self._writer.finished(reason, error, stop)
