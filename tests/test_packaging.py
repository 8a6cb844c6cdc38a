"""What the packages and the image are made of: their lists fit each other and the program."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rkllama import config
from rkllama.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT / "packaging" / "debian"


def pinned() -> dict[str, str]:
    """Version of every package in the list that the packages and the image are built from."""
    text = (ROOT / "packaging" / "requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.M))


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, with the CPU backend and what pictures are decoded by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in ("cpu", "vision"))
    return [Requirement(text) for text in itertools.chain(project["dependencies"], *extras)]


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_the_pinned_packages_are_those_that_are_asked_for(requirement: Requirement) -> None:
    version = pinned()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), "packaging/README.md tells how to pin anew"


def test_every_pin_has_its_hash() -> None:
    text = (ROOT / "packaging" / "requirements.txt").read_text()
    for block in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in block, block


def test_the_package_admits_the_pythons_that_it_has_modules_for() -> None:
    rules = re.search(r"^PYTHONS = (.*)$", (DEBIAN / "rules").read_text(), re.M)
    bounds = re.search(
        r"python3 \(>= 3\.(\d+)\), python3 \(<< 3\.(\d+)\)", (DEBIAN / "control").read_text()
    )
    assert rules is not None
    assert bounds is not None
    admitted = [f"3.{minor}" for minor in range(int(bounds[1]), int(bounds[2]))]
    assert rules[1].split() == admitted


def service(name: str) -> dict[str, Any]:
    """A service of compose.yaml."""
    found = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][name]
    assert isinstance(found, dict)
    return found


def test_the_container_has_no_privileges() -> None:
    container = service("rkllama")
    assert "privileged" not in container
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in container["security_opt"]
    assert set(container["devices"]) == {"/dev/dri", "/dev/dma_heap"}
    user = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert user == ["rkllama"]


@pytest.mark.parametrize("name", ["rkllama", "open-webui"])
def test_containers_are_reached_from_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service(name)["ports"])


def test_open_webui_comes_on_request_only() -> None:
    assert service("open-webui")["profiles"] == ["webui"]
    assert "profiles" not in service("rkllama")


def test_containers_set_only_settings_that_there_are() -> None:
    known = {setting.variable for setting in config.SETTINGS}
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "compose.yaml").read_text()
    used = set(re.findall(r"RKLLAMA_[A-Z_]+", text))
    assert {"RKLLAMA_HOME", "RKLLAMA_HOST", "RKLLAMA_API_KEY"} <= used <= known


def test_the_image_is_built_of_files_that_are_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.M):
        for source in shlex.split(line)[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def commands() -> list[str]:
    group = typer.main.get_command(app)
    return [name for name, c in getattr(group, "commands", {}).items() if not c.hidden]


def written_by(tool: str, parent: Path) -> Path:
    """Return a new folder with what a tool writes."""
    folder = parent / "written"
    subprocess.run([sys.executable, f"tools/{tool}", folder], cwd=ROOT, check=True, timeout=60)
    return folder


@pytest.mark.integration
def test_every_command_has_a_man_page(tmp_path: Path) -> None:
    folder = written_by("man_pages.py", tmp_path)
    pages = {path.name for path in folder.iterdir()}
    assert pages == {"rkllama.1", *(f"rkllama-{name}.1" for name in commands())}
    text = (folder / "rkllama-run.1").read_text()
    assert re.search(r"^\\fB\\-\\-temperature X\\fR$", text, re.M)
    assert not re.search(r"^['.](?!TH|SH|SS|TP|PP|BR)", text, re.M), "a line became a request"


@pytest.mark.integration
@pytest.mark.skipif(which("mandoc") is None, reason="apt install mandoc")
def test_the_man_pages_are_without_fault(tmp_path: Path) -> None:
    pages = written_by("man_pages.py", tmp_path).iterdir()
    command: list[str | Path] = ["mandoc", "-T", "lint", "-W", "warning", *pages]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.integration
def test_bash_completes_with_the_script_of_the_package(tmp_path: Path) -> None:
    folder = written_by("completions.py", tmp_path)
    program = tmp_path / "rkllama"
    main = (
        "import sys; sys.argv[0] = 'rkllama'; from rkllama.__main__ import main; sys.exit(main())"
    )
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{main}" "$@"\n')
    program.chmod(0o755)
    script = f"""
        PATH={tmp_path}:$PATH; . {folder}/bash/rkllama
        COMP_WORDS=(rkllama pu) COMP_CWORD=1; _rkllama_completion rkllama; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["pull"]
    assert (folder / "zsh" / "_rkllama").read_text().startswith("#compdef rkllama\n")
