"""How many examples a random test takes: a multiple of the profile's, which is smaller for `-m unit`."""

from __future__ import annotations

from hypothesis import settings


def examples(times: int) -> int:
    """Return so many times as many examples as is usual in this run (see conftest.py)."""
    usual = settings.default
    assert usual is not None
    return times * usual.max_examples
