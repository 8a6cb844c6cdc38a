"""From a request to its events, in this process: what ends an answer, and what a run does to the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import HubUnreachable, InvalidRequest, NoModelLoaded, Unsupported
from rkllama.types import (
    ChatRequest,
    EmbeddingRequest,
    Event,
    Finished,
    Message,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Tool,
    ToolCallDelta,
)
from tests.clients.common import GUIDE_FILE, tool_call
from tests.virtual_npu import directive, write_model

pytestmark = pytest.mark.integration

MISTRAL = "Mistral-7B-rk3588-w8a8"
"""Its template ends turns with "[INST]", which is plain text to the virtual NPU."""
TOOLS = (Tool(name="get_weather"),)
THINKING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}{# </think> #}"
)


@pytest.fixture
def service(models: Path, npu: str) -> Iterator[LocalService]:
    """Everything that `rkllama serve` has, without HTTP."""
    made = LocalService(load_settings({}), "test")
    yield made
    made.close()


class Outcome:
    """What came out of one request."""

    def __init__(self, events: list[Event], finished: Finished) -> None:
        self.text = "".join(event.text for event in events if isinstance(event, TextDelta))
        self.calls = [event.call.name for event in events if isinstance(event, ToolCallDelta)]
        self.reason, self.stop = finished.reason, finished.stop
        self.error = finished.error
        self.thought = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
        self.usage, self.timings = finished.usage, finished.timings


def user(text: str, **config: object) -> tuple[Message, ...]:
    """A user's turn; the virtual NPU answers what `config` scripts, else it echoes."""
    return (Message.of("user", f"{text} {directive(**config)}" if config else text),)


def ask(service: LocalService, model: str, messages: tuple[Message, ...], **wants: Any) -> Outcome:
    request = ChatRequest(model=model, messages=messages, **wants)
    *events, last = service.stream(request)
    assert isinstance(last, Finished)
    return Outcome(events, last)


# --- What ends an answer -----------------------------------------------------------------------

MORE = " and more" * 500
"""So that the run still goes on when the end is seen, and has to be aborted."""


def test_the_templates_own_end_as_text_is_an_ordinary_end(
    service: LocalService, models: Path
) -> None:
    write_model(models / f"{MISTRAL}.rkllm", token_us=200)
    answer = ask(service, "mistral", user("hi", reply=f"Yes.[INST]{MORE}"))
    assert (answer.text, answer.reason, answer.stop) == ("Yes.", "stop", None)


@pytest.mark.parametrize(("after", "stop"), [("[INST]", ()), (" Enough.", ("Enough",))])
def test_a_call_is_the_reason_whatever_ended_the_answer_after_it(
    service: LocalService, models: Path, after: str, stop: tuple[str, ...]
) -> None:
    write_model(models / f"{MISTRAL}.rkllm", token_us=200)
    messages = user("the weather?", reply=tool_call("Nantes") + after + MORE)
    answer = ask(service, "mistral", messages, tools=TOOLS, stop=stop)
    assert (answer.calls, answer.reason) == (["get_weather"], "tool_calls")


def test_a_stop_string_of_the_client_is_named(service: LocalService, models: Path) -> None:
    write_model(models / f"{MISTRAL}.rkllm", token_us=200)
    answer = ask(service, "mistral", user("hi", reply=f"Yes. Enough.{MORE}"), stop=("Enough",))
    assert (answer.text, answer.reason, answer.stop) == ("Yes. ", "stop", "Enough")


# --- Which template it is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (None, "<<hi>>"),
        ("{% for message in messages %}[{{ message.content }}]{% endfor %}", "[hi]"),
        ("{{ .System }} {{ .Prompt }}", "<<hi>>"),
    ],
)
def test_a_template_of_the_request_takes_the_place_of_the_models_where_it_can_be_executed(
    service: LocalService, models: Path, template: str | None, prompt: str
) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", mode="prompt")
    own = "{% for message in messages %}<<{{ message.content }}>>{% endfor %}"
    (models / "m" / "chat_template.jinja").write_text(own)
    assert ask(service, "m", user("hi"), template=template).text == prompt


def test_a_template_gets_the_variables_of_the_request(service: LocalService, models: Path) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", mode="prompt")
    own = "{{ tone }}<|im_start|>{% for message in messages %}{{ message.content }}{% endfor %}"
    (models / "m" / "chat_template.jinja").write_text(own)
    answer = ask(service, "m", user("hi"), template_variables={"tone": "<|im_start|>dry"})
    assert answer.text == "<\u200d|im_start|>dryhi", "a variable begins a turn"


def test_variables_that_reach_no_template_are_refused(service: LocalService, models: Path) -> None:
    write_model(models / "m.rkllm")
    with pytest.raises(Unsupported, match="tone"):
        ask(service, "m", user("hi"), template_variables={"tone": "dry"})
    with pytest.raises(Unsupported, match="tone"):
        ask(service, "m", (), prompt="hi", raw=True, template_variables={"tone": "dry"})


