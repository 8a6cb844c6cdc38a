"""The hint by which a balancer sends a conversation to the board that has it in its cache.

It is what every turn of a conversation has in common: system prompt, tools and first user message, as a
hash. A client may send the one it was told, or one of its own, which is given back. That is all: no state
of this server is found by it, since the engine compares prompts themselves. So a hint that was guessed or
forged leads nowhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...types import ChatRequest, Message, Tool

NAME = "x-rkllama-session"
_VARIABLE = "HTTP_X_RKLLAMA_SESSION"
_encode = json.JSONEncoder(sort_keys=True).encode
_USABLE = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_BYTES = 16
"""Of the hash: it need not withstand anybody, see above."""
_BEGINNING = 1024
"""Characters of a prompt without messages, which may be a file that is being written, that are its own."""


def session_headers(
    environ: Mapping[str, Any], request: ChatRequest
) -> tuple[tuple[str, str], ...]:
    """Return the header of an answer: the hint that the client has sent, if that can be one, or the
    request's own.
    """
    sent = environ.get(_VARIABLE)
    return ((NAME, sent if sent and _USABLE.fullmatch(sent) else session_of(request)),)


def session_of(request: ChatRequest) -> str:
    """Return the hash, in 32 hex digits, of what a request's prompt begins with in every turn."""
    prefix = {
        "system": request.system,
        # As in the prompt, a client's own order of its tools means nothing.
        "tools": sorted(map(_tool_text, request.tools)),
        "messages": [[message.role, message.text] for message in _beginning(request.messages)],
        "prompt": (request.prompt or "")[:_BEGINNING],
    }
    return hashlib.blake2b(_encode(prefix).encode(), digest_size=_BYTES).hexdigest()


def _tool_text(tool: Tool) -> str:
    return _encode([tool.name, tool.description, dict(tool.parameters)])


def _beginning(messages: tuple[Message, ...]) -> Iterator[Message]:
    """Yield the messages up to the first of the user's."""
    for message in messages:
        yield message
        if message.role == "user":
            return
