"""The description at /openapi.json: valid, and exactly what the route table has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rkllama.serve import routes
from rkllama.server.openapi import openapi_document
from rkllama.server.schemas import BODIES, COMPONENTS
from tests.cases import cases
from tests.running import Server

DOCUMENT = openapi_document(routes())


def operations() -> list[tuple[str, str, Any]]:
    return [
        (method.upper(), path, operation)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    ]


@pytest.mark.integration
def test_the_document_is_what_the_server_serves(server: Server) -> None:
    answer = server.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == DOCUMENT


def test_it_has_exactly_the_routes() -> None:
    table = {
        (method, re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.path))
        for route in routes()
        for method in route.methods
    }
    assert {(method, path) for method, path, _ in operations()} == table
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_schema_belongs_to_a_route() -> None:
    assert {route.accepts for route in routes()} - {None} == BODIES.keys()
    without = {
        (method, route.path)
        for route in routes()
        for method in route.methods
        if method in ("POST", "DELETE") and route.accepts is None
    }
    assert without == {
        ("POST", "/unload_model"),
        ("POST", "/api/blobs/<digest>"),
        ("DELETE", "/v1/responses/<id>"),
    }


@cases("schema", [*BODIES.values(), *COMPONENTS.values()])
def test_the_schemas_are_valid(schema: Any) -> None:
    Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    wanted = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert wanted == DOCUMENT["components"]["schemas"].keys()


def test_errors_are_described_in_each_dialects_shape() -> None:
    for method, path, operation in operations():
        if method == "HEAD":
            continue
        schema = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
        (dialect,) = operation["tags"]
        assert schema == {"$ref": f"#/components/schemas/{dialect}Error"}, path


@pytest.mark.integration
def test_starting_the_server_does_not_load_it() -> None:
    program = "import sys, rkllama.serve; print('rkllama.server.openapi' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
