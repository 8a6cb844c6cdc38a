"""Messages to prompt, by the model's own chat template or its family's.

What a caller can rely on: the same messages give the same text; the text of a conversation begins with
the text of its earlier turns wherever the template allows it, so that a runtime finds its prefix again;
no message can end its own turn or begin another's, since control tokens in it are broken up. Templates
that drop the thinking of earlier turns (Qwen 3, DeepSeek R1) share the prefix up to the last answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from ..errors import InvalidRequest
from ..types import Message, TemplateSource, Tool
from . import messages as conversation
from .families import CHATML, THINK_MARKERS, Family, find_family, thinks
from .renderer import BrokenTemplate, Renderer, RenderError, TooCostly
from .tool_calls.table import find_format
from .traits import Traits, find_traits

Think = bool | Literal["low", "medium", "high"] | None

_MAX_SOURCE_CHARS = 200_000
_MAX_TRIAL_SECONDS = 5.0
"""For the trials of one template; an ordinary one needs a few milliseconds for each."""
_MAX_CONTROL_TOKENS = 100
"""Each is looked for at every `<` of a conversation, which nothing can interrupt."""
_ENDS = (
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start_header_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|user|>",
    "<|observation|>",
    "<|EOT|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|start_of_role|>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<end_of_turn>",
    "<start_of_turn>",
    "<turn|>",
    "<|turn>",
    "<end_of_utterance>",
    "[|endofturn|]",
    "[INST]",
    "<用户>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A complete prompt. With `thinking_open` the answer begins inside the model's thinking."""

    prompt: str
    thinking_open: bool
    images: tuple[int, ...] = ()
    """The numbers of the conversation's pictures, for each IMAGE_PLACE in the prompt."""


