"""The rules of the project itself: what may import what, and documents that say what the code does."""

from __future__ import annotations

import ast
import ctypes
import functools
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import typer.main

from rkllama import config, errors
from rkllama.cli import COMMANDS, app
from rkllama.clib.ctypes_types import CTypes
from rkllama.errors import RKLLamaError
from rkllama.rkllm.abi import RELEASES, first_release, header
from rkllama.serve import routes
from tests.cases import cases

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rkllama"
DOCS = (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "packaging" / "README.md")


def module_name(path: Path) -> str:
    """ "api.native" for rkllama/api/native.py, "rkllama" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "rkllama"


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


When = Literal["at import", "in a function", "never"]
"""Never: it is there for type checkers."""


class Import(NamedTuple):
    """An import statement: the full name, its line, and when it runs."""

    name: str
    line: int
    when: When


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, wherever it stands."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    package = ["rkllama", *path.relative_to(PACKAGE).parent.parts]
    for node, when in _import_nodes(ast.parse(path.read_text()), "at import"):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, when)
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield Import(".".join([*base, alias.name]), node.lineno, when)


def _import_nodes(node: ast.AST, when: When) -> Iterator[tuple[ast.Import | ast.ImportFrom, When]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, when
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        when = "in a function"
    elif isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
        when = "never"
    for child in ast.iter_child_nodes(node):
        yield from _import_nodes(child, when)


def own_module(name: str) -> str | None:
    """The module of this package that an import of `name` needs, None for another package's."""
    if name.partition(".")[0] != "rkllama":
        return None
    inner = name.removeprefix("rkllama").lstrip(".")
    while inner and inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner or "rkllama"


def table(document: str, title: str) -> list[list[str]]:
    """The cells of the table whose header row begins with the column `title`."""
    rows: list[list[str]] = []
    for line in (ROOT / document).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if rows or (cells and cells[0] == title):
            if not cells:
                break
            rows.append(cells)
    assert len(rows) > 2, f"{document} has no table with the column {title!r}"
    return rows[2:]


# --- Imports -----------------------------------------------------------------------------------

