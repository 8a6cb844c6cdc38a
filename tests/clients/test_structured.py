"""Structured output through the real clients, from a model that writes keys and values wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, cast

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tests.clients.common import MODEL, ask
from tests.running import Server

pytestmark = pytest.mark.integration

SEEDS = range(2)


class Level(Enum):
    """How hard it is."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class Step(BaseModel):
    """What is done."""

    model_config = ConfigDict(extra="forbid")
    text: str
    minutes: int = Field(ge=0)


class Recipe(BaseModel):
    """How something is cooked."""

    model_config = ConfigDict(extra="forbid")
    title: str
    level: Level
    servings: int
    vegetarian: bool
    steps: list[Step]


EGGS: dict[str, Any] = {
    "title": "Boiled eggs",
    "level": "easy",
    "servings": 2,
    "vegetarian": True,
    "steps": [{"text": "Boil water", "minutes": 5}, {"text": "Boil the eggs", "minutes": 7}],
}
VAGUE = {**EGGS, "servings": "enough for all"}
"""A recipe whose servings the model does not give."""
MISSING = r"gave no value that fits at \$\.servings"


def _recipe(seed: int, value: dict[str, Any] = EGGS) -> Any:
    """A question to which the model writes a recipe, wrong in a third of its keys and values."""
    return ask("Eggs?", reply=json.dumps(value), faults=30, fault_tries=2, seed=seed)


def _call(seed: int, value: dict[str, Any] = EGGS) -> Any:
    """The same for a call of a tool."""
    call = json.dumps({"name": "Recipe", "arguments": value})
    return ask("Eggs?", reply=call, faults=30, fault_tries=2, seed=seed)


def _vague(recipe: dict[str, Any] = VAGUE) -> Any:
    return ask("Eggs?", reply=json.dumps(recipe))


def _vague_call() -> Any:
    return _vague({"name": "Recipe", "arguments": VAGUE})


def assert_is_recipe(value: Any) -> None:
    """It has what is not free text; that may be as the model has written it."""
    assert isinstance(value, Recipe)
    assert value.servings == 2
    assert value.level is Level.EASY


# --- openai ---------------------------------------------------------------------------------------


