"""The real `openai` package against a running server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients.common import MODEL, ask, install, tool_call
from tests.running import Server
from tests.virtual_npu import directive, read_trace, write_model

pytestmark = pytest.mark.integration


@pytest.fixture
def client(scripted: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def own(server: Server, models: Path) -> Iterator[openai.OpenAI]:
    """A client of a server for this test alone."""
    install(models)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[ask("hello there")])
    assert answer.choices[0].message.content == "hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_streamed_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[ask("one two three")],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


def test_the_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=[ask("a b c")]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[-1] == "content.done"
    assert final.choices[0].message.content == "a b c"


def test_async_stream(scripted: Server) -> None:
    async def talk() -> str:
        async with openai.AsyncOpenAI(base_url=f"{scripted.url}/v1", api_key="none") as made:
            stream = await made.chat.completions.create(
                model=MODEL, messages=[ask("async hello")], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(talk()) == "async hello"


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tell the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def test_tools_there_and_back(client: openai.OpenAI) -> None:
    history = [ask("Weather?", reply=tool_call("Nantes"))]
    answer = client.chat.completions.create(model=MODEL, messages=history, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Nantes"}
    result = "21 degrees " + directive(reply="Mild.")
    history += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    final = client.chat.completions.create(model=MODEL, messages=history, tools=TOOLS)
    assert final.choices[0].message.content == "Mild."


def test_tools_streamed(client: openai.OpenAI) -> None:
    history = [ask("Weather?", reply=tool_call("Brest"))]
    with client.chat.completions.stream(model=MODEL, messages=history, tools=TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments) == {"city": "Brest"}


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_demanded_tool_call(client: openai.OpenAI, choice: Any) -> None:
    reply = json.dumps({"name": "get_weather", "arguments": {"city": "Lyon"}})
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[ask("Weather?", reply=reply)],
        tools=TOOLS,
        tool_choice=choice,
    )
    calls: Any = answer.choices[0].message.tool_calls
    assert json.loads(calls[0].function.arguments) == {"city": "Lyon"}


def test_tool_choice_none_tells_the_model_of_no_tools(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[ask("Weather?", reply=tool_call("Lyon"))],
        tools=TOOLS,
        tool_choice="none",
    )
    assert answer.choices[0].message.tool_calls is None


class Step(BaseModel):
    title: str
    minutes: int


def test_parsed_structured_output(client: openai.OpenAI) -> None:
    reply = json.dumps({"title": "Boil", "minutes": 3})
    answer = client.chat.completions.parse(
        model=MODEL, messages=[ask("Eggs?", reply=reply)], response_format=Step
    )
    assert answer.choices[0].message.parsed == Step(title="Boil", minutes=3)


def test_structured_output_that_fails_is_never_passed_off(client: openai.OpenAI) -> None:
    choice = client.chat.completions.parse(
        model=MODEL, messages=[ask("Eggs?", reply="three")], response_format=Step
    ).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.parsed is None
    assert "gave no value that fits at $.minutes" in (choice.message.refusal or "")


STEP: Any = {
    "type": "json_schema",
    "json_schema": {"name": "step", "schema": Step.model_json_schema()},
}


def test_a_tool_may_be_called_where_a_shape_is_asked_for(client: openai.OpenAI) -> None:
    for reply, reason in (
        (tool_call("Nantes"), "tool_calls"),
        ('{"title":"x","minutes":1}', "stop"),
    ):
        answer = client.chat.completions.create(
            model=MODEL, messages=[ask("Go on", reply=reply)], tools=TOOLS, response_format=STEP
        )
        assert answer.choices[0].finish_reason == reason
        calls: Any = answer.choices[0].message.tool_calls
        if reason == "tool_calls":
            assert json.loads(calls[0].function.arguments) == {"city": "Nantes"}
        else:
            assert calls is None
            assert Step.model_validate_json(answer.choices[0].message.content or "").minutes == 1


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, encoding: Any) -> None:
    answer = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format=encoding)
    assert [item.index for item in answer.data] == [0, 1]
    default = client.embeddings.create(model=MODEL, input="a").data[0].embedding
    assert sum(x * x for x in default) == pytest.approx(1.0, abs=1e-4)


def test_completions(client: openai.OpenAI) -> None:
    prompt = "Once " + directive(reply="upon a time")
    assert client.completions.create(model=MODEL, prompt=prompt).choices[0].text == "upon a time"
    chunks = client.completions.create(model=MODEL, prompt=prompt, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "upon a time"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "rkllama"


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="hello " + directive(reply="Good day."))
    assert answer.output_text == "Good day."
    assert answer.status == "completed"
    with client.responses.stream(model=MODEL, input="x " + directive(reply="In pieces.")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == "In pieces."


def last_prompt(trace: Path) -> str:
    """The prompt of the last run."""
    return str([run["prompt"] for run in read_trace(trace) if "prompt" in run][-1])


def test_a_response_is_gone_on_from_read_and_deleted(
    own: openai.OpenAI, models: Path, tmp_path: Path
) -> None:
    write_model(models / f"{MODEL}.rkllm", trace=tmp_path / "trace", trace_prompt=1)
    first = own.responses.create(model=MODEL, input="one " + directive(reply="two"))
    second = own.responses.create(model=MODEL, input="three", previous_response_id=first.id)
    prompt = last_prompt(tmp_path / "trace")
    assert prompt.index("user\none ") < prompt.index("assistant\ntwo") < prompt.index("user\nthree")
    assert second.previous_response_id == first.id
    assert own.responses.retrieve(second.id).output == second.output
    items: list[Any] = list(own.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.role for item in items] == ["user", "assistant", "user"]
    own.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.id}' not found"):
        own.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        own.responses.create(model=MODEL, input="x", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_an_item_is_referred_to(own: openai.OpenAI, models: Path, tmp_path: Path) -> None:
    write_model(models / f"{MODEL}.rkllm", trace=tmp_path / "trace", trace_prompt=1)
    with own.responses.stream(model=MODEL, input="x " + directive(reply="gold")) as stream:
        first: Any = stream.get_final_response()
    told: Any = [
        {"role": "user", "content": "one"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "three"},
    ]
    answer: Any = own.responses.create(model=MODEL, input=told, store=False)
    assert "assistant\ngold" in last_prompt(tmp_path / "trace")
    with pytest.raises(openai.NotFoundError):
        own.responses.retrieve(answer.id)
    told[1] = {"type": "item_reference", "id": answer.output[0].id}
    with pytest.raises(openai.NotFoundError) as caught:
        own.responses.create(model=MODEL, input=told)
    assert caught.value.param == "input[1].id"


def test_what_is_kept_for_one_key_is_not_there_for_another(models: Path, npu: str) -> None:
    install(models)
    with Server("--api-key", "first,second") as server:
        url = f"{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="first", max_retries=0) as one:
            kept = one.responses.create(model=MODEL, input="secret")
            assert one.responses.retrieve(kept.id).output_text == "secret"
        with openai.OpenAI(base_url=url, api_key="second", max_retries=0) as other:
            with pytest.raises(openai.NotFoundError):
                other.responses.retrieve(kept.id)
            with pytest.raises(openai.BadRequestError, match="not found"):
                other.responses.create(model=MODEL, input="x", previous_response_id=kept.id)


def test_the_tokens_of_a_prompt_are_counted(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="one two three")
    short = client.responses.input_tokens.count(model=MODEL, input="hello")
    assert short.input_tokens > 0
    more = client.responses.input_tokens.count(
        model=MODEL, input="hello", previous_response_id=first.id
    )
    assert more.input_tokens > short.input_tokens + 5


def test_an_answer_is_not_whole_where_its_model_was_unloaded(
    own: openai.OpenAI, server: Server
) -> None:
    stream = own.chat.completions.create(
        model=MODEL, messages=[ask("x", tokens=5000, token_us=10_000)], stream=True
    )
    next(stream)
    assert server.post("/unload_model").status == 200
    with pytest.raises(openai.APIError, match="unloaded"):
        list(stream)


def test_a_model_that_cannot_be_loaded_is_not_loaded_again_and_again(
    own: openai.OpenAI, server: Server, models: Path
) -> None:
    write_model(models / "broken.rkllm", init_error=1)
    with pytest.raises(openai.InternalServerError, match="could not be loaded"):
        own.with_options(max_retries=2).chat.completions.create(model="broken", messages=[ask("x")])
    assert 'rkllama_requests_total{path="/v1/chat/completions",status="500"} 1' in str(
        server.get("/metrics").body
    )


def test_what_a_model_cannot_do_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="Once", suffix="the end.")
    assert caught.value.param == "suffix"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[ask("x")], logprobs=True)
    assert caught.value.param == "logprobs"


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nothing-here", messages=[ask("x")])
    with pytest.raises(openai.BadRequestError, match="'n'"):
        client.chat.completions.create(model=MODEL, messages=[ask("x")], n=2)
    with pytest.raises(openai.APIError, match="SIGSEGV"):
        list(
            client.chat.completions.create(
                model=MODEL, messages=[ask("x", tokens=9, segv_at=5)], stream=True
            )
        )
