"""What lies below /v1: OpenAI's API and Anthropic's. Both ask for the models at the same paths."""

from __future__ import annotations

from typing import Any

from ..api import anthropic, openai, responses
from ..errors import RKLLamaError
from .routing import Call, Reply, Route, generate, ok

# --- OpenAI ------------------------------------------------------------------------------------


def openai_error(error: RKLLamaError, _call: Call) -> tuple[int, dict[str, Any]]:
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


# --- Anthropic ---------------------------------------------------------------------------------


def anthropic_error(error: RKLLamaError, _call: Call) -> tuple[int, dict[str, Any]]:
    """Status and `{"type": "error", "error": {…}}`."""
    return error.status, anthropic.error_body(error)


def _messages(call: Call) -> Reply:
    return generate(call, anthropic.decode_messages(call.json()))


def _count_tokens(call: Call) -> Reply:
    request = anthropic.decode_count(call.json())
    return ok(anthropic.count_body(call.service.count_tokens(request, call.caller())))


# --- Both --------------------------------------------------------------------------------------


def _is_for_anthropic(call: Call) -> bool:
    """Whether the client names the version of Anthropic's API that it speaks, as all of its clients must."""
    return "HTTP_ANTHROPIC_VERSION" in call.environ


def _models_error(error: RKLLamaError, call: Call) -> tuple[int, dict[str, Any]]:
    """Status and body as the client's API has them."""
    dialect = anthropic_error if _is_for_anthropic(call) else openai_error
    return dialect(error, call)


def _models(call: Call) -> Reply:
    body_of = anthropic.models_body if _is_for_anthropic(call) else openai.models_body
    return ok(body_of(call.service.models()))


def _model(call: Call) -> Reply:
    body_of = anthropic.model_body if _is_for_anthropic(call) else openai.model_body
    return ok(body_of(call.service.show(call.parameters["name"]).info))


ROUTES = tuple(
    Route(methods=methods, path=path, handler=handler, dialect=error, summary=summary)
    for methods, path, handler, error, summary in (
        (("POST",), "/v1/chat/completions", _chat, openai_error, "Answer a conversation"),
        (("POST",), "/v1/completions", _completions, openai_error, "Continue a text"),
        (("POST",), "/v1/responses", _responses, openai_error, "Answer a conversation (stateless)"),
        (("POST",), "/v1/embeddings", _embeddings, openai_error, "Vectors of texts"),
        (("GET",), "/v1/models", _models, _models_error, "Models on disk"),
        (("GET",), "/v1/models/<name:path>", _model, _models_error, "One model"),
        (("POST",), "/v1/messages", _messages, anthropic_error, "Answer a conversation"),
        (
            ("POST",),
            "/v1/messages/count_tokens",
            _count_tokens,
            anthropic_error,
            "Count a prompt's tokens",
        ),
    )
)
