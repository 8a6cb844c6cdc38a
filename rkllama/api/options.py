"""The request fields that the native and the Ollama dialect share: options, keep_alive, think, format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..config import parse_duration
from ..errors import InvalidRequest
from ..types import SamplingParams
from .common import Fields

Think = bool | Literal["low", "medium", "high"] | None
Format = Literal["json"] | Mapping[str, Any] | None

_LEVELS: dict[str, Literal["low", "medium", "high"]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "high",
}
_SMALLEST_CONTEXT = 4
"""As in Ollama, fewer tokens of context are taken for this many."""
_NUMBERS = (
    # name, smallest, largest
    ("temperature", 0.0, 5.0),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repeat_penalty", 0.01, 10.0),
    ("frequency_penalty", -2.0, 2.0),
    ("presence_penalty", -2.0, 2.0),
    ("mirostat_tau", 0.0, 100.0),
    ("mirostat_eta", 0.0, 1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the `options` object of a request sets; None where it says nothing."""

    sampling: SamplingParams
    max_tokens: int | None
    stop: tuple[str, ...]
    context_length: int | None


def read_options(body: Fields) -> Options:
    """Return the `options` of a body, by Ollama's names; unknown ones are ignored.

    Raises InvalidRequest for a wrong type and for a value out of range.
    """
    return read_values(body.object("options") or Fields({}))


def read_values(options: Fields) -> Options:
    """Return the same, out of the object itself."""
    numbers = {name: options.number(name, low, high) for name, low, high in _NUMBERS}
    context = options.integer("num_ctx", 1, 1 << 24)
    return Options(
        sampling=SamplingParams(
            top_k=_none_below_zero(options.integer("top_k")),
            mirostat=options.integer("mirostat", 0, 2),
            seed=_seed(options),
            **numbers,
        ),
        max_tokens=read_max_tokens(options, "num_predict"),
        stop=read_stop(options),
        context_length=None if context is None else max(_SMALLEST_CONTEXT, context),
    )


def _none_below_zero(value: int | None) -> int | None:
    """Clients send -1 for "the default"."""
    return None if value is None or value < 0 else value


def _seed(options: Fields) -> int | None:
    """Return a seed that fits 31 bits: the same seed stays the same one, whatever its size; -1 is random."""
    seed = _none_below_zero(options.integer("seed", -(1 << 63), 1 << 64))
    return None if seed is None else seed % (1 << 31)


def read_max_tokens(body: Fields, name: str) -> int | None:
    """Return a limit of tokens; -2, -1 and 0 all mean "until the context is full", which is -1."""
    limit = body.integer(name, -2)
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
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _LEVELS:
        return _LEVELS[value]
    raise body.fail("think", 'true, false, "low", "medium" or "high"')


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