# --- What a grammar applies to -----------------------------------------------------------------


def test_a_constrained_answer_is_no_thought(service: LocalService, models: Path) -> None:
    """The grammar holds from the first token on, where this template has the model think."""
    shutil.copy(GUIDE_FILE, models / "thinker.gguf")
    service.create("deep", f'FROM thinker\nTEMPLATE """{THINKING_TEMPLATE}"""\n')
    digit = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    wants: dict[str, Any] = {"max_tokens": 40, "sampling": SamplingParams(temperature=0.0)}
    answer = ask(service, "deep", user("A number?"), format=digit, **wants)
    assert json.loads(answer.text)["n"] in (1, 2)
    only = Tool(name="pick", parameters=digit)
    answer = ask(service, "deep", user("Pick."), tools=(only,), tool_choice="required", **wants)
    assert (answer.calls, answer.reason) == (["pick"], "tool_calls")


# --- Calls that are demanded -------------------------------------------------------------------

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = Tool(name="add")
WEATHER = '{"name": "get_weather", "arguments": {"city": "Nantes"}}'
DEMANDED: tuple[tuple[str, str, list[str]], ...] = (
    ("required", WEATHER, ["get_weather"]),
    ("required", "I look.\n" + tool_call("Nantes"), ["get_weather"]),
    ("required", tool_call("Nantes", "Brest"), ["get_weather"]),
    ("function:get_weather", WEATHER, ["get_weather"]),
    ("function:get_weather", '{"city": "Nantes"}', ["get_weather"]),
    ("required", '{"name": "add", "arguments": {"a": 1}}', ["add"]),
    ("required", "It rains.", []),
)


@pytest.mark.parametrize(("choice", "reply", "calls"), DEMANDED)
def test_a_demanded_call_begins_with_its_skeleton(
    service: LocalService, models: Path, choice: str, reply: str, calls: list[str]
) -> None:
    """Whatever form the model has for its calls; where it names no tool, that is what is missing."""
    write_model(models / "qwen2.5.rkllm")
    tools = (Tool(name="get_weather", parameters=CITY), SUM)
    answer = ask(service, "qwen2.5", user("Go.", reply=reply), tools=tools, tool_choice=choice)
    assert answer.calls == calls
    if calls:
        assert (answer.reason, answer.error, answer.text) == ("tool_calls", None, "")
    else:
        assert (answer.reason, answer.text) == ("stop", '{"name": ')
        assert answer.error == "the model gave no value that fits at $.name"


# --- Answers of a shape without a grammar --------------------------------------------------------

SHAPE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ('Sure! Here it is: {"a": 1}. Anything else?', '{"a": 1}'),
        ('See this.\n```json\n{"a": 2}\n```\nThat is all.', '{"a": 2}'),
    ],
)
def test_what_a_model_says_around_json_is_left_out(
    service: LocalService, models: Path, reply: str, text: str
) -> None:
    write_model(models / "qwen2.5.rkllm")
    answer = ask(service, "qwen2.5", user("Go.", reply=reply), format=SHAPE)
    assert (answer.text, answer.reason, answer.error) == (text, "stop", None)


@pytest.mark.parametrize("model", ["qwen2.5", "guide"])
def test_an_answer_of_a_shape_that_is_cut_off_is_told_to_be_incomplete(
    service: LocalService, models: Path, model: str
) -> None:
    write_model(models / "qwen2.5.rkllm")
    shutil.copy(GUIDE_FILE, models / "guide.gguf")
    messages = user("Go.", reply='{"a": 12345678, "b": "and more and more"}')
    answer = ask(service, model, messages, format=SHAPE, max_tokens=2)
    assert answer.reason == "length"
    assert "incomplete" in (answer.error or "")


@pytest.mark.parametrize("model", ["qwen2.5", "guide"])
@pytest.mark.parametrize("wants", ["format", "tool_choice"])
def test_a_schema_that_leads_nowhere_is_refused_before_a_word(
    service: LocalService, models: Path, model: str, wants: str
) -> None:
    write_model(models / "qwen2.5.rkllm")
    shutil.copy(GUIDE_FILE, models / "guide.gguf")
    dead = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}
    more: dict[str, Any] = {"format": dead}
    if wants == "tool_choice":
        more = {"tools": (Tool(name="f", parameters=dead),), "tool_choice": "required"}
    with pytest.raises(InvalidRequest, match="refers to nothing"):
        ask(service, model, user("Go."), **more)
    assert service.loaded() == []


# --- The runtime's own template ----------------------------------------------------------------


