"""Printing an answer as it comes: text on stdout, thinking and figures on stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from .core import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta


def use_colour(stream: TextIO) -> bool:
    """Whether ANSI sequences may be written to a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def spinner(text: str) -> AbstractContextManager[Any]:
    """A spinner on stderr while something takes its time; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


class WrappedText:
    """Writes text that arrives in pieces, broken at words to the terminal's width.

    The word at the end of a piece is held back until it is complete.
    """

    def __init__(self, stream: TextIO, wrap: bool) -> None:
        self._stream = stream
        self._wrap = wrap and stream.isatty()
        self._column = 0
        self._word = ""

    def write(self, text: str) -> None:
        """Write some more."""
        if not self._wrap:
            self._stream.write(text)
            self._stream.flush()
            return
        for char in text:
            # Scripts without spaces may be broken anywhere.
            if char.isspace() or ord(char) > 0x2E7F:
                self._end_word()
                self._put(char)
            else:
                self._word += char
        self._stream.flush()

    def _put(self, char: str) -> None:
        if char == "\n":
            self._column = 0
        self._stream.write(char)
        if char != "\n":
            self._column += 2 if ord(char) > 0x2E7F else 1

    def _end_word(self) -> None:
        width = shutil.get_terminal_size().columns
        if self._column and self._column + len(self._word) > width:
            self._stream.write("\n")
            self._column = 0
        self._stream.write(self._word)
        self._column += len(self._word)
        self._word = ""

    def finish(self) -> None:
        """Write what is held back."""
        self._end_word()
        self._stream.flush()


class AnswerPrinter:
    """Prints the events of one answer and keeps its text."""

    def __init__(self, *, hide_thinking: bool, wrap: bool) -> None:
        self._hide_thinking = hide_thinking
        self._out = WrappedText(sys.stdout, wrap)
        self._thinking = False
        self.text = ""
        self.reasoning = ""
        self.finished: Finished | None = None

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, TextDelta):
            self._end_thinking()
            self.text += event.text
            self._out.write(event.text)
        elif isinstance(event, ReasoningDelta):
            self.reasoning += event.text
            if not self._hide_thinking:
                self._think(event.text)
        elif isinstance(event, ToolCallDelta):
            self._out.write(f"{event.call.name}({dict(event.call.arguments)})\n")
        else:
            self.finished = event

    def _think(self, text: str) -> None:
        if not self._thinking:
            self._thinking = True
            sys.stderr.write("\x1b[2mThinking…\n" if use_colour(sys.stderr) else "Thinking…\n")
        sys.stderr.write(text)
        sys.stderr.flush()

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            end = "\x1b[0m" if use_colour(sys.stderr) else ""
            sys.stderr.write(f"\n…done thinking.{end}\n\n")
            sys.stderr.flush()

    def close(self) -> None:
        """End the last line, also of an answer that was interrupted."""
        self._end_thinking()
        self._out.finish()
        if not self.text.endswith("\n"):
            self._out.write("\n")


def figures(finished: Finished) -> str:
    """The counts and times of an answer, a line each; what is not known is left out."""
    usage, timings = finished.usage, finished.timings
    lines: list[tuple[str, str]] = []

    def seconds(name: str, value: float | None) -> None:
        if value is not None:
            lines.append((name, f"{value:.3f} s"))

    def tokens(name: str, value: int | None) -> None:
        if value is not None:
            lines.append((name, f"{value} tokens"))

    def rate(name: str, count: int | None, value: float | None) -> None:
        if count and value:
            lines.append((name, f"{count / value:.2f} tokens/s"))

    evaluated = usage.prompt_tokens
    if evaluated is not None:
        evaluated -= usage.cached_tokens or 0
    seconds("total", timings.total)
    seconds("load", timings.load)
    tokens("prompt", usage.prompt_tokens)
    tokens("prompt reused", usage.cached_tokens)
    seconds("prompt time", timings.prompt)
    rate("prompt rate", evaluated, timings.prompt)
    tokens("answer", usage.completion_tokens)
    seconds("answer time", timings.generation)
    rate("answer rate", usage.completion_tokens, timings.generation)
    return "".join(f"{name + ':':<15}{value}\n" for name, value in lines)


def joined(events: Iterable[Event]) -> AnswerPrinter:
    """All of an answer, nothing printed."""
    printer = AnswerPrinter(hide_thinking=True, wrap=False)
    for event in events:
        if isinstance(event, TextDelta):
            printer.text += event.text
        elif isinstance(event, ReasoningDelta):
            printer.reasoning += event.text
        elif isinstance(event, Finished):
            printer.finished = event
    return printer
