"""Compiling the virtual NPU and writing models for it."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rkllama.clib.declarations import Header, Member, Struct
from rkllama.rkllm import abi as npu_abi

SOURCES = Path(__file__).with_name("src")
DRIVER = Path(__file__).with_name("driver") / "driver.c"
VERSIONS = ("1.1.4", "1.2.0", "1.2.1b1", "1.2.1", "1.2.2", "1.2.3", "1.3.0")
FLAGS = ("-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden")
SHARED = ("-fPIC", "-shared", "-pthread", "-lm")


@functools.cache
def library(
    version: str = "1.2.3",
    *,
    reported: str | None = None,
    target: str | None = None,
    fieldwise: bool = False,
) -> str:
    """Return the path of the virtual librkllmrt of `version`, compiled on first use.

    With `reported` it has the layout of `version` and says that it is another one. With `target`,
    as GNU writes it ("aarch64-linux-gnu"), it is for another machine; that needs a cross compiler.
    With `fieldwise` its default parameters leave the reserved bytes as they are.

    It lies in a directory whose name is a hash of everything it was made from, so parallel test
    processes share it and a changed source never meets an old library.
    """
    sources = sorted(SOURCES.glob("*.c"))
    name = (reported or "as-it-is") + ("-fieldwise" if fieldwise else "")
    made = _directory(version, target) / name / "librkllmrt.so"
    if not made.exists():
        options = [f'-DVNPU_REPORTED="{reported or version}"', *SHARED]
        options.append(f"-DVNPU_FIELDWISE={int(fieldwise)}")
        options.append(f"-DVNPU_EMULATED={int(target is not None)}")
        if target:  # an emulated run is short: compiling without optimising saves more
            options.append("-O0")
        compile_c(version, sources, made, *options, compiler=target and f"{target}-gcc")
    return str(made)


@functools.cache
def driver(version: str) -> str:
    """Return the path of a program that calls any library by the header of `version`; see driver.c."""
    target = _directory(version) / "driver"
    if not target.exists():
        compile_c(version, [DRIVER], target, "-ldl")
    return str(target)


def compile_c(
    version: str, sources: list[Path], target: Path, *options: str, compiler: str | None = None
) -> None:
    """Compile C sources against the header of `version` into the file `target`, atomically.

    `compiler` is a command; without one it is this machine's.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        Path(work, "rkllm.h").write_text(header(version))
        made = Path(work, target.name)
        command = [compiler or own_compiler(), *FLAGS, "-iquote", work, "-iquote", str(SOURCES)]
        command += ["-o", str(made), *map(str, sources), *options]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{command[0]} failed for the virtual NPU {version}:\n{run.stderr}")
        os.replace(made, target)


def header(version: str) -> str:
    """Return a C header of the release `version`, made from the binding's own declarations."""
    declared = npu_abi.header(version)
    return "\n".join(
        [*_preamble(version), *type_lines(declared), *function_lines(declared), "#endif", ""]
    )


def _preamble(version: str) -> Iterator[str]:
    yield "#ifndef RKLLM_H\n#define RKLLM_H"
    yield "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>"
    yield f'#define VNPU_RELEASE "{version}"'
    yield f"#define VNPU_ABI {_number(version)}"
    yield "typedef void* LLMHandle;"


def type_lines(declared: Header) -> Iterator[str]:
    """Yield the declarations of enums, structs and callbacks in C."""
    for name, values in declared.enums.items():
        yield f"typedef enum {{ {', '.join(f'{k} = {v}' for k, v in values.items())} }} {name};"
    callbacks = [
        f"typedef {c.returns} (*{c.name})({', '.join(c.arguments)});"
        for c in declared.callbacks.values()
    ]
    for name, struct in declared.structs.items():
        if any(member.type in declared.callbacks for member in struct.members):
            yield from callbacks
            callbacks = []
        yield f"typedef {_struct(struct)} {name};"
    yield from callbacks


def _struct(struct: Struct) -> str:
    return f"{struct.kind} {{ {' '.join(map(_member, struct.members))} }}"


def _member(member: Member) -> str:
    of_type = _struct(member.block) if member.block else member.type
    return f"{of_type} {member.name}{f'[{member.length}]' if member.length else ''};"


def function_lines(declared: Header) -> Iterator[str]:
    """Yield the exported functions in C."""
    for function in declared.functions.values():
        arguments = ", ".join(function.arguments) or "void"
        visible = '__attribute__((visibility("default")))'
        yield f"{visible} {function.returns} {function.name}({arguments});"


def _number(version: str) -> int:
    """Return a number that orders releases: 1.2.1b1 is 102011, 1.2.1 is 102019."""
    release, _, beta = version.partition("b")
    major, minor, patch = map(int, release.split("."))
    return ((major * 100 + minor) * 100 + patch) * 10 + int(beta or 9)


def _directory(version: str, target: str | None = None) -> Path:
    machine = target or os.uname().machine
    content = hashlib.sha256(repr((version, header(version), FLAGS, machine)).encode())
    for source in [*sorted(SOURCES.iterdir()), DRIVER]:
        content.update(source.name.encode() + b"\0" + source.read_bytes())
    owner = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir(), f"virtual-npu-{owner}", content.hexdigest()[:16])


def own_compiler() -> str:
    """Return the command of this machine's C compiler."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise RuntimeError("the virtual NPU needs a C compiler: install gcc or clang, or set CC")