def test_counting_and_embedding_leave_a_chat_possible(service: LocalService, models: Path) -> None:
    """Both take the runtime's own template away, which cannot be brought back."""
    for name, first in (
        ("a", lambda: service.count_tokens(ChatRequest(model="a", messages=user("hi")))),
        ("b", lambda: service.embed(EmbeddingRequest(model="b", inputs=("hi",)))),
    ):
        write_model(models / f"{name}.rkllm")
        first()
        assert ask(service, name, user("hello")).text == "hello"


def test_a_model_of_ollamas_library_that_is_here_is_pulled_at_once(
    service: LocalService, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models / "qwen2.5.rkllm")
    (done,) = service.pull("library/qwen2.5:latest")
    assert (done.status, done.name) == ("done", "qwen2.5")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        list(service.pull("library/other"))


# --- Models that only embed --------------------------------------------------------------------

EMBEDDER = "Qwen3-Embedding-0.6B-rk3588"


def test_a_model_that_only_embeds_refuses_to_chat_before_it_is_loaded(
    service: LocalService, models: Path
) -> None:
    write_model(models / f"{EMBEDDER}.rkllm")
    with pytest.raises(Unsupported, match="makes embeddings"):
        ask(service, EMBEDDER, user("hi"))
    with pytest.raises(Unsupported, match="makes embeddings"):
        ask(service, EMBEDDER, (), prompt="hi", raw=True)
    assert service.loaded() == []


def test_an_empty_text_among_others_has_a_vector(service: LocalService, models: Path) -> None:
    write_model(models / f"{EMBEDDER}.rkllm")
    shutil.copy(GUIDE_FILE, models / "other.gguf")
    for model in (EMBEDDER, "other"):
        vectors = service.embed(EmbeddingRequest(model=model, inputs=("a", "", "b"))).vectors
        assert len({len(vector) for vector in vectors}) == 1
        alone = service.embed(EmbeddingRequest(model=model, inputs=("a",))).vectors
        assert list(alone[0]) == pytest.approx(list(vectors[0]), abs=1e-4)


# --- Room for the answer -----------------------------------------------------------------------


def long_talk(turns: int) -> tuple[Message, ...]:
    """A conversation in which each turn has about ten tokens."""
    talk: list[Message] = []
    for number in range(turns):
        talk.append(Message.of("user", f"Question number {number}, is it not?"))
        talk.append(Message.of("assistant", f"Answer number {number}, it is."))
    return (*talk, Message.of("user", "And?"))


@pytest.mark.parametrize("model", ["qwen2.5", "guide"])
def test_a_conversation_leaves_room_for_its_answer(
    service: LocalService, models: Path, model: str
) -> None:
    write_model(models / "qwen2.5.rkllm")
    shutil.copy(GUIDE_FILE, models / "guide.gguf")

    def ended(messages: tuple[Message, ...], **more: Any) -> Finished:
        wants: dict[str, Any] = {"truncate": True, "max_tokens": 400, **more}
        request = ChatRequest(model=model, messages=messages, context_length=512, **wants)
        *_, last = service.stream(request)
        assert isinstance(last, Finished)
        return last

    whole = ended(long_talk(5), truncate=False).usage.prompt_tokens
    assert whole is not None
    each = (whole - (ended(long_talk(1), truncate=False).usage.prompt_tokens or 0)) / 4
    turns = int((440 - whole) / each) + 5  # it fits, and leaves less than a quarter
    service.unload(model)
    for _ in range(2):  # its size is counted first, and estimated then
        cut = ended(long_talk(turns))
        assert cut.dropped % 8 == 0
        assert cut.dropped > 0
        assert 200 < (cut.usage.prompt_tokens or 0) <= 384
    assert ended(long_talk(turns), max_tokens=16).dropped == 0
    assert ended(long_talk(turns), truncate=False).dropped == 0
    one = long_talk(turns)[0].text
    ten, twenty = (ended(user(one * n)).usage.prompt_tokens or 0 for n in (10, 20))
    long = ended(user(one * int(20 + (440 - twenty) / (twenty - ten) * 10)))
    assert long.dropped == 0
    assert (long.usage.prompt_tokens or 0) > 384


# --- Loading and unloading ---------------------------------------------------------------------


def test_a_request_without_a_word_loads_nothing(service: LocalService, models: Path) -> None:
    write_model(models / "m.rkllm")
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        ask(service, "m", (), keep_alive=0.0)
    assert service.loaded() == []


def test_a_model_in_memory_has_no_name_that_is_gone(service: LocalService, models: Path) -> None:
    write_model(models / "m.rkllm")
    for name in ("poet", "bard"):
        service.create(name, "FROM m\nSYSTEM Rhyme.")
    service.load("poet")
    service.remove("bard")
    assert service.current().name == "poet"
    service.remove("poet")
    with pytest.raises(NoModelLoaded):
        service.current()
    assert [model.name for model in service.models()] == ["m"]
