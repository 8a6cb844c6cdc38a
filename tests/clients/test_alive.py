"""The real clients over a server that is long in answering: they skip its signs of life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.clients.common import MODEL, ask, install, tool_call
from tests.conftest import isolate
from tests.relay import Relay
from tests.running import Server
from tests.virtual_npu import directive, library

pytestmark = pytest.mark.integration

SLOW: dict[str, object] = {"prefill_us": 8000}
"""A prompt takes about half a second, and a sign is due each tenth."""
WITH_TOOLS: dict[str, object] = {"prefill_us": 1500}
SIGNS = (b": queue position 0\n\n", b"event: ping\n", b'"queue_position":0}\n')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, tmp_path_factory.mktemp("alive")) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        install(models)
        with Server(env={"RKLLAMA_ALIVE_INTERVAL": "0.1"}) as running:
            yield running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """Where the server is found; at the end several signs have been given."""
    with Relay(server) as relay:
        yield relay.url
    assert sum(map(relay.received.count, SIGNS)) >= 2, relay.received


def question(number: int, **config: object) -> Any:
    """A message of its own for each test, so that nothing of it is in the cache."""
    return ask(" ".join(f"{number}{word}" for word in "abcdefgh"), **{**SLOW, **config})


def test_ollama(url: str) -> None:
    with contextlib.closing(ollama.Client(host=url)) as client:
        parts = list(client.chat(MODEL, [question(1, reply="one two")], stream=True))
        assert "".join(part.message.content or "" for part in parts) == "one two"
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        prompt = "a b c d e f " + directive(reply="three", **SLOW)
        texts = [part.response for part in client.generate(MODEL, prompt, stream=True)]
        assert "".join(text or "" for text in texts) == "three"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def test_ollama_with_tools(url: str) -> None:
    with contextlib.closing(ollama.Client(host=url)) as client:
        message = question(2, reply=tool_call("Nantes", "Brest"), **WITH_TOOLS)
        parts = list(client.chat(MODEL, [message], tools=[WEATHER], stream=True))
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    assert [call.arguments["city"] for call in calls] == ["Nantes", "Brest"]


def test_ollama_async(url: str) -> None:
    async def text() -> str:
        client = ollama.AsyncClient(host=url)
        stream = await client.chat(MODEL, [question(3, reply="one two")], stream=True)
        return "".join([part.message.content or "" async for part in stream])

    assert asyncio.run(text()) == "one two"


def test_openai_chat(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with client.chat.completions.stream(
            model=MODEL, messages=[question(4, reply="one two")]
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        assert kinds[-1] == "content.done"
        assert final.choices[0].message.content == "one two"


def test_openai_chat_with_tools(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        message = question(5, reply=tool_call("Nantes"), **WITH_TOOLS)
        with client.chat.completions.stream(
            model=MODEL, messages=[message], tools=[WEATHER]
        ) as stream:
            final = stream.until_done().get_final_completion()
        calls = final.choices[0].message.tool_calls or []
        assert len(calls) == 1
        assert calls[0].function.arguments == '{"city":"Nantes"}'


def test_openai_completion(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        prompt = "6a 6b 6c 6d 6e 6f 6g 6h " + directive(reply="one two", **SLOW)
        chunks = client.completions.create(model=MODEL, prompt=prompt, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == "one two"


def test_openai_responses(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        text = question(7, reply="one two")["content"]
        with client.responses.stream(model=MODEL, input=text) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert final.output_text == "one two"


def test_openai_async(url: str) -> None:
    async def text() -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=[question(8, reply="one two")], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(text()) == "one two"


def test_openai_raises_an_error_that_comes_after_a_sign(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model=MODEL, messages=[question(9, run_error=1)], stream=True
        )
        with pytest.raises(openai.APIError, match="runtime"):
            list(chunks)


def test_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        messages: Any = [question(10, reply="one two")]
        with client.messages.stream(model=MODEL, max_tokens=20, messages=messages) as stream:
            kinds = [event.type for event in stream]
            final: Any = stream.get_final_message()
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert "ping" not in kinds
        assert final.content[0].text == "one two"
        assert final.usage.output_tokens == 2


def test_anthropic_raises_an_error_that_comes_after_a_sign(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        messages: Any = [question(11, run_error=1)]
        with (
            pytest.raises(anthropic.APIError, match="runtime"),
            client.messages.stream(model=MODEL, max_tokens=20, messages=messages) as stream,
        ):
            list(stream)


def test_langchain_over_ollama(url: str) -> None:
    model = ChatOllama(model=MODEL, base_url=url)
    with contextlib.closing(model._client):
        text = question(12, reply="one two")["content"]
        assert "".join(str(chunk.content) for chunk in model.stream(text)) == "one two"


def test_langchain_over_openai(url: str) -> None:
    with httpx.Client() as http:
        key = SecretStr("none")
        model = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key=key, http_client=http)
        text = question(13, reply="one two")["content"]
        assert "".join(str(chunk.content) for chunk in model.stream(text)) == "one two"
