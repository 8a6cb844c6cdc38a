"""instructor over the real server, in each mode that speaks one of its APIs.

It asks for older versions of other packages than are tested here, and works with these as well: it is
installed without what it asks for, see CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.clients.common import MODEL, ask
from tests.clients.test_structured import EGGS, VAGUE, Step
from tests.running import Server

if folder := os.environ.get("TEST_INSTRUCTOR"):
    sys.path.append(folder)
    instructor: Any = importlib.import_module("instructor")
else:
    reason = "instructor is not installed: CONTRIBUTING.md says how"
    instructor = pytest.importorskip("instructor", reason=reason)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:instructor"),
]

MODES = {
    "JSON": "asked",
    "MD_JSON": "asked",
    "JSON_SCHEMA": "json",
    "TOOLS": "call",
    "RESPONSES_TOOLS": "call",
}
"""What a mode wants of the model: JSON or a call of a schema that the server is told, or JSON that the model
is only asked for.
"""
OTHER_NAMES = {
    "JSON_O1": "json",
    "TOOLS_STRICT": "call",
    "FUNCTIONS": "call",
    "RESPONSES_TOOLS_WITH_INBUILT_TOOLS": "call",
}
ANTHROPIC_MODES = {
    "ANTHROPIC_JSON": "asked",
    "ANTHROPIC_TOOLS": "call",
    "ANTHROPIC_REASONING_TOOLS": "free call",
}


class Recipe(BaseModel):
    """How something is cooked; instructor takes no text for an Enum's member."""

    model_config = ConfigDict(extra="forbid")
    title: str
    level: Literal["easy", "medium", "hard"]
    servings: int
    vegetarian: bool
    steps: list[Step]


def assert_is_recipe(value: Any) -> None:
    """It has what is not free text; that may be as the model has written it."""
    recipe = Recipe.model_validate(value.model_dump())
    assert (recipe.level, recipe.servings, len(recipe.steps)) == ("easy", 2, 2)


def question(kind: str, value: Any = EGGS, name: str = "Recipe", **config: Any) -> Any:
    """A question to which the model writes a value, wrong in a third of its keys and values where the server
    can see to it.
    """
    text = json.dumps(value)
    if "call" in kind:
        text = json.dumps({"name": name, "arguments": value})
    if kind == "free call":
        text = f"<tool_call>\n{text}\n</tool_call>"
    faults = 0 if kind == "asked" else 30
    return ask("Eggs?", reply=text, **{"faults": faults, "fault_tries": 2, "seed": 1, **config})


@pytest.fixture
def by_openai(scripted: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def by_anthropic(scripted: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted.url, api_key="none", max_retries=0) as client:
        yield client


def over_openai(client: openai.OpenAI, mode: str) -> Any:
    return instructor.from_openai(client, mode=instructor.Mode[mode])


def over_anthropic(client: anthropic.Anthropic, mode: str) -> Any:
    return instructor.from_anthropic(client, mode=instructor.Mode[mode])


def wants(message: Any, shape: Any = Recipe) -> dict[str, Any]:
    given = {"model": MODEL, "messages": [message], "response_model": shape}
    return {**given, "max_retries": 0, "max_tokens": 2000}


@pytest.mark.parametrize("mode", [*MODES, *OTHER_NAMES])
def test_a_value(by_openai: openai.OpenAI, mode: str) -> None:
    kind = {**MODES, **OTHER_NAMES}[mode]
    assert_is_recipe(over_openai(by_openai, mode).create(**wants(question(kind))))


@pytest.mark.parametrize("mode", MODES)
def test_a_value_that_is_not_given_is_an_error(by_openai: openai.OpenAI, mode: str) -> None:
    core = importlib.import_module("instructor.core")
    vague = wants(question(MODES[mode], VAGUE, faults=0))
    with pytest.raises(core.InstructorRetryException) as failure:
        over_openai(by_openai, mode).create(**vague)
    place = {"asked": "servings", "json": "$.servings", "call": "$.arguments.servings"}
    assert place[MODES[mode]] in str(failure.value)


@pytest.mark.parametrize("mode", MODES)
def test_a_value_comes_in_parts(by_openai: openai.OpenAI, mode: str) -> None:
    """Arguments of a call come whole."""
    *partial, last = over_openai(by_openai, mode).create_partial(**wants(question(MODES[mode])))
    assert_is_recipe(last)
    assert partial or MODES[mode] == "call"


@pytest.mark.parametrize("mode", MODES)
def test_several_values(by_openai: openai.OpenAI, mode: str) -> None:
    asked = question(MODES[mode], {"tasks": EGGS["steps"]}, "IterableStep")
    found = over_openai(by_openai, mode).create_iterable(**wants(asked, Step))
    assert [step.minutes for step in found] == [5, 7]


def test_parallel_calls(by_openai: openai.OpenAI) -> None:
    calls = [json.dumps({"name": "Step", "arguments": step}) for step in EGGS["steps"]]
    reply = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)
    client = over_openai(by_openai, "PARALLEL_TOOLS")
    found = client.create(**wants(ask("Eggs?", reply=reply), Iterable[Step | Recipe]))
    assert [step.minutes for step in found] == [5, 7]


@pytest.mark.parametrize("mode", ANTHROPIC_MODES)
def test_a_value_by_anthropic(by_anthropic: anthropic.Anthropic, mode: str) -> None:
    client = over_anthropic(by_anthropic, mode)
    assert_is_recipe(client.create(**wants(question(ANTHROPIC_MODES[mode]))))
    *_, last = client.create_partial(**wants(question(ANTHROPIC_MODES[mode])))
    assert_is_recipe(last)


def test_parallel_calls_by_anthropic(by_anthropic: anthropic.Anthropic) -> None:
    calls = [json.dumps({"name": "Step", "arguments": step}) for step in EGGS["steps"]]
    reply = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)
    client = over_anthropic(by_anthropic, "ANTHROPIC_PARALLEL_TOOLS")
    found = client.create(**wants(ask("Eggs?", reply=reply), Iterable[Step | Recipe]))
    assert [step.minutes for step in found] == [5, 7]
