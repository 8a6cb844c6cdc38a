"""One answer on the terminal: text on stdout; spinner, thinking and figures on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import PromptTooLong, RKLLamaError
from ..service import LOCAL, Caller, Service, Signs
from ..types import (
    ChatRequest,
    Event,
    Finished,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from .loading import LoadingText
from .options import ChatOptions
from .output import is_terminal, print_note, use_colour
from .streams import control
from .terminal import Spinner, WrappedText, quiet_keys

if TYPE_CHECKING:
    from .markdown import MarkdownText

_FULL = 0.9
"""Of the context: an answer that was cut off there has filled it."""


_LONGER_ONCE = "--ctx N"
"""How a user gets a longer context where there is no chat."""


class Completion:
    """The events of an answer, put together."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[ToolCall] = []
        self.finished: Finished | None = None

    def add(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, ReasoningDelta):
            self.reasoning += event.text
        elif isinstance(event, ToolCallDelta):
            self.calls.append(event.call)
        else:
            self.finished = event


class CompletionPrinter:
    """Prints the events of one answer as they come; the spinner turns until something is shown."""

    def __init__(self, spinner: Spinner, options: ChatOptions) -> None:
        self._spinner = spinner
        self._hide_thinking = options.hide_thinking
        self._draws = options.markdown and is_terminal(sys.stdout)
        """Whether blocks are drawn: then the spinner is the drawing's to stop."""
        self._out = self._drawn() if self._draws else WrappedText(sys.stdout, options.wordwrap)
        self._thoughts = WrappedText(sys.stderr, options.wordwrap)
        self._thinking = False
        self._last = "\n"

    def _drawn(self) -> MarkdownText:
        from .markdown import MarkdownText

        return MarkdownText(sys.stdout, self._spinner)

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, TextDelta):
            self._say(event.text)
        elif isinstance(event, ReasoningDelta):
            self._think(event.text)
        elif isinstance(event, ToolCallDelta):
            arguments = json.dumps(dict(event.call.arguments), ensure_ascii=False)
            self._say(f"{event.call.name}({arguments})\n")

    def close(self) -> None:
        """End the last line, also of an answer that was interrupted."""
        self._spinner.stop()
        self._end_thinking()
        if self._last != "\n":
            self._out.write("\n")
        self._out.finish()

    def _say(self, text: str) -> None:
        if not self._draws:
            self._spinner.stop()
        self._end_thinking()
        if self._draws:
            self._spinner.start()
        self._last = text[-1:] or self._last  # first: Ctrl-C may come in the middle of the write
        self._out.write(text)

    def _think(self, text: str) -> None:
        if self._hide_thinking:
            self._spinner.text = "Thinking…"
            return
        if not self._thinking:
            self._thinking = True
            self._spinner.stop()
            if use_colour(sys.stderr):
                control(sys.stderr, "\x1b[2m")
            sys.stderr.write("Thinking…\n")
        self._thoughts.write(text)

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            self._thoughts.finish()
            sys.stderr.write("\n…done thinking.")
            if use_colour(sys.stderr):
                control(sys.stderr, "\x1b[0m")
            sys.stderr.write("\n\n")
            sys.stderr.flush()


def answer_once(
    service: Service,
    model: str,
    messages: tuple[Message, ...],
    options: ChatOptions,
    *,
    as_json: bool,
) -> None:
    """Answer the last of some messages on stdout, as text or as one JSON object. Raises RKLLamaError, also
    for an answer that was broken off.
    """
    request = options.request(model, messages)
    if as_json:
        with explained(_LONGER_ONCE):
            check_complete(print_json(service, request))
        return
    completion = Completion()
    print_completion(service, request, completion, options, longer=_LONGER_ONCE)
    if options.verbose:
        print_figures(completion.finished)
    check_complete(completion.finished)


def print_completion(
    service: Service,
    request: ChatRequest,
    completion: Completion,
    options: ChatOptions,
    *,
    longer: str,
) -> None:
    """Stream an answer to the terminal; `completion` holds what came, also when it is interrupted.

    `longer` is how the user gets a longer context here.
    """
    with explained(longer), Spinner(_first_words(service, request)) as spinner, quiet_keys():
        printer = CompletionPrinter(spinner, options)
        try:
            caller = watching(spinner)
            with contextlib.closing(service.stream(request, caller)) as events:
                for event in events:
                    completion.add(event)
                    printer.show(event)
        finally:
            printer.close()
    if completion.finished is not None:
        for note in _notes(completion.finished, request):
            print_note(note)
        sys.stderr.write(_how_to_get_room(service, completion.finished, longer))


