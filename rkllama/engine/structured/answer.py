"""Completions of a given shape: generators over one run of the model, which is all that they need.

A backend that constrains its tokens is run once. With another one the completion is written together with
the model; where that cannot be, it is asked for the shape in the prompt, its completion is checked, and it is
asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ...service import Shaping
from ...types import Event, Finished, Message, ReasoningDelta, TextDelta, Tool, ToolCallDelta
from .schema import embedded_json, grammar_of, is_json, retry_message, strip_fence, validate_answer
from .tool_choice import call_text, find_call_error, forced_call, forced_call_schema

if TYPE_CHECKING:
    from ...schema.grammar import Grammar

TRIES = 3
"""How often a backend that cannot constrain its tokens is asked for a completion that meets a schema."""


class Runner(Protocol):
    """Runs the model on a request's conversation."""

    @property
    def constrains(self) -> bool:
        """Whether the backend enforces `grammar`."""

    def note_shaping(self, shaping: Shaping) -> None:
        """Tell the caller, before the first event, what gives the completion its shape."""

    def run(
        self,
        *,
        tools: tuple[Tool, ...] = (),
        grammar: Any = None,
        schema: Any = None,
        extra: tuple[Message, ...] = (),
    ) -> Iterator[Event]:
        """The events of the completion, Finished last.

        `tools` are those whose calls are looked for. `grammar` is a schema that constrains the tokens from
        the first one on, which leaves no room for a thought; `schema` is one that the system prompt asks
        for. `extra` are turns behind the conversation's own.
        """

    def written(
        self, grammar: Grammar, schema: Any, tools: tuple[Tool, ...]
    ) -> Iterator[Event] | None:
        """The events of a completion that is of `grammar`, or of calls of `tools`, from a backend that does
        not constrain; None where its prompts cannot be continued. `schema` is what the system prompt asks
        for.
        """


def structured(runner: Runner, schema: Any, tools: tuple[Tool, ...] = ()) -> Iterator[Event]:
    """A completion that meets a schema: constrained where the backend can, else written together with the
    model, else asked for again.

    The model may call `tools` instead, which a constraint would not let it.
    """
    return _shaped(runner, schema, tools, free=bool(tools))


def demanded_call(runner: Runner, tools: tuple[Tool, ...], choice: str) -> Iterator[Event]:
    """A completion that has to be a call of a tool: in the model's own form, or JSON of a call's shape,
    which is turned into the call. Raises InvalidRequest when `choice` names a tool that is not there.
    """
    schema = forced_call_schema(tools, choice)
    text = ""
    for event in _shaped(runner, schema, tools, free=False):
        if isinstance(event, TextDelta):
            text += event.text
            continue
        if isinstance(event, Finished) and event.error is None and (call := forced_call(text)):
            yield ToolCallDelta(0, call)
            yield replace(event, reason="tool_calls")
            return
        if text and not isinstance(event, ReasoningDelta):
            yield TextDelta(text)
            text = ""
        yield event


def _shaped(runner: Runner, schema: Any, tools: tuple[Tool, ...], *, free: bool) -> Iterator[Event]:
    """A completion that meets a schema, by the surest of the ways that there are; with `free` the model may
    call `tools` instead.
    """
    if runner.constrains and not free:
        runner.note_shaping("constrained")
        return _constrained(runner, schema)
    written = None if runner.constrains else _written(runner, schema, tools if free else ())
    if written is not None:
        runner.note_shaping("guided")
        return written
    runner.note_shaping("checked")
    return _asked_again(runner, schema, tools, demanded=bool(tools) and not free)


def _written(runner: Runner, schema: Any, tools: tuple[Tool, ...]) -> Iterator[Event] | None:
    """A completion that is written together with the model, valid by construction, or calls of `tools`; None
    where the schema asks for what no grammar holds, or the runtime wraps its prompts.
    """
    grammar = grammar_of(schema)
    if grammar is None:
        return None
    return runner.written(grammar, schema, tools)


def _constrained(runner: Runner, schema: Any) -> Iterator[Event]:
    """A completion that meets a schema from its first token on.

    A grammar engine does not know all of JSON schema, and what it cannot read constrains nothing: the
    whole completion is checked too.
    """
    text: list[str] = []
    for event in runner.run(grammar=schema):
        if isinstance(event, TextDelta):
            text.append(event.text)
        elif isinstance(event, Finished) and event.reason in ("stop", "length"):
            event = _checked(event, validate_answer("".join(text), schema))
        yield event


def _asked_again(
    runner: Runner, schema: Any, tools: tuple[Tool, ...], *, demanded: bool = False
) -> Iterator[Event]:
    """A completion that meets a schema, or calls of `tools`, from a backend that is not constrained.

    Nothing is shown before it is valid; after TRIES runs the last completion comes with its error. With
    `demanded` the schema is a call's, and calls have to meet it.
    """
    extra: tuple[Message, ...] = ()
    for left in reversed(range(TRIES)):
        *events, end = runner.run(tools=tools, schema=schema, extra=extra)
        assert isinstance(end, Finished)
        last: Finished = end
        calls = [event.call for event in events if isinstance(event, ToolCallDelta)]
        error = find_call_error(calls, schema) if demanded else None
        if calls and error is None:
            yield from (*events, last)
            return
        raw = "\n".join(map(call_text, calls)) or _text_of(events)
        text = raw
        if not calls:
            text, error = _valid_part(raw, schema)
        if error is None or not left or last.reason == "cancelled":
            break
        if runner.constrains:  # no call was wanted
            yield from _constrained(runner, schema)
            return
        extra = (
            Message.of("assistant", raw),
            Message.of("user", retry_message(error)),
        )
    yield from (event for event in events if isinstance(event, ReasoningDelta))
    if text:
        yield TextDelta(text)
    reason = "stop" if last.reason == "tool_calls" else last.reason
    yield _checked(replace(last, reason=reason), error)


def _valid_part(raw: str, schema: Any) -> tuple[str, str | None]:
    """Return the part of a completion that meets a schema, else the whole and what is wrong with it."""
    text = strip_fence(raw)
    error = validate_answer(text, schema)
    if error is not None and not is_json(text):
        for part in embedded_json(text):
            if validate_answer(part, schema) is None:
                return part, None
    return text, error


def _text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _checked(finished: Finished, error: str | None) -> Finished:
    """The end of a completion that was to have a format, with what is wrong with it."""
    if error is not None and finished.error is not None:  # which says more
        return finished
    if error is not None and finished.reason == "length":
        error = (
            "the answer is incomplete: it reached its limit of tokens inside the requested format"
        )
    elif error is not None:
        error = f"the answer does not match the requested format: {error}"
    return replace(finished, error=error)
