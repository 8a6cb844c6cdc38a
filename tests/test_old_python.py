"""What who has a Python older than 3.10 is told: by the installation, and by a clone that is run as it is."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import pytest

from rkllama.__main__ import main

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", ["setup.py", "rkllama/__main__.py"])
def test_what_tells_it_is_understood_by_an_old_python(file: str) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))


def test_the_installation_tells_what_is_needed_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(
        SystemExit, match=r"needs Python 3\.10 or newer, and this is Python 3\.9"
    ) as end:
        runpy.run_path(str(ROOT / "setup.py"))
    assert "uv venv --seed --python 3.12 .venv" in str(end.value)


def test_a_clone_tells_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert main() == 1
    assert "needs Python 3.10 or newer" in capsys.readouterr().err
