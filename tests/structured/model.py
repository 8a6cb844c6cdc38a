"""A model that knows one document and misbehaves on purpose, seeded: the driver's counterpart in the tests.

It goes on from what is written as a language model does: it reads that text beside its document, and writes
the rest of it in pieces of some characters. At each value, by chance, it does what models do wrong.
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


def _with_separators(chance: random.Random, value: str) -> str:
    if not value.lstrip("-").isdigit():
        return value.replace("e", "\\u0065")
    return (
        f"{int(value):,}"
        if len(value) > 3
        else value + chance.choice((",000", "_000", " 000", "%"))
    )


def _half_a_character(_: random.Random, value: str) -> str:
    return value[:-1] + '\\ud83d"' if value.endswith('"') else value + "\u2009"


FAULTS: tuple[Fault, ...] = (
    _prose,
    _wrong_quotes,
    _in_words,
    _bad_escape,
    _endless,
    _early_end,
    _with_unit,
    _odd_letters,
    _with_separators,
    _half_a_character,
)


Path = tuple[str | int, ...]


class Lost(Exception):
    """What is written has a place for something that the document does not have."""


@dataclass(kw_only=True, slots=True)
class Style:
    """How a model writes JSON where nobody writes for it."""

    indent: str = ""
    """With this the lines of a pretty layout begin."""
    gap: str = " "
    """Behind commas and colons, without `indent`."""
    before: str = ""
    """What it says before the answer, when nothing is written yet."""
    behind: str = ""
    ascii: bool = False
    """Whether it escapes letters."""
    shuffles: bool = False
    """Whether it likes its keys in another order."""


class Reading:
    """What a model writes behind a text: the rest of its document."""

    def __init__(self, model: Model, written: str) -> None:
        self._model = model
        self._text = written
        self._at = 0

    def rest(self) -> Iterator[str]:
        """Return what comes next, in parts; END ends the run."""
        style = self._model.style
        if not self._text.strip():
            yield style.before
        yield from self._value(self._model.document, ())
        if not self._left():
            yield style.behind

    def _left(self) -> bool:
        """Whether there is more of the text, blanks aside."""
        while self._at < len(self._text) and self._text[self._at] in " \n\r\t":
            self._at += 1
        return self._at < len(self._text)

    def _gap(self, path: Path) -> str:
        """The blanks behind a comma or a bracket, as far as none are written."""
        if self._text[-1:].isspace():
            return ""
        style = self._model.style
        return "\n" + style.indent * len(path) if style.indent else ""

    def _value(self, value: Any, path: Path) -> Iterator[str]:
        if not self._left():
            yield from self._new(value, path)
        elif self._text[self._at] == "{":
            self._at += 1
            yield from self._object(value if isinstance(value, dict) else {}, path)
        elif self._text[self._at] == "[":
            self._at += 1
            yield from self._array(value if isinstance(value, list) else [], path)
        else:
            yield from self._scalar(value, path)

    def _new(self, value: Any, path: Path) -> Iterator[str]:
        if value is LOST:
            yield END
        elif isinstance(value, dict):
            yield "{"
            yield from self._object(value, path)
        elif isinstance(value, list):
            yield "["
            yield from self._array(value, path)
        else:
            yield self._model.said(self._model.json(value), path)

    def _scalar(self, value: Any, path: Path) -> Iterator[str]:
        start = self._at
        token = self._token()
        if token is not None:
            return
        said, begun = self._model.json(value), self._text[start:]
        if value is not LOST and said.startswith(begun.rstrip()):
            yield self._model.rest_of(said[len(begun.rstrip()) :], path)
        elif begun[0] == '"':
            yield '"'  # it leaves a text in which it is lost

    def _token(self) -> str | None:
        """Read a string, a number or a literal to its end; None where the text ends first."""
        start = self._at
        if self._text[start] == '"':
            self._at += 1
            while self._at < len(self._text) and self._text[self._at] != '"':
                self._at += 2 if self._text[self._at] == "\\" else 1
            if self._at >= len(self._text):
                return None
            self._at += 1
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]} \n\r\t":
                self._at += 1
            if self._at >= len(self._text):
                return None
        return self._text[start : self._at]

    def _object(self, value: dict[str, Any], path: Path) -> Iterator[str]:
        seen: list[str] = []
        comma = False
        while self._left():
            char = self._text[self._at]
            if char == "}":
                self._at += 1
                return
            if char == ",":
                self._at += 1
                comma = True
                continue
            start = self._at
            token = self._token()
            if token is None:
                yield from self._key_from(value, seen, self._text[start + 1 :])
                key = next((name for name in value if name not in seen), "")
                yield ":" + self._space()
            else:
                key = json.loads(token)
                if not self._left():
                    yield ":" + self._space()
                else:
                    self._at += 1
                    if not self._left() and not self._text[-1:].isspace():
                        yield self._space()
            seen.append(key)
            yield from self._value(value.get(key, LOST), (*path, key))
            comma = False
        names = [name for name in value if name not in seen]
        if self._model.style.shuffles:
            random.Random(f"{self._model.seed} {path}").shuffle(names)
        for name in names:
            if seen and not comma:
                yield "," + (self._gap((*path, "")) or self._space(if_indent=False))
            elif not seen:
                yield self._gap((*path, ""))
            elif not self._text[-1:].isspace():
                yield self._gap((*path, "")) or self._space(if_indent=False)
            comma = False
            seen.append(name)
            yield self._model.key(name, path) + ":" + self._space()
            yield from self._new(value[name], (*path, name))
        yield self._model.trailing(path) if names else ""
        yield (self._gap(path) if names else "") + "}"

    def _key_from(self, value: dict[str, Any], seen: list[str], begun: str) -> Iterator[str]:
        for name in value:
            key = self._model.json(name)
            if name not in seen and key[1:].startswith(begun):
                yield key[1 + len(begun) :]
                return
        raise Lost

    def _space(self, *, if_indent: bool = True) -> str:
        style = self._model.style
        return " " if style.indent and if_indent else style.gap

    def _array(self, value: list[Any], path: Path) -> Iterator[str]:
        count = 0
        comma = False
        while self._left():
            char = self._text[self._at]
            if char == "]":
                self._at += 1
                return
            if char == ",":
                self._at += 1
                comma = True
                continue
            each = value[count] if count < len(value) else LOST
            yield from self._value(each, (*path, count))
            count += 1
            comma = False
        if comma and count >= len(value):
            yield END
        for index in range(count, len(value)):
            if index and not comma:
                yield "," + (self._gap((*path, "")) or self._space(if_indent=False))
            elif not index or not self._text[-1:].isspace():
                yield self._gap((*path, ""))
            comma = False
            yield from self._new(value[index], (*path, index))
        yield self._model.trailing(path) if len(value) > count else ""
        yield (self._gap(path) if len(value) > count else "") + "]"


LOST: Any = object()


def scalars(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the values in a document that hold no others, in its order."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from scalars(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from scalars(each, (*path, index))
    else:
        yield path, value


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
    within: int = 0
    """With this it gives each value right at the latest at this try."""
    style: Style = field(default_factory=Style)
    cancel_at: int = 0
    """With this it is cancelled when it has written so many characters."""
    ended: FinishReason = "stop"
    runs: int = 0
    wrote: int = 0
    read: int = 0
    """Characters that were evaluated behind what was there before."""
    log: list[tuple[str, str]] = field(default_factory=list)
    """For each run what was written before it, and what it wrote."""
    replies: list[str] = field(default_factory=list)
    _there: str = ""
    _tries: dict[Path, int] = field(default_factory=dict)
    _stopping: bool = False

    def __post_init__(self) -> None:
        values = list(scalars(self.document))
        self._never = {values[number][0] for number in self.never if number < len(values)}
        self.text = json.dumps(self.document, ensure_ascii=False)

    def json(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self.style.ascii) if value is not LOST else ""

    def think(self) -> Iterator[Event]:
        """It does not."""
        return iter(())

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        """It says the value of its document, or that it does not know."""
        self._stopping = False
        self.ended = "stop"
        parts = list(Reading(Model(self.document), written).rest())
        reply = "I cannot say" if self._never else (parts[0] if parts else "")
        self.replies.append(reply)
        yield reply

    def stop(self) -> None:
        self._stopping = True

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        self.runs += 1
        self.read += len(written) - len(_common(written, self._there))
        self._stopping = False
        self.ended = "stop"
        chance = random.Random(f"{self.seed} {self.runs if self.varies else written}")
        sent = out = ""
        whole = False
        for char in self._characters(written):
            out += char
            if len(out) >= chance.randint(1, 6):
                self.wrote += len(out)
                sent, piece, out = sent + out, out, ""
                yield piece
                if self._stopping:
                    break
                if self.wrote > self.limit:
                    self.ended = "length"
                    break
                if self.cancel_at and self.wrote > self.cancel_at:
                    self.ended = "cancelled"
                    break
        else:
            whole = True
        if whole and out:
            self.wrote += len(out)
            sent += out
            yield out
        self._there = written + sent
        self.log.append((written, sent))

    def _characters(self, written: str) -> Iterator[str]:
        try:
            for part in Reading(self, written).rest():
                text, end, _ = part.partition(END)
                yield from text
                if end:
                    return
        except Lost:
            return

    def finished(self, reason: FinishReason, error: str | None = None) -> Finished:
        return Finished(reason=reason, model="test", error=error)

    # --- What it does wrong --------------------------------------------------------------------------

    def said(self, value: str, path: Path) -> str:
        """Return what it writes for a value."""
        if path in self._never:
            return "I cannot say" + END
        chance = self._chance(path)
        return chance.choice(FAULTS)(chance, value) if self._errs(chance, path) else value

    def rest_of(self, rest: str, path: Path) -> str:
        """Return how it goes on in the midst of a value."""
        return rest if path not in self._never else END

    def key(self, name: str, path: Path) -> str:
        """Return what it writes for a key."""
        key = self.json(name)
        path = (*path, name, "key")
        chance = self._chance(path)
        if not self._errs(chance, path):
            return key
        return chance.choice(
            (f"'{name}'", name, key[:-1] + 's"', key[:2] + key[3:], f"// {name}\n")
        )

    def trailing(self, path: Path) -> str:
        """Return what it writes before a bracket that closes."""
        chance = self._chance((*path, "end"))
        return chance.choice((",", ", ...", " // done\n")) if self._errs(chance, path) else ""

    def _chance(self, path: Path) -> random.Random:
        if self.varies:
            self._tries[path] = self._tries.get(path, 0) + 1
        return random.Random(f"{self.seed} {path} {self._tries.get(path)}")

    def _errs(self, chance: random.Random, path: Path) -> bool:
        if self.within and self._tries.get(path, 0) >= self.within:
            return False
        return chance.random() < self.faults


def _common(one: str, other: str) -> str:
    size = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        size += 1
    return one[:size]
