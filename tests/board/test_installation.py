"""Hints that depend on how RKLLama was installed."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from rkllama.board import installation

REQUIREMENT = "xllamacpp>=1"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which installed packages are looked for; RKLLama's record lies in it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    record = tmp_path / "rkllama-0.1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: rkllama\nVersion: 0.1.0\n")
    return record


@pytest.mark.parametrize(("text", "name"), [("pip\n", "pip"), ("debian\n", "debian"), ("", None)])
def test_the_record_names_the_installer(site: Path, text: str, name: str | None) -> None:
    (site / "INSTALLER").write_text(text)
    assert installation.installer() == name


def test_a_clone_has_no_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert list(Distribution.discover(name="rkllama")) == []
    assert installation.installer() is None


def test_a_package_of_debian_has_no_pip_to_recommend(site: Path) -> None:
    (site / "INSTALLER").write_text("debian\n")
    assert "apt install ./rkllama-cpu" in installation.how_to_add_the_cpu_backend(REQUIREMENT)
    assert "apt install ./rkllama_" in installation.how_to_update()


def test_elsewhere_pip_adds_to_the_environment_that_runs(site: Path) -> None:
    (site / "INSTALLER").write_text("pip\n")
    hint = installation.how_to_add_the_cpu_backend(REQUIREMENT)
    assert hint == f"Install it: {sys.executable} -m pip install '{REQUIREMENT}'"
    assert "pip install --upgrade rkllama" in installation.how_to_update()
