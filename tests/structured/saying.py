"""Models that say given texts, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from rkllama.schema.grammar import Grammar, compile_schema
from tests.structured.judging import Answer, answer
from tests.structured.model import Model

INTEGER, TEXT, NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}
TEXTS = {"type": "array", "items": TEXT}


@cache
def grammar_of(schema: str) -> Grammar:
    return compile_schema(json.loads(schema))


def ask(model: Model, schema: Any) -> Answer:
    """Have a model write an answer of a schema."""
    return answer(grammar_of(json.dumps(schema)), model)


@dataclass
class Says(Model):
    """A model that says given texts, one a run, and the last one again and again."""

    texts: tuple[str, ...] = ()

    def _characters(self, written: str) -> Iterator[str]:
        yield from self.texts[min(self.runs, len(self.texts)) - 1]


@dataclass
class Replies(Says):
    """It replies to questions with a given text."""

    reply: str = ""

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        self._stopping = False
        self.ended = "stop"
        yield self.reply


@dataclass
class RepliesPlainly(Replies):
    """It does not know what to reply where the answer so far stands before the question."""

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        known = not written.startswith("{")
        replies = super().ask(written, question, begun=begun, again=again)
        return replies if known else iter("...")


@dataclass
class Goes(Replies):
    """A model that goes on in a text of an object as far as that is written, and else says it again from its
    last value on.
    """

    spoken: str = ""

    def _characters(self, written: str) -> Iterator[str]:
        whole = "{" + self.spoken
        if written and whole.startswith(written):
            yield from whole[len(written) :]
        elif written.endswith(('": ', '":')):
            yield from self.spoken.rpartition(": ")[2]
        else:
            yield from self.spoken.rpartition(", ")[2]


def says(value: Any, *texts: str, varies: bool = True) -> Answer:
    """What comes of texts for the value of `a`."""
    schema = {
        "type": "object",
        "properties": {"a": value},
        "required": ["a"],
        "additionalProperties": False,
    }
    return ask(Says({"a": None}, texts=texts, varies=varies), schema)