class ChatTemplate:
    """One model's way to write conversations; immutable and safe to share between threads.

    `notice` says why another template than the model's own is used, where that is so. `bos` is the
    token that every prompt begins with ("" for none), for backends whose tokenizer adds one as well.
    """

    def __init__(
        self,
        source: TemplateSource,
        family: Family | None,
        renderer: Renderer,
        notice: str | None = None,
    ) -> None:
        """Raises BrokenTemplate."""
        _check_source(source.source)
        self._renderer = renderer
        self._trial_end = time.monotonic() + _MAX_TRIAL_SECONDS
        self._tokens = {
            "bos_token": source.bos_token or (family.bos if family else ""),
            "eos_token": source.eos_token or (family.eos if family else ""),
        }
        self.origin = source.origin
        self.source = source.source
        self.notice = notice
        self.control_tokens = _control_tokens(source.source, self._tokens.values(), family)
        if len(self.control_tokens) > _MAX_CONTROL_TOKENS:
            raise BrokenTemplate(f"it has more than {_MAX_CONTROL_TOKENS} control tokens")
        self.stop = _stops(source.source, self._tokens["eos_token"], family)
        self.think_markers = _think_markers(source.source)
        self.supports_thinking = thinks(source.source, family)
        self._neutralise = conversation.neutraliser(self.control_tokens)
        self._built_in = family if family and family.template == source.source else None
        self._traits = Traits() if self._built_in else self._find_traits()
        self._short_ids = re.search(r"length\s*[!=]=\s*9", source.source) is not None
        self.supports_tools = self._traits.tools or self._built_in is not None
        self.tool_format = self._find_tool_format()
        self._unthought = ""
        self._unthought = self._find_unthought()
        prompt = self._ask([self._traits.as_dict(Message.of("user", "Qu"))])
        self.bos = self._tokens["bos_token"] if prompt.startswith(self._tokens["bos_token"]) else ""

    @staticmethod
    def for_model(
        source: TemplateSource | None, family: str | None, renderer: Renderer
    ) -> ChatTemplate | None:
        """Return the model's own template, else its family's, else None: the runtime may have one.

        `renderer` renders the model's own, which is foreign code. A broken template is replaced by the
        family's, or ChatML, and `notice` says so.
        """
        return _for_model(source, family, renderer)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        think: Think = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """Return the prompt for the answer to `messages`, or to be continued where the last one is the
        assistant's. `variables` are further ones for the template.

        Raises InvalidRequest with the template's words where it refuses them.
        """
        begun = ""
        if add_generation_prompt and messages and _can_be_continued(messages[-1]):
            *messages, last = messages
            begun = self._begun(messages, last)
        prompt = self._run(
            self._prepare(messages, tools, think),
            tools=self._tool_dicts(tools),
            add_generation_prompt=add_generation_prompt,
            **{**self._harmless(variables or {}), **_thinking_variables(think)},
        )
        opener, closer = self.think_markers
        # Some templates write a thought themselves, be it empty, before the calls of the last turn.
        twice = rf"({re.escape(closer)}\s*){conversation.PLACEHOLDER}"
        prompt = re.sub(twice, r"\1", prompt).replace(conversation.PLACEHOLDER, self._unthought)
        thinking_open = add_generation_prompt and prompt.rstrip().endswith(opener)
        if thinking_open and (begun or think is False):
            prompt = f"{prompt.rstrip()}\n\n{closer}\n\n"
            thinking_open = False
        prompt, images = conversation.take_places(prompt + begun)
        return Rendered(prompt=prompt, thinking_open=thinking_open, images=images)

    def _begun(self, earlier: Sequence[Message], last: Message) -> str:
        """Return the text of the turn that is to be continued, which no template writes."""
        harmless = conversation.neutralised(last, self._neutralise)
        return conversation.with_places([*earlier, harmless])[-1].text

    def _harmless(self, value: Any) -> Any:
        """Return a JSON value with nothing in its texts that the template or the model could obey."""
        if isinstance(value, str):
            return self._neutralise(value)
        if isinstance(value, Mapping):
            return {name: self._harmless(inner) for name, inner in value.items()}
        return [self._harmless(inner) for inner in value] if isinstance(value, list) else value

    def _tool_dicts(self, tools: Sequence[Tool]) -> list[dict[str, Any]] | None:
        if tools and self._traits.tools:
            return conversation.tool_dicts(tools, self._neutralise)
        return [] if self._traits.empty_tools else None

    def _prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], think: Think
    ) -> list[dict[str, Any]]:
        """Return the messages as this template wants them, with nothing in them that it could obey."""
        traits = self._traits
        messages = [conversation.neutralised(m, self._neutralise) for m in messages]
        messages = conversation.with_places(messages)
        messages = conversation.link_results(messages)
        if self._built_in:
            messages = [_without_thinking(m, self.think_markers) for m in messages]
            messages = _with_system(_asking(messages), self._built_in.system)
        if think is False and self._unthought:
            messages = [_marked_unthought(m) for m in messages]
        if not (traits.tools and traits.calls):
            convention = conversation.CONVENTIONS[
                self._built_in.tools if self._built_in else "hermes"
            ]
            tools = () if traits.tools else tools
            messages = conversation.write_tools(messages, tools, convention, self._neutralise)
        if not traits.late_system:
            messages = conversation.late_system_to_user(messages)
        if not traits.system:
            messages = conversation.system_to_user(messages)
        if traits.alternates:
            messages = conversation.merge_neighbours(messages)
        if traits.calls and not traits.parallel:
            messages = conversation.one_call_each(messages)
        return [traits.as_dict(m, short_ids=self._short_ids) for m in messages]

    def _run(self, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
        defaults = {"tools": None, "documents": None, **self._tokens}
        try:
            return self._renderer(self.source, {**defaults, **variables, "messages": messages})
        except RenderError as error:
            raise InvalidRequest(
                f"the chat template of {self.origin} cannot render this conversation: {error}",
                param="messages",
            ) from error

    def _ask(self, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
        """Return what the template makes of a trial conversation, "" where it refuses.

        Raises BrokenTemplate where even that costs too much, since there are many trials.
        """
        try:
            text = self._run(messages, **{"add_generation_prompt": True, **variables})
        except InvalidRequest as error:
            if isinstance(error.__cause__, TooCostly):
                raise BrokenTemplate(str(error)) from error
            text = ""
        if time.monotonic() > self._trial_end:
            raise BrokenTemplate(f"trials of it take more than {_MAX_TRIAL_SECONDS:g} s")
        return text

    def _find_traits(self) -> Traits:
        if traits := find_traits(self._ask, self.source):
            return traits
        try:
            self._run([{"role": "user", "content": "Qu"}])
        except InvalidRequest as error:
            raise BrokenTemplate(str(error)) from error
        raise BrokenTemplate("it renders nothing")

    def _find_unthought(self) -> str:
        """The empty thought to put before earlier answers when thinking is off, so that the next turn
        begins with the text of this one; "" where the template writes it itself.
        """
        user = Message.of("user", "Qu")
        answered = (user, Message.of("assistant", "Qa"), user)
        try:
            before = self.render((user,), think=False).prompt
            after = self.render(answered, think=False).prompt
        except InvalidRequest:
            return ""
        opener, closer = map(re.escape, self.think_markers)
        empty = re.search(rf"{opener}\s*{closer}\s*\Z", before)
        grown = f"{before}Qa"
        if empty is None or after.startswith(grown):
            return ""
        return empty[0] if after.replace("Qa", f"{empty[0]}Qa").startswith(grown) else ""

    def _find_tool_format(self) -> str | None:
        if self._built_in:
            return self._built_in.tools
        if not self.supports_tools:
            return "hermes"
        return find_format(self.source)


@lru_cache(maxsize=32)
def _for_model(
    source: TemplateSource | None, family_name: str | None, renderer: Renderer
) -> ChatTemplate | None:
    family = find_family(family_name)
    if source is None:
        return _built_in(family) if family else None
    try:
        return ChatTemplate(source, family, renderer)
    except BrokenTemplate as error:
        usual = f"the usual one of {family_name} models" if family else "ChatML"
        notice = f"The chat template of {source.origin} is broken ({error}); {usual} is used."
    return _built_in(family or CHATML, notice)


def render_here(source: str, variables: Mapping[str, Any]) -> str:
    """A Renderer for templates that can be trusted, our own: it knows no bounds of time and memory."""
    from .sandbox import render

    return render(source, variables)


def _built_in(family: Family, notice: str | None = None) -> ChatTemplate:
    source = TemplateSource(source=family.template, origin=f"the {family.prefixes[0]} family")
    return ChatTemplate(source, family, render_here, notice)


@lru_cache(maxsize=1)
def _chatml() -> ChatTemplate:
    return _built_in(CHATML)


def for_conversation(
    template: ChatTemplate | None,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    runtime_wraps: bool = True,
) -> ChatTemplate | None:
    """Return what writes these messages: the model's template; without one None for a single user message,
    which the runtime wraps itself if it can, and ChatML for everything else, which most models
    understand.
    """
    alone = runtime_wraps and len(messages) == 1 and messages[0].role == "user" and not tools
    return template or (None if alone else _chatml())


def looks_templated(text: str, control_tokens: Iterable[str]) -> bool:
    """Return whether `text` is a prompt already: it holds one of a template's control tokens. Tags that HTML
    has, too, count only at its beginning, and those of tools not at all.
    """
    if text.startswith(_PLAIN_TAGS):
        return True
    return any(
        token in text
        for token in control_tokens
        if token not in _PLAIN_TAGS and "tool" not in token.lower()
    )


# --- What a template's source tells ------------------------------------------------------------

_GO = re.compile(r"\{\{-?\s*(?:[.$]|(?:if|range|with)\s+[\w.$(]|(?:template|define|block)\s+[\"`])")
"""What only Go's templates have: `{{ block }}` or `{{ range(3) }}` can be Jinja's."""

_PLAIN_TAGS = ("<s>", "</s>", "<bos>", "<eos>")
_TOKEN = re.compile(
    r"<\|[^|<>\s{}'\"]{1,64}\|>"
    r"|<｜[^｜<>\s{}'\"]{1,64}｜>"
    r"|<\|(?:\w{1,32}|\"\|)>|<\w{1,32}\|>"
    r"|\[\|\w{1,32}\|\]"
    r"|</?(?:s|bos|eos|sop|eop|eoa|eoh|AI|用户|_system|_user|_bot|_end)>"
    r"|</?[a-z]+(?:_[a-z]+)+>"
    r"|<</?SYS>>"
    r"|\[/?[A-Z][A-Z_]{2,32}\]|\[gMASK\]"
)


def _check_source(source: str) -> None:
    """Raises BrokenTemplate for what need not be tried."""
    if len(source) > _MAX_SOURCE_CHARS:
        raise BrokenTemplate(f"it has more than {_MAX_SOURCE_CHARS} characters")
    if _GO.search(source):
        raise BrokenTemplate("it is in Go's template language, where Jinja is needed")


def _control_tokens(source: str, tokens: Iterable[str], family: Family | None) -> tuple[str, ...]:
    control = {*_TOKEN.findall(source), *filter(None, tokens)}
    if family:
        control.update(token for token in (family.bos, family.eos) if token)
        control.update(text for text in family.stop if _TOKEN.fullmatch(text))
    return tuple(sorted(control))


def _stops(source: str, eos: str, family: Family | None) -> tuple[str, ...]:
    stops = [end for end in _ENDS if end in source]
    if eos:
        stops.append(eos)
    if family and (family.template == source or not stops):
        stops.extend(family.stop)
    return tuple(dict.fromkeys(stops))


def _think_markers(source: str) -> tuple[str, str]:
    return next((pair for pair in THINK_MARKERS if pair[1] in source), THINK_MARKERS[0])


def _thinking_variables(think: Think) -> Mapping[str, Any]:
    if think is None:
        return {}
    variables: dict[str, Any] = {"enable_thinking": bool(think), "thinking": bool(think)}
    if isinstance(think, str):
        variables["reasoning_effort"] = think
    return variables


# --- What the built-in templates leave to code ---------------------------------------------------


def _can_be_continued(message: Message) -> bool:
    return message.role == "assistant" and bool(message.content) and not message.tool_calls


def _marked_unthought(message: Message) -> Message:
    if message.role != "assistant":
        return message
    return message.with_text(conversation.PLACEHOLDER + message.text)


def _without_thinking(message: Message, markers: tuple[str, str]) -> Message:
    """Return the message without the thinking that some clients leave in an answer's text."""
    _, closer = markers
    if message.role != "assistant" or closer not in message.text:
        return message
    return message.with_text(message.text.rpartition(closer)[2].lstrip("\n"))


def _asking(messages: list[Message]) -> list[Message]:
    """The messages with neighbouring system messages merged into one, and with a system message at the
    end turned into a user's, since a model would not answer it.
    """
    messages = conversation.merge_neighbours(messages, role="system")
    if not messages or messages[-1].role != "system":
        return messages
    return [*messages[:-1], replace(messages[-1], role="user")]


def _with_system(messages: list[Message], system: str) -> list[Message]:
    if not system or (messages and messages[0].role == "system"):
        return messages
    return [Message.of("system", system), *messages]
