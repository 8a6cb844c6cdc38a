"""Pictures from the real client packages, and in the shapes in which other clients send them, to one server
over both virtual libraries.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.backends.vision.pictures import encoded, halves
from tests.clients.test_js import packages, run_node
from tests.conftest import isolate
from tests.running import Server
from tests.seeing import OTHER, PHOTO, put_model, told, use_libraries
from tests.seeing_gguf import colour, write_mmproj, write_seeing

__all__ = ["packages"]
pytestmark = pytest.mark.integration

MODEL = "vl"
PNG = base64.b64encode(PHOTO).decode()
JPEG = base64.b64encode(OTHER).decode()
PNG_URL, JPEG_URL = f"data:image/png;base64,{PNG}", f"data:image/jpeg;base64,{JPEG}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, directory) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        use_libraries(patch)
        put_model(models, MODEL, directory / "trace", encoder={})
        write_seeing(models / "seer" / "seer-Q8_0.gguf")
        write_mmproj(models / "seer" / "mmproj-seer-F16.gguf")
        with Server("--max-loaded", "2") as running:
            yield running


# --- Ollama's dialect --------------------------------------------------------------------------


def test_ollama(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PHOTO)
    with contextlib.closing(ollama.Client(host=server.url)) as client:
        assert "vision" in (client.show(MODEL).capabilities or ())
        message = {"role": "user", "content": "What is it?", "images": [str(path), OTHER]}
        answer = client.chat(MODEL, [message])
        assert answer.message.content == told(PHOTO, OTHER)
        history: Any = [message, answer.message, {"role": "user", "content": "And how many?"}]
        parts = client.chat(MODEL, history, stream=True)
        assert "".join(part.message.content or "" for part in parts) == told(PHOTO, OTHER)
        assert client.generate(MODEL, "What?", images=[PNG]).response == told(PHOTO)
        with pytest.raises(ollama.ResponseError, match="the picture cannot be read") as failed:
            client.generate(MODEL, "What?", images=[PHOTO[:60]])
        assert failed.value.status_code == 400


def test_npm_ollama(server: Server, packages: str) -> None:
    answer = run_node(packages, server.url, "picture", PNG, model=MODEL)
    assert answer["message"]["content"] == told(PHOTO)


# --- OpenAI's ----------------------------------------------------------------------------------


def test_openai_chat(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        parts: Any = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}},
        ]
        history: Any = [{"role": "user", "content": parts}]
        answer = client.chat.completions.create(model=MODEL, messages=history)
        assert answer.choices[0].message.content == told(PHOTO)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 9
        with client.chat.completions.stream(model=MODEL, messages=history) as stream:
            assert stream.get_final_completion().choices[0].message.content == told(PHOTO)
        parts[1]["image_url"]["url"] = "http://127.0.0.1:1/photo.png"
        with pytest.raises(openai.BadRequestError, match="is a URL, which is not fetched"):
            client.chat.completions.create(model=MODEL, messages=history)


def test_openai_responses(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        picture: Any = {"type": "input_image", "image_url": JPEG_URL, "detail": "auto"}
        text: Any = {"type": "input_text", "text": "What is it?"}
        item: Any = {"role": "user", "content": [text, picture]}
        first = client.responses.create(model=MODEL, input=[item])
        assert first.output_text == told(OTHER)
        more = client.responses.create(
            model=MODEL, input="And how many?", previous_response_id=first.id
        )
        assert more.output_text == told(OTHER)
        with client.responses.stream(model=MODEL, input=[item]) as stream:
            assert stream.get_final_response().output_text == told(OTHER)


def test_codex_view_image(server: Server) -> None:
    """The result of its tool is a picture; others send a message of the user behind a result in words."""
    call = {"type": "function_call", "name": "view_image", "call_id": "call_1"}
    result: Any = {"type": "function_call_output", "call_id": "call_1"}
    items: Any = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]},
        {**call, "arguments": '{"path": "/tmp/photo.png"}'},
        {**result, "output": [{"type": "input_image", "image_url": PNG_URL}]},
    ]
    body = {"model": MODEL, "input": items, "stream": False, "store": False}
    reply = server.post("/v1/responses", body).json
    assert reply["output"][-1]["content"][0]["text"] == told(PHOTO)
    items[2]["output"] = "attached local image path"
    picture = {"type": "input_image", "image_url": JPEG_URL}
    items.append({"type": "message", "role": "user", "content": [picture]})
    reply = server.post("/v1/responses", body).json
    assert reply["output"][-1]["content"][0]["text"] == told(OTHER)


# --- Anthropic's -------------------------------------------------------------------------------


def block(data: str, kind: str) -> Any:
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def test_anthropic(server: Server) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        content = [block(PNG, "image/png"), block(JPEG, "image/jpeg")]
        text = {"type": "text", "text": "Which is it?"}
        history: Any = [{"role": "user", "content": [*content, text]}]
        answer: Any = client.messages.create(model=MODEL, max_tokens=200, messages=history)
        assert answer.content[0].text == told(PHOTO, OTHER)
        with client.messages.stream(model=MODEL, max_tokens=200, messages=history) as stream:
            final: Any = stream.get_final_message()
        assert final.content[0].text == told(PHOTO, OTHER)


def test_claude_code_reading_a_picture(server: Server) -> None:
    """The result of its tool Read is a picture, with cache_control as it sets it."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/x.png"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1"}
    picture = {**block(PNG, "image/png"), "cache_control": {"type": "ephemeral"}}
    history: Any = [
        {"role": "user", "content": "What is in /x.png?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{**result, "content": [picture]}]},
    ]
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        answer: Any = client.messages.create(model=MODEL, max_tokens=200, messages=history)
    assert answer.content[0].text == told(PHOTO)


# --- Others ------------------------------------------------------------------------------------


@pytest.fixture(params=["ollama", "openai"])
def chat_model(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    """The chat model of both packages; neither closes its connections by itself."""
    if request.param == "ollama":
        model = ChatOllama(model=MODEL, base_url=server.url)
        with contextlib.closing(model._client):
            yield model
        return
    with httpx.Client() as http:
        key = SecretStr("none")
        yield ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=key, http_client=http)


def test_langchain(chat_model: Any) -> None:
    text = {"type": "text", "text": "What is it?"}
    for picture in (
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
    ):
        answer = chat_model.invoke([HumanMessage(content=[text, picture])])
        assert answer.content == told(PHOTO)


def test_open_webui(server: Server) -> None:
    """Its page sends parts; towards Ollama it makes `images` of them, without the head of the URL."""
    options = {"stream": False, "options": {"num_ctx": 2048}}
    message = {"role": "user", "content": "What is it?", "images": [PNG]}
    body = {"model": f"{MODEL}:latest", "messages": [message], **options}
    assert server.post("/api/chat", body).json["message"]["content"] == told(PHOTO)
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": JPEG_URL}},
    ]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "stream": False}
    reply = server.post("/v1/chat/completions", asked).json
    assert reply["choices"][0]["message"]["content"] == told(OTHER)


