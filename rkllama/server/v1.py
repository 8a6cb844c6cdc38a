"""OpenAI's API."""

from __future__ import annotations

from typing import Any

from ..api import openai, responses
from ..errors import RKLLamaError
from .routing import Call, Reply, Route, generate, ok


def error(error: RKLLamaError, _call: Call) -> tuple[int, dict[str, Any]]:
    """Status and `{"error": {…}}`."""
    return error.status, openai.error_body(error)


def _chat(call: Call) -> Reply:
    return generate(call, openai.decode_chat(call.json()))


def _completions(call: Call) -> Reply:
    return generate(call, openai.decode_completion(call.json()))


def _responses(call: Call) -> Reply:
    return generate(call, responses.decode_response(call.json()))


def _embeddings(call: Call) -> Reply:
    wanted = openai.decode_embeddings(call.json())
    return ok(wanted.body(call.service.embed(wanted.request, call.caller())))


ROUTES = tuple(
    Route(methods=methods, path=path, handler=handler, dialect=error, summary=summary)
    for methods, path, handler, summary in (
        (("POST",), "/v1/chat/completions", _chat, "Answer a conversation"),
        (("POST",), "/v1/completions", _completions, "Continue a text"),
        (("POST",), "/v1/responses", _responses, "Answer a conversation (stateless)"),
        (("POST",), "/v1/embeddings", _embeddings, "Vectors of texts"),
    )
)
