"""LangChain's own agent loop, with a real tool, over the Ollama and the OpenAI dialect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.clients.common import MODEL, ask, tool_call
from tests.running import Server
from tests.virtual_npu import directive

pytestmark = pytest.mark.integration

asked: list[str] = []


@tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    asked.append(city)
    return "21 degrees " + directive(reply="It is mild.")


@pytest.fixture(params=["ollama", "openai"])
def model(request: pytest.FixtureRequest, scripted: Server) -> Iterator[Any]:
    """The chat model of both packages; neither closes its connections by itself."""
    asked.clear()
    if request.param == "ollama":
        over_ollama = ChatOllama(model=MODEL, base_url=scripted.url)
        with contextlib.closing(over_ollama._client):
            yield over_ollama
        return
    with httpx.Client() as http:
        url, key = f"{scripted.url}/v1", SecretStr("none")
        yield ChatOpenAI(model=MODEL, base_url=url, api_key=key, http_client=http)


def test_an_agent_calls_a_tool_and_answers(model: Any) -> None:
    agent: Any = create_agent(model, tools=[get_weather])
    question = ask("Weather in Nantes?", reply=tool_call("Nantes"))
    result = agent.invoke({"messages": [question]})
    assert asked == ["Nantes"]
    assert result["messages"][-1].content == "It is mild."


def test_an_agent_calls_two_tools_in_one_turn(model: Any) -> None:
    agent: Any = create_agent(model, tools=[get_weather])
    question = ask("And in Brest?", reply=tool_call("Nantes", "Brest"))
    result = agent.invoke({"messages": [question]})
    assert sorted(asked) == ["Brest", "Nantes"]
    assert result["messages"][-1].content == "It is mild."


def test_streaming_and_usage(model: Any) -> None:
    text = "".join(str(chunk.content) for chunk in model.stream([("user", "one two three")]))
    assert text == "one two three"
    assert model.invoke([("user", "hi")]).usage_metadata["output_tokens"] > 0


class Step(BaseModel):
    """What a recipe is made of."""

    title: str
    minutes: int


def test_structured_output(model: Any) -> None:
    structured = model.with_structured_output(Step, method="json_schema")
    question = ask("Eggs?", reply='{"title": "Boil", "minutes": 3}')
    assert structured.invoke([question]) == Step(title="Boil", minutes=3)


def test_embeddings(scripted: Server) -> None:
    embeddings = OllamaEmbeddings(model=MODEL, base_url=scripted.url)
    assert embeddings._client is not None
    with contextlib.closing(embeddings._client):
        vectors = embeddings.embed_documents(["a", "b"])
    assert len(vectors) == 2
