"""Schemas that are there to keep a server busy: refused with a reason, or compiled, in little time."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from rkllama.schema.errors import SchemaError
from rkllama.schema.grammar import compile_schema
from tests.cases import cases
from tests.cost import calls, processor_seconds
from tests.schema.hostile import HOSTILE
from tests.schema.tools import LARGEST
from tests.schema.walking import DeadEnd, random_text

pytestmark = pytest.mark.integration

_MOST_SECONDS = 3.0
"""Ten times what any of them takes; what grows with the power of the schema would have to be ended."""


@cases("name", HOSTILE)
def test_a_hostile_schema_takes_little(name: str) -> None:
    schema = HOSTILE[name]()

    def work() -> None:
        try:
            grammar = compile_schema(schema)
        except SchemaError:
            return
        with suppress(DeadEnd):  # its smallest text may be longer
            random_text(grammar, random.Random(0), 40, 120)

    assert processor_seconds(work) < _MOST_SECONDS


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_honest_schemas_take_milliseconds(name: str) -> None:
    """A hundred thousand calls are ten to twenty of them."""
    compile_schema(LARGEST[name])
    assert calls(lambda: compile_schema(LARGEST[name])).total() < 130_000


def test_a_character_takes_some_calls_however_large_the_schema() -> None:
    state = compile_schema(HOSTILE["10 000 values"]()).start()
    text = '"value number 9999"'
    assert calls(lambda: state.feed(text)).total() < 60 * len(text)
