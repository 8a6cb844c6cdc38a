"""The real `ollama` package against a running server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest
from pydantic import BaseModel

from tests.clients.common import (
    GUIDE_FILE,
    MODEL,
    THINKER,
    ask,
    install,
    install_thinker,
    tool_call,
)
from tests.hub.loopback import LoopbackHub
from tests.running import Server
from tests.virtual_npu import directive
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def client(scripted: Server) -> Iterator[ollama.Client]:
    with contextlib.closing(ollama.Client(host=scripted.url)) as made:
        yield made


@pytest.fixture
def own(server: Server, models: Path) -> Iterator[ollama.Client]:
    """A client of a server for this test alone."""
    install(models)
    with contextlib.closing(ollama.Client(host=server.url)) as made:
        yield made


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(MODEL, [ask("hello there")])
    assert answer.message.content == "hello there"
    assert answer.done
    assert answer.done_reason == "stop"
    assert answer.eval_count
    assert answer.prompt_eval_count
    assert answer.total_duration


def test_chat_streamed(client: ollama.Client) -> None:
    parts = list(client.chat(MODEL, [ask("one two three four")], stream=True))
    assert "".join(part.message.content or "" for part in parts) == "one two three four"
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate(client: ollama.Client) -> None:
    assert client.generate(MODEL, "hello").response == "hello"
    parts = list(client.generate(MODEL, "hello you", stream=True))
    assert "".join(part.response or "" for part in parts) == "hello you"


def test_pull(models: Path, npu: str) -> None:
    content = b"model" * 300_000
    with LoopbackHub() as hub:
        hub.add("user/repo", {"file.rkllm": content})
        with (
            Server(env={"HF_ENDPOINT": hub.endpoint}) as server,
            contextlib.closing(ollama.Client(host=server.url)) as client,
        ):
            parts = list(client.pull("hf/user/repo/file.rkllm", stream=True))
            assert parts[-1].status == "success"
            downloaded = [part for part in parts if part.digest]
            assert downloaded[-1].completed == downloaded[-1].total == len(content)
            assert [model.size for model in client.list().models] == [len(content)]
            assert client.pull("hf/user/repo/file.rkllm").status == "success"
            with pytest.raises(ollama.ResponseError):
                client.pull("hf/user/repo/other.rkllm")
            client.delete("hf/user/repo/file.rkllm")
            assert client.list().models == []


def test_create_from_an_uploaded_file(own: ollama.Client, tmp_path: Path) -> None:
    shutil.copy(GUIDE_FILE, tmp_path / "mine.gguf")
    digest = own.create_blob(tmp_path / "mine.gguf")
    assert digest == f"sha256:{hashlib.sha256(GUIDE_FILE.read_bytes()).hexdigest()}"
    made = own.create("uploaded", files={"mine.gguf": digest}, system="Be brief.")
    assert made.status == "success"
    shown = own.show("uploaded")
    assert shown.details is not None
    assert shown.details.quantization_level == "Q8_0"
    assert "Be brief." in (shown.modelfile or "")
    (made_model,) = [m for m in own.list().models if m.model == "uploaded:latest"]
    assert f"sha256:{made_model.digest}" == digest
    own.delete("uploaded")
    assert [m.model for m in own.list().models] == [f"{MODEL}:latest"]


def test_an_upload_takes_the_place_of_an_alias(own: ollama.Client, tmp_path: Path) -> None:
    shutil.copy(GUIDE_FILE, tmp_path / "mine.gguf")
    own.copy(MODEL, "tuned")
    digest = own.create_blob(tmp_path / "mine.gguf")
    own.create("tuned", files={"mine.gguf": digest})
    shown = own.show("tuned")
    assert shown.details is not None
    assert shown.details.format == "gguf"


def test_pull_of_what_is_there(own: ollama.Client) -> None:
    """Home Assistant pulls each name that the list does not spell the same way, "qwen2.5" too."""
    assert own.pull(MODEL).status == "success"
    last = list(own.pull("qwen2.5", stream=True))[-1]
    assert (last.status, last.completed) == ("success", last.total)
    assert own.pull("guide").status == "success"
    assert "guide:latest" in {model.model for model in own.list().models}
    with pytest.raises(ollama.ResponseError, match="is not the name of a model"):
        own.pull("qwen2.5:7b:q4")


def test_async_chat(scripted: Server) -> None:
    async def talk() -> list[str]:
        async with ollama.AsyncClient(host=scripted.url) as made:
            whole = await made.chat(MODEL, [ask("whole")])
            pieces = [
                part.message.content or ""
                async for part in await made.chat(MODEL, [ask("in pieces")], stream=True)
            ]
        return [whole.message.content or "", "".join(pieces)]

    assert asyncio.run(talk()) == ["whole", "in pieces"]


def test_options_reach_the_runtime(client: ollama.Client) -> None:
    answer = client.chat(MODEL, [ask("x", tokens=50)], options={"num_predict": 5})
    assert answer.eval_count == 5
    assert answer.done_reason == "length"
    stopped = client.chat(MODEL, [ask("x", reply="one two three")], options={"stop": ["three"]})
    assert stopped.message.content == "one two "


def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where

    Returns:
        the weather
    """
    return f"21 degrees in {city} " + directive(reply=f"It is mild in {city}.")


