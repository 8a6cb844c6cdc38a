"""Anthropic's API."""

from __future__ import annotations

from typing import Any

from ..api import anthropic
from ..errors import RKLLamaError
from .routing import Call, Reply, Route, generate, ok


def error(error: RKLLamaError, _call: Call) -> tuple[int, dict[str, Any]]:
    """Status and `{"type": "error", "error": {…}}`."""
    return error.status, anthropic.error_body(error)


def _messages(call: Call) -> Reply:
    return generate(call, anthropic.decode_messages(call.json()))


def _count_tokens(call: Call) -> Reply:
    request = anthropic.decode_count(call.json())
    return ok(anthropic.count_body(call.service.count_tokens(request, call.caller())))


ROUTES = tuple(
    Route(methods=methods, path=path, handler=handler, dialect=error, summary=summary)
    for methods, path, handler, summary in (
        (("POST",), "/v1/messages", _messages, "Answer a conversation"),
        (("POST",), "/v1/messages/count_tokens", _count_tokens, "Count a prompt's tokens"),
    )
)
