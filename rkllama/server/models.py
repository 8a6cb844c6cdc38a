"""The models, for clients of OpenAI and of Anthropic: both ask for them at the same paths."""

from __future__ import annotations

from typing import Any

from ..api import anthropic as anthropic_api
from ..api import openai as openai_api
from ..errors import RKLLamaError
from . import anthropic
from . import v1 as openai
from .routing import Call, Reply, Route, ok


def _is_anthropics(call: Call) -> bool:
    """Whether the client has named the version of Anthropic's API that it speaks, as all of them must."""
    return "HTTP_ANTHROPIC_VERSION" in call.environ


def error(error: RKLLamaError, call: Call) -> tuple[int, dict[str, Any]]:
    """Status and body as the client's API has them."""
    dialect = anthropic.error if _is_anthropics(call) else openai.error
    return dialect(error, call)


def _models(call: Call) -> Reply:
    body_of = anthropic_api.models_body if _is_anthropics(call) else openai_api.models_body
    return ok(body_of(call.service.models()))


def _model(call: Call) -> Reply:
    body_of = anthropic_api.model_body if _is_anthropics(call) else openai_api.model_body
    return ok(body_of(call.service.show(call.parameters["name"]).info))


ROUTES = tuple(
    Route(methods=("GET",), path=path, handler=handler, dialect=error, summary=summary)
    for path, handler, summary in (
        ("/v1/models", _models, "Models on disk"),
        ("/v1/models/<name:path>", _model, "One model"),
    )
)