def test_tools_with_a_real_python_function(client: ollama.Client) -> None:
    messages = [ask("How is the weather in Nantes?", reply=tool_call("Nantes"))]
    answer = client.chat(MODEL, messages, tools=[get_weather])
    assert answer.message.tool_calls is not None
    (called,) = answer.message.tool_calls
    assert called.function.name == "get_weather"
    assert called.function.arguments == {"city": "Nantes"}
    result = get_weather(**called.function.arguments)
    messages += [
        answer.message,
        {"role": "tool", "content": result, "tool_name": called.function.name},
    ]
    final = client.chat(MODEL, messages, tools=[get_weather])
    assert final.message.content == "It is mild in Nantes."
    assert not final.message.tool_calls


def test_tools_streamed(client: ollama.Client) -> None:
    question = ask("?", reply=tool_call("Nantes", "Brest"))
    parts = list(client.chat(MODEL, [question], tools=[get_weather], stream=True))
    found = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.arguments["city"] for call in found] == ["Nantes", "Brest"]
    assert "".join(part.message.content or "" for part in parts).strip() == ""


class Country(BaseModel):
    name: str
    capital: str
    population: int


def test_structured_output_with_pydantic(client: ollama.Client) -> None:
    reply = json.dumps({"name": "France", "capital": "Paris", "population": 68_000_000})
    schema = Country.model_json_schema()
    answer = client.chat(MODEL, [ask("France?", reply=reply)], format=schema)
    country = Country.model_validate_json(answer.message.content or "")
    assert country.capital == "Paris"


def test_structured_output_that_fails_is_reported(client: ollama.Client) -> None:
    schema = Country.model_json_schema()
    answer = client.chat(MODEL, [ask("France?", reply="Paris, I think")], format=schema)
    assert (answer.message.content or "").startswith('{"')
    assert answer.done_reason == "format_not_met"
    with pytest.raises(ollama.ResponseError, match=r"gave no value that fits at \$\."):
        list(client.chat(MODEL, [ask("?", reply="Paris, I think")], format=schema, stream=True))


def test_thinking(own: ollama.Client, models: Path) -> None:
    install_thinker(models)
    answer = own.chat(THINKER, [ask("Really?")], think=True)
    assert (answer.message.thinking or "").strip() == "Hmm."
    assert answer.message.content == "Yes."


def test_embed(client: ollama.Client) -> None:
    answer = client.embed(MODEL, ["the cat", "the cat", "a lorry on the road"])
    first, second, third = answer.embeddings
    assert list(first) == list(second) != list(third)
    assert sum(x * x for x in first) == pytest.approx(1.0, abs=1e-4)
    assert len(client.embed(MODEL, "the cat", dimensions=8).embeddings[0]) == 8
    assert list(client.embeddings(MODEL, "the cat").embedding) == pytest.approx(first, abs=1e-5)
    assert client.embed(MODEL, "").embeddings == []


def test_list_show_and_ps(own: ollama.Client) -> None:
    (listed,) = own.list().models
    assert listed.model == f"{MODEL}:latest"
    assert len(listed.digest or "") == 64
    assert own.ps().models == []
    own.generate(MODEL, "")
    (loaded,) = own.ps().models
    assert loaded.model == f"{MODEL}:latest"
    assert loaded.expires_at is not None
    shown = own.show(MODEL)
    assert shown.modelinfo
    assert "tools" in (shown.capabilities or [])
    own.generate(MODEL, "", keep_alive=0)
    assert own.ps().models == []


def test_the_digest_becomes_the_sha256_of_the_file(own: ollama.Client, models: Path) -> None:
    wanted = hashlib.sha256((models / f"{MODEL}.rkllm").read_bytes()).hexdigest()
    until(lambda: own.list().models[0].digest == wanted)


def test_create_copy_and_delete(own: ollama.Client) -> None:
    own.copy(MODEL, "mine")
    assert own.chat("mine", [ask("copied")]).message.content == "copied"
    own.create("pirate", from_=MODEL, system="You are a pirate.", parameters={"num_predict": 3})
    assert own.show("pirate").parameters == "num_predict                    3"
    assert own.chat("pirate", [ask("x", tokens=20)]).eval_count == 3
    own.delete("pirate")
    own.delete("mine")
    assert [model.model for model in own.list().models] == [f"{MODEL}:latest"]


def test_errors_are_the_packages_own(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("nothing-here", [ask("hello")])
    assert caught.value.status_code == 404
    assert "nothing-here" in caught.value.error
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat(MODEL, [ask("x", tokens=9, segv_at=5)], stream=True))
    assert "SIGSEGV" in caught.value.error
