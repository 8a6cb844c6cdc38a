"""Numbers in GBNF, digit by digit: within their bounds, multiples of what they have to be."""

from __future__ import annotations

import math
from collections.abc import Hashable

from ..shapes import Number
from .rules import Rules, choice, literal

_DIGITS = 16
"""Digits before the point, as many as a JSON number holds exactly: small models write them without end."""
_PLACES = 10
"""Digits after it."""
_EXACT = 15
"""Digits of which a float keeps each: with more a number might be read as one beyond its bounds."""
_WHOLE = f"[1-9] [0-9]{{0,{_DIGITS - 1}}}"
_FRACTION = f'("." [0-9]{{1,{_PLACES}}})?'
_FREE_INTEGER = f'"0" | "-"? {_WHOLE}'
_FREE_NUMBER = (
    f'"0" {_FRACTION} | "-"? {_WHOLE} {_FRACTION} | "-0." "0"{{0,{_PLACES - 1}}} [1-9] [0-9]{{0,3}}'
)
"""No -0: some readers keep its sign."""


def number(rules: Rules, shape: Number) -> str | None:
    """Return a number that is admitted; None where none is with that few digits. Raises TooLarge."""
    if shape.free:
        return _FREE_INTEGER if shape.integer else _FREE_NUMBER
    made: dict[Hashable, str] = {}
    ways = _unsigned(rules, made, shape, max(0, shape.lowest), shape.highest)
    if negative := _unsigned(rules, made, shape, max(1, -shape.highest), -shape.lowest):
        ways.append(f'"-" ({choice(negative)})')
    return choice(ways) or None


def _unsigned(
    rules: Rules, made: dict[Hashable, str], shape: Number, low: int, high: int
) -> list[str]:
    """The ways to write the numbers between two bounds, in units of the last digit that is admitted."""
    ways: list[str] = []
    longest = max(_DIGITS, len(str(max(0, low) // 10**shape.scale)))
    for whole in range(1, longest + 1):
        places = _places(shape, whole)
        span = 10 ** (shape.scale - places)
        unit = shape.unit // math.gcd(shape.unit, span)
        first = max(-(-low // span), 10 ** (whole - 1 + places) if whole > 1 else 0)
        last = min(high // span, 10 ** (whole + places) - 1)
        if first <= last:
            size = whole + places
            digits = str(first).zfill(size), str(last).zfill(size)
            walk = _Walk(rules, made, whole, places, digits, unit)
            ways += filter(None, [walk.onwards(0, True, True, 0)])
    return ways


def _places(shape: Number, whole: int) -> int:
    """Return the digits that may stand behind the point, where so many stand before it."""
    if shape.step is None:
        return min(shape.scale, _PLACES, max(0, _EXACT - whole))
    return 0 if whole + shape.scale > _EXACT else shape.scale


class _Walk:
    """Through the digits of numbers that have so many before their point, and at most so many behind it."""

    def __init__(
        self,
        rules: Rules,
        made: dict[Hashable, str],
        whole: int,
        places: int,
        bounds: tuple[str, str],
        unit: int,
    ) -> None:
        """`made` has the rules that the walks of one schema share; `bounds` are the digits of the smallest
        and of the greatest number, and all are multiples of `unit`.
        """
        self._rules = rules
        self._made = made
        self.whole = whole
        self.places = places
        self.first, self.last = bounds
        self.unit = unit

    def onwards(self, at: int, low: bool, high: bool, rest: int) -> str:
        """Return what comes from a digit on, where those before were the lowest or the highest that can be,
        and leave a rest; "" where nothing can.
        """
        key: Hashable = (self.whole - at, self.places, self.unit, rest)
        if low or high:
            key = (self.whole, self.first, self.last, at, low, high, rest)
        elif self.unit == 1:
            return self._free(at)
        if key not in self._made:
            ways = self._ways(at, low, high, rest)
            self._made[key] = (
                self._rules.named((id(self._made), key), lambda: choice(ways)) if ways else ""
            )
            self._rules.spend(1)
        return self._made[key]

    def _free(self, at: int) -> str:
        """Any digits up to the end."""
        if at > self.whole:
            left = self.whole + self.places - at
            return f"[0-9]{{0,{left}}}" if left else '""'
        digits = f"[0-9]{{{self.whole - at}}}" if at < self.whole else '""'
        return f'{digits} ("." [0-9]{{1,{self.places}}})?' if self.places else digits

    def _ways(self, at: int, low: bool, high: bool, rest: int) -> list[str]:
        ways = ['""'] if at >= self.whole and self._may_end(at, low, rest) else []
        if at == self.whole + self.places:
            return ways
        point = f"{literal('.')} " if at == self.whole else ""
        by_rest: dict[str, str] = {}
        for digit in range(10):
            if not self._fits(at, low, high, digit):
                continue
            text = str(digit)
            still_low = low and text == self.first[at]
            still_high = high and text == self.last[at]
            after = self.onwards(at + 1, still_low, still_high, (rest * 10 + digit) % self.unit)
            if after:
                by_rest[after] = by_rest.get(after, "") + text
        return ways + [f"{point}[{digits}] {after}" for after, digits in by_rest.items()]

    def _fits(self, at: int, low: bool, high: bool, digit: int) -> bool:
        return not (low and digit < int(self.first[at])) and not (
            high and digit > int(self.last[at])
        )

    def _may_end(self, at: int, low: bool, rest: int) -> bool:
        """Whether a number may end here, as if zeros came."""
        if low and self.first[at:].strip("0"):
            return False
        zeros: int = 10 ** (self.whole + self.places - at)
        return rest * zeros % self.unit == 0
