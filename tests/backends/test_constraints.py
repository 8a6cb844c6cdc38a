"""What llama.cpp makes of the house's own grammars: it reads them, and holds a model to them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from rkllama.backends.grammar import constraints, is_passed_over
from rkllama.models.guide import FILE
from rkllama.schema.grammar import compile_schema
from tests.schema.test_gbnf import SCHEMAS

pytestmark = pytest.mark.integration

_TOKENS = 16
NAMES = {"type": "object", "propertyNames": {"enum": ["x", "y"]}}


@pytest.fixture(scope="module")
def llama() -> Iterator[Any]:
    module = pytest.importorskip("xllamacpp")
    parameters = module.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = FILE, 512, 1
    parameters.cpuparams.n_threads, parameters.warmup, parameters.verbosity = 1, False, 0
    yield module.Server(parameters)
    gc.collect()


def ask(llama: Any, tokens: int, **constraint: Any) -> str:
    """The answer of a model that writes what it likes, as far as it may."""
    said: list[str] = []

    def take(chunk: dict[str, Any]) -> bool:
        assert "error" not in chunk, chunk
        said.extend(choice["text"] for choice in chunk.get("choices", ()))
        return False

    request = {"prompt": "Answer: ", "stream": True, "n_predict": tokens, "seed": 1}
    answer = llama.handle_completions({**request, "temperature": 1.5, **constraint}, take)
    assert "error" not in (answer or {}), answer
    return "".join(said)


def test_llama_cpp_reads_each_grammar_and_holds_to_it(llama: Any) -> None:
    for name, schema in list(SCHEMAS.items())[::2]:
        grammar = compile_schema(schema)
        text = ask(llama, _TOKENS, grammar=grammar.gbnf())
        count, _ = grammar.start().feed(text)
        assert count == len(text) or not grammar.decided_by_prefix, f"{name}: {text}"


@pytest.mark.parametrize(
    ("schema", "first", "last"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "json_schema", "grammar"),
        (NAMES, "grammar", "json_schema"),
        ({"type": "string", "pattern": "^(?=a)"}, "json_schema", "json_schema"),
        ("json", "json_schema", "grammar"),
    ],
)
def test_a_grammar_comes_first_where_a_schema_is_passed_over(
    schema: Any, first: str, last: str
) -> None:
    found = [next(iter(each)) for each in constraints(schema)]
    assert (found[0], found[-1]) == (first, last)


@pytest.mark.parametrize(
    ("schema", "passed", "converted"),
    [
        ({"type": "integer", "minimum": 1}, False, False),
        ({"type": "number", "minimum": 1}, False, True),
        ({"items": [{"pattern": "a"}]}, False, True),
        ({"properties": {"a": {"not": {"const": 1}}}}, True, True),
        ({"enum": [{"not": 1}]}, False, False),
        ({"anyOf": [{"type": "string", "format": "uri"}]}, True, True),
    ],
)
def test_what_is_passed_over_depends_on_the_build(
    schema: Any, passed: bool, converted: bool
) -> None:
    assert is_passed_over(schema, converted=False) is passed
    assert is_passed_over(schema, converted=True) is converted
