"""Each board of the library is diagnosed by the right check first, and no healthy one is suspected."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.doctor.checks import BOARD, examine
from rkllama.doctor.finding import Finding, Subject
from tests.boards import build_board, names, put_models, read_board


@pytest.fixture
def findings(
    request: pytest.FixtureRequest, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Finding]:
    """What the checks of the board find on the one that the test names."""
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board(request.param, tmp_path)))
    put_models(request.param, models)
    return [told.finding for told in examine(Subject(settings=load_settings()), BOARD)]


HEALTHY = [name for name in names() if read_board(name).first is None]
BROKEN = [name for name in names() if name not in HEALTHY]


def test_the_library_has_the_boards_that_it_promises() -> None:
    assert len(BROKEN) >= 25
    assert len(HEALTHY) >= 5
    for kind in ("rk3588", "rk3576", "rk3562", "rv1126b", "rk3566", "laptop", "container"):
        assert any(name.startswith(kind) for name in names())


@pytest.mark.parametrize("findings", HEALTHY, indirect=True)
def test_a_healthy_board_is_not_suspected(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.status != "good"] == []
    assert findings


@pytest.mark.parametrize(
    ("findings", "first"),
    [(name, read_board(name).first) for name in BROKEN],
    indirect=["findings"],
    ids=BROKEN,
)
def test_a_broken_board_is_diagnosed_by_the_right_check_first(
    findings: list[Finding], first: str
) -> None:
    wrong = [finding for finding in findings if finding.status in ("broken", "warning")]
    assert wrong[0].check == first
    assert all(finding.good and (finding.advice or finding.cure) for finding in wrong)
