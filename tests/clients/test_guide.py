"""The client packages against the guide: a real language model, run by llama.cpp on the CPU.

What it answers is not judged here, only that the answer has the form that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import ollama
import openai
import pytest
from jsonschema import Draft202012Validator
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.clients.common import ask, serving_guide
from tests.running import Server

pytestmark = pytest.mark.integration

GUIDE = "guide"
QUESTION = "How do I pull a model?"
SHORT = {"num_predict": 12, "temperature": 0}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the guide in its models directory; the module's tests share it."""
    with serving_guide(tmp_path_factory.mktemp("guide")) as (running, _):
        yield running


@pytest.fixture
def by_ollama(guide: Server) -> Iterator[ollama.Client]:
    with contextlib.closing(ollama.Client(host=guide.url)) as made:
        yield made


@pytest.fixture
def by_openai(guide: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{guide.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def by_anthropic(guide: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=guide.url, api_key="none", max_retries=0) as made:
        yield made


class Recipe(BaseModel):
    """A shape whose every answer is short, since a model this small does not know when to stop.

    Its schema does not forbid further properties: the grammar does.
    """

    title: str = Field(max_length=8)
    kind: Literal["soup", "cake"]
    vegetarian: bool
    steps: list[Literal["boil", "bake", "eat"]] = Field(max_length=3)


def get_weather(city: Literal["Nantes", "Brest"]) -> str:
    """Tell the weather.

    Args:
        city: where

    Returns:
        the weather
    """
    return f"21 degrees in {city}"


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Nantes", "Brest"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


# --- ollama ------------------------------------------------------------------------------------


def test_ollama_chat_streamed_and_not(by_ollama: ollama.Client) -> None:
    whole = by_ollama.chat(GUIDE, [ask(QUESTION)], options=SHORT)
    parts = list(by_ollama.chat(GUIDE, [ask(QUESTION)], options=SHORT, stream=True))
    assert whole.message.content
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert len(parts) > 1
    assert whole.eval_count == parts[-1].eval_count
    assert (whole.eval_count or 0) <= 12
    assert whole.prompt_eval_count
    assert whole.eval_duration


def test_ollama_generate_raw_and_with_a_template(by_ollama: ollama.Client) -> None:
    raw = by_ollama.generate(
        GUIDE,
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        raw=True,
        options=SHORT,
    )
    assert raw.response
    assert by_ollama.generate(GUIDE, QUESTION, options=SHORT).response == raw.response
    parts = by_ollama.generate(GUIDE, QUESTION, options=SHORT, stream=True)
    assert "".join(part.response or "" for part in parts) == raw.response


def test_ollama_async(guide: Server) -> None:
    async def talk() -> str:
        async with ollama.AsyncClient(host=guide.url) as made:
            stream = await made.chat(GUIDE, [ask(QUESTION)], options=SHORT, stream=True)
            return "".join([part.message.content or "" async for part in stream])

    assert asyncio.run(talk())


def test_ollama_structured_output(by_ollama: ollama.Client) -> None:
    answer = by_ollama.chat(
        GUIDE,
        [ask("Give me a recipe.")],
        format=Recipe.model_json_schema(),
        options={"num_predict": 400, "seed": 7},
    )
    Recipe.model_validate_json(answer.message.content or "")
    assert answer.done_reason == "stop"


def test_ollama_embed(by_ollama: ollama.Client) -> None:
    first, second, third = by_ollama.embed(GUIDE, [QUESTION, QUESTION, "soup"]).embeddings
    assert list(first) == list(second) != list(third)
    assert sum(x * x for x in third) == pytest.approx(1.0, abs=1e-4)
    # A chat after an embedding: the two share one context.
    assert by_ollama.chat(GUIDE, [ask(QUESTION)], options=SHORT).message.content


def test_ollama_list_show_and_ps(by_ollama: ollama.Client) -> None:
    (listed,) = by_ollama.list().models
    assert listed.model == "guide:latest"
    assert listed.details is not None
    assert listed.details.format == "gguf"
    by_ollama.generate(GUIDE, "")
    (loaded,) = by_ollama.ps().models
    assert loaded.size_vram == 0
    assert loaded.context_length
    shown = by_ollama.show(GUIDE)
    info: Any = shown.modelinfo
    assert info["general.architecture"] == "llama"
    assert info["llama.context_length"] >= loaded.context_length
    assert "completion" in (shown.capabilities or [])


def test_ollama_create_with_a_system_prompt(by_ollama: ollama.Client) -> None:
    by_ollama.create("short", from_=GUIDE, system="Be brief.", parameters={"num_predict": 3})
    try:
        assert by_ollama.chat("short", [ask(QUESTION)]).eval_count == 3
    finally:
        by_ollama.delete("short")


# --- openai ------------------------------------------------------------------------------------


def test_openai_chat_streamed_and_not(by_openai: openai.OpenAI) -> None:
    asked: Any = {"model": GUIDE, "messages": [ask(QUESTION)], "max_tokens": 900, "temperature": 0}
    whole = by_openai.chat.completions.create(**asked).choices[0]
    with by_openai.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.message.content
    assert final.message.content == whole.message.content
    assert final.finish_reason == whole.finish_reason


def test_openai_equal_seeds_give_equal_answers(by_openai: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        answer = by_openai.completions.create(
            model=GUIDE, prompt="The", max_tokens=24, temperature=2, seed=seed
        )
        return answer.choices[0].text

    first = text(1)
    assert text(1) == first
    assert any(text(seed) != first for seed in (2, 3))


def test_openai_logprobs(by_openai: openai.OpenAI) -> None:
    answer = by_openai.chat.completions.create(
        model=GUIDE,
        messages=[ask(QUESTION)],
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        # At temperature 0 the likeliest token is taken.
        assert token.logprob == max(other.logprob for other in token.top_logprobs) <= 0


def test_openai_parsed_structured_output(by_openai: openai.OpenAI) -> None:
    answer = by_openai.chat.completions.parse(
        model=GUIDE,
        messages=[ask("Give me a recipe.")],
        response_format=Recipe,
        max_tokens=400,
        seed=3,
    )
    assert isinstance(answer.choices[0].message.parsed, Recipe)
    beside_tools = by_openai.chat.completions.create(
        model=GUIDE,
        messages=[ask("Give me a recipe.")],
        tools=[TOOL],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "recipe", "schema": Recipe.model_json_schema()},
        },
        max_tokens=400,
        seed=3,
    )
    assert Recipe.model_validate_json(beside_tools.choices[0].message.content or "")
    json_mode = by_openai.chat.completions.create(
        model=GUIDE,
        messages=[ask("Give me JSON.")],
        response_format={"type": "json_object"},
        max_tokens=60,
        temperature=0,
    )
    assert (json_mode.choices[0].message.content or "").lstrip().startswith("{")


@pytest.mark.parametrize(
    ("kind", "met"),
    [
        ({"enum": ["yes", "no"], "not": {"const": "x"}}, True),
        ({"type": "array", "items": {"const": 1}, "maxItems": 2, "contains": {"const": 5}}, False),
    ],
)
def test_openai_schemas_that_a_grammar_cannot_express(
    by_openai: openai.OpenAI, kind: Any, met: bool
) -> None:
    """They are met, or the answer says that they are not."""
    schema = {
        "type": "object",
        "properties": {"a": kind},
        "required": ["a"],
        "additionalProperties": False,
    }
    (choice,) = by_openai.chat.completions.create(
        model="guide",
        messages=[ask("Hello")],
        max_tokens=60,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        },
    ).choices
    assert choice.finish_reason == "stop"
    if met:
        Draft202012Validator(schema).validate(json.loads(choice.message.content or ""))
    else:
        assert "does not match the requested format" in (choice.message.refusal or "")
        assert (choice.model_extra or {})["error"]["message"] == choice.message.refusal


def test_openai_a_schema_that_no_grammar_reads(by_openai: openai.OpenAI) -> None:
    schema: dict[str, object] = {"type": "string", "pattern": "^(?!x)y{3}$"}
    with pytest.raises(openai.BadRequestError, match="look-around"):
        by_openai.chat.completions.create(
            model="guide",
            messages=[ask("Hello")],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            },
        )