def watching(spinner: Spinner) -> Caller:
    """Return a caller whose place in the queue stands beside a spinner, if that is seen."""
    if not is_terminal(sys.stderr):
        return LOCAL
    usual = spinner.text

    def show(before: int) -> None:
        spinner.text = f"Waiting: {before} before you" if before else usual

    return Caller(signs=Signs(show, watching=True))


@contextlib.contextmanager
def explained(longer: str) -> Iterator[None]:
    """Let the hint of a PromptTooLong name the way to a longer context that exists here."""
    try:
        yield
    except PromptTooLong as error:
        if not error.at_limit:
            error.hint = f"Shorten it, or use a longer context: {longer}."
        raise


def _how_to_get_room(service: Service, finished: Finished, longer: str) -> str:
    """Return a line on what helps where the context was too short for all; "" where it was not."""
    if not finished.dropped and finished.reason != "length":
        return ""
    loaded = next((m for m in service.loaded() if m.info.name == finished.model), None)
    context, limit = (loaded.context_length, loaded.info.context_length) if loaded else (None, None)
    used = (finished.usage.prompt_tokens or 0) + (finished.usage.completion_tokens or 0)
    if not context or (not finished.dropped and used < _FULL * context):
        return ""
    if limit and context >= limit:
        return f"This model holds no more than {limit} tokens.\n"
    return f"A longer context than {context} tokens makes room: {longer}.\n"


def _notes(finished: Finished, request: ChatRequest) -> Iterator[str]:
    """Yield notes about what the text of an answer does not show."""
    if finished.repeats:
        yield "the answer was stopped: the model wrote one token again and again"
    elif finished.reason == "length" and (request.max_tokens or -1) < 0:
        yield "the answer was cut off: the context is full or the model's own limit was reached"
    if finished.dropped:
        yield f"the {finished.dropped} oldest messages of the conversation did not fit and were left out"


def check_complete(finished: Finished | None) -> None:
    """Raise RKLLamaError for an answer that somebody else ended, or that has not the format."""
    if finished is not None and finished.reason == "cancelled":
        raise RKLLamaError(
            "the answer was interrupted: its model was unloaded, or the server is stopping",
            hint="The answer is incomplete; ask again.",
        )
    if finished is not None and finished.error is not None:
        raise RKLLamaError(finished.error, hint="The answer has not the format; ask again.")


def print_json(service: Service, request: ChatRequest) -> Finished:
    """Print the whole answer as one JSON object on a line of stdout."""
    completion = Completion()
    with (
        Spinner(_first_words(service, request)) as spinner,
        contextlib.closing(service.stream(request, watching(spinner))) as events,
    ):
        for event in events:
            completion.add(event)
    finished = completion.finished
    assert finished is not None, "every stream ends with Finished"
    values = {
        "model": finished.model,
        "content": completion.text,
        "reasoning": completion.reasoning or None,
        "finish_reason": finished.reason,
        "usage": asdict(finished.usage),
        "timings": asdict(finished.timings),
    }
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    return finished


def _first_words(service: Service, request: ChatRequest) -> str | LoadingText:
    """Return the spinner's text: whether the model has to be loaded. Empty if no spinner would be visible."""
    if not is_terminal(sys.stderr) or request.model is None:
        return ""
    info = service.show(request.model).info
    loaded = [model for model in service.loaded() if model.info.name == info.name]
    if any(model.state in ("ready", "busy") for model in loaded):
        return "Reading the prompt…"
    return LoadingText(service, info)


def print_figures(finished: Finished | None) -> None:
    """Print the counts and times of an answer on stderr, one per line; unknown ones are left out."""
    if finished is None:
        return
    usage, timings = finished.usage, finished.timings
    evaluated = usage.prompt_tokens
    if evaluated is not None and usage.cached_tokens is not None:
        evaluated -= usage.cached_tokens
    lines = [
        ("total time", _seconds(timings.total)),
        ("waiting time", _seconds(timings.queue) if (timings.queue or 0) >= 0.001 else None),
        ("load time", _seconds(timings.load)),
        ("prompt", _tokens(usage.prompt_tokens)),
        ("prompt, reused", _tokens(usage.cached_tokens)),
        ("prompt time", _seconds(timings.prompt)),
        ("prompt rate", _rate(evaluated, timings.prompt)),
        ("answer", _tokens(usage.completion_tokens)),
        ("answer time", _seconds(timings.generation)),
        ("answer rate", _rate(usage.completion_tokens, timings.generation)),
    ]
    text = "".join(f"{name + ':':<16}{value}\n" for name, value in lines if value)
    sys.stderr.write(f"\n{text}")


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f} s"


def _tokens(value: int | None) -> str | None:
    return None if value is None else f"{value} token{'' if value == 1 else 's'}"


def _rate(count: int | None, seconds: float | None) -> str | None:
    return f"{count / seconds:.2f} tokens/s" if count and seconds else None
