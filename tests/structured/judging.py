"""What came of one answer, and whether all in it is what the model gave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rkllama.engine.structured.guided import guided
from rkllama.schema.grammar import Grammar
from rkllama.types import Event, Finished, TextDelta
from tests.structured.model import Model, scalars


@dataclass(kw_only=True)
class Answer:
    """What came of a model's runs."""

    model: Model
    deltas: list[str]
    finished: Finished
    first: int
    """Characters that the model had written when the first text left."""

    @property
    def text(self) -> str:
        return "".join(self.deltas)


Write = Callable[[Grammar, Model], Iterator[Event]]
"""Has a model write an answer of a grammar."""


def answer(grammar: Grammar, model: Model, write: Write = guided) -> Answer:
    """What comes of an answer of a grammar."""
    deltas: list[str] = []
    first = -1
    for event in write(grammar, model):
        if isinstance(event, Finished):
            return Answer(model=model, deltas=deltas, finished=event, first=first)
        assert isinstance(event, TextDelta)
        first = model.wrote if first < 0 else first
        deltas.append(event.text)
    raise AssertionError("it does not end")


def is_given(got: Answer, grammar: Grammar) -> bool:
    """Whether each scalar of an answer is the document's, what the model wrote there, or the only one."""
    wanted = dict(scalars(got.model.document))
    text = got.text
    written: set[int] = set()
    for before, wrote in got.model.log:
        for out in _answers(before, wrote, text):
            if not text.startswith(before):
                continue
            at = len(before)
            gap = text[at : len(text) - len(text[at:].lstrip(" "))]
            # the driver keeps its own blanks to itself
            whole = before + ("" if out.startswith(" ") else gap) + out
            while at < len(whole) and at < len(text) and whole[at] == text[at]:
                written.add(at)
                at += 1
    for path, value, start, end in spans(text):
        if path in wanted and wanted[path] == value and type(wanted[path]) is type(value):
            continue
        if text[start] != '"' and _goes_on(got.model, text[:end], text[end:]):
            return False
        said = range(start + 1, end - 1) if text[start] == '"' else range(start, end)
        if said and all(at in written for at in said):
            continue
        if not said and start in written | {start for start in written if start + 1 in written}:
            continue
        if any(str(value).casefold() in reply.casefold() for reply in got.model.replies):
            continue
        state = grammar.start().feed(text[:start])[1]
        if _is_only(state, text[start:end], [at - start for at in said if at in written]):
            continue
        return False
    return True


def _answers(before: str, wrote: str, text: str) -> Iterator[str]:
    """Yield what of a run's text may be the answer's: the first may begin with a sentence."""
    yield wrote
    yield wrote.lstrip(" ")
    if not before:
        yield from (wrote[at:] for at, char in enumerate(wrote) if char == text[0])


def _goes_on(model: Model, text: str, behind: str) -> bool:
    """Whether the model wrote more of a number than what was taken of it, and is not `behind` it."""
    wholes = (before + wrote for before, wrote in model.log)
    rests = [whole[len(text) :] for whole in wholes if whole.startswith(text)]
    return any(
        more is not None and not behind.startswith(more[0])
        for more in (re.match(r"[,_ ]?\d", rest) for rest in rests)
    )


def _is_only(state: Any, token: str, written: list[int]) -> bool:
    """Whether a token is certain from a place on up to which the model has written it."""
    begun = 1 + max(written) if written else 0
    count, state = state.feed(token[:begun])
    forced: str = state.forced()
    return count == begun and f'{forced.lstrip(" ")}"'.startswith(token[begun:])


def spans(text: str) -> Iterator[tuple[Any, Any, int, int]]:
    """Yield path, value, begin and end of each scalar of a JSON text."""
    decoder = json.JSONDecoder()
    at = 0

    def blank() -> None:
        nonlocal at
        while at < len(text) and text[at] in " \n\r\t":
            at += 1

    def value(path: tuple[Any, ...]) -> Iterator[tuple[Any, Any, int, int]]:
        nonlocal at
        blank()
        if text[at] in "{[":
            closing = "}" if text[at] == "{" else "]"
            at += 1
            index = 0
            while True:
                blank()
                if text[at] == closing:
                    at += 1
                    return
                if text[at] == ",":
                    at += 1
                    continue
                key: Any = index
                if closing == "}":
                    key, at = decoder.raw_decode(text, at)
                    blank()
                    at += 1
                yield from value((*path, key))
                index += 1
        start = at
        found, at = decoder.raw_decode(text, at)
        yield path, found, start, at

    return value(())
