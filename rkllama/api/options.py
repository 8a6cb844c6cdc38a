"""The request fields that the native and the Ollama dialect share: options, keep_alive, think, format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS, SMALLEST_CONTEXT, parse_duration
from ..errors import InvalidRequest
from ..types import SamplingParams, fold_seed
from .common import Fields, Think, join_think, read_effort, read_template_variables

Format = Literal["json"] | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What the `options` object of a request sets; None where it says nothing."""

    sampling: SamplingParams
    max_tokens: int | None
    stop: tuple[str, ...]
    context_length: int | None


def read_options(body: Fields) -> RequestOptions:
    """Return the `options` of a body, by Ollama's names; unknown ones are ignored.

    Raises InvalidRequest for a wrong type and for a value out of range.
    """
    options = body.object("options") or Fields({})
    numbers = {name: options.number(name, *bounds) for name, bounds in NUMBER_BOUNDS.items()}
    context = options.integer("num_ctx", *INTEGER_BOUNDS["num_ctx"])
    return RequestOptions(
        sampling=SamplingParams(
            top_k=_none_below_zero(options.integer("top_k")),
            mirostat=options.integer("mirostat", *INTEGER_BOUNDS["mirostat"]),
            seed=_seed(options),
            **numbers,
        ),
        max_tokens=read_max_tokens(options, "num_predict"),
        stop=read_stop(options),
        context_length=None if context is None else max(SMALLEST_CONTEXT, context),
    )


def _none_below_zero(value: int | None) -> int | None:
    """Clients send -1 for "the default"."""
    return None if value is None or value < 0 else value


def _seed(options: Fields) -> int | None:
    """-1 is a random one."""
    seed = _none_below_zero(options.integer("seed", *INTEGER_BOUNDS["seed"]))
    return None if seed is None else fold_seed(seed)


def read_max_tokens(body: Fields, name: str) -> int | None:
    """Return a limit of tokens; -2, -1 and 0 all mean "until the context is full", which is -1."""
    limit = body.integer(name, *INTEGER_BOUNDS["num_predict"])
    return -1 if limit is not None and limit <= 0 else limit


def read_stop(body: Fields) -> tuple[str, ...]:
    """Return the stop strings; an empty one would end every answer at once and is dropped."""
    return tuple(stop for stop in body.texts("stop") or () if stop)


def read_keep_alive(body: Fields) -> float | None:
    """Return seconds of `keep_alive`, a number or a duration such as "5m"."""
    value = body.raw("keep_alive")
    if value is None:
        return None
    try:
        return parse_duration(value)
    except (ValueError, OverflowError):
        raise body.fail("keep_alive", 'seconds or a duration such as "5m"') from None


def read_think(body: Fields) -> Think:
    """`think`: true, false or an effort."""
    value = body.raw("think")
    return value if isinstance(value, bool) else read_effort(body, "think")


def read_thinking(body: Fields) -> tuple[Think, dict[str, Any]]:
    """Return `think`, which `chat_template_kwargs` may say too, and the rest of these variables."""
    think, variables = read_template_variables(body)
    return join_think((read_think(body), think)), variables


def read_format(body: Fields) -> Format:
    """`format`: "json" or a JSON schema; "" counts as absent, as some clients send it."""
    value = body.raw("format")
    if value is None or value == "":
        return None
    if value == "json":
        return "json"
    if isinstance(value, dict):
        return value
    raise InvalidRequest("'format' must be \"json\" or a JSON schema", param="format")
