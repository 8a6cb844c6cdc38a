"""Calls that a model makes by itself: their arguments are what the tool takes, or the answer says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from rkllama.chat.parser import AnswerParser
from rkllama.engine.structured.calls import grammars_of, mended
from rkllama.types import Event, Finished, FinishReason, Tool
from tests.answers import joined
from tests.structured.model import Model
from tests.structured.proof import tally_calls

WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
TREE = Tool(
    name="grow",
    parameters={
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#"}},
            "height": {"$ref": "#/$defs/metres"},
        },
        "additionalProperties": False,
        "$defs": {"metres": {"type": "number"}},
    },
)
GROWN = {"children": [{}], "height": 3}
TOOLS = (WEATHER, TREE, Tool(name="now"))
PARIS = ("call", 0, "get_weather", {"city": "Paris", "days": 3})


@dataclass
class Writer:
    """Writes given texts, one a run."""

    texts: Sequence[str]
    varies: bool = True
    ended: FinishReason | Literal["repeats"] = "stop"
    prompts: list[str] = field(default_factory=list)
    stopping: bool = False

    def think(self) -> Iterator[Event]:
        return iter(())

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        self.prompts.append(written)
        self.stopping = False
        for char in self.texts[min(len(self.prompts), len(self.texts)) - 1]:
            if self.stopping:
                return
            yield char

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        return self.run(written)

    def stop(self) -> None:
        self.stopping = True

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        return Finished(reason=reason, model="test", error=error, stop=stop)


@dataclass
class Knowing(Writer):
    """Goes on with the call of PARIS, where it is written as JSON behind a tag."""

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        self.prompts.append(written)
        self.stopping = False
        arguments = written.partition("get_weather>\n")[2]
        ends = arguments.endswith("</function>")
        for piece in ["\n</tool_call>"] if ends else Model(PARIS[3]).run(arguments):
            if self.stopping:
                return
            yield piece


@dataclass
class Outcome:
    """What came of an answer."""

    parts: list[tuple[Any, ...]]
    finished: Finished | None
    """None where the first run was as it has to be."""
    prompts: list[str]


def answer(
    reply: str,
    *later: str,
    size: int = 3,
    format: str = "hermes",
    writer: Writer | None = None,
    **wants: Any,
) -> Outcome:
    """Have a model reply, in pieces, and write other texts when it is run again."""
    parser = AnswerParser(tools=TOOLS, tool_format=format, grammars=grammars_of(TOOLS))
    events: list[Event] = []
    raw = ""
    for at in range(0, len(reply), size):
        if parser.stray is None:
            raw += reply[at : at + size]
            events += parser.feed(reply[at : at + size])
    parser.check_end()
    if parser.stray is None:
        return Outcome(joined([*events, *parser.finish()]), None, [])
    writer = writer or Writer(later or ("",), **wants)
    *more, end = mended(writer, parser, TOOLS, raw, called=False)
    assert isinstance(end, Finished)
    return Outcome(joined([*events, *more]), end, writer.prompts)


def hermes(arguments: str, name: str = "get_weather") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


GOOD, WRONG = '{"city": "Paris", "days": 3}', '{"city": "Paris", "days": few}'


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("format", "reply"),
    [
        ("hermes", hermes(GOOD)),
        ("hermes", f"I look it up.\n{hermes(GOOD)}"),
        ("hermes", f'<tool_call>{{"name":"get_weather","parameters":{GOOD}}}</tool_call>'),
        ("hermes", hermes('"{\\"city\\": \\"Paris\\", \\"days\\": 3}"')),
        ("mistral", f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {GOOD}}}]'),
        ("mistral", f"[TOOL_CALLS]get_weather[ARGS]{GOOD}"),
        ("llama3", f'{{"name": "get_weather", "parameters": {GOOD}}}'),
        ("llama3", f"<function=get_weather>{GOOD}</function>"),
        ("granite", f'<|tool_call|>[{{"name": "get_weather", "arguments": {GOOD}}}]'),
        ("json", f'```json\n{{"name": "get_weather", "arguments": {GOOD}}}\n```'),
    ],
)
def test_a_call_that_is_right_is_left_as_it_is(format: str, reply: str, size: int) -> None:
    outcome = answer(reply, size=size, format=format)
    assert outcome.finished is None
    assert outcome.parts[-1] == PARIS


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("reply", "later"),
    [
        (hermes("{city: 'Paris', days: 3}"), ('"Paris", ', "3}")),
        (hermes('{"city": "Paris", "days": three}'), ("3}",)),
        (hermes('{"city": "Paris", "days": 0}'), ("3}",)),
        (hermes('{"city": "Paris"}'), ("3}",)),
        (hermes('{"city": "Paris", "days": 3,, "unit": 1}'), ()),
        (hermes('{"city": "Paris", "days": 3,}'), ()),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "d', ("3}",)),
        ("[TOOL_CALLS]get_weather[ARGS]{'city': 'Paris'}", ('"Paris", ', "3}")),
    ],
)
def test_arguments_that_are_not_are_written_again(
    reply: str, later: tuple[str, ...], size: int
) -> None:
    outcome = answer(reply, *later, "", size=size)
    assert outcome.parts == [PARIS], outcome.prompts
    assert outcome.finished is not None
    assert (outcome.finished.reason, outcome.finished.error) == ("tool_calls", None)


@pytest.mark.parametrize(("size", "later"), [(1, "3}"), (5, "3}"), (1000, "}")])
def test_a_number_in_quotes_is_one(size: int, later: str) -> None:
    """Where it has been written whole; the model is stopped at the first quote else."""
    reply = '{"name": "get_weather", "parameters": {"city": "Paris", "days": "3"}}'
    assert answer(reply, later, "", size=size).parts == [PARIS]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("reply", "later"),
    [
        ('{"name": "get_weather", "aarguments": {"city": "Paris"}}', ('"Paris", ', "3}")),
        ('{"naame": "get_weather"}', ('"Paris"', "3}")),
        ('{"name": "get_weather"}', ('"Paris"', "3}")),
        ('{"name": "get_weather", arguments: {}}', ('"Paris"', "3}")),
        ('{"name": "get_weather"', ('"Paris"', "3}")),
        ("{'name': 'get_weather', 'arguments': {}}", ('"Paris"', "3}")),
        ('{"arguments": {"city": "Paris"}, "name": "get_weather"}', ("3}",)),
        ('[{"name": "get_weather", "args": 5}]', ('"Paris"', "3}", "]")),
    ],
)
def test_a_call_that_is_none_is_written_again(
    reply: str, later: tuple[str, ...], size: int
) -> None:
    outcome = answer(f"<tool_call>\n{reply}\n</tool_call>", *later, "", size=size)
    assert outcome.parts == [PARIS], outcome.prompts
    assert outcome.finished is not None
    assert (outcome.finished.reason, outcome.finished.error) == ("tool_calls", None)


def tags(*parameters: str, end: str = "</function>\n</tool_call>") -> str:
    """A call in tags, of parameters such as `days=3`."""
    pairs = (parameter.split("=") for parameter in parameters)
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in pairs)
    return f"<tool_call>\n<function=get_weather>\n{inside}{end}"


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("head", ["", "<tool_call>\n"])
def test_a_call_in_tags_that_is_right_is_left_as_it_is(head: str, size: int) -> None:
    for parameters in (("city=Paris", "days=3"), ("days=3", "city=Paris")):
        outcome = answer(head + tags(*parameters).removeprefix("<tool_call>\n"), size=size)
        assert (outcome.finished, outcome.parts) == (None, [PARIS])


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("reply", "later"),
    [
        (tags("city=Paris", "days=three"), ("3}",)),
        (tags("city=Paris", "days=3 days"), ()),
        (tags("city=Paris", "days=0"), ("3}",)),
        (tags("days=few", "city=Rome"), ("3, ", '"Paris"}')),
        (tags("city=Paris"), ("3}",)),
        (tags("city=Paris", "days=3", end="</tool_call>"), ("}",)),
        (tags("city=Paris", "days=3", end=""), ("}",)),
        (tags("city=Paris", end="<parameter=days>\n3\n</par"), ("}",)),
        (tags(end="<parameter=city>\nPar"), ('is", ', "3}")),
        (tags("city=Paris", "days=few").removeprefix("<tool_call>\n"), ("3}",)),
    ],
)
def test_parameters_in_tags_that_are_not_right_are_written_as_json(
    reply: str, later: tuple[str, ...], size: int
) -> None:
    outcome = answer(reply, *later, "\n</tool_call>", size=size)
    assert outcome.parts == [PARIS], outcome.prompts
    assert outcome.finished is not None
    assert (outcome.finished.reason, outcome.finished.error) == ("tool_calls", None)
    assert outcome.prompts[-1].endswith("}\n</function>")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("extra", ["town=Rome", "city=Rome"])
def test_a_parameter_in_tags_that_the_tool_does_not_have_goes(extra: str, size: int) -> None:
    """Or that it has had."""
    reply = tags("city=Paris", extra, "days=3")
    outcome = answer(reply, size=size, writer=Knowing(()))
    assert outcome.parts == [PARIS], outcome.prompts


def test_a_choice_in_tags_is_made_again() -> None:
    reply = tags("city=Paris", "days=3", "unit=kelvin")
    outcome = answer(reply, '"celsius"}', "")
    assert outcome.parts == [("call", 0, "get_weather", {**PARIS[3], "unit": "celsius"})]


def test_text_in_tags_is_what_its_schema_refers_to() -> None:
    outcome = answer(
        "<function=grow><parameter=children>[{}]</parameter><parameter=height>3</parameter></function>"
    )
    assert (outcome.finished, outcome.parts) == (None, [("call", 0, "grow", GROWN)])


def test_a_value_in_tags_that_is_not_given_is_named() -> None:
    outcome = answer(tags("city=Paris", "days=few"), "few")
    assert outcome.finished is not None
    assert outcome.finished.error == "the model gave no value that fits at $.arguments.days"
    assert [part[0] for part in outcome.parts] == ["text"]


def test_tags_in_a_text_are_text() -> None:
    reply = "Write <function=get_weather><b>in tags</b>."
    outcome = answer(reply)
    assert (outcome.finished, outcome.parts) == (None, [("text", reply)])


def test_no_other_tool_is_called_than_the_one_that_is_named() -> None:
    """Even where its arguments are right for another only."""
    reply = '<tool_call>{"arguments": {}, "name": "get_weather"}</tool_call>'
    assert answer(reply, '"Paris"', "3}", "").parts == [PARIS]
    outcome = answer(reply, "none", varies=False)
    assert [part[0] for part in outcome.parts] == ["text"]


def test_what_names_no_tool_is_no_call() -> None:
    reply = '<tool_call>{"name": NAME, "arguments": ARGUMENTS}</tool_call>'
    outcome = answer(f"Write {reply}.")
    assert (outcome.finished, outcome.parts) == (None, [("text", f"Write {reply}.")])


def test_the_model_is_free_before_and_behind_a_call() -> None:
    wrong, other = hermes(WRONG), hermes("{}", "now")
    outcome = answer(f"<think>Hm.</think>I look.\n{wrong}", "3}", f"\n</tool_call>\n{other}")
    assert outcome.parts == [
        ("reasoning", "Hm."),
        ("text", "I look.\n"),
        PARIS,
        ("call", 1, "now", {}),
    ]
    whole = f"<think>Hm.</think>I look.\n{hermes(GOOD)}".removesuffix("\n</tool_call>")
    assert whole.startswith(outcome.prompts[0])
    assert outcome.prompts[-1] == whole.replace(": 3", ":3")


def test_each_call_of_a_list_is_looked_at() -> None:
    item = '{{"name": "get_weather", "arguments": {}}}'
    wrong = item.format(WRONG)
    outcome = answer(f"[TOOL_CALLS] [{wrong}", "3}", f", {wrong}", "3}", "]", format="mistral")
    assert outcome.parts == [PARIS, ("call", 1, *PARIS[2:])]
    outcome = answer(f"[TOOL_CALLS] [{item.format(GOOD)}, {wrong}", "3}", "]", format="mistral")
    assert outcome.parts == [PARIS, ("call", 1, *PARIS[2:])]


def test_parameters_may_refer_to_themselves() -> None:
    good = '{"children": [{"children": []}, {}]}'
    assert answer(hermes(good, "grow")).finished is None
    outcome = answer(hermes('{"children": [{"children": [}]}', "grow"), "]}]}", "")
    assert outcome.parts == [("call", 0, "grow", {"children": [{"children": []}]})]


@pytest.mark.parametrize("varies", [True, False])
def test_a_value_that_is_not_given_is_named(varies: bool) -> None:
    outcome = answer(hermes(WRONG), "few", varies=varies)
    assert outcome.finished is not None
    assert outcome.finished.reason == "stop"
    assert outcome.finished.error == "the model gave no value that fits at $.arguments.days"
    (part,) = outcome.parts
    assert part[0] == "text"
    assert hermes(GOOD).startswith(part[1])
    assert len(outcome.prompts) < 12


@pytest.mark.parametrize("tags", [False, True])
def test_a_model_that_errs_calls_rightly_or_says_what_is_missing(tags: bool) -> None:
    total = tally_calls(60, 0.3, every=7, tags=tags)
    assert not total.faults
    assert total.valid > 5 * total.failed


def test_what_no_grammar_holds_or_no_tool_is_comes_as_it_is() -> None:
    outcome = answer(hermes('{"days": "x"}', "forecast"))
    assert outcome.parts == [("call", 0, "forecast", {"days": "x"})]
    outcome = answer("<tool_call>\n<function=forecast>\n<parameter=days>x</parameter></function>")
    assert outcome.parts == [("call", 0, "forecast", {"days": "x"})]
