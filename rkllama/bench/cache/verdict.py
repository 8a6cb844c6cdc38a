"""From figures to what follows from them: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...states.policy import LEAST_TOKENS, SLACK, Speeds, is_usable, least_growth
from ...types import ModelInfo
from .results import Sound, StateResult, Verdict

_KIBIBYTES = {
    ("qwen2.5", "0.5B"): 12,
    ("qwen2.5", "1.5B"): 28,
    ("qwen2.5", "3B"): 36,
    ("qwen2.5", "7B"): 56,
    ("qwen3", "0.6B"): 112,
    ("qwen3", "1.7B"): 112,
    ("qwen3", "4B"): 144,
    ("qwen3", "8B"): 144,
    ("llama3", "3B"): 112,
}
"""What a token's keys and values take at 16 bits each."""


class Point(NamedTuple):
    """A conversation of so many tokens, and the seconds to its first token: evaluated, and loaded."""

    tokens: int
    cold: float
    loaded: float

    @property
    def gain(self) -> float:
        """The seconds that the state saves."""
        return self.cold - self.loaded


def expected_bytes(info: ModelInfo) -> int | None:
    """Return the bytes that a token of a model should take in a state's file; None where nobody has said."""
    known = _KIBIBYTES.get((info.family or "", info.parameter_size or ""))
    return None if known is None else known << 10


def judge(sizes: Sequence[StateResult], speeds: Speeds, expected: int | None) -> Verdict:
    """Return what follows from the results of all sizes, the shortest first."""
    longest = next((one for one in reversed(sizes) if one.state_bytes and one.state_tokens), None)
    per_token = prefill = fast_enough = again_after = None
    if longest is not None and longest.prefill_seconds is not None:
        assert longest.state_bytes is not None
        assert longest.state_tokens is not None
        per_token = longest.state_bytes / longest.state_tokens
        prefill = longest.prefill_seconds.median
        fast_enough = is_usable(per_token, speeds, prefill)
        again_after = least_growth(
            longest.state_tokens,
            longest.state_tokens,
            bytes_per_token=per_token,
            speeds=speeds,
            prefill=prefill,
            competing=True,
        )
    points = [point for one in sizes if (point := _point(one)) is not None]
    from_tokens = break_even(points)
    sound, used = soundness(sizes), _used(sizes)
    return Verdict(
        sound=sound,
        used=used,
        figures_agree=_figures_agree(sizes),
        fast_enough=fast_enough,
        from_tokens=from_tokens,
        again_after=again_after,
        bytes_per_token=per_token,
        expected_bytes_per_token=expected,
        prefill_seconds=prefill,
        keep=_keep(sound, used, fast_enough, bool(points), from_tokens),
    )


def _keep(
    sound: Sound, used: bool | None, fast_enough: bool | None, timed: bool, from_tokens: int | None
) -> bool | None:
    if sound == "no" or used is False:
        return False
    if not timed or fast_enough is None:
        return None
    if not fast_enough or from_tokens is None:
        return False
    return True if sound == "yes" else None


def _point(result: StateResult) -> Point | None:
    cold, loaded, tokens = result.cold_seconds, result.loaded_seconds, result.prompt_tokens
    if cold is None or loaded is None or tokens is None:
        return None
    return Point(tokens, cold.median, loaded.median)


def break_even(points: Sequence[Point]) -> int | None:
    """Return the tokens from which on a conversation answers sooner from its state.

    That is read from the line through the first and the last point, or from nothing through the only
    one. None where it is beyond twice the longest.
    """
    if not points:
        return None
    last = points[-1]
    # What a load costs whatever its length is in the figures of the only point.
    first = points[0] if len(points) > 1 else Point(0, 0.0, last.loaded)
    slope = (last.gain - first.gain) / (last.tokens - first.tokens)
    if slope <= 0:
        return LEAST_TOKENS if min(first.gain, last.gain) > 0 else None
    tokens = max(LEAST_TOKENS, math.ceil(round(last.tokens - last.gain / slope, 6)))
    return tokens if tokens <= 2 * last.tokens else None


def soundness(sizes: Sequence[StateResult]) -> Sound:
    """Return whether answers after a load were those without one."""
    if not sum(one.answers for one in sizes):
        return "not measured"
    differing = [one for one in sizes if one.same_answers < one.answers]
    if not differing:
        return "yes"
    return "no" if any(one.cold_repeats for one in differing) else "unclear"


def _used(sizes: Sequence[StateResult]) -> bool | None:
    if any(one.failed for one in sizes):
        return False
    told = [
        abs(one.loaded_reused - one.state_tokens) <= SLACK
        for one in sizes
        if one.loaded_reused is not None and one.state_tokens is not None
    ]
    return all(told) if told else None


def _figures_agree(sizes: Sequence[StateResult]) -> bool | None:
    told = [
        abs(one.loaded_reused + one.loaded_evaluated - one.prompt_tokens) <= SLACK
        for one in sizes
        if one.loaded_reused is not None
        and one.loaded_evaluated is not None
        and one.prompt_tokens is not None
    ]
    return all(told) if told else None
