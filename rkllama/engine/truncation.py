"""A conversation without its oldest turns, for a context that does not hold all of it."""

from __future__ import annotations

from itertools import accumulate

from ..errors import PromptTooLong
from ..types import Message

_STRIDE = 4
"""User's turns between two places to cut: the turns that follow are cut in the same place, so that what
the runtime has evaluated goes on serving them."""


def truncate(
    messages: tuple[Message, ...], error: PromptTooLong, room: int
) -> tuple[Message, ...] | None:
    """Return what is left of messages that are too long by this error; None where nothing can be left out.

    `room` are the tokens of the context that the answer needs.
    The system messages at the beginning stay, and the last user's turn with what follows it. The first
    of the rest is a user's turn: no result of a tool stands without its call.
    """
    head = next((n for n, message in enumerate(messages) if message.role != "system"), 0)
    starts = [n for n in range(head, len(messages)) if messages[n].role == "user"]
    places = sorted({*starts[_STRIDE::_STRIDE], *starts[1:][-1:]})
    if not places:
        return None
    # Each message is measured once: a client may send hundreds of thousands.
    before = list(accumulate(map(_size, messages), initial=0))
    most = before[-1] * _share(error, room) - before[head]
    cut = next((n for n in places if before[-1] - before[n] <= most), places[-1])
    return messages[:head] + messages[cut:]


def _share(error: PromptTooLong, room: int) -> float:
    """Return how much of the text may stay, assuming the same number of tokens per character throughout."""
    if not error.prompt_tokens or not error.context_length:
        return 0.5
    return min(1.0, max(0, error.context_length - room) / error.prompt_tokens)


def _size(message: Message) -> int:
    calls = sum(len(str(call.arguments)) for call in message.tool_calls)
    return len(message.text) + len(message.reasoning or "") + calls
