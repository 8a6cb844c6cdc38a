"""The prompt of a request: its messages, the model's own settings, and the template that joins them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..chat.messages import IMAGE_PLACE, without_places
from ..chat.moving import MovedLine, put_lines
from ..chat.parser import AnswerParser
from ..chat.template import ChatTemplate, Think, for_conversation, looks_templated
from ..chat.tool_calls.arguments import Grammars
from ..chat.tool_calls.table import MARKERS
from ..errors import InvalidRequest, Unsupported
from ..models.metadata import StoredModel
from ..types import ChatRequest, ImagePart, Message, Tool, text_parts
from . import template_process
from .pictures import check_count, images_in, images_of
from .structured.schema import schema_prompt

_USUAL_MARKERS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The text that goes to the runtime; without `raw` the runtime wraps it in its own template."""

    text: str
    raw: bool
    template: ChatTemplate | None = None
    thinking_open: bool = False
    """Whether the prompt ends inside the model's thinking."""
    images: tuple[bytes, ...] = ()
    """The picture for each IMAGE_PLACE in the text."""

    @property
    def text_with_digests(self) -> str:
        """The text with what tells each picture from others, so that different prompts differ."""
        if not self.images:
            return self.text
        digests = (f"{IMAGE_PLACE}{sha256(image).hexdigest()}" for image in self.images)
        first, *rest = self.text.split(IMAGE_PLACE)
        pieces = zip(digests, rest, strict=False)
        return first + "".join(digest + text for digest, text in pieces)


def build_prompt(
    request: ChatRequest,
    model: StoredModel,
    *,
    schema: Mapping[str, Any] | str | None = None,
    extra: tuple[Message, ...] = (),
    moved: tuple[MovedLine, ...] = (),
    runtime_wraps: bool = True,
) -> Prompt:
    """Render a request for a model.

    `schema` goes into the system message, for a backend that cannot be constrained; `extra` are turns
    after the request's own; `moved` are lines of the system prompt that a rule has taken from it;
    `runtime_wraps` allows the runtime's own template where none is known.
    Raises InvalidRequest for a conversation that the template refuses, an empty one, and too many pictures.
    """
    if request.suffix:
        raise Unsupported(
            "filling in the middle (suffix) is not supported by these models", param="suffix"
        )
    prompt = _render(request, model, schema, extra, moved, runtime_wraps)
    if not prompt.text:
        raise empty_prompt()
    # A template, or the tags of a raw prompt, may show a picture more than once.
    check_count(len(prompt.images), "images")
    return prompt


def empty_prompt() -> InvalidRequest:
    """The error for a request without a word."""
    return InvalidRequest(
        "the prompt is empty", hint="Send some text for the model to answer.", param="messages"
    )


def _render(
    request: ChatRequest,
    model: StoredModel,
    schema: Mapping[str, Any] | str | None,
    extra: tuple[Message, ...],
    moved: tuple[MovedLine, ...],
    runtime_wraps: bool,
) -> Prompt:
    template = template_for(request, model)
    variables = request.template_variables
    if request.prompt is not None and is_raw(request, template):
        _refuse(variables, "the prompt goes to the model without a chat template")
        text, images = _raw_with_images(request.prompt, images_in(request.images))
        return Prompt(text=text, raw=True, template=template, images=images)
    messages = conversation(request, model, schema, moved) + extra
    images = images_of(messages)
    tools = tools_for(request)
    template = for_conversation(template, messages, tools, runtime_wraps=runtime_wraps)
    if template is None:
        _refuse(variables, "this model has no chat template of its own here")
        return Prompt(text=_text_with_places(messages[0]), raw=False, images=images)
    think = thinking_for(request, model)
    rendered = template.render(messages, tools=tools, think=think, variables=variables)
    return Prompt(
        text=rendered.prompt,
        raw=True,
        template=template,
        thinking_open=rendered.thinking_open,
        images=tuple(images[place] for place in rendered.images),
    )


def _text_with_places(message: Message) -> str:
    return "".join(
        IMAGE_PLACE if isinstance(part, ImagePart) else without_places(part.text)
        for part in message.content
    )


_TAG = re.compile(r"\[img(?:-(\d{1,3}))?\]")
"""Where a picture stands in a raw prompt, as Ollama's clients write it."""


