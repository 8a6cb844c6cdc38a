"""The server's own description, in OpenAPI 3.1: the route table, and what openapi_schemas.py tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import __version__
from .schemas import ANSWERS, COMPONENTS, REQUESTS, Schema

if TYPE_CHECKING:
    from .routing import Route

_NDJSON, _EVENTS, _PLAIN = "application/x-ndjson", "text/event-stream", "text/plain"
_STREAMS = {
    "/generate": _NDJSON,
    "/pull": _PLAIN,
    "/api/chat": _NDJSON,
    "/api/generate": _NDJSON,
    "/api/pull": _NDJSON,
    "/api/create": _NDJSON,
    "/v1/chat/completions": _EVENTS,
    "/v1/completions": _EVENTS,
    "/v1/responses": _EVENTS,
    "/v1/messages": _EVENTS,
    "/metrics": _PLAIN,
}
"""What else than JSON a path answers with."""
_EMPTY = ("/api/delete", "/api/copy", "/api/blobs/<digest>")
_PARAMETERS: dict[str, Schema] = {
    "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    "name": {"type": "string", "minLength": 1},
}
_PARAMETER = re.compile(r"<(\w+)(?::\w+)?>")


def _error_shape(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields, "required": list(fields)}


_TEXT: Schema = {"type": "string"}
_NULLABLE: Schema = {"type": ["string", "null"]}
_ERRORS: dict[str, Schema] = {
    "RKLLama": _error_shape(error=_TEXT),
    "Ollama": _error_shape(error=_TEXT, code=_TEXT),
    "OpenAI": _error_shape(
        error=_error_shape(message=_TEXT, type=_TEXT, param=_NULLABLE, code=_NULLABLE)
    ),
    "Anthropic": _error_shape(
        type={"const": "error"}, error=_error_shape(type=_TEXT, message=_TEXT)
    ),
}


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        item = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        for method in route.methods:
            item[method.lower()] = _operation(route, method)
    errors = {f"{name}Error": schema for name, schema in _ERRORS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "RKLLama", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**COMPONENTS, **errors},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        # A key is needed only where the server was started with one.
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route, method),
        "summary": route.summary,
        "tags": [_dialect(route.path)],
        "responses": _responses(route.path, method),
    }
    if names := _PARAMETER.findall(route.path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
            for name in names
        ]
    if content := _request_content(route.path, method):
        operation["requestBody"] = {"required": True, "content": content}
    if route.public:
        operation["security"] = []
    return operation


def _operation_id(route: Route, method: str) -> str:
    return "_".join([method.lower(), *re.findall(r"\w+", _PARAMETER.sub(r"\1", route.path))])


def _dialect(path: str) -> str:
    if path.startswith("/v1/messages"):
        return "Anthropic"
    if path.startswith("/v1/"):
        return "OpenAI"
    return "Ollama" if path.startswith("/api/") else "RKLLama"


def _request_content(path: str, method: str) -> dict[str, Any]:
    if schema := REQUESTS.get((method, path)):
        return {"application/json": {"schema": schema}}
    if method == "POST" and path.startswith("/api/blobs/"):
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {}


def _responses(path: str, method: str) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if path not in _EMPTY:
        done["content"] = _answer_content(path, method)
    if method == "HEAD":
        return {"200": done, "404": {"description": "Not there"}, "4XX": {"description": "Wrong"}}
    schema = {"$ref": f"#/components/schemas/{_dialect(path)}Error"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if path == "/pull":  # documented as a line of text
        content[_PLAIN] = {}
    return {
        "201" if path.startswith("/api/blobs/") else "200": done,
        "4XX": {"description": "The request is wrong", "content": content},
        "5XX": {"description": "The server or the model failed", "content": content},
    }


def _answer_content(path: str, method: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if keys := ANSWERS.get((method, path)):
        content["application/json"] = {"schema": {"type": "object", "required": list(keys)}}
    if stream := _STREAMS.get(path):
        content[stream] = {}
    return content
