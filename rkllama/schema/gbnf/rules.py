"""The rules of a grammar in llama.cpp's notation (GBNF), named as they come up and bounded in number."""

from __future__ import annotations

from collections.abc import Callable, Hashable

_MAX_RULES = 4_000
"""With those that llama.cpp makes itself, one for each repetition."""
_MAX_CHARACTERS = 200_000
_MOST_NEEDED = 10_000
_MOST_COUNTED = 100_000
"""No answer is that long."""
_BLOCK = 64
_LONG = 4 * _BLOCK


class TooLarge(Exception):
    """A schema whose grammar would be larger than what llama.cpp can be given."""


class Rules:
    """Rules by what they stand for. A rule is written when all that asked for it have its name, so that rules
    may be parts of themselves.
    """

    def __init__(self) -> None:
        self._names: dict[Hashable, str] = {}
        self._waiting: list[tuple[str, Callable[[], str]]] = []
        self._written: list[str] = []
        self._count = 0
        self._length = 0

    def named(self, key: Hashable, make: Callable[[], str]) -> str:
        """Return the name of the rule for `key`, whose text `make` gives."""
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"r{len(self._names)}"
            self._waiting.append((name, make))
        return name

    def repeated(self, symbol: str, least: int, most: float) -> str:
        """Return a symbol at least `least` and at most `most` times; many in blocks, so that rules are few.

        Raises TooLarge.
        """
        if least > _MOST_NEEDED:
            raise TooLarge
        if least >= _LONG:
            block = self.named(("block", symbol), lambda: self.repeated(symbol, _BLOCK, _BLOCK))
            count, rest = divmod(least, _BLOCK)
            first = f"{self.repeated(block, count, count)} {self.repeated(symbol, rest, rest)}"
            return f"{first} {self.repeated(symbol, 0, most - least)}"
        if most > _MOST_COUNTED:
            self.spend(least)
            return f"{symbol}{{{least},}}"
        if most >= _LONG:
            block = self.named(("block", symbol), lambda: self.repeated(symbol, _BLOCK, _BLOCK))
            count = (int(most) - least) // _BLOCK - 1
            rest = int(most) - count * _BLOCK
            return f"{self.repeated(block, 0, count)} {self.repeated(symbol, least, rest)}"
        self.spend(int(most))
        return f"{symbol}{{{least},{int(most)}}}" if most else '""'

    def text(self, root: str) -> str:
        """Return the whole grammar, which begins with the rule `root`. Raises TooLarge."""
        while self._waiting:
            name, make = self._waiting.pop()
            self._write(name, make())
        return "\n".join((f"root ::= {root}", *self._written, ""))

    def _write(self, name: str, body: str) -> None:
        self.spend(1)
        self._length += len(body)
        if self._length > _MAX_CHARACTERS:
            raise TooLarge
        self._written.append(f"{name} ::= {body}")

    def spend(self, rules: int) -> None:
        """Count rules that llama.cpp makes, or that are about to come. Raises TooLarge."""
        self._count += rules
        if self._count > _MAX_RULES:
            raise TooLarge


def literal(text: str) -> str:
    """Return a text as a grammar has it."""
    return f'"{"".join(map(_plain, text))}"'


def choice(alternatives: list[str]) -> str:
    """Return what is one of some."""
    return " | ".join(dict.fromkeys(alternatives))


def character(code: int) -> str:
    """Return a code point as it stands in a class or a literal."""
    char = chr(code)
    if char.isascii() and (char.isalnum() or char in " _"):
        return char
    if code < 0x80:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _plain(char: str) -> str:
    if char in '"\\' or char < " ":
        return character(ord(char))
    return char
