"""Numbers digit by digit: which of them can still become one that a schema admits.

A number is counted in units of its last admitted digit, so that all of this is done with integers. Numbers
are written as JSON writers write them: no -0, no exponent where a schema has bounds or multiples, and no
fraction where it wants an integer.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from .limits import Limits
from .shapes import Number

_PREFIX = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)?")
_WITH_EXPONENT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?[eE][+-]?[0-9]{0,2}")
_MOST_DIGITS = 400
_EXACT_DIGITS = 15
"""Digits of which a float keeps each."""


def settle(shape: Number, limits: Limits) -> bool:
    """Fill in what the digits are compared with. Return whether any number is admitted."""
    bounds = shape.low, shape.high
    shape.free = shape.step is None and bounds == (None, None)
    shape.scale = 0 if shape.integer else min(limits.fraction, _places_needed(shape.step))
    shape.digits = _digits_needed(shape, limits)
    if shape.digits > _MOST_DIGITS:
        return False
    factor = 10**shape.scale
    most = 10**shape.digits * factor - 1
    shape.lowest, shape.highest = -most, most
    if shape.low is not None:
        low = shape.low * factor
        shape.lowest = max(-most, math.floor(low) + 1 if shape.low_open else math.ceil(low))
    if shape.high is not None:
        high = shape.high * factor
        shape.highest = min(most, math.ceil(high) - 1 if shape.high_open else math.floor(high))
    if shape.step is not None:
        shape.unit = (shape.step * factor).numerator
    return _has_multiple(shape.lowest, shape.highest, shape.unit)


def _digits_needed(shape: Number, limits: Limits) -> int:
    """Digits before the point, so that there is room for the number that is nearest to zero."""
    nearest = Fraction(0)
    if shape.low is not None and shape.low > 0:
        nearest = shape.low
    elif shape.high is not None and shape.high < 0:
        nearest = -shape.high
    whole = int(max(nearest, shape.step or 0))
    if whole.bit_length() > 4 * _MOST_DIGITS:
        return _MOST_DIGITS + 1
    needed = len(str(whole))
    return needed + 1 if needed > limits.digits else limits.digits


def _places_needed(step: Fraction | None) -> int:
    """Digits after the point of the multiples of a number, at least one; many where there is none."""
    if step is None:
        return _MOST_DIGITS
    places = 1
    while (step * 10**places).denominator != 1 and places < _MOST_DIGITS:
        places += 1
    return places


def _has_multiple(low: int, high: int, unit: int) -> bool:
    return low <= high and high // unit * unit >= low


def is_number_prefix(text: str, shape: Number) -> bool:
    """Return whether a text is a number that is admitted, or the begin of one."""
    if not _PREFIX.fullmatch(text):
        return shape.free and not shape.integer and bool(_WITH_EXPONENT.fullmatch(text))
    negative = text.startswith("-")
    whole, point, fraction = text[negative:].partition(".")
    if len(whole) > shape.digits or len(fraction) > shape.scale or (point and not shape.scale):
        return False
    if shape.free and not negative:
        return True
    if point and shape.step is not None and len(whole) + shape.scale > _EXACT_DIGITS:
        return False  # read as a float it might be no multiple
    if not negative:
        low, high = max(0, shape.lowest), shape.highest
    else:  # as many units below zero
        low, high = max(1, -shape.highest), -shape.lowest
    if not whole:
        return _has_multiple(low, high, shape.unit)
    if point:
        span = 10 ** (shape.scale - len(fraction))
        start = int(whole + fraction) * span
        return _has_multiple(max(low, start), min(high, start + span - 1), shape.unit)
    more = 0 if whole == "0" else shape.digits - len(whole)
    first = int(whole)
    for places in range(shape.scale, shape.scale + more + 1):
        power: int = 10**places
        if _has_multiple(max(low, first * power), min(high, (first + 1) * power - 1), shape.unit):
            return True
    return False


def is_number(text: str, shape: Number) -> bool:
    """Return whether a prefix is a number that is admitted, as it stands."""
    if not text[-1:].isdigit():
        return False
    if "e" in text or "E" in text:
        return True
    negative = text.startswith("-")
    whole, _, fraction = text[negative:].partition(".")
    units = int(whole + fraction) * 10 ** (shape.scale - len(fraction))
    if negative:
        units = -units
    if negative and not units:
        return False
    if not _has_multiple(max(units, shape.lowest), min(units, shape.highest), shape.unit):
        return False
    # Clients read it as a float, and 0.99999999999999999999 is then no longer less than 1.
    return shape.free or not fraction or admits_number(float(text), shape)


def admits_number(value: int | float, shape: Number) -> bool:
    """Return whether a number that was read is admitted, however many digits it was written with."""
    exact = as_fraction(value)
    if exact is None:
        return False
    if shape.integer and exact.denominator != 1:
        return False
    if shape.low is not None and (exact < shape.low or (shape.low_open and exact == shape.low)):
        return False
    if shape.high is not None and (exact > shape.high or (shape.high_open and exact == shape.high)):
        return False
    return shape.step is None or (exact / shape.step).denominator == 1


def as_fraction(value: int | float) -> Fraction | None:
    """Return a number as it is written: 0.1 is a tenth. None for what is no number of JSON's."""
    if isinstance(value, int):
        return Fraction(value)
    return Fraction(repr(value)) if math.isfinite(value) else None
