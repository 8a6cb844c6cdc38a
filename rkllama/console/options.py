"""What a chat's answers are asked with: by the command line first, and by `/set` later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS, SMALLEST_CONTEXT
from ..errors import InvalidRequest
from ..types import ChatRequest, Message, SamplingParams, fold_seed

if TYPE_CHECKING:
    from .pictures.graphics import Protocol

SAMPLING = tuple(SamplingParams.__dataclass_fields__)
PARAMETERS = ("num_predict", "num_ctx", "stop", *SAMPLING)
"""What `/set parameter` takes, by the names that a Modelfile has for it."""
_UNSET_BELOW_ZERO = ("top_k", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """The options of the command line, and of later `/set` commands."""

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    context_length: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    hide_thinking: bool = False
    keep_alive: float | None = None
    verbose: bool = False
    wordwrap: bool = True
    markdown: bool = False
    show_images: bool | Protocol = False
    """Whether pictures are drawn, and how, where the environment does not tell."""
    format: Literal["json"] | Mapping[str, Any] | None = None

    def request(self, model: str, messages: tuple[Message, ...]) -> ChatRequest:
        """Return the request for the next answer."""
        return ChatRequest(
            model=model,
            messages=messages,
            system=self.system,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            context_length=self.context_length,
            stop=self.stop,
            think=self.think,
            keep_alive=self.keep_alive,
            format=self.format,
            truncate=True,
        )

    def over(self, defaults: ChatOptions) -> ChatOptions:
        """Return these options, with what they leave open of how answers are asked for from `defaults`."""
        return replace(
            self,
            system=defaults.system if self.system is None else self.system,
            sampling=self.sampling.over(defaults.sampling),
            max_tokens=defaults.max_tokens if self.max_tokens is None else self.max_tokens,
            context_length=self.context_length or defaults.context_length,
            stop=self.stop or defaults.stop,
            think=defaults.think if self.think is None else self.think,
            format=defaults.format if self.format is None else self.format,
        )

    def looks(self) -> ChatOptions:
        """Return only how answers look and how long the model stays, nothing that changes an answer."""
        return ChatOptions(
            hide_thinking=self.hide_thinking,
            keep_alive=self.keep_alive,
            verbose=self.verbose,
            wordwrap=self.wordwrap,
            markdown=self.markdown,
            show_images=self.show_images,
        )

    def parameters(self) -> tuple[tuple[str, str], ...]:
        """Return what was set, as the PARAMETER lines of a Modelfile."""
        values: list[tuple[str, object]] = [
            ("num_predict", self.max_tokens),
            ("num_ctx", self.context_length),
            ("think", None if self.think is None else str(self.think).lower()),
            *(("stop", text) for text in self.stop),
            *((name, getattr(self.sampling, name)) for name in SAMPLING),
        ]
        return tuple((name, str(value)) for name, value in values if value is not None)

    def with_number(self, name: str, value: object) -> ChatOptions:
        """The options with one number changed; None unsets it. Raises InvalidRequest out of its bounds."""
        number = _checked(name, value)
        if name == "num_ctx":
            context = None if number is None else max(SMALLEST_CONTEXT, int(number))
            return replace(self, context_length=context)
        if name == "num_predict":
            limit = None if number is None else int(number)
            return replace(self, max_tokens=-1 if limit is not None and limit <= 0 else limit)
        if name == "seed" and number is not None:
            number = fold_seed(int(number))
        changed: dict[str, Any] = {name: number}
        return replace(self, sampling=replace(self.sampling, **changed))

    def with_parameter(self, name: str, text: str) -> ChatOptions:
        """The options with one parameter changed, as it is typed; `stop` adds one. Raises InvalidRequest."""
        if name not in PARAMETERS:
            raise InvalidRequest(
                f"unknown parameter '{name}'", hint=f"Use one of {', '.join(PARAMETERS)}."
            )
        if name == "stop":
            return replace(self, stop=(*self.stop, text)) if text else self
        try:
            value = json.loads(text)
        except ValueError:
            raise InvalidRequest(
                f"{name} cannot be '{text}'", hint="It must be a number."
            ) from None
        return self.with_number(name, value)


def _checked(name: str, value: object) -> int | float | None:
    """A number within the bounds of the option `name`, None for what unsets it."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"'{name}' must be a number", param=name)
    if name in _UNSET_BELOW_ZERO and value < 0:
        return None
    low, high = INTEGER_BOUNDS[name] if name in INTEGER_BOUNDS else NUMBER_BOUNDS[name]
    if not low <= value <= high:  # nor is NaN
        raise InvalidRequest(f"'{name}' must be between {low:.10g} and {high:.10g}", param=name)
    if name in NUMBER_BOUNDS:
        return value
    if value != int(value):
        raise InvalidRequest(f"'{name}' must be an integer", param=name)
    return int(value)
