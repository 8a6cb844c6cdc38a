"""What foreign code in a template may cost: time, and the size of all that it makes.

A long operation in C holds the interpreter's lock, so that a whole server stands still; nothing can end
it from outside. What an operation will make is therefore counted before, and no value may grow so
large that comparing it, writing it out or copying it takes long. Text counts by its characters, a
container by its text and `_ITEM` for each item, as often as it is written when it is printed: a list
that holds another twice weighs twice as much.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from itertools import chain
from string import Formatter
from typing import Any, TypeVar

MAX_CHARS = 64_000_000
"""Of all that one rendering makes, the prompt included."""
MAX_SIZE = 4_000_000
"""Of one text or container: more than any model's context takes."""
MAX_BITS = 4096
MAX_COUNT = 100_000
"""Of a width, of a number of times or digits, of a text that is taken apart."""
_MAX_WIDTH = 1000
_ITEM = 16
_POINTER = 8
_CONTAINERS = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)
_WIDE = re.compile(r"\d{4}|\{")

Value = TypeVar("Value")


class OutOfBounds(Exception):
    """It took too long or made too much; the message says what."""


class Budget(threading.local):
    """What is left for the code that runs on this thread. Values must not change while it runs."""

    def __init__(self) -> None:
        self._deadline = self._seconds = 0.0
        self._chars = 0
        self._known: dict[int, tuple[object, int]] = {}

    @contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """Begin anew, with this much time."""
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._chars = MAX_CHARS
        try:
            yield
        finally:
            self._known = {}

    def tick(self) -> None:
        """Raises OutOfBounds once the time is over."""
        if time.monotonic() > self._deadline:
            raise OutOfBounds(f"it did not finish within {self._seconds:g} s")

    def charge(self, chars: int) -> None:
        """Pay for what is about to be made."""
        _limit(chars)
        self._chars -= chars
        if self._chars < 0:
            raise OutOfBounds(f"it produces more than {MAX_CHARS} characters in all")

    def spend(self, value: Value) -> Value:
        """The value, paid for as text."""
        self.charge(self.weigh(value))
        return value

    def made(self, value: Value) -> Value:
        """The value that an operation made, paid for; its parts were there before."""
        self.tick()
        size = self.weigh(value)
        _limit(size)
        self.charge(_POINTER * len(value) if isinstance(value, _CONTAINERS) else size)
        return value

    def weigh(self, value: Any) -> int:
        """The characters that the value comes to. Raises OutOfBounds for a giant number."""
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, int):
            return _digits(value)
        if not isinstance(value, _CONTAINERS):
            return _ITEM
        if (known := self._known.get(id(value))) is None:
            _limit(_ITEM * len(value))
            items = chain(value, value.values()) if isinstance(value, Mapping) else value
            size = sum(_ITEM + self.weigh(item) for item in items)
            # Kept along with the value, or its id could become another's.
            known = self._known[id(value)] = (value, _ITEM + size)
        return known[1]

    def check_arguments(self, values: Iterable[Any]) -> None:
        """Look at what is passed to a function."""
        for value in values:
            _limit(self.weigh(value))

    def check_operation(self, operator: str, left: Any, right: Any) -> None:
        """Pay for `left operator right`."""
        sizes = self.weigh(left), self.weigh(right)
        if operator == "%" and isinstance(left, str | bytes):
            raise OutOfBounds("it formats text with %, which is not supported")
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > MAX_BITS:
                raise OutOfBounds(f"it computes a number of more than {MAX_BITS} bits")
        elif operator == "+" and isinstance(left, _CONTAINERS):
            _limit(sum(sizes))
            self.charge(_POINTER * (len(left) + _ITEM))
        elif operator == "+" and isinstance(left, str):
            self.charge(sum(sizes))
        elif operator == "*":
            for size, sequence, count in ((sizes[0], left, right), (sizes[1], right, left)):
                if isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int):
                    self.charge(size * max(count, 0))

    def check_method(self, text: str, name: str, args: tuple[Any, ...]) -> None:
        """Pay for `text.name(*args)`, a method of a string."""
        if name in ("format", "format_map"):
            widest = max(map(self.weigh, args), default=0)
            self.charge(len(text) + _fields(text) * (_MAX_WIDTH + widest))
            return
        check_counts(args)
        if name == "join" and args:
            self.charge(self.weigh(args[0]) + len(text) * len(args[0]))
        elif name == "replace" and len(args) > 1:
            self.charge(len(text) + _replacements(text, *args) * len(args[1]))


def check_counts(values: Iterable[Any]) -> None:
    """Raises OutOfBounds for great numbers among widths, times or lengths."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_COUNT:
            raise OutOfBounds(f"it uses a count or width above {MAX_COUNT}")


def _replacements(text: str, old: str, _new: str, count: int = -1) -> int:
    found = text.count(old)
    return found if count < 0 else min(found, count)


def _fields(text: str) -> int:
    """How many values a format string shows. Raises OutOfBounds for what cannot be foreseen: the
    attributes of a value, and great or computed widths.
    """
    fields = 0
    for _, field, spec, _ in Formatter().parse(text):
        if field is None:
            continue
        fields += 1
        if not re.fullmatch(r"\w*", field) or _WIDE.search(spec or ""):
            raise OutOfBounds(f"it formats text in a way that is not supported: {field}:{spec}")
    return fields


def _digits(number: int) -> int:
    bits = number.bit_length()
    if bits > MAX_BITS:
        raise OutOfBounds(f"it computes a number of more than {MAX_BITS} bits")
    return bits // 3 + 2


def _limit(chars: int) -> None:
    if chars > MAX_SIZE:
        raise OutOfBounds(f"it produces a value of more than {MAX_SIZE} characters")
