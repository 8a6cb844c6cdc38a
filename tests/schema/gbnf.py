"""Grammars in llama.cpp's notation (GBNF), read as its documentation tells, and texts of them at random."""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r'\s*(?:(?P<name>[a-z][a-z0-9-]*)|"(?P<text>(?:[^"\\]|\\.)*)"|\[(?P<set>(?:[^\]\\]|\\.)*)\]'
    r"|(?P<count>\{[0-9]+(?:,[0-9]*)?\}|[*+?])|(?P<mark>[()|]))"
)
_ESCAPE = re.compile(r"\\(x[0-9A-F]{2}|u[0-9A-F]{4}|U[0-9A-F]{8}|.)", re.DOTALL)
_ONE = r"(\\x[0-9A-F]{2}|\\u[0-9A-F]{4}|\\U[0-9A-F]{8}|\\.|[^\\])"
_RANGE = re.compile(rf"{_ONE}(?:-{_ONE})?", re.DOTALL)
_NEVER = 1_000_000


class Ref(NamedTuple):
    """Another rule."""

    name: str


class Chars(NamedTuple):
    """One character of some."""

    ranges: tuple[tuple[int, int], ...]


class Count(NamedTuple):
    """A part several times."""

    part: Any
    least: int
    most: int | None


class All(NamedTuple):
    """Parts in a row."""

    parts: tuple[Any, ...]


class Any1(NamedTuple):
    """One of some parts."""

    parts: tuple[Any, ...]


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        said = match[1]
        if len(said) > 1:
            return chr(int(said[1:], 16))
        return {"n": "\n", "t": "\t", "r": "\r"}.get(said, said)

    return _ESCAPE.sub(character, text)


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for match in _RANGE.finditer(text):
        low = ord(_unescaped(match[1]))
        high = ord(_unescaped(match[2])) if match[2] else low
        assert low <= high, text
        found.append((low, high))
    return tuple(found)


class _Reader:
    def __init__(self, body: str) -> None:
        self._body = body
        self._at = 0

    def choice(self) -> Any:
        ways = [self._row()]
        while self._take("|"):
            ways.append(self._row())
        return ways[0] if len(ways) == 1 else Any1(tuple(ways))

    def end(self) -> None:
        assert not self._body[self._at :].strip(), self._body[self._at :]

    def _next(self) -> re.Match[str] | None:
        return _TOKEN.match(self._body, self._at)

    def _take(self, mark: str) -> bool:
        match = self._next()
        if match is None or match["mark"] != mark:
            return False
        self._at = match.end()
        return True

    def _row(self) -> Any:
        parts: list[Any] = []
        while (match := self._next()) and match["mark"] not in ("|", ")"):
            self._at = match.end()
            if match["count"]:
                parts[-1] = Count(parts[-1], *_counts(match["count"]))
            elif match["name"]:
                parts.append(Ref(match["name"]))
            elif match["set"] is not None:
                parts.append(Chars(_ranges(match["set"])))
            elif match["text"] is not None:
                text = _unescaped(match["text"])
                parts.append(All(tuple(Chars(((ord(c), ord(c)),)) for c in text)))
            else:
                parts.append(self.choice())
                assert self._take(")")
        assert parts, self._body
        return All(tuple(parts))


def _counts(text: str) -> tuple[int, int | None]:
    if text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
    least, comma, most = text[1:-1].partition(",")
    return int(least), int(most) if most else (None if comma else int(least))


class Gbnf:
    """A grammar. All rules that are named have to be there, and none twice."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Any] = {}
        for line in text.splitlines():
            name, _, body = line.partition(" ::= ")
            assert name not in self.rules
            reader = _Reader(body)
            self.rules[name] = reader.choice()
            reader.end()
        self._shortest = dict.fromkeys(self.rules, _NEVER)
        self._measure()

    def _measure(self) -> None:
        changed = True
        while changed:
            changed = False
            for name, tree in self.rules.items():
                size = self._size(tree)
                if size < self._shortest[name]:
                    self._shortest[name] = size
                    changed = True
        assert _NEVER not in self._shortest.values(), "a rule without end"

    def _size(self, tree: Any) -> int:
        if isinstance(tree, Ref):
            return self._shortest[tree.name]
        if isinstance(tree, Chars):
            return 1
        if isinstance(tree, Count):
            return min(_NEVER, tree.least * self._size(tree.part)) if tree.least else 0
        sizes = map(self._size, tree.parts)
        return min(_NEVER, sum(sizes)) if isinstance(tree, All) else min(sizes)

    def sample(self, rng: random.Random, length: int = 200) -> str:
        """Return a text: at random for about `length` characters, then as short as may be."""
        said: list[str] = []
        waiting: list[Any] = [Ref("root")]
        while waiting:
            tree = waiting.pop()
            short = len(said) > length
            if isinstance(tree, Ref):
                waiting.append(self.rules[tree.name])
            elif isinstance(tree, Chars):
                low, high = rng.choice(tree.ranges)
                said.append(chr(rng.randint(low, min(high, low + 90))))
            elif isinstance(tree, All):
                waiting += reversed(tree.parts)
            elif isinstance(tree, Count):
                most = tree.least + 4 if tree.most is None else tree.most
                times = tree.least if short else rng.randint(tree.least, min(most, tree.least + 4))
                waiting += [tree.part] * times
            else:
                waiting.append(self._way(tree, rng, short=short))
        return "".join(said)

    def _way(self, tree: Any1, rng: random.Random, *, short: bool) -> Any:
        if short:
            return min(tree.parts, key=self._size)
        return rng.choice(tree.parts)
