"""The shapes of strings and of numbers that meet some plain schemas together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from ..errors import UnsupportedSchema
from ..limits import Limits
from ..numbers import settle
from ..regex.automata import Spot, compile_pattern, intersection
from ..regex.formats import format_automaton
from ..regex.patterns import PatternError
from ..shapes import Number, String
from .branches import Part
from .keywords import bound_of, count_of, number_of, text_of, wrong
from .references import Place

_MOST_SPOTS = 1_000
"""Of all automata that are made of two."""


class Scalars:
    """Makes the shapes; a pattern is compiled once."""

    def __init__(self, limits: Limits, spend: Callable[[int, Place], None]) -> None:
        self._limits = limits
        self._spend = spend
        self._patterns: dict[str, Spot | None] = {}
        self._spots_left = _MOST_SPOTS

    def string(self, parts: Sequence[Part]) -> String | None:
        shape = String(0, self._limits.string)
        spots: list[tuple[Part, str, str]] = []
        for part in parts:
            shape.least = max(shape.least, count_of(part, "minLength") or 0)
            most = count_of(part, "maxLength")
            shape.most = shape.most if most is None else min(shape.most, most)
            for keyword in ("pattern", "format"):
                text = text_of(part, keyword)
                if text is not None:
                    spots.append((part, keyword, text))
        if shape.least > self._limits.string:
            raise UnsupportedSchema(
                parts[0].place.pointer, "minLength", f"is more than {self._limits.string}"
            )
        for part, keyword, text in spots:
            found = self._automaton(part, keyword, text)
            if keyword == "format" and found is None:
                continue  # not one that is asserted
            if shape.spot is not None and found is not None:
                found = self._both(part, keyword, shape.spot, found)
            if found is None:
                return None
            shape.spot = found
        if shape.spot is not None:
            shape.least = max(shape.least, shape.spot.shortest)
            if shape.spot.longest < shape.least:
                return None
        return shape if shape.least <= shape.most else None

    def _automaton(self, part: Part, keyword: str, text: str) -> Spot | None:
        if keyword == "format":
            return format_automaton(text)
        if text not in self._patterns:
            self._spend(len(text), part.place)
            try:
                self._patterns[text] = compile_pattern(text)
            except PatternError as error:
                raise UnsupportedSchema(
                    part.place.pointer, keyword, f"{text[:100]!r} {error}"
                ) from None
        return self._patterns[text]

    def _both(self, part: Part, keyword: str, one: Spot, other: Spot) -> Spot | None:
        try:
            both, size = intersection(one, other, self._spots_left)
        except PatternError as error:
            raise UnsupportedSchema(part.place.pointer, keyword, str(error)) from None
        self._spots_left -= size
        return both

    def number(self, parts: Sequence[Part], integer: bool) -> Number | None:
        shape = Number(integer)
        for part in parts:
            low = bound_of(part, "minimum", "exclusiveMinimum")
            high = bound_of(part, "maximum", "exclusiveMaximum")
            if low and (shape.low is None or low > (shape.low, shape.low_open)):
                shape.low, shape.low_open = low
            if high and (shape.high is None or high[0] < shape.high or high == (shape.high, True)):
                shape.high, shape.high_open = high
            step = number_of(part, "multipleOf")
            if step is None:
                continue
            if step <= 0:
                raise wrong(part, "multipleOf", "is not greater than zero")
            shape.step = step if shape.step is None else _common_multiple(shape.step, step)
        return shape if settle(shape, self._limits) else None


def _common_multiple(one: Fraction, other: Fraction) -> Fraction:
    numerator = math.lcm(one.numerator * other.denominator, other.numerator * one.denominator)
    return Fraction(numerator, one.denominator * other.denominator)
