"""When a state is worth its bytes: pure functions of sizes, speeds and what is in memory.

Every threshold follows from what was measured: seconds per prompt token that the model takes, and bytes per
second that the disk reads and writes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

LEAST_TOKENS = 16
"""Fewer tokens than these are never worth a file, however fast the disk is."""
FIRST_TOKENS = 256
"""Tokens from which a state is written before the model's speed is known."""
USUAL_BYTES = 112 << 10
"""Bytes of a token's KV, until a file of the model has told: those of many models up to 3B."""
SLACK = 2
"""Tokens by which the runtime's figures may differ: a constant for each way to end that may be unknown."""
SLOWEST_READ = 0.5
"""The part of the time of evaluating a token that reading it may take; a slower disk is not used."""


BEHIND = 0.25
"""What a second of writing counts, beside one of evaluating: a state is written behind the answer, and waited
for by nobody but a request that comes at once. What it wears is bounded by itself."""


class Speeds(NamedTuple):
    """What the disk does, in bytes per second."""

    read: float
    write: float


def is_border(
    text: str, at: int, control_tokens: Collection[str], proven: Collection[str] = ()
) -> bool:
    """Return whether a token surely ends at `at` in `text`.

    Control tokens are cut out before anything else. No vocabulary has a token of a line's end and what is
    written on the next line; but white space of more than one character is cut one way where text
    follows it and another way where nothing does, with some models: the `proven` kinds of it are not.
    """
    if at >= len(text):
        return at == len(text)
    for token in control_tokens:
        if token and (text.startswith(token, at) or text.endswith(token, 0, at)):
            return True
    if text[at].isspace() or not text[at].isprintable():
        return False
    tail = white_tail(text, at)
    return tail == "\n" or (tail != "" and tail in proven)


def white_tail(text: str, at: int) -> str:
    """Return the white space before `at`."""
    start = at
    while start and text[start - 1].isspace():
        start -= 1
    return text[start:at]


def common_length(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def is_usable(bytes_per_token: float, speeds: Speeds, prefill: float) -> bool:
    """Return whether the disk is fast enough for a model that takes `prefill` seconds per prompt token."""
    reads = bytes_per_token / speeds.read <= SLOWEST_READ * prefill
    return reads and bytes_per_token / speeds.write <= prefill


def pays_to_load(gain: int, size: int, speeds: Speeds, prefill: float) -> bool:
    """Return whether a state of `size` bytes is read sooner than the `gain` tokens are evaluated that it has
    more than the memory.
    """
    return gain >= LEAST_TOKENS and gain * prefill > size / speeds.read


def least_growth(
    tokens: int,
    saved: int,
    *,
    bytes_per_token: float,
    speeds: Speeds,
    prefill: float | None,
    competing: bool,
    has_farewell: bool = True,
) -> int:
    """Return how many tokens longer than the saved one a state has to be to be written.

    As many as are evaluated while it is written, times BEHIND. Where no other conversation takes its place in
    memory, it has to be twice as long as the saved one, too, and a third longer where the runtime has
    no farewell, so that more would be lost with the model: all that is written for it is then at most
    twice its size, or four times.
    """
    if prefill is None:
        return FIRST_TOKENS
    written = tokens * bytes_per_token / speeds.write
    least = max(LEAST_TOKENS, math.ceil(written * BEHIND / prefill))
    if competing:
        return least
    return max(least, saved if has_farewell else saved // 3)
