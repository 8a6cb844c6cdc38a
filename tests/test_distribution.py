"""The wheel and the sdist, as `python -m build` makes them, and the wheel in an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rkllama

pytest.importorskip("build", reason="pip install -e '.[test]' brings build and twine")

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program with no more environment than pip needs; return its stdout."""
    kept = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k in ("PATH", "HOME")}
    done = subprocess.run(
        command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files, built from a copy of the sources, and so the wheel from the sdist."""
    work = tmp_path_factory.mktemp("distribution")
    for name in SOURCES:
        shutil.copy(ROOT / name, work)
    for name in ("rkllama", "tests"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--outdir", work / "dist", cwd=work)
    return work / "dist"


def names_in(built: Path, pattern: str) -> set[str]:
    """The files in the one distribution that the pattern means, below its top folder in the sdist."""
    (path,) = built.glob(pattern)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return set(wheel.namelist())
    with tarfile.open(path) as sdist:
        return {member.name.partition("/")[2] for member in sdist if member.isfile()}


PAGE = ("__init__.py", "page.html")
"""What of rkllama/page/ is installed."""


def package_files() -> set[str]:
    """Every file of the package in this tree, but for those that the page is put together from."""
    files = (path for path in (ROOT / "rkllama").rglob("*") if path.is_file())
    page = {path for path in (ROOT / "rkllama" / "page").iterdir() if path.name not in PAGE}
    kept = (path for path in files if "__pycache__" not in path.parts and path not in page)
    return {str(path.relative_to(ROOT)) for path in kept}


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    inside = {name for name in names_in(built, "*.whl") if ".dist-info/" not in name}
    assert inside == package_files()
    assert {"rkllama/py.typed", "rkllama/models/guide.gguf"} <= inside


def test_the_sdist_holds_what_the_wheel_is_built_from(built: Path) -> None:
    inside = names_in(built, "*.tar.gz")
    assert package_files() | set(SOURCES) <= inside
    assert not [name for name in inside if name.startswith(("tests/", "docs/", "tools/"))]


def test_the_version_comes_from_the_package(built: Path) -> None:
    names = {path.name for path in built.iterdir()}
    version = rkllama.__version__
    assert names == {f"rkllama-{version}.tar.gz", f"rkllama-{version}-py3-none-any.whl"}


def test_an_index_would_take_both(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)


def test_the_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python, program = tmp_path / "venv/bin/python", tmp_path / "venv/bin/rkllama"
    pip = (sys.executable, "-m", "pip", "--python", python)  # its own would take seconds to unpack
    run(*pip, "install", "--quiet", "--no-compile", wheel, cwd=tmp_path)
    assert run(program, "--version", cwd=tmp_path) == f"rkllama {rkllama.__version__}\n"
    assert "run " in run(program, "--help", cwd=tmp_path)
    # What the commands import only when they need it has to be there, too.
    needed = "rkllama.server.app, rkllama.server.transport, rkllama.chat.sandbox, jsonschema, referencing"
    run(python, "-I", "-c", f"import rich.progress, huggingface_hub, {needed}", cwd=tmp_path)
    run(*pip, "check", cwd=tmp_path)
