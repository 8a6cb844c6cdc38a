"""The real `anthropic` package against a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.clients.common import MODEL, THINKER, ask, install, install_thinker, tool_call
from tests.running import Server
from tests.virtual_npu import directive

pytestmark = pytest.mark.integration


@pytest.fixture
def client(scripted: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def own(server: Server, models: Path) -> Iterator[anthropic.Anthropic]:
    """A client of a server for this test alone."""
    install(models)
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def create(client: anthropic.Anthropic, history: Any, **fields: Any) -> Any:
    return client.messages.create(model=MODEL, max_tokens=100, messages=history, **fields)


def test_messages(client: anthropic.Anthropic) -> None:
    answer = create(client, [ask("hello there")], system="Be brief.")
    assert answer.content[0].text == "hello there"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0


def test_the_stream_helper(client: anthropic.Anthropic) -> None:
    history: Any = [ask("one two three")]
    with client.messages.stream(model=MODEL, max_tokens=100, messages=history) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert final.content[0].text == "one two three"


def test_limits_and_stop_sequences(client: anthropic.Anthropic) -> None:
    history: Any = [ask("x", tokens=50)]
    cut = client.messages.create(model=MODEL, max_tokens=4, messages=history)
    assert cut.stop_reason == "max_tokens"
    stopped = create(client, [ask("x", reply="one two three")], stop_sequences=["two"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "two")


TOOLS: Any = [
    {
        "name": "get_weather",
        "description": "Tell the weather.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


def test_tools_there_and_back(client: anthropic.Anthropic) -> None:
    history: list[Any] = [ask("Weather?", reply=tool_call("Nantes"))]
    answer = create(client, history, tools=TOOLS)
    assert answer.stop_reason == "tool_use"
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert use.input == {"city": "Nantes"}
    result = {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": "21 degrees " + directive(reply="Mild."),
    }
    history += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    assert create(client, history, tools=TOOLS).content[0].text == "Mild."


def test_tool_use_through_the_stream_helper(client: anthropic.Anthropic) -> None:
    history: Any = [ask("Weather?", reply="Let me see. " + tool_call("Nantes", "Brest"))]
    parts: list[str] = []
    with client.messages.stream(
        model=MODEL, max_tokens=200, messages=history, tools=TOOLS
    ) as stream:
        for event in stream:
            if event.type == "input_json":
                parts.append(event.partial_json)
        final: Any = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    text, *uses = final.content
    assert text.text.strip() == "Let me see."
    assert [use.input for use in uses] == [{"city": "Nantes"}, {"city": "Brest"}]
    assert len({use.id for use in uses}) == 2
    assert parts


def test_async(client: anthropic.Anthropic) -> None:
    async def both() -> list[str]:
        async with anthropic.AsyncAnthropic(
            base_url=str(client.base_url), api_key="none", max_retries=0
        ) as made:
            whole: Any = await made.messages.create(
                model=MODEL, max_tokens=100, messages=[ask("hello there")]
            )
            async with made.messages.stream(
                model=MODEL, max_tokens=100, messages=[ask("one two")]
            ) as stream:
                return [whole.content[0].text, await stream.get_final_text()]

    assert asyncio.run(both()) == ["hello there", "one two"]


def test_thinking_streamed(own: anthropic.Anthropic, models: Path) -> None:
    install_thinker(models)
    history: Any = [ask("Really?")]
    with own.messages.stream(
        model=THINKER,
        max_tokens=2000,
        messages=history,
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as stream:
        for _ in stream:
            pass
        final: Any = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[1].text == "Yes."


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    history: Any = [ask("one two three")]
    counted = client.messages.count_tokens(model=MODEL, messages=history).input_tokens
    usage = create(client, history).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models(client: anthropic.Anthropic) -> None:
    page = client.models.list()
    assert [(model.id, model.display_name) for model in page] == [(MODEL, MODEL)]
    assert (page.first_id, page.last_id, page.has_more) == (MODEL, MODEL, False)
    model = client.models.retrieve(MODEL)
    assert model.created_at.year >= 2025
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("nothing-here")
    body: Any = caught.value.body
    assert body["error"]["type"] == "not_found_error"


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nothing-here", max_tokens=5, messages=[ask("x")])
    with pytest.raises(anthropic.APIStatusError, match="SIGSEGV"):
        create(client, [ask("x", segv_at=0)])


@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner_goes_on_without_a_thread(
    own: anthropic.Anthropic, server: Server, stream: bool
) -> None:
    """It asks for a thread first, and sends the whole conversation when that is refused."""

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"rain in {city} " + directive(reply="Take an umbrella.")

    runner: Any = own.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=100,
        tools=[get_weather],
        messages=[ask("weather?", reply=tool_call("Nantes"))],
        stream=stream,
    )
    final: Any = None
    for turn in runner:
        final = turn.get_final_message() if stream else turn
    assert final.content[0].text == "Take an umbrella."
    assert any("'thread' is not supported" in line for line in server.log)


def test_a_prompt_that_is_too_long_tells_both_figures(client: anthropic.Anthropic) -> None:
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 4096 max"
    ):
        create(client, [ask("word " * 5000)])
