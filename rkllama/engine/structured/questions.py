"""What a model is asked about a value that it has not written: which of some it means, or what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from .draft import NUMBERS, Draft, warmth

if TYPE_CHECKING:
    from ...schema.grammar import State

_DRAWS = 8
"""How often a model goes on behind a question that has given answers, until it names one."""
_NUMBER_DRAWS, _TEXT_DRAWS = 4, 8
_KEY_DRAWS = 2
_LONGEST_REPLY = 120
_BEGUN_NUMBER = re.compile(r'\s*"?-?[0-9]{0,20}(?:\.[0-9]{0,20})?')
_WHOLE_NUMBER = re.compile(r'\s*"?(-?[0-9]+(?:\.[0-9]*[1-9])?)(?:\.?0*)[\n",}\]]')
"""A number and what ends it, but for zeros at its end."""
_KEY = re.compile(r'"\s*:')
_PAIR = re.compile(r'"([^"\n]*)"\s*:\s*("[^"\n]*"|[^\s,}{\["]+)')
"""A key and its value in JSON, where that is neither an object nor a list."""
_ANY_NUMBER = re.compile(r"-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")


class Asked(Protocol):
    """A model to ask; see guided.Writer."""

    @property
    def varies(self) -> bool: ...
    def ask(
        self, written: str, question: str, *, begun: str = "", again: int = 0
    ) -> Iterator[str]: ...
    def stop(self) -> None: ...


def asked_for(writer: Asked, draft: Draft) -> str | None:
    """Return the text of the value that comes next as the model tells it when it is asked; None where it
    tells none that fits, or several, or any text would fit.
    """
    kind = draft.state.kind
    choices = [text for text in draft.state.choices() if text != "]"]
    if choices and kind in ("enum", "item"):
        return _chosen(writer, draft, choices)
    if kind not in {"string", "any", "item", *NUMBERS}:
        return None
    what = "a number" if kind in NUMBERS else "the value"
    question = f"For {draft.path} answer with {what} and nothing else."
    value = _read(draft, _reply(writer, draft, question))
    plain = _plain_question(draft.path)
    if value is None and plain:
        value = _read(draft, _said(writer, "", plain, draft.path), sentence=True)
    if value is not None:
        return value
    draw, draws = (_text, _TEXT_DRAWS) if draft.state.advance('"') else (_number, _NUMBER_DRAWS)
    tries = range(draws if writer.varies else 1)
    return next(filter(None, (draw(writer, draft, question, each) for each in tries)), None)


def _text(writer: Asked, draft: Draft, question: str, again: int) -> str | None:
    """The text in quotes with which the model goes on there, where not any text would fit."""
    state = draft.state.feed('"')[1]
    if not state.in_string or state.in_open_text:
        return None
    text, before, begun = '"', draft.text, f'{draft.text}"'
    if again % 2 and (name := _name_of(draft.path)):
        before, question, begun = "", _plain_question(draft.path), f'The {name} is "'
    for piece in writer.ask(before, question, begun=begun, again=warmth(again)):
        count, state = state.feed(piece)
        text += piece[:count]
        if count < len(piece) or not state.in_string:
            writer.stop()
            break
    return text if is_value(draft.state, text) else None


def _number(writer: Asked, draft: Draft, question: str, again: int) -> str | None:
    """The number with which the model goes on where it has begun to reply with the answer so far."""
    said = ""
    for piece in writer.ask(draft.text, question, begun=draft.for_run(again), again=warmth(again)):
        said += piece
        if _WHOLE_NUMBER.match(said) or not _BEGUN_NUMBER.fullmatch(said):
            writer.stop()
    match = _WHOLE_NUMBER.match(f"{said}\n")
    number = match[1] if match else ""
    return number if is_value(draft.state, number) else None


def key_for(writer: Asked, draft: Draft) -> str | None:
    """Return the text of the key that an object is to begin with as the model names it when it is asked; None
    where it names none.
    """
    keys = {text.strip()[1:].partition('":')[0]: text for text in draft.state.choices()}
    keys.pop("", None)  # the end of the object
    question = f"Which of these do you know? Answer with what you know: {', '.join(keys)}"
    for again in range(_KEY_DRAWS if writer.varies else 1):
        named = _drawn(writer, draft, question, keys, again)
        if len(named) == 1:
            return keys[named[0]]
    return None


def is_last(writer: Asked, draft: Draft) -> bool:
    """Return whether the model says that nothing comes behind the last comma."""
    question = f"Is there a value for {draft.path}? Answer with yes or no and nothing else."
    words = set(re.findall(r"[a-z]+", _reply(writer, draft, question).casefold()))
    return "no" in words and "yes" not in words


def list_ends(writer: Asked, draft: Draft) -> bool:
    """Return whether the model says that a list which may end does."""
    question = f"Is there more in {draft.path}? Answer with yes or no and nothing else."
    words = set(re.findall(r"[a-z]+", _reply(writer, draft, question).casefold()))
    return "yes" not in words


def is_value(state: State, text: str) -> bool:
    """Return whether a text is a whole value at a place, and not just any text in quotes."""
    if text.startswith('"') and state.feed('"')[1].in_open_text:
        return False
    count, after = state.feed(text)
    return 0 < count == len(text) and any(after.advance(char) for char in " ,}]")


def _chosen(writer: Asked, draft: Draft, choices: Sequence[str]) -> str | None:
    """The one of the choices that the model names."""
    values = {_value_of(choice): choice for choice in choices}
    listed = ", ".join(values)
    question = f"For {draft.path} choose one of these and answer with nothing else: {listed}"
    said = _value_of(_reply(writer, draft, question)).casefold()
    named = [value for value in values if value.casefold() == said] or _named(values, said)
    if len(named) != 1 and (name := _name_of(draft.path)):
        plain = f"Which of these is the {name}: {listed}?"
        named = _named(values, _said(writer, "", plain, draft.path))
    for again in range(_DRAWS if writer.varies else 1):
        if len(named) != 1:
            named = _drawn(writer, draft, question, values, again)
    return values[named[0]] if len(named) == 1 else None


def _named(values: Iterable[str], said: str) -> list[str]:
    return [value for value in values if value.casefold() in said.casefold()]


def _drawn(
    writer: Asked, draft: Draft, question: str, values: dict[str, str], again: int
) -> list[str]:
    """Those of the values with which the model goes on where it has begun to reply with the answer so far."""
    quote = '"' if all(choice.lstrip().startswith('"') for choice in values.values()) else ""
    named, said = list(values), ""
    begun = draft.text if quote else draft.for_run(again)
    for piece in writer.ask(draft.text, question, begun=begun + quote, again=warmth(again)):
        said += piece
        begin = said.strip().removeprefix('"').casefold()
        named = [value for value in values if value.casefold().startswith(begin[: len(value)])]
        if len(named) < 2 or len(said) > _LONGEST_REPLY:
            writer.stop()
    return named if said.strip(' "') else []


def _name_of(path: str) -> str:
    """Return how a value is called where nothing is told of the answer around it: "zip of address"; "" for
    one of a list.
    """
    return "" if "[" in path else " of ".join(reversed(path.split(".")[1:]))


def _plain_question(path: str) -> str:
    """A question for a value by itself: behind its answer so far many a model goes on in that. "" for one of
    a list.
    """
    name = _name_of(path)
    return f"What is the {name} in what I said?" if name else ""


def _read(draft: Draft, reply: str, *, sentence: bool = False) -> str | None:
    """The one value in a reply that fits; in a `sentence` it is a number or a word."""
    for texts in [_numbers(reply), _words(reply)] if sentence else _readings(reply):
        fitting = [text for text in texts if is_value(draft.state, text)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _said(writer: Asked, written: str, question: str, path: str) -> str:
    reply = ""
    for piece in writer.ask(written, question):
        reply += piece
        if len(reply) > _LONGEST_REPLY:
            writer.stop()
    return _told(reply, path)


def _reply(writer: Asked, draft: Draft, question: str) -> str:
    return _said(writer, draft.text, question, draft.path)


def _told(reply: str, path: str) -> str:
    """Return what of a reply is about one value: all of a sentence, but of JSON, with which many a model
    replies, what stands under its key, or under the only one. What is said of others is not its value.
    """
    pairs = _PAIR.findall(reply)
    if not pairs:
        return "" if _KEY.search(reply) else reply
    key = path.rpartition(".")[2]
    told = {value for name, value in pairs if name == key}
    if len(pairs) == 1 == len(_KEY.findall(reply)):
        told = {pairs[0][1]}
    return told.pop() if len(told) == 1 else ""


def _readings(reply: str) -> Iterator[set[str]]:
    """What the value in a reply may be: all of it, the numbers in it, its words."""
    yield {reply.strip().rstrip(".")}
    yield _numbers(reply)
    yield {json.dumps(_value_of(reply), ensure_ascii=False)}
    yield _words(reply)


def _numbers(reply: str) -> set[str]:
    return {match[0].replace(",", "") for match in _ANY_NUMBER.finditer(reply)}


def _words(reply: str) -> set[str]:
    return {json.dumps(word.strip(".,;:'\"()"), ensure_ascii=False) for word in reply.split()}


def _value_of(text: str) -> str:
    """Return a text without blanks, quotes and full stop."""
    stripped = text.strip().rstrip(".")
    try:
        value = json.loads(stripped)
    except ValueError:
        return stripped.strip('"')
    return value if isinstance(value, str) else stripped
