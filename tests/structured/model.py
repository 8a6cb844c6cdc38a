"""A model that knows one document and misbehaves on purpose, seeded: the driver's counterpart in the tests.

It goes on from what is written as a language model does: it finds where in its document that text ends, and
writes the rest of it in pieces of some characters. At each value, by chance, it does what models do wrong.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rkllama.types import Event, Finished, FinishReason

Fault = Callable[[random.Random, str], str]
"""Makes of a value's text what is written in its place; an END in it ends the run."""

END = "\0"


def _prose(chance: random.Random, value: str) -> str:
    return chance.choice(("Sure! Here it is: ", "The answer is ", "```json\n", "// ")) + value


def _wrong_quotes(_: random.Random, value: str) -> str:
    return value.replace('"', "'") if '"' in value else f"'{value}'"


def _in_words(chance: random.Random, value: str) -> str:
    return chance.choice(("twelve", "about ", "None", "N/A", "undefined"))


def _bad_escape(_: random.Random, value: str) -> str:
    return value[:-1] + '\\x41"' if value.endswith('"') else value + "\\u00"


def _endless(chance: random.Random, value: str) -> str:
    return value.rstrip('"') + chance.choice(("ha", "0", "é")) * 300 + END


def _early_end(chance: random.Random, value: str) -> str:
    return value[: chance.randrange(len(value) + 1)] + END


def _with_unit(_: random.Random, value: str) -> str:
    return value + " units"


def _odd_letters(_: random.Random, value: str) -> str:
    return "\u201c" + value.strip('"') + "\u201d"


FAULTS: tuple[Fault, ...] = (
    _prose,
    _wrong_quotes,
    _in_words,
    _bad_escape,
    _endless,
    _early_end,
    _with_unit,
    _odd_letters,
)


def layout(value: Any) -> tuple[str, list[tuple[int, int]]]:
    """Return a document's text, and where in it its scalar values are."""
    text = ""
    spans: list[tuple[int, int]] = []

    def write(value: Any) -> None:
        nonlocal text
        if isinstance(value, dict):
            text += "{"
            for number, (key, inner) in enumerate(value.items()):
                text += (", " if number else "") + json.dumps(key, ensure_ascii=False) + ": "
                write(inner)
            text += "}"
        elif isinstance(value, list):
            text += "["
            for number, inner in enumerate(value):
                text += ", " if number else ""
                write(inner)
            text += "]"
        else:
            start = len(text)
            text += json.dumps(value, ensure_ascii=False)
            spans.append((start, len(text)))

    write(value)
    return text, spans


@dataclass
class Model:
    """Writes `document`, wrong with the probability `faults` at each value and try; see guided.Writer."""

    document: Any
    faults: float = 0.0
    seed: int = 0
    limit: int = 20_000
    """Characters that it may write in all."""
    varies: bool = True
    never: frozenset[int] = frozenset()
    """The numbers of values that it never gives right."""
    ended: FinishReason = "stop"
    runs: int = 0
    wrote: int = 0
    read: int = 0
    """Characters that were evaluated behind what was there before."""
    _there: str = ""
    _tries: dict[int, int] = field(default_factory=dict)
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.text, self._spans = layout(self.document)

    def think(self) -> Iterator[Event]:
        """It does not."""
        return iter(())

    def ask(self, written: str, question: str) -> Iterator[str]:
        """It says the value of its document, or that it does not know."""
        number = self._value_at(self._place(written))
        start, end = self._spans[number]
        self._stopping = False
        yield "I cannot say" if number in self.never else self.text[start:end]

    def stop(self) -> None:
        self._stopping = True

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        self.runs += 1
        self.read += len(written) - len(_common(written, self._there))
        self._stopping = False
        self.ended = "stop"
        chance = random.Random(f"{self.seed} {self.runs}")
        out = ""
        for char in self._rest(written):
            if char == END:
                break
            out += char
            if len(out) >= chance.randint(1, 6):
                self.wrote += len(out)
                yield out
                out = ""
                if self._stopping:
                    break
            if self.wrote > self.limit:
                self.ended = "length"
                break
        else:
            if out:
                self.wrote += len(out)
                yield out
        self._there = written

    def finished(self, reason: FinishReason, error: str | None = None) -> Finished:
        return Finished(reason=reason, model="test", error=error)

    def _place(self, written: str) -> int:
        """Where in its document a text ends, as far as that is alike; else the end of the value it is in."""
        if self.text.startswith(written):
            return len(written)
        for size in range(min(len(written), len(self.text)), 4, -1):
            at = self.text.find(written[-size:])
            if at >= 0:
                return at + size
        return self._spans[self._value_in(written)][1]

    def _value_in(self, written: str) -> int:
        """The number of the value that the end of a text stands for: that behind the last text before it."""
        best = (-1, 0)
        for number, (start, _) in enumerate(self._spans):
            before = self.text[max(0, start - 12) : start]
            best = max(best, (written.rfind(before), number))
        return best[1]

    def _value_at(self, place: int) -> int:
        return next(
            (n for n, (_, end) in enumerate(self._spans) if end > place), len(self._spans) - 1
        )

    def _rest(self, written: str) -> Iterator[str]:
        place = self._place(written)
        if not self.text.startswith(written) and place in (end for _, end in self._spans):
            yield '"'  # it leaves a value in which it was lost
        for number, (start, end) in enumerate(self._spans):
            if end <= place:
                continue
            yield from self.text[place:start]
            yield from self._value(number, max(place, start), start, end)
            place = end
        yield from self.text[place:]

    def _value(self, number: int, place: int, start: int, end: int) -> str:
        value = self.text[place:end]
        if place > start:  # it is in the midst of it
            return value if number not in self.never else END
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        chance = random.Random(f"{self.seed} {number} {tries}")
        if number in self.never:
            return "I cannot say" + END
        return chance.choice(FAULTS)(chance, value) if chance.random() < self.faults else value


def _common(one: str, other: str) -> str:
    size = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        size += 1
    return one[:size]