FLOORS = (
    ("rkllama",),
    ("settings",),
    ("errors", "types", "config", "service", "files"),
    ("chat", "schema"),
    ("board",),
    ("clib",),
    ("rkllm", "rknn", "systemd"),
    ("models",),
    ("api",),
    ("hub",),
    ("states",),
    ("backends",),
    ("npu",),
    ("runner",),
    ("client",),
    ("doctor",),
    ("engine",),
    ("bench",),
    ("fleet",),
    ("page",),
    ("server",),
    ("serve",),
    ("console",),
    ("repl",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""The rooms of the house, lowest first. Those of one floor do not import each other, but for the ground."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND = FLOORS[2]
DOORS = {"cli", "serve", "npu", "__init__", "__main__"}


def room_of(module: str) -> str:
    """The folder that a module lies in, or its own name at the top."""
    return module.partition(".")[0]


def test_every_room_has_its_floor() -> None:
    assert set(FLOOR) == set(map(room_of, MODULES))


@cases("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    room = room_of(module)
    for found in imports(MODULES[module]):
        needed = own_module(found.name)
        if needed is None or room_of(needed) == room or {room, room_of(needed)} <= {*GROUND}:
            continue
        assert FLOOR[room_of(needed)] < FLOOR[room], (
            f"line {found.line} imports {needed}, which is not below {room}"
        )


def test_no_modules_import_each_other() -> None:
    """Lazily either: what needs each other is one thing, or a third thing is missing."""
    needs = {
        module: {
            needed
            for found in imports(path)
            if (needed := own_module(found.name)) and needed != module and needed in MODULES
        }
        for module, path in MODULES.items()
    }
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the cycle


def test_rooms_are_small_and_their_doors_plain() -> None:
    for folder in {path.parent for path in MODULES.values()} - {PACKAGE}:
        assert len(list(folder.glob("*.py"))) - 1 <= 14, f"{folder.name} is too full"
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1, f"{folder.name}/__init__.py holds more than a docstring"
        assert ast.get_docstring(ast.Module(body, [])), f"{folder.name}/__init__.py says nothing"
    top = [path for path in PACKAGE.iterdir() if path.is_file()]
    assert {path.stem for path in top if path.suffix == ".py"} == {*GROUND, *DOORS}
    assert len(top) <= 11


def test_every_folder_is_part_of_what_is_installed() -> None:
    """They are named one by one, and an installation would lack the one that was forgotten."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)^\]", text, re.M | re.S)
    assert listed is not None
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert sorted(re.findall(r'"([\w.]+)"', listed[1])) == sorted(
        ".".join(f.parts) for f in folders
    )


# What is not in the standard library, and the modules that import it: those in which it stands at the top,
# which are themselves imported only inside functions, and those that import it where they use it.
PACKAGES: dict[str, tuple[set[str], set[str]]] = {
    "bottle": ({"server.app"}, set()),
    "waitress": ({"server.incoming", "server.transport"}, set()),
    "typer": ({"cli", *(module for module in MODULES if module.startswith("commands."))}, set()),
    "jinja2": ({"chat.sandbox"}, set()),
    "tomli": (set(), {"config"}),
    "jsonschema": (set(), {"engine.structured.schema"}),
    "referencing": (set(), {"engine.structured.references"}),
    "huggingface_hub": (set(), {"hub.api"}),
    "rich": ({"console.markdown"}, {"console.progress", "console.top"}),
    "zstandard": (set(), {"server.bodies"}),
    "xllamacpp": (set(), {"backends.llamacpp"}),
    "tokenizers": (set(), {"backends.tokenizer"}),
    "PIL": (set(), {"backends.vision.picture", "console.pictures.graphics"}),
}
HEAVY_MODULES = {"serve"}.union(*(at_top for at_top, _ in PACKAGES.values()))
"""Imported inside functions only, but for `serve`, which is the two modules below it and little else."""


@cases("module", MODULES)
def test_other_packages_are_imported_where_they_belong(module: str) -> None:
    for found in imports(MODULES[module]):
        package = found.name.partition(".")[0]
        if package == "rkllama":
            heavy = own_module(found.name) in HEAVY_MODULES
            heavy = heavy and module not in HEAVY_MODULES
            assert not (heavy and found.when == "at import"), f"line {found.line}: in a function"
        elif package not in {*sys.stdlib_module_names, "tomllib", "compression"}:  # later ones
            assert package in PACKAGES, f"line {found.line}: {package} is not in the list"
            at_top, inside = PACKAGES[package]
            users = {"at import": at_top, "in a function": inside, "never": {module}}
            assert module in users[found.when], f"line {found.line} imports {package}"


def test_dialects_know_neither_each_other_nor_what_answers_them() -> None:
    allowed = {"types", "errors", "config"}
    shared = {"api.common", "api.options", "api.content.pictures"}
    for module, path in MODULES.items():
        if not module.startswith("api."):
            continue
        family = re.match(r"api\.(?:openai|responses|[a-z]+)", module)
        assert family is not None
        for found in imports(path):
            needed = own_module(found.name)
            if needed is None or needed in allowed or needed in shared:
                continue
            same = {family[0], "api.openai"} if family[0] == "api.responses" else {family[0]}
            assert any(needed.startswith(name) for name in same), f"{module} imports {needed}"


HEAVY = {"dataclasses", "pathlib", "inspect", *PACKAGES}


@pytest.mark.integration
def test_listing_models_imports_nothing_heavy(models: Path) -> None:
    (models / "m-1.5B-w8a8-rk3588.rkllm").write_bytes(b"x")
    program = """
import sys
before = set(sys.modules)
sys.argv = ["rkllama", "list"]
from rkllama.__main__ import main
status = main()
sys.stderr.write(" ".join(set(sys.modules) - before))
sys.exit(status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "m-1.5B-w8a8-rk3588" in done.stdout
    assert not HEAVY & {name.partition(".")[0] for name in done.stderr.split()}


# --- Errors ------------------------------------------------------------------------------------


def drawn_tree() -> dict[str, tuple[str, int, str]]:
    """Name of each class in the docstring's tree, with its parent, status and code."""
    found: dict[str, tuple[str, int, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +(\d{3})  (\w+).*)?", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            if match[3]:
                found[match[2]] = (path[-2], int(match[3]), match[4])
    return found


def subclasses(base: type[RKLLamaError]) -> Iterator[type[RKLLamaError]]:
    for cls in base.__subclasses__():
        if cls.__module__.startswith("rkllama"):
            yield cls
            yield from subclasses(cls)


def test_the_tree_of_errors_is_as_it_is_drawn() -> None:
    for module in MODULES:
        if module != "__main__":
            importlib.import_module("rkllama" if module == "rkllama" else f"rkllama.{module}")
    classes = {
        cls.__name__: (cls.__base__.__name__ if cls.__base__ else "", cls.status, cls.code)
        for cls in subclasses(RKLLamaError)
    }
    assert drawn_tree() == classes


def test_error_codes_are_unique() -> None:
    codes = [cls.code for cls in subclasses(RKLLamaError)]
    assert len(codes) == len(set(codes))


def test_the_api_document_lists_every_error_that_a_client_can_get() -> None:
    listed = {
        cells[0].strip("`"): int(cells[1]) for cells in table("docs/api.md", "code") if cells[1]
    }
    classes: list[type[RKLLamaError]] = [RKLLamaError, *subclasses(RKLLamaError)]
    on_the_wire = {cls.code: cls.status for cls in classes if cls.code not in _NEVER_SENT}
    assert listed == on_the_wire


_NEVER_SENT = {"server_unreachable", "gguf", "worker_error"}
"""Raised in the command line only; as load_failed in its place; as a subclass only."""


# --- Documents ---------------------------------------------------------------------------------


def test_the_readme_lists_every_command() -> None:
    group = typer.main.get_command(app)
    visible = [name for name, c in getattr(group, "commands", {}).items() if not c.hidden]
    listed = [cells[0].strip("`").split()[1] for cells in table("README.md", "command")]
    assert sorted(listed) == sorted(visible)


@cases("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    command = getattr(typer.main.get_command(app), "commands", {})[name]
    assert command.help.partition("\n")[0] == COMMANDS[name][1]


def test_the_settings_are_documented() -> None:
    rows = {cells[0].strip("`"): cells for cells in table("docs/configuration.md", "setting")}
    declared = {setting.name: setting.variable for setting in config.SETTINGS}
    assert {name: cells[2].strip("`") for name, cells in rows.items()} == declared
    for setting in config.SETTINGS:
        documented = rows[setting.name][3].strip("`")
        if setting.default is not None and setting.default != ():
            expected = setting.parse(setting.default)
            assert setting.parse(documented) == expected, f"{documented} is not {expected}"


def test_the_flags_of_settings_are_documented() -> None:
    group = typer.main.get_command(app)
    serve = getattr(group, "commands", {})["serve"]
    options = {option for parameter in serve.params for option in parameter.opts}
    flags = {
        flag
        for cells in table("docs/configuration.md", "setting")
        for flag in re.findall(r"--[a-z-]+", cells[1])
    }
    assert flags <= options
    assert options - flags <= {"--model", "--help", "-h"}


def test_documents_name_no_unknown_variable() -> None:
    # These are no settings: one moves the machine that all settings are about, the other is for these tests.
    known = {setting.variable for setting in config.SETTINGS}
    known |= {"RKLLAMA_SYSROOT", "RKLLAMA_TEST_EXAMPLES", "RKLLAMA_TEST_WHOLE_STARTS"}
    for path in DOCS:
        unknown = set(re.findall(r"RKLLAMA_[A-Z_]+[A-Z]", path.read_text())) - known
        assert not unknown, f"{path.name} names {unknown}"


def test_every_route_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z, ]+) (/\S*)` \|", text, re.M))
    served = {
        (", ".join(route.methods), re.sub(r"<(\w+)(?::path)?>", r"{\1}", route.path))
        for route in routes()
    }
    assert documented == served


@pytest.mark.parametrize("name", ["answer", "tests"])
def test_the_readme_has_the_commands_that_ci_runs(name: str) -> None:
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"^<!-- run: {name} -->\n```sh\n(.*)\n```$", text, re.M)
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert f"command_of {name}" in (ROOT / ".ci" / "run").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_document_of_the_abi_is_right() -> None:
    since = {cells[0].strip("`"): cells[1] for cells in table("docs/runtime-abi.md", "function")}
    assert since == {name: first_release(name) for name in header(RELEASES[-1]).functions}
    layouts = [
        CTypes(header(release), wide=True)
        for release in ("1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0")
    ]
    for name, *sizes in table("docs/runtime-abi.md", "struct"):
        structs = [layout.structs[name.strip("`")] for layout in layouts]
        assert [int(size) for size in sizes] == [ctypes.sizeof(struct) for struct in structs]


# --- What is committed -------------------------------------------------------------------------


def committed() -> Iterator[Path]:
    """The text files of the repository; those of the tree where it is no clone."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    else:
        folders = ("rkllama", "tests", "docs", "benchmarks", "packaging", "tools", ".ci")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    for path in paths:
        if path.is_file() and path.suffix not in (".gguf", ".pyc"):
            yield path


@pytest.mark.integration
def test_no_file_names_a_machine_that_it_was_written_on() -> None:
    home = str(Path(os.path.expanduser("~root")) / ".pyenv")
    places = (home, str(ROOT), "/".join(("", "work", "")))
    for path in committed():
        text = path.read_text(errors="replace")
        found = [place for place in places if place in text and len(place) > 1]
        assert not found, f"{path.relative_to(ROOT)} names {found}"
