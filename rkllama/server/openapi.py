"""The server's own description in OpenAPI 3.1, out of its routes and the schemas that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import __version__
from .schemas import BODIES, COMPONENTS, Schema

if TYPE_CHECKING:
    from .routing import Route

_JSON = "application/json"
_PARAMETERS: dict[str, Schema] = {
    "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    "id": {"type": "string", "minLength": 1},
    "name": {"type": "string", "minLength": 1},
}
_PARAMETER = re.compile(r"<(\w+)(?::\w+)?>")


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        item = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        for method in route.methods:
            item[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "RKLLama", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
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
        "tags": [route.group.name],
        "responses": _responses(route, method),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in _PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in route.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if content := _request_content(route):
        operation["requestBody"] = {"required": True, "content": content}
    if route.public:
        operation["security"] = []
    return operation


def _operation_id(route: Route, method: str) -> str:
    return "_".join([method.lower(), *re.findall(r"\w+", _PARAMETER.sub(r"\1", route.path))])


def _request_content(route: Route) -> dict[str, Any]:
    if route.upload:
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    if route.accepts is None:
        return {}
    return {_JSON: {"schema": BODIES[route.accepts]}}


def _responses(route: Route, method: str) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if content := _answer_content(route):
        done["content"] = content
    if method == "HEAD":
        return {"200": done, "404": {"description": "Not found"}, "4XX": {"description": "Wrong"}}
    schema = {"$ref": f"#/components/schemas/{route.group.name}Error"}
    errors: dict[str, Any] = {_JSON: {"schema": schema}}
    if route.text_errors:
        errors["text/plain"] = {}
    return {
        str(route.status): done,
        "4XX": {"description": "The request is wrong", "content": errors},
        "5XX": {"description": "The server or the model failed", "content": errors},
    }


def _answer_content(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.returns:
        content[_JSON] = {"schema": {"type": "object", "required": list(route.returns)}}
    if route.content_type is not None:
        content[route.content_type.partition(";")[0]] = {}
    return content
