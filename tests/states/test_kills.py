"""Processes that are killed while they write states."""

from __future__ import annotations

from pathlib import Path

import pytest

from .killed import BUDGET, kill_writers

pytestmark = pytest.mark.integration


def test_nothing_torn_is_loaded_after_kills(tmp_path: Path) -> None:
    after = kill_writers(tmp_path / "states", 25)
    assert after.loadable > 25
    assert after.torn == 0
    assert after.largest <= BUDGET