@pytest.mark.parametrize("stream", [False, True])
def test_openai_parsing_an_answer_that_is_cut_off_or_not_of_its_schema_raises(
    by_openai: openai.OpenAI, stream: bool
) -> None:
    class Fives(BaseModel):
        a: list[int] = Field(json_schema_extra={"contains": {"const": 5}, "items": {"const": 1}})

    asked: Any = {"model": "guide", "messages": [ask("Go")], "response_format": Fives}

    def parse(**more: Any) -> Any:
        if not stream:
            return by_openai.chat.completions.parse(**asked, **more)
        with by_openai.chat.completions.stream(**asked, **more) as events:
            return events.get_final_completion()

    with pytest.raises(openai.LengthFinishReasonError):
        parse(max_tokens=3)
    message = parse(max_tokens=200, seed=1).choices[0].message
    assert message.parsed is None
    assert "does not match the requested format" in message.refusal


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_openai_demanded_tool_call(by_openai: openai.OpenAI, choice: Any) -> None:
    answer = by_openai.chat.completions.create(
        model=GUIDE,
        messages=[ask("How is the weather?")],
        tools=[TOOL],
        tool_choice=choice,
        max_tokens=200,
        seed=5,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.type == "function"
    assert json.loads(call.function.arguments)["city"] in ("Nantes", "Brest")


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai_embeddings(by_openai: openai.OpenAI, encoding: Any) -> None:
    answer = by_openai.embeddings.create(
        model=GUIDE, input=["soup", "cake"], encoding_format=encoding
    )
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens > 0
    default = by_openai.embeddings.create(model=GUIDE, input="soup").data[0].embedding
    assert sum(x * x for x in default) == pytest.approx(1.0, abs=1e-4)


def test_openai_responses(by_openai: openai.OpenAI) -> None:
    asked: Any = {"model": GUIDE, "input": QUESTION, "max_output_tokens": 16, "temperature": 0}
    whole = by_openai.responses.create(**asked)
    assert whole.output_text
    with by_openai.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    parsed = by_openai.responses.parse(
        model=GUIDE, input="Give me a recipe.", text_format=Recipe, max_output_tokens=400
    )
    assert isinstance(parsed.output_parsed, Recipe)


# --- anthropic ---------------------------------------------------------------------------------


def test_anthropic_messages_streamed_and_not(by_anthropic: anthropic.Anthropic) -> None:
    asked: Any = {"model": GUIDE, "max_tokens": 12, "messages": [ask(QUESTION)]}
    asked["extra_body"] = {"temperature": 0}
    whole = by_anthropic.messages.create(**asked)
    with by_anthropic.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert whole.content[0].type == "text"
    assert whole.content[0].text == text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens <= 12


def test_anthropic_counts_what_the_prompt_takes(by_anthropic: anthropic.Anthropic) -> None:
    history: Any = [ask(QUESTION)]
    counted = by_anthropic.messages.count_tokens(model=GUIDE, messages=history).input_tokens
    answer = by_anthropic.messages.create(model=GUIDE, max_tokens=1, messages=history)
    usage = answer.usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_anthropic_demanded_tool_call(by_anthropic: anthropic.Anthropic) -> None:
    function = TOOL["function"]
    tools: Any = [{"name": function["name"], "input_schema": function["parameters"]}]
    answer = by_anthropic.messages.create(
        model=GUIDE,
        max_tokens=200,
        messages=[ask("How is the weather?")],
        tools=tools,
        tool_choice={"type": "any"},
    )
    assert answer.stop_reason == "tool_use"
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert use.input["city"] in ("Nantes", "Brest")


# --- langchain ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_langchain_answers_in_a_shape(guide: Server, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "ollama":
            chat = ChatOllama(model=GUIDE, base_url=guide.url, num_predict=400)
            stack.callback(chat._client.close)
            model: Any = chat
        else:
            http = stack.enter_context(httpx.Client())
            url, key = f"{guide.url}/v1", SecretStr("none")
            model = ChatOpenAI(
                model=GUIDE, base_url=url, api_key=key, http_client=http, max_completion_tokens=400
            )
        structured = model.with_structured_output(Recipe, method="json_schema")
        assert isinstance(structured.invoke("Give me a recipe."), Recipe)
        assert "".join(str(chunk.content) for chunk in model.stream(QUESTION))
