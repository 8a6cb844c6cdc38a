"""Messages made fit for a chat template: harmless, complete, and in the roles that it knows.

Every function here takes values and returns values; none depends on what came in earlier calls, so a
conversation that grows keeps its beginning.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..types import ImagePart, Message, TextPart, Tool, ToolCall, text_parts

Neutralise = Callable[[str], str]

_JOINER = "\u200d"
"""Put after a control token's first character: invisible, kept by every tokenizer's normalisation,
and enough to make the token ordinary text."""

PLACEHOLDER = "\ufdd0"
"""What a template renders in place of text that it must not see; no message keeps this code point."""
IMAGE_PLACE = "\ufdd1"
"""Where a picture stands in a prompt; no message keeps this code point either."""

_SHAPES = (
    r"<\|[^|<>\s]{1,64}\|>",
    r"<｜[^｜<>\s]{1,64}｜>",
    r"\[\|\w{1,32}\|\]",
    r"</?tool_(?:call|response)>",
    r"\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]",
)


# --- Harmless ------------------------------------------------------------------------------------


def neutraliser(control_tokens: Iterable[str]) -> Neutralise:
    """Return a function that breaks up these tokens, and whatever has the shape of one, in a text."""
    literal = sorted(control_tokens, key=len, reverse=True)
    pattern = re.compile("|".join([*map(re.escape, literal), *_SHAPES]))

    def neutralise(text: str) -> str:
        return pattern.sub(lambda token: broken_up(token[0]), without_places(text))

    return neutralise


def without_places(text: str) -> str:
    """Return a text of others without the code points that stand for something in a prompt."""
    return text.replace(PLACEHOLDER, "\ufffd").replace(IMAGE_PLACE, "\ufffd")


def broken_up(token: str) -> str:
    """Return a control token, or a marker, as ordinary text that looks the same."""
    return token[0] + _JOINER + token[1:]


def neutralised(message: Message, neutralise: Neutralise) -> Message:
    """Return the message with every text in it made harmless, tool arguments included."""
    return replace(
        message,
        content=tuple(
            TextPart(neutralise(part.text)) if isinstance(part, TextPart) else part
            for part in message.content
        ),
        reasoning=message.reasoning and neutralise(message.reasoning),
        tool_calls=tuple(
            replace(call, name=neutralise(call.name), arguments=_deep(call.arguments, neutralise))
            for call in message.tool_calls
        ),
        tool_name=message.tool_name and neutralise(message.tool_name),
    )


def with_places(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a numbered place in their text for each picture: see `take_places`.

    The markup that a template has for pictures is not used: each runtime writes its own around them.
    """
    if not any(isinstance(part, ImagePart) for m in messages for part in m.content):
        return list(messages)
    numbers = itertools.count()
    return [
        message.with_text(
            "".join(
                f"{IMAGE_PLACE}{next(numbers)};" if isinstance(part, ImagePart) else part.text
                for part in message.content
            )
        )
        for message in messages
    ]


def take_places(prompt: str) -> tuple[str, tuple[int, ...]]:
    """Return a rendered prompt with a plain IMAGE_PLACE for each picture, and the numbers of these pictures
    in the prompt's order. A template may have left some out.
    """
    if IMAGE_PLACE not in prompt:
        return prompt, ()
    numbers = tuple(map(int, _PLACE.findall(prompt)))
    return _PLACE.sub(IMAGE_PLACE, prompt), numbers


_PLACE = re.compile(f"{IMAGE_PLACE}([0-9]+);")


def _deep(value: Any, neutralise: Neutralise) -> Any:
    if isinstance(value, str):
        return neutralise(value)
    if isinstance(value, Mapping):
        return {neutralise(str(key)): _deep(item, neutralise) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_deep(item, neutralise) for item in value]
    return value


# --- Complete ------------------------------------------------------------------------------------