# --- On the CPU --------------------------------------------------------------------------------


def test_the_packages_with_a_model_on_llama_cpp(server: Server) -> None:
    """It names the colours of the halves that it sees."""
    image = encoded(halves((90, 90), colour("red"), colour("blue")))
    data = base64.b64encode(image).decode()
    url, model, text = f"data:image/png;base64,{data}", "seer", "What is it?"
    picture: Any = {"type": "image_url", "image_url": {"url": url}}
    content: Any = [{"type": "text", "text": text}, picture]
    with contextlib.closing(ollama.Client(host=server.url)) as client:
        message = {"role": "user", "content": text, "images": [image]}
        assert client.chat(model, [message]).message.content == "red blue"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as over_openai:
        asked: Any = [{"role": "user", "content": content}]
        answer = over_openai.chat.completions.create(model=model, messages=asked)
        assert answer.choices[0].message.content == "red blue"
        item: Any = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
        assert over_openai.responses.create(model=model, input=[item]).output_text == "red blue"
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as over_anthropic:
        history: Any = [{"role": "user", "content": [block(data, "image/png")]}]
        reply: Any = over_anthropic.messages.create(model=model, max_tokens=9, messages=history)
        assert reply.content[0].text == "red blue"
    langchain = ChatOllama(model=model, base_url=server.url)
    with contextlib.closing(langchain._client):
        assert langchain.invoke([HumanMessage(content=content)]).content == "red blue"
