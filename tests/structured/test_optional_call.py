"""An answer of a schema beside tools that may be called: the model begins the one or the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rkllama.chat.parser import AnswerParser
from rkllama.engine.structured.calls import grammars_of
from rkllama.engine.structured.guided import StopString
from rkllama.engine.structured.optional_call import answer_or_calls
from rkllama.schema.grammar import compile_schema
from rkllama.types import Event, Finished, FinishReason, ReasoningDelta, TextDelta
from tests.answers import joined
from tests.structured.beside import beside_tools
from tests.structured.model import Model
from tests.structured.proof import tally
from tests.structured.test_calls import GOOD, PARIS, TOOLS, WRONG, Writer, hermes, tags

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["title", "count"],
    "additionalProperties": False,
}
VALUE = {"title": "Boiled eggs", "count": 2}
ANSWER = json.dumps(VALUE)


@dataclass
class FreeWriter(Writer):
    """Writes given texts, in pieces of a size, and at last what goes on to ANSWER."""

    size: int = 3
    stop_string: str = ""
    thought: str = ""
    calls_are_over: bool = False
    came_to: str | None = None
    wrote: list[str] = field(default_factory=list)

    def think(self) -> Iterator[Event]:
        if self.thought:
            yield ReasoningDelta(self.thought)

    def expect_no_calls(self) -> None:
        self.calls_are_over = True

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        if len(self.prompts) == len(self.texts):
            text = "".join(Model(VALUE).run(written))
        else:
            text = "".join(super().run(written, again=again))
        self.stopping = False
        self.wrote.append("")
        for at in range(0, len(text), self.size):
            if self.stopping:
                return
            self.wrote[-1] += text[at : at + self.size]
            yield text[at : at + self.size]
        if self.calls_are_over and self.stop_string and self.stop_string in text:
            self.came_to = self.stop_string
            raise StopString(self.stop_string)

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        return super().finished(reason, error, stop or self.came_to)


@dataclass
class Outcome:
    """What came of it."""

    events: list[Event]
    finished: Finished
    writer: FreeWriter

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        return joined(self.events)

    @property
    def value(self) -> Any:
        (part,) = self.parts
        assert part[0] == "text"
        return json.loads(part[1])


def ask(*texts: str, schema: Any = SCHEMA, format: str = "hermes", **wants: Any) -> Outcome:
    writer = FreeWriter(texts, **wants)
    stop = [writer.stop_string] if writer.stop_string else []
    parser = AnswerParser(stop=stop, tools=TOOLS, tool_format=format, grammars=grammars_of(TOOLS))
    *events, end = answer_or_calls(compile_schema(schema), writer, parser, TOOLS)
    assert isinstance(end, Finished)
    return Outcome(events, end, writer)


def test_a_model_that_errs_answers_rightly_or_says_what_is_missing() -> None:
    total = tally(60, 0.3, every=7, write=beside_tools)
    assert not total.faults
    assert total.valid > 5 * total.failed
    assert total.streamed == total.long > 5


SIZES = pytest.mark.parametrize("size", [1, 4, 1000])


@pytest.mark.parametrize(
    "reply",
    [
        ANSWER,
        f"Here it is:\n{ANSWER}\nGood luck!",
        f"```json\n{ANSWER}\n```",
        f"<think>\nNo tool fits.\n</think>\n\n{ANSWER}",
        json.dumps(VALUE, indent=2),
    ],
)
@pytest.mark.parametrize(("format", "size"), [("hermes", 1), ("llama3", 4), ("mistral", 1000)])
def test_an_answer_is_taken_as_it_is(reply: str, format: str, size: int) -> None:
    outcome = ask(reply, size=size, format=format)
    assert outcome.value == VALUE
    assert (outcome.finished.reason, outcome.finished.error) == ("stop", None)
    assert all(prompt.startswith("{") for prompt in outcome.writer.prompts[1:])


@SIZES
def test_a_value_that_is_wrong_is_written_again(size: int) -> None:
    outcome = ask('{"title": ', '"Boiled eggs", "count": two}', "two", size=size)
    assert outcome.value == VALUE
    assert outcome.finished.error is None


@SIZES
@pytest.mark.parametrize(
    "reply",
    [hermes(GOOD), tags("city=Paris", "days=3"), '{"name": "get_weather", "args": ' + GOOD + "}"],
)
@pytest.mark.parametrize("before", ["", "I look it up.\n"])
def test_a_call_comes_as_it_is(before: str, reply: str, size: int) -> None:
    bare = reply.startswith("{")
    outcome = ask(before + reply, size=size, format="llama3" if bare else "hermes")
    text = [("text", before)] if before else []
    assert outcome.parts == [*text, PARIS]
    assert (outcome.finished.reason, outcome.finished.error) == ("tool_calls", None)
    assert len(outcome.writer.prompts) == 1


@SIZES
@pytest.mark.parametrize("reply", [hermes(WRONG), tags("city=Paris", "days=few")])
def test_arguments_that_are_wrong_are_written_again(reply: str, size: int) -> None:
    outcome = ask(reply, "3}", "\n</tool_call>", size=size)
    assert outcome.parts == [PARIS]
    assert (outcome.finished.reason, outcome.finished.error) == ("tool_calls", None)


@SIZES
def test_several_calls_and_what_stands_between_them(size: int) -> None:
    reply = f"{hermes(GOOD)}\n{hermes('{}', 'now')}\nThat is all."
    outcome = ask(reply, size=size)
    assert outcome.parts == [PARIS, ("call", 1, "now", {}), ("text", "\nThat is all.")]


def test_a_call_may_come_behind_some_sentences() -> None:
    before = "I have to know how warm it is before I can say anything about that. " * 6
    assert 200 < len(before) < 500
    assert ask(before + hermes(GOOD)).parts == [("text", before), PARIS]


@pytest.mark.parametrize("reply", ["", "The eggs are boiled.", "On and on. " * 100])
def test_prose_is_passed_over_and_the_answer_begun_for_the_model(reply: str) -> None:
    outcome = ask(reply)
    assert outcome.value == VALUE
    assert len(outcome.writer.wrote[0]) < 600


def test_what_has_left_is_not_taken_back_for_a_call() -> None:
    """The answer has begun: what looks like a call in it is none."""
    call = hermes(GOOD)
    outcome = ask(f'{{"title": "x", "count": {call}', size=100)
    assert outcome.value == {"title": "x", "count": 2}
    outcome = ask('{"title": "<tool_call>\\n{}", "count": 2}', size=100)
    assert outcome.value == {"title": "<tool_call>\n{}", "count": 2}


def test_an_answer_is_streamed() -> None:
    outcome = ask(ANSWER, size=1)
    texts = [event.text for event in outcome.events if isinstance(event, TextDelta)]
    assert len(texts) > 10


def test_a_value_that_is_not_given_is_named() -> None:
    outcome = ask(*['{"title": "x", "count": few}'] * 20, size=100)
    assert outcome.finished.error == "the model gave no value that fits at $.count"
    outcome = ask(hermes(WRONG), *["few"] * 20)
    assert outcome.finished.error == "the model gave no value that fits at $.arguments.days"


def test_a_thought_comes_first() -> None:
    for reply, part in ((ANSWER, ("text", ANSWER)), (hermes(GOOD), PARIS)):
        assert ask(reply, thought="Hm.").parts == [("reasoning", "Hm."), part]


@SIZES
@pytest.mark.parametrize(
    ("reply", "path"), [('{"title": "one END two', "$.title"), ("Well, END", "$")]
)
def test_a_stop_string_ends_the_answer(reply: str, path: str, size: int) -> None:
    outcome = ask(reply, reply.partition(": ")[2], size=size, stop_string="END")
    assert outcome.finished.stop == "END"
    error = f"the answer is incomplete: it came to the stop string 'END' at {path}"
    assert outcome.finished.error == error


def test_a_stop_string_behind_a_call_ends_it() -> None:
    outcome = ask(f"{hermes(GOOD)}END{hermes(GOOD)}", stop_string="END")
    assert outcome.parts == [PARIS]
    assert (outcome.finished.reason, outcome.finished.stop) == ("tool_calls", "END")


def test_what_can_be_checked_only_as_a_whole_may_be_a_call_to_its_end() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    assert ask('["a", "b"]', schema=schema).value == ["a", "b"]
    assert ask(hermes(GOOD), schema=schema).parts == [PARIS]
