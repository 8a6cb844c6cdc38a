"""The proof that structured answers are valid, over all schemas of the tests and a model that misbehaves.

    python -m tests.structured.proof --answers 5000

prints the figures, and fails where one is not as it has to be. The tests draw a small sample of it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rkllama.engine.structured.guided import guided
from rkllama.schema.grammar import Grammar, compile_schema
from tests.schema.corners import CORNERS
from tests.schema.reference import Reference
from tests.schema.test_schemas import REAL
from tests.schema.walking import DeadEnd
from tests.structured.beside import beside_tools
from tests.structured.calling import call, fits_tags
from tests.structured.documents import document
from tests.structured.judging import Answer, Write, answer, is_given
from tests.structured.model import Model, Style, scalars

SCHEMAS: dict[str, Any] = {**REAL, **{name: corner.schema for name, corner in CORNERS.items()}}
STYLES = (
    Style(),
    Style(indent="  "),
    Style(gap=""),
    Style(before="Sure, here it is:\n\n```json\n", behind="\n```\nI hope that helps."),
    Style(ascii=True),
    Style(shuffles=True),
)
_WORST = 0.6
"""The share of values that a model gets wrong that can hardly write JSON."""


@cache
def made(name: str) -> tuple[Grammar, Reference, tuple[Any, ...]]:
    """A schema's grammar, what others say of it, and documents that meet it."""
    grammar, reference = compile_schema(SCHEMAS[name]), Reference(SCHEMAS[name])
    documents = [json.loads(text) for text in CORNERS[name].valid] if name in CORNERS else []
    for number in range(2):
        try:
            documents.append(document(grammar, random.Random(f"{name} {number}")))
        except DeadEnd:
            assert not grammar.decided_by_prefix
    return grammar, reference, tuple(documents)


def names(every: int = 1) -> list[str]:
    """Return the schemas that have documents, or a part of them."""
    return [name for name in list(SCHEMAS)[::every] if made(name)[2]]


def cases(count: int, rate: float, every: int = 1, first: int = 0) -> Iterator[tuple[str, Model]]:
    """Yield models over the schemas in turn, with other documents, styles and seeds, from `first` on."""
    schemas = names(every)
    for number in range(count):
        name, round_ = schemas[number % len(schemas)], number // len(schemas)
        documents = made(name)[2]
        style = STYLES[(number + round_) % len(STYLES)]
        yield name, Model(documents[round_ % len(documents)], rate, first + number, style=style)


@dataclass
class Tally:
    """What came of many answers."""

    valid: int = 0
    failed: int = 0
    """Answers that say which value is missing."""
    long: int = 0
    """Valid answers of several values, of schemas that need no look at the whole."""
    streamed: int = 0
    """Those of them of which something had left before the model had written the last."""
    faults: list[str] = field(default_factory=list)
    """What must not be: an answer that is not valid and says nothing of it, a value that is made up, text
    that left and cannot be continued, a failure that names no place.
    """
    runs: int = 0
    values: int = 0
    evaluated: int = 0
    length: int = 0

    def add(self, name: str, got: Answer) -> None:
        """Count an answer."""
        fault = _fault(name, got)
        if fault:
            about = f"{name}, seed {got.model.seed}, {got.model.document}"
            self.faults.append(f"{fault}: {about}: {got.text!r} {got.finished.error}")
        elif got.finished.error is not None:
            self.failed += 1
        else:
            self._add_valid(got, made(name)[0])

    def _add_valid(self, got: Answer, grammar: Grammar) -> None:
        model = got.model
        values = max(1, len(list(scalars(json.loads(got.text)))))
        self.valid += 1
        if grammar.decided_by_prefix and values > 2 and model.runs:
            self.long += 1
            self.streamed += got.first < model.wrote
        self.runs += model.runs
        self.values += values
        self.evaluated += model.read + model.wrote
        self.length += len(got.text)

    @property
    def share(self) -> float:
        """The part of the answers that is valid."""
        return self.valid / (self.valid + self.failed + len(self.faults))

    @property
    def tokens(self) -> float:
        """Characters that a model reads and writes for one of an answer."""
        return self.evaluated / self.length

    @property
    def runs_each(self) -> float:
        """Runs for a value."""
        return self.runs / self.values


