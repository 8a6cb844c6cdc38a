"""When the memory of a model's process has grown too much: its own, told by the test."""

from __future__ import annotations

import pytest

from rkllama.runner import growth
from rkllama.runner.growth import USES, Growth

MEGABYTE = 1 << 20


def test_an_encoder_that_is_loaded_later_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = 300 * MEGABYTE
    monkeypatch.setattr(growth, "private_memory", lambda _: memory)
    blind, sees = Growth(1), Growth(1, later=1400 * MEGABYTE)
    memory += 1400 * MEGABYTE
    uses = [(blind.note_use(None), sees.note_use(None)) for _ in range(USES)]
    assert uses[-1] == (True, False)
    memory *= 2
    assert sees.note_use(None)
