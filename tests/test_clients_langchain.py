"""LangChain's own agent loop, with a real tool, over the Ollama and the OpenAI dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.running import Server
from tests.test_clients_ollama import MODEL, ask
from tests.test_clients_openai import tool_call
from tests.virtual_npu import directive, write_model

asked: list[str] = []


@tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    asked.append(city)
    return "21 degrees " + directive(reply="It is mild.")


def model_of(kind: str, server: Server) -> Any:
    if kind == "ollama":
        return ChatOllama(model=MODEL, base_url=server.url)
    return ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=SecretStr("none"))


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_an_agent_calls_a_tool_and_answers(server: Server, models: Path, kind: str) -> None:
    write_model(models / f"{MODEL}.rkllm")
    asked.clear()
    agent: Any = create_agent(model_of(kind, server), tools=[get_weather])
    question = ask("Weather in Nantes?", reply=tool_call("Nantes"))
    result = agent.invoke({"messages": [question]})
    assert asked == ["Nantes"]
    assert result["messages"][-1].content == "It is mild."


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_streaming_and_usage(server: Server, models: Path, kind: str) -> None:
    write_model(models / f"{MODEL}.rkllm")
    model = model_of(kind, server)
    text = "".join(str(chunk.content) for chunk in model.stream([("user", "one two three")]))
    assert text == "one two three"
    assert model.invoke([("user", "hi")]).usage_metadata["output_tokens"] > 0


def test_embeddings(server: Server, models: Path) -> None:
    write_model(models / f"{MODEL}.rkllm")
    vectors = OllamaEmbeddings(model=MODEL, base_url=server.url).embed_documents(["a", "b"])
    assert len(vectors) == 2
