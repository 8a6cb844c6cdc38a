"""What README and docs/doctor.md show is what doctor says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rkllama.commands import doctor
from rkllama.config import load_settings
from rkllama.doctor.checks import BOARD, examine
from rkllama.doctor.finding import Subject
from tests.boards import build_board, put_models
from tools import doctor_page

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_doctor_prints_on_a_terminal(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = re.search(
        r"<!-- doctor: (\S+) -->\n```text\n(.*?)^```$",
        (ROOT / "README.md").read_text(),
        re.M | re.S,
    )
    assert match is not None
    board, shown = match.groups()
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board(board, tmp_path)))
    monkeypatch.setattr(doctor, "is_terminal", lambda _stream: True)
    put_models(board, models)
    told = examine(Subject(settings=load_settings()), BOARD)
    assert doctor.findings_text(told, 80) == shown


def test_the_page_of_the_checks_is_current() -> None:
    assert (ROOT / "docs/doctor.md").read_text() == doctor_page.page()
