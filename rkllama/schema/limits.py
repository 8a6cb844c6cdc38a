"""How far a grammar goes: limits that keep an answer, and the work for it, finite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What texts of a grammar may have at most; a schema that needs more is not compiled."""

    depth: int = 64
    """Objects and arrays inside each other."""
    string: int = 65_536
    """Characters of a string, of a key too."""
    digits: int = 20
    """Digits before a number's point. They are more where a bound demands them."""
    fraction: int = 20
    """Digits after it."""
    whitespace: int = 160
    """Blanks and line ends in a row between the tokens of JSON; models can write nothing else for ever."""
    named_keys: bool = False
    """Whether keys that a schema does not name come only where it asks for them, not where it leaves that
    open.
    """


DEFAULT = Limits()

MAX_NODES = 5_000
"""Different values that a schema describes."""
MAX_ALTERNATIVES = 2_048
"""Combinations of the branches of anyOf, oneOf and if, for one value."""
MAX_SHAPES = 256
"""Of those, the ones that are left when constants have been joined."""
MAX_WORK = 60_000
"""Steps of compiling, each some microseconds."""
MAX_TOPS = 512
"""Readings of one text that are followed side by side."""