def _fault(name: str, got: Answer) -> str | None:
    grammar, reference, _ = made(name)
    if grammar.start().feed(got.text)[0] < len(got.text):
        return "what has left cannot be continued"
    if got.finished.error is not None:
        return None if "$" in got.finished.error else "the failure names no place"
    if not reference.is_valid(got.text):
        return "an answer that is not valid passes as valid"
    return None if is_given(got, grammar) else "a value is made up"


def tally(
    count: int,
    rate: float,
    within: int = 0,
    every: int = 1,
    write: Write = guided,
    *,
    first: int = 0,
) -> Tally:
    """Have a model that errs at so many of its values write answers.

    With `within` it gives each value right at that try.
    """
    total = Tally()
    for name, model in cases(count, rate, every, first):
        model.within = within
        total.add(name, answer(made(name)[0], model, write))
    return total


def tally_calls(
    count: int, rate: float, every: int = 1, *, tags: bool = False, first: int = 0
) -> Tally:
    """Have a model that errs call a tool by itself, whose parameters are each schema of an object."""
    total = Tally()
    for name, model in cases(count, rate, every, first):
        schema = SCHEMAS[name]
        is_object = isinstance(model.document, dict) and isinstance(schema, dict)
        if not is_object or model.style.before or (tags and not fits_tags(model.document)):
            continue
        called = call(schema, model, tags=tags)
        reference = made(name)[1]
        if called.arguments is None:
            total.failed += 1
            if not (called.error and "$.arguments" in called.error):
                total.faults.append(
                    f"no call, and nothing is said: {name}, seed {model.seed}: {called}"
                )
        elif called.error or not reference.is_valid(json.dumps(called.arguments)):
            total.faults.append(f"a call that is not valid: {name}, seed {model.seed}: {called}")
        else:
            total.valid += 1
    return total


def main() -> int:
    """Print the figures; return 1 where one is not as it has to be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=5000, help="answers of each model")
    parser.add_argument("--seed", type=int, default=0, help="the first of the models' seeds")
    arguments = parser.parse_args()
    count, first = arguments.answers, arguments.seed
    sys.stdout.write(f"{count} answers each, {len(names())} schemas\n")
    good = tally(count, 0, first=first)
    tallies = {
        "a good model": good,
        "10 % of its values wrong": tally(count, 0.1, first=first),
        "30 %": tally(count, 0.3, first=first),
        "30 %, right at the third try": tally(count, 0.3, within=3, first=first),
        "60 %": tally(count, _WORST, first=first),
    }
    beside = tally(count, 0.3, write=beside_tools, first=first)
    for title, each in {**tallies, "30 %, beside tools": beside}.items():
        _print(title, each, good)
    for rate in (0.1, 0.3, _WORST):
        for tags in (False, True):
            title = f"calls of a tool{' in tags' if tags else ''}, {rate:.0%}"
            tallies[title] = calls = tally_calls(count, rate, tags=tags, first=first)
            _print_calls(title, calls)
    third, tenth = tallies["30 %, right at the third try"], tallies["10 % of its values wrong"]
    missed = [each for each in (*tallies.values(), beside) if each.faults]
    met = third.share >= 0.97 and tenth.tokens <= 1.15 * good.tokens and not good.failed
    met = met and all(each.streamed >= 0.99 * each.long for each in tallies.values())
    # Nothing may be left to write behind the first key, which the model writes here.
    met = met and beside.share >= 0.97 and beside.streamed >= 0.97 * beside.long
    met = met and all(
        not each.values or each.runs_each <= 1 + good.runs_each for each in tallies.values()
    )
    return 0 if met and not missed else 1


def _print_calls(title: str, each: Tally) -> None:
    sys.stdout.write(
        f"{title}: {each.valid} valid ({each.share:.1%}), "
        f"{each.failed} honest failures, {len(each.faults)} faults\n"
    )
    for fault in each.faults[:10]:
        sys.stdout.write(f"  {fault}\n")


def _print(title: str, each: Tally, good: Tally) -> None:
    sys.stdout.write(
        f"{title}: {each.valid} valid ({each.share:.1%}), {each.failed} honest failures, "
        f"{len(each.faults)} faults; {each.tokens / good.tokens - 1:.1%} tokens more, "
        f"{each.runs_each:.2f} runs per value, {each.streamed} of {each.long} long ones "
        "leave before their end\n"
    )
    for fault in each.faults[:10]:
        sys.stdout.write(f"  {fault}\n")


if __name__ == "__main__":
    sys.exit(main())