@pytest.fixture
def by_openai(scripted: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("seed", SEEDS)
def test_openai_chat(by_openai: openai.OpenAI, seed: int) -> None:
    answer = by_openai.chat.completions.parse(
        model=MODEL, messages=[_recipe(seed)], response_format=Recipe
    )
    assert_is_recipe(answer.choices[0].message.parsed)


@pytest.mark.parametrize("seed", SEEDS)
def test_openai_tools(by_openai: openai.OpenAI, seed: int) -> None:
    answer = by_openai.chat.completions.parse(
        model=MODEL,
        messages=[_call(seed)],
        tools=[openai.pydantic_function_tool(Recipe)],
        tool_choice="required",
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert_is_recipe(calls[0].function.parsed_arguments)


@pytest.mark.parametrize("seed", SEEDS)
def test_openai_responses(by_openai: openai.OpenAI, seed: int) -> None:
    answer = by_openai.responses.parse(model=MODEL, input=[_recipe(seed)], text_format=Recipe)
    assert_is_recipe(answer.output_parsed)


@pytest.mark.parametrize("tools", [[], [openai.pydantic_function_tool(Step)]])
def test_openai_streams_before_the_end(by_openai: openai.OpenAI, tools: Any) -> None:
    with by_openai.chat.completions.stream(
        model=MODEL,
        messages=[_recipe(1)],
        response_format=Recipe,
        tools=tools or openai.omit,
    ) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert_is_recipe(final.choices[0].message.parsed)
    titles = [cast("dict[str, Any]", value) for value in partial if value]
    assert len(titles) > 5
    assert "steps" not in titles[0]


def test_openai_failure(by_openai: openai.OpenAI) -> None:
    answer = by_openai.chat.completions.parse(
        model=MODEL, messages=[_vague()], response_format=Recipe
    )
    message = answer.choices[0].message
    assert message.parsed is None
    assert message.refusal is not None
    assert "$.servings" in message.refusal


# --- ollama ---------------------------------------------------------------------------------------


@pytest.fixture
def by_ollama(scripted: Server) -> Iterator[ollama.Client]:
    with contextlib.closing(ollama.Client(scripted.url)) as client:
        yield client


@pytest.mark.parametrize("seed", SEEDS)
def test_ollama(by_ollama: ollama.Client, seed: int) -> None:
    answer = by_ollama.chat(MODEL, [_recipe(seed)], format=Recipe.model_json_schema())
    assert_is_recipe(Recipe.model_validate_json(answer.message.content or ""))


def test_ollama_streams_before_the_end(by_ollama: ollama.Client) -> None:
    parts = [
        part.message.content or ""
        for part in by_ollama.chat(
            MODEL, [_recipe(1)], format=Recipe.model_json_schema(), stream=True
        )
    ]
    assert_is_recipe(Recipe.model_validate_json("".join(parts)))
    assert len([part for part in parts if part]) > 5


def test_ollama_failure(by_ollama: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match=MISSING):
        list(by_ollama.chat(MODEL, [_vague()], format=Recipe.model_json_schema(), stream=True))


# --- anthropic ------------------------------------------------------------------------------------


@pytest.fixture
def by_anthropic(scripted: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("seed", SEEDS)
def test_anthropic(by_anthropic: anthropic.Anthropic, seed: int) -> None:
    answer = by_anthropic.messages.parse(
        model=MODEL, max_tokens=500, messages=[_recipe(seed)], output_format=Recipe
    )
    assert_is_recipe(answer.parsed_output)


def _anthropic_call(client: anthropic.Anthropic, question: Any) -> anthropic.types.Message:
    return client.messages.create(
        model=MODEL,
        max_tokens=2000,  # on a machine that has much to do, a run that is stopped goes on for a while
        messages=[question],
        tools=[{"name": "Recipe", "input_schema": Recipe.model_json_schema()}],
        tool_choice={"type": "tool", "name": "Recipe"},
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_anthropic_tool(by_anthropic: anthropic.Anthropic, seed: int) -> None:
    answer = _anthropic_call(by_anthropic, _call(seed))
    assert answer.stop_reason == "tool_use"
    (block,) = answer.content
    assert block.type == "tool_use"
    assert_is_recipe(Recipe.model_validate(block.input))


def test_anthropic_failure(by_anthropic: anthropic.Anthropic) -> None:
    answer = _anthropic_call(by_anthropic, _vague_call())
    assert answer.stop_reason == "refusal"
    assert answer.stop_details is not None
    assert "$.arguments.servings" in (answer.stop_details.explanation or "")


# --- LangChain ------------------------------------------------------------------------------------

METHODS = ("json_schema", "function_calling")


@pytest.fixture(params=["ollama", "openai"])
def by_langchain(request: pytest.FixtureRequest, scripted: Server) -> Iterator[Any]:
    if request.param == "ollama":
        over_ollama = ChatOllama(model=MODEL, base_url=scripted.url)
        with contextlib.closing(over_ollama._client):
            yield over_ollama
        return
    with httpx.Client() as http:
        url, key = f"{scripted.url}/v1", SecretStr("none")
        yield ChatOpenAI(model=MODEL, base_url=url, api_key=key, http_client=http, max_retries=0)


@pytest.mark.parametrize("method", METHODS)
def test_langchain(by_langchain: Any, method: str) -> None:
    structured = by_langchain.with_structured_output(Recipe, method=method)
    for seed in SEEDS:
        if method == "json_schema":
            question = _recipe(seed)
        elif isinstance(by_langchain, ChatOpenAI):
            question = _call(seed)
        else:  # Ollama's API cannot demand a call: the model is free, and calls by itself
            call = json.dumps({"name": "Recipe", "arguments": EGGS})
            question = ask("Eggs?", reply=f"<tool_call>\n{call}\n</tool_call>")
        assert_is_recipe(structured.invoke([question]))


def test_langchain_failure(by_langchain: Any) -> None:
    structured = by_langchain.with_structured_output(Recipe, method="json_schema")
    with pytest.raises(Exception, match=r"servings") as failure:
        structured.invoke([_vague()])
    assert not isinstance(failure.value, AssertionError)