def _raw_with_images(prompt: str, images: tuple[bytes, ...]) -> tuple[str, tuple[bytes, ...]]:
    """Return a complete prompt with its pictures' places: at the tags, else at its beginning."""
    prompt = without_places(prompt)
    if not images:
        return prompt, ()
    numbers = [int(tag[1] or at) for at, tag in enumerate(_TAG.finditer(prompt))]
    if any(number >= len(images) for number in numbers):
        raise InvalidRequest(
            f"the prompt has a place for picture {max(numbers)}, but only {len(images)} came with it",
            param="images",
        )
    if not numbers:
        return IMAGE_PLACE * len(images) + prompt, images
    return _TAG.sub(IMAGE_PLACE, prompt), tuple(images[number] for number in numbers)


def _refuse(variables: Mapping[str, Any], reason: str) -> None:
    if variables:
        raise Unsupported(
            f"the template variables {', '.join(variables)} have no effect: {reason}",
            param="chat_template_kwargs",
        )


def template_for(request: ChatRequest, model: StoredModel) -> ChatTemplate | None:
    """Return the request's own template where it can be executed, else the model's, else its family's."""
    own = model.template_from(request.template) if request.template else None
    return ChatTemplate.for_model(own or model.template, model.info.family, template_process.render)


def is_raw(request: ChatRequest, template: ChatTemplate | None) -> bool:
    """Return whether the request's prompt is complete as it is."""
    if request.raw is not None:
        return request.raw
    return template is not None and looks_templated(request.prompt or "", template.control_tokens)


def conversation(
    request: ChatRequest,
    model: StoredModel,
    schema: Mapping[str, Any] | str | None = None,
    moved: tuple[MovedLine, ...] = (),
) -> tuple[Message, ...]:
    """Return the request's turns, with the system text and the example turns of the Modelfile before them."""
    messages = request.messages
    if request.prompt is not None:
        messages = (Message.of("user", (*request.images, *text_parts(request.prompt))),)
    messages = model.messages + (put_lines(messages, moved) if moved else messages)
    system = request.system if request.system is not None else model.system
    has_system = any(message.role == "system" for message in messages)
    if system and not has_system:
        messages = (Message.of("system", system), *messages)
    if schema is not None:
        messages = _with_system_text(messages, schema_prompt(schema))
    return messages


def _with_system_text(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    if messages and messages[0].role == "system":
        joined = f"{messages[0].text}\n\n{text}"
        return (Message.of("system", joined), *messages[1:])
    return (Message.of("system", text), *messages)


def tools_for(request: ChatRequest) -> tuple[Tool, ...]:
    """Return the tools that the model is told of."""
    return () if request.tool_choice == "none" else request.tools


def thinking_for(request: ChatRequest, model: StoredModel) -> Think:
    """Return whether the model should think: as the request says, else as its Modelfile does."""
    return model.think if request.think is None else request.think


def _continues(request: ChatRequest) -> bool:
    """Return whether a bare text is to be continued, in which nothing is thinking or a call."""
    return request.prompt is not None and request.raw is True


def markers_for(request: ChatRequest, prompt: Prompt, tools: tuple[Tool, ...]) -> tuple[str, ...]:
    """Return the control tokens by which `parser_for`'s parser tells thinking and calls from text."""
    template = prompt.template
    if template is None or _continues(request):
        return ()
    markers = (*template.think_markers, *(MARKERS if tools else ()))
    return tuple(t for t in template.control_tokens if any(t in marker for marker in markers))


def parser_for(
    request: ChatRequest,
    model: StoredModel,
    prompt: Prompt,
    tools: tuple[Tool, ...],
    grammars: Grammars | None = None,
) -> AnswerParser:
    """Return the parser of the answer to `prompt`: stop strings, thinking and tool calls as they apply, with
    the `grammars` of their arguments.
    """
    template = prompt.template
    stop = (*request.stop, *model.stop)
    continues = _continues(request)
    if template is None or continues:
        return AnswerParser(stop=stop, thinking=None if continues else _USUAL_MARKERS)
    return AnswerParser(
        stop=stop,
        end=template.stop,
        thinking=template.think_markers,
        thinking_open=prompt.thinking_open,
        tools=tools,
        tool_format=template.tool_format,
        grammars=grammars,
    )
