"""What a command imports before it does its work: the start-up time, told without a clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rkllama.cli import app
from tests.running import LIMIT
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent

_CHILD = """
import sys
sys.path[:0] = {paths!r}
bare = set(sys.modules)
sys.argv = ["rkllama", *{arguments!r}]
from rkllama.__main__ import main
try:
    status = main()
except SystemExit as end:
    status = end.code
print("\\n".join(sorted(set(sys.modules) - bare)), file=sys.stderr)
sys.exit(status)
"""


def imported(*arguments: str, site: bool = False) -> set[str]:
    """The modules that a command imports.

    Without `site` in an interpreter without installed packages: some of those bring modules along at
    every start, an editable installation for one.
    """
    paths = [str(ROOT), *(path for path in sys.path if site and "site-packages" in path)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CHILD.format(paths=paths, arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def ours(modules: set[str]) -> set[str]:
    return {name.removeprefix("rkllama.") for name in modules if name.startswith("rkllama.")}


# What each of these costs alone is more than the list may take on top of a bare interpreter, or a
# good part of it.
HEAVY = {
    "argparse", "asyncio", "bottle", "contextlib", "ctypes", "dataclasses", "email", "http.client",
    "huggingface_hub", "inspect", "jinja2", "logging", "pathlib", "rich", "shutil", "socket",
    "subprocess", "tempfile", "threading", "typer", "typing", "urllib.parse", "waitress",
    "xllamacpp",
}  # fmt: skip


def test_list_imports_next_to_nothing(models: Path) -> None:
    write_model(models / "m.rkllm")
    modules = imported("list")
    assert not modules & (HEAVY | {"json"})
    assert ours(modules) == {
        "__main__",
        "board",
        "board.lock",
        "client",
        "client.discover",
        "config",
        "console",
        "console.list",
        "console.output",
        "errors",
        "models",
        "models.filename",
        "models.labels",
        "models.scan",
    }


def test_list_as_json_needs_json_only(models: Path) -> None:
    assert not imported("list", "--json") & HEAVY


def test_version_imports_nothing() -> None:
    assert ours(imported("--version")) == {"__main__"}


def test_help_imports_typer_and_no_work() -> None:
    modules = imported("--help", site=True)
    assert "typer" in modules
    assert ours(modules) == {"__main__", "cli", "errors"}
    for name in ("rich", "pydantic", "huggingface_hub", "jinja2", "bottle", "ctypes", "logging"):
        assert name not in modules


def test_completions_need_no_rich(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer's for zsh and fish would take as long again."""
    write_model(models / "m.rkllm")
    monkeypatch.setenv("_RKLLAMA_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "rkllama run m")
    modules = imported(site=True)
    assert "rkllama.console.list" in modules
    assert not {name for name in modules if name.startswith(("rich.", "rkllama.engine"))}


def test_an_answer_needs_neither_the_hub_nor_the_server(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    modules = imported("run", "m", "hello", site=True)
    assert "rkllama.engine.engine" in modules
    for name in ("rich", "huggingface_hub", "bottle", "waitress", "xllamacpp", "http.client"):
        assert name not in modules


def test_ps_needs_no_backend() -> None:
    modules = imported("ps", site=True)
    assert "rich" not in modules
    assert not ours(modules) & {
        "api",
        "serve",
        "hub",
        "npu",
        "engine.engine",
        "models.catalog",
        "backends.llamacpp",
    }


def test_a_command_imports_no_other() -> None:
    own = {name for name in ours(imported("stop", "--help", site=True)) if "commands." in name}
    assert own == {"commands.common", "commands.memory"}


def test_the_options_of_commands_are_values_and_not_strings_to_compile() -> None:
    group = typer.main.get_command(app)
    for command in leaves(group):
        assert command.callback is not None
        annotations = command.callback.__annotations__.values()
        assert not [text for text in annotations if isinstance(text, str)]


def leaves(command: Any) -> Iterator[Any]:
    """Every command below this one that does something."""
    if not hasattr(command, "commands"):
        yield command
        return
    for each in command.commands.values():
        yield from leaves(each)
