"""What lies below /v1: OpenAI's API with the reranking of others, and Anthropic's API. Clients of both ask
for the models at the same paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..api import anthropic, openai, rerank, responses
from ..api.common import SSE_TYPE
from ..errors import RKLLamaError, Unsupported
from ..settings.values import alias_key
from .guard import key_number
from .response_store import OwnStore
from .routing import Call, Group, Reply, Route, generate, ok, states

# --- OpenAI ------------------------------------------------------------------------------------


def _word_openai_error(
    error: RKLLamaError, _environ: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and `{"error": {…}}`."""
    return error.status, openai.error_body(error)


OPENAI = Group(name="OpenAI", prefix="/v1/", word_error=_word_openai_error)


def _chat(call: Call) -> Reply:
    return generate(call, openai.decode_chat(call.json()))


def _completions(call: Call) -> Reply:
    return generate(call, openai.decode_completion(call.json()))


def _memory(call: Call) -> OwnStore:
    """Return what is kept for the caller's API key."""
    return call.responses.of(key_number(call.environ, call.settings.api_keys))


def _responses(call: Call) -> Reply:
    return generate(call, responses.decode_response(call.json(), memory=_memory(call)))


def _input_tokens(call: Call) -> Reply:
    request = responses.decode_input_tokens(call.json(), memory=_memory(call))
    return ok(responses.input_tokens_body(call.service.count_tokens(request, call.caller())))


def _response(call: Call) -> Reply:
    if call.query().get("stream") == "true":
        raise Unsupported("'stream' is not supported: kept responses are whole", param="stream")
    return ok(_memory(call).response(call.parameters["id"]))


def _delete_response(call: Call) -> Reply:
    _memory(call).remove(call.parameters["id"])
    return ok(responses.deleted_body(call.parameters["id"]))


def _input_items(call: Call) -> Reply:
    return ok(responses.items_body(_memory(call).inputs(call.parameters["id"]), call.query()))


def _embeddings(call: Call) -> Reply:
    embeddings = openai.decode_embeddings(call.json())
    return ok(embeddings.body(call.service.embed(embeddings.request, call.caller())))


def _rerank(call: Call) -> Reply:
    wanted = rerank.decode_rerank(call.json())
    return ok(wanted.body(call.service.rerank(wanted.request, call.caller())))


# --- Anthropic ---------------------------------------------------------------------------------


def _word_anthropic_error(
    error: RKLLamaError, _environ: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and `{"type": "error", "error": {…}}`."""
    return error.status, anthropic.error_body(error)


ANTHROPIC = Group(name="Anthropic", prefix="/v1/messages", word_error=_word_anthropic_error)


def _messages(call: Call) -> Reply:
    return generate(call, anthropic.decode_messages(call.json()))


def _count_tokens(call: Call) -> Reply:
    request = anthropic.decode_count(call.json())
    return ok(anthropic.count_body(call.service.count_tokens(request, call.caller())))


# --- Both --------------------------------------------------------------------------------------


def _is_for_anthropic(environ: Mapping[str, Any]) -> bool:
    """Whether the client names the version of Anthropic's API that it speaks, as all of its clients must."""
    return "HTTP_ANTHROPIC_VERSION" in environ


def _word_models_error(
    error: RKLLamaError, environ: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and body as the client's API has them."""
    group = ANTHROPIC if _is_for_anthropic(environ) else OPENAI
    return group.word_error(error, environ)


_MODELS = Group(name=OPENAI.name, prefix=None, word_error=_word_models_error)


def _models(call: Call) -> Reply:
    body_of = anthropic.models_body if _is_for_anthropic(call.environ) else openai.models_body
    service = call.service
    return ok(body_of(service.models(), service.aliases(), states(service)))


def _model(call: Call) -> Reply:
    body_of = anthropic.model_body if _is_for_anthropic(call.environ) else openai.model_body
    name, service = call.parameters["name"], call.service
    key = alias_key(name)
    aliases = [
        alias.name for alias in service.aliases() if alias_key(alias.name) == key and alias.info
    ]
    return ok(body_of(service.show(name).info, next(iter(aliases), None), states(service)))


_openai = partial(Route, group=OPENAI)
_anthropic = partial(Route, group=ANTHROPIC)
_shared = partial(Route, group=_MODELS)
ROUTES = (
    _openai(
        ("POST",),
        "/v1/chat/completions",
        _chat,
        "Answer a conversation",
        accepts="OpenAIChat",
        returns=("id", "object", "created", "model", "choices"),
        content_type=SSE_TYPE,
    ),
    _openai(
        ("POST",),
        "/v1/completions",
        _completions,
        "Continue a text",
        accepts="OpenAICompletion",
        returns=("id", "object", "created", "model", "choices"),
        content_type=SSE_TYPE,
    ),
    _openai(
        ("POST",),
        "/v1/responses",
        _responses,
        "Answer a conversation, and keep the answer",
        accepts="OpenAIResponse",
        returns=("id", "object", "created_at", "status", "output"),
        content_type=SSE_TYPE,
    ),
    _openai(
        ("POST",),
        "/v1/responses/input_tokens",
        _input_tokens,
        "Count a prompt's tokens",
        accepts="OpenAIResponse",
        returns=("object", "input_tokens"),
    ),
    _openai(
        ("GET",),
        "/v1/responses/<id>",
        _response,
        "A response that was kept",
        returns=("id", "object", "created_at", "status", "output"),
    ),
    _openai(
        ("DELETE",),
        "/v1/responses/<id>",
        _delete_response,
        "Forget a response",
        returns=("id", "object", "deleted"),
    ),
    _openai(
        ("GET",),
        "/v1/responses/<id>/input_items",
        _input_items,
        "What a kept response answers",
        returns=("object", "data", "has_more"),
    ),
    _openai(
        ("POST",),
        "/v1/embeddings",
        _embeddings,
        "Embeddings of texts",
        accepts="OpenAIEmbeddings",
        returns=("object", "data", "model", "usage"),
    ),
    *(
        _openai(
            ("POST",),
            path,
            _rerank,
            "Documents by how well they answer a query",
            accepts="Rerank",
            returns=("id", "model", "results"),
        )
        for path in ("/v1/rerank", "/v1/reranking", "/v2/rerank")
    ),
    _shared(("GET",), "/v1/models", _models, "Models on disk", returns=("object", "data")),
    _shared(
        ("GET",),
        "/v1/models/<name:path>",
        _model,
        "One model",
        returns=("id", "object", "created", "owned_by"),
    ),
    _anthropic(
        ("POST",),
        "/v1/messages",
        _messages,
        "Answer a conversation",
        accepts="AnthropicMessages",
        returns=("id", "type", "role", "content", "model", "usage"),
        content_type=SSE_TYPE,
    ),
    _anthropic(
        ("POST",),
        "/v1/messages/count_tokens",
        _count_tokens,
        "Count a prompt's tokens",
        accepts="AnthropicCount",
        returns=("input_tokens",),
    ),
)