def link_results(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with each tool result's id and name filled in: by id, by name, or by order.

    Results that follow each other come in the order of their calls: most templates write nothing
    else that tells which is whose.
    """
    linked: list[Message] = []
    results: list[tuple[int, Message]] = []
    calls: list[ToolCall] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "tool":
            place = len(calls)
            if call := _call_of(message, waiting):
                place = calls.index(call)
                waiting.remove(call)
                message = replace(message, tool_call_id=call.id, tool_name=call.name)
            results.append((place, message))
            continue
        linked += _in_order(results)
        results = []
        if message.tool_calls:
            calls, waiting = list(message.tool_calls), list(message.tool_calls)
        linked.append(message)
    return linked + _in_order(results)


def _in_order(results: Sequence[tuple[int, Message]]) -> list[Message]:
    return [message for _, message in sorted(results, key=lambda result: result[0])]


def _call_of(result: Message, waiting: Sequence[ToolCall]) -> ToolCall | None:
    if result.tool_call_id is not None:
        return next((call for call in waiting if call.id == result.tool_call_id), None)
    if result.tool_name is not None:
        return next((call for call in waiting if call.name == result.tool_name), None)
    return waiting[0] if waiting else None


# --- In roles that the template knows --------------------------------------------------------------


def system_to_user(messages: Sequence[Message]) -> list[Message]:
    """System messages go before the text of the user's next message."""
    moved: list[Message] = []
    carried: list[str] = []
    for message in messages:
        if message.role == "system":
            carried.append(message.text)
            continue
        if message.role == "user" and carried:
            message = message.with_text("\n\n".join([*carried, message.text]))
            carried = []
        moved.append(message)
    if carried:
        moved.append(Message.of("user", "\n\n".join(carried)))
    return moved


def late_system_to_user(messages: Sequence[Message]) -> list[Message]:
    """Return a system message after the conversation's beginning counts as the user's next words."""
    start = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    head = "\n\n".join(m.text for m in messages[:start])
    first = [Message.of("system", head)] if start else []
    return first + system_to_user(messages[start:])


def merge_neighbours(messages: Sequence[Message], role: str | None = None) -> list[Message]:
    """Messages of one role (of this one, where given) in a row become one, tool calls and results
    excepted.
    """
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged and message.role == merged[-1].role else None
        may_merge = role in (None, message.role) and _is_plain(message)
        if before and may_merge and _is_plain(before):
            merged[-1] = before.with_text(f"{before.text}\n\n{message.text}")
        else:
            merged.append(message)
    return merged


def one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Several calls of one turn become as many turns, each followed by its result."""
    split: list[Message] = []
    waiting: list[Message] = []
    for message in messages:
        if len(message.tool_calls) > 1:
            split += waiting
            waiting = [replace(message, tool_calls=(call,)) for call in message.tool_calls]
            waiting[1:] = [replace(turn, content=()) for turn in waiting[1:]]
            continue
        if waiting:
            split += [waiting.pop(0)] if message.role == "tool" else waiting
            waiting = waiting if message.role == "tool" else []
        split.append(message)
    return split + waiting


def _is_plain(message: Message) -> bool:
    return message.role != "tool" and not message.tool_calls


# --- Tools in plain words, where a template has none ------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How a family writes tools. `prompt` holds "{tools}"; `call` and `result` frame JSON and text."""

    prompt: str
    call: str
    arguments: str
    result: str
    result_role: str


CONVENTIONS = {
    "hermes": Convention(
        prompt=(
            "# Tools\n\n"
            "These functions can be called, one JSON description a line:\n"
            "<tools>\n{tools}\n</tools>\n\n"
            "To call a function, write its name and arguments as JSON between these tags, "
            "one pair of tags a call:\n"
            '<tool_call>\n{"name": "function_name", "arguments": {"parameter": "value"}}\n</tool_call>\n'
            "Call a function only when the answer needs it; its result comes in the next message."
        ),
        call="<tool_call>\n{json}\n</tool_call>",
        arguments="arguments",
        result="<tool_response>\n{text}\n</tool_response>",
        result_role="user",
    ),
    "llama3": Convention(
        prompt=(
            "Environment: ipython\n\n"
            "These functions can be called, one JSON description a line:\n{tools}\n\n"
            "To call a function, answer with nothing but JSON in this form:\n"
            '{"name": "function_name", "parameters": {"parameter": "value"}}\n'
            "Call a function only when the answer needs it; its result comes in the next message."
        ),
        call="{json}",
        arguments="parameters",
        result="{text}",
        result_role="ipython",
    ),
}


def write_tools(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    convention: Convention,
    neutralise: Neutralise,
) -> list[Message]:
    """Tool definitions as part of the system prompt, calls and results as text."""
    written: list[Message] = []
    for message in messages:
        if message.tool_calls:
            message = _calls_as_text(message, convention)
        elif message.role == "tool":
            text = convention.result.replace("{text}", message.text)
            before = written[-1] if written else None
            if before and _holds_results(before, convention):
                written[-1] = before.with_text(f"{before.text}\n{text}")
                continue
            message = _Result(role="user", content=text_parts(text), as_role=convention.result_role)
        written.append(message)
    if not tools:
        return written
    lines = "\n".join(_dumps(tool) for tool in tool_dicts(tools, neutralise))
    return _with_prompt(written, convention.prompt.replace("{tools}", lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result(Message):
    """A tool's results, under the name that the template's role for them has."""

    as_role: str = "user"


def _holds_results(message: Message, convention: Convention) -> bool:
    return isinstance(message, _Result) and convention.result_role == "user"


def _calls_as_text(message: Message, convention: Convention) -> Message:
    calls = (
        convention.call.replace(
            "{json}", _dumps({"name": call.name, convention.arguments: call.arguments})
        )
        for call in message.tool_calls
    )
    parts = [message.text] if message.content else []
    return replace(message, content=text_parts("\n".join([*parts, *calls])), tool_calls=())


def _with_prompt(messages: list[Message], prompt: str) -> list[Message]:
    if messages and messages[0].role == "system":
        first = messages[0].with_text(f"{messages[0].text}\n\n{prompt}")
        return [first, *messages[1:]]
    return [Message.of("system", prompt), *messages]


# --- As templates read them ------------------------------------------------------------------------


def tool_dicts(tools: Sequence[Tool], neutralise: Neutralise) -> list[dict[str, Any]]:
    """Tool definitions in the form that templates expect."""
    return [
        {
            "type": "function",
            "function": {
                "name": neutralise(tool.name),
                "description": neutralise(tool.description),
                "parameters": _deep(tool.parameters, neutralise),
            },
        }
        for tool in tools
    ]


def as_dict(
    message: Message, *, text_arguments: bool, null_content: bool, short_ids: bool, parts: bool
) -> dict[str, Any]:
    """Return the message in the form that templates expect."""
    role = message.as_role if isinstance(message, _Result) else message.role
    values: dict[str, Any] = {"role": role, "content": message.text}
    if parts:
        values["content"] = as_parts(message.text)
    if message.reasoning:
        values["reasoning_content"] = message.reasoning
    if message.tool_calls:
        values["tool_calls"] = [
            _call_dict(c, text_arguments, short_ids) for c in message.tool_calls
        ]
        if null_content and not message.content:
            values["content"] = None
    if message.role == "tool":
        values["name"] = message.tool_name or ""
        values["tool_call_id"] = _short_id(message.tool_call_id or "", short_ids)
    return values


def as_parts(text: str) -> list[dict[str, str]]:
    """Content in the form that templates of models with eyes expect."""
    return [{"type": "text", "text": text}]


def _call_dict(call: ToolCall, text_arguments: bool, short_ids: bool) -> dict[str, Any]:
    arguments = _dumps(call.arguments) if text_arguments else dict(call.arguments)
    return {
        "id": _short_id(call.id, short_ids),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _short_id(id: str, short: bool) -> str:
    """Return the id; `short`: in nine letters and digits, as Mistral's templates demand, always the same."""
    if not short:
        return id
    plain = re.sub(r"[^A-Za-z0-9]", "", id)
    return plain[-9:] if len(plain) >= 9 else f"{zlib.crc32(id.encode()):09d}"[-9:]


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
