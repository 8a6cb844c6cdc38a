"""The board of the tests of governors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.board.governors import board_as_delivered


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An RK3588 as it is delivered."""
    with board_as_delivered(monkeypatch) as root:
        yield root
