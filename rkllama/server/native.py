"""The documented REST API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..api import native
from ..api.common import NDJSON_TYPE
from ..errors import RKLLamaError
from .page import HTML, is_wanted, page_reply
from .routing import Call, Group, Reply, Route, generate, ok, stream


def _word_error(error: RKLLamaError, environ: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the documented status and text of an error."""
    return native.error_reply(error, environ["PATH_INFO"], _language(environ))


def _language(environ: Mapping[str, Any]) -> native.Language:
    return native.language(environ.get("HTTP_ACCEPT_LANGUAGE"))


GROUP = Group(name="RKLLama", prefix="", word_error=_word_error)
"""Its paths have no common beginning: what no other API claims is its."""


def _welcome(call: Call) -> Reply:
    if is_wanted(call.settings, call.environ):
        return page_reply(call.environ)
    reply = ok(native.welcome_body(_language(call.environ)))
    return replace(reply, headers=(("Vary", "Accept"),)) if call.settings.page else reply


def _models(call: Call) -> Reply:
    return ok(native.models_body(call.service.models()))


def _load_model(call: Call) -> Reply:
    name = native.decode_load(call.json())
    if not call.service.load_if_none(name, call.caller()):
        return ok(native.already_loaded_body(_language(call.environ)), status=400)
    return ok(native.loaded_body(name, _language(call.environ)))


def _unload_model(call: Call) -> Reply:
    call.service.unload()
    return ok(native.unloaded_body(_language(call.environ)))


def _current_model(call: Call) -> Reply:
    return ok(native.current_model_body(call.service.current()))


def _generate(call: Call) -> Reply:
    return generate(call, native.decode_generate(call.json(), _language(call.environ)))


def _rm(call: Call) -> Reply:
    call.service.remove(native.decode_name(call.json()))
    return ok(native.removed_body(_language(call.environ)))


def _pull(call: Call) -> Reply:
    language = _language(call.environ)
    lines = native.PullLines(language)
    try:
        steps = call.service.pull(native.decode_name(call.json()))
        # Nothing is sent before the Hub has answered, so that an error has its status.
        first = next(step for step in steps if step.status != "resolving")
    except RKLLamaError as problem:
        text = native.pull_error_text(problem, language)
        return Reply(body=text.encode(), status=400, content_type=lines.content_type)
    return stream(call, lines, steps, first)


def _search(call: Call) -> Reply:
    asked = native.decode_search(call.query())
    found = call.service.search(asked.text, asked.format, asked.page, call.caller())
    return ok(native.search_body(found))


_route = partial(Route, group=GROUP)
ROUTES = (
    _route(
        ("GET",),
        "/",
        _welcome,
        "Welcome message, or the page for a browser",
        returns=("message", "github"),
        content_type=HTML,
        page=True,
    ),
    _route(("GET",), "/models", _models, "File names of the models", returns=("models",)),
    _route(
        ("POST",),
        "/load_model",
        _load_model,
        "Load a model",
        accepts="Load",
        returns=("message",),
    ),
    _route(
        ("POST",), "/unload_model", _unload_model, "Unload the current model", returns=("message",)
    ),
    _route(
        ("GET",),
        "/current_model",
        _current_model,
        "Name of the current model",
        returns=("model_name",),
    ),
    _route(
        ("POST",),
        "/generate",
        _generate,
        "Generate an answer",
        accepts="Generate",
        returns=("id", "object", "created", "choices", "usage"),
        content_type=NDJSON_TYPE,
    ),
    _route(
        ("POST",),
        "/pull",
        _pull,
        "Download a model",
        accepts="Named",
        content_type=native.PullLines.content_type,
        text_errors=True,
    ),
    _route(
        ("DELETE", "POST"),
        "/rm",
        _rm,
        "Delete a model",
        accepts="Named",
        returns=("message",),
    ),
    _route(
        ("GET",),
        "/api/rkllama/search",
        _search,
        "Search Hugging Face for models that run on this board",
        query=("query", "format", "page"),
        returns=("models", "total", "more"),
    ),
)
