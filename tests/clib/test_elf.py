"""What ELF files tell of themselves, beside what the compiler's tools say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rkllama.clib.elf import Machine, machine, machine_of, needed_by, size_of, stand_in
from tests.cases import cases
from tests.doctor.examine import AARCH64, ARMHF, write_library
from tests.virtual_npu import library
from tests.virtual_npu.build import compile_c

pytestmark = pytest.mark.integration

SOURCE = "#include <math.h>\ndouble f(double x) { return sin(x); }\n"


def needing(path: Path, *options: str, compiler: str | None = None) -> str:
    """A shared library of C that needs what the options say."""
    code = path.with_suffix(".c")
    code.write_text(SOURCE)
    compile_c("1.1.4", [code], path, "-fPIC", "-shared", *options, compiler=compiler)
    return str(path)


def readelf(path: str) -> list[str]:
    """What binutils say that a file needs."""
    done = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    return re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout)


def test_what_a_library_needs_is_what_readelf_says(tmp_path: Path) -> None:
    path = needing(tmp_path / "libx.so", "-Wl,--no-as-needed", "-lm", "-fopenmp")
    assert list(needed_by(path)) == readelf(path)
    assert "libgomp.so.1" in needed_by(path)


@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        ("aarch64-linux-gnu-gcc", Machine(64, AARCH64)),
        ("arm-linux-gnueabihf-gcc", Machine(32, ARMHF)),
    ],
)
def test_libraries_for_boards(compiler: str, expected: Machine, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    path = needing(tmp_path / "libx.so", "-Wl,--no-as-needed", "-lm", compiler=compiler)
    assert machine_of(path) == expected
    assert list(needed_by(path)) == readelf(path)
    assert size_of(path) <= os.path.getsize(path)


def test_this_machine_has_a_name() -> None:
    assert machine() == os.uname().machine.replace("_", "-")


def test_a_file_that_stands_in_tells_the_same(tmp_path: Path) -> None:
    original = library("1.2.3")
    copy = tmp_path / "librkllmrt.so"
    copy.write_bytes(stand_in(original, b"text"))
    assert machine_of(str(copy)) == machine_of(original)
    assert needed_by(str(copy)) == needed_by(original)
    assert size_of(str(copy)) == copy.stat().st_size < 4096
    assert list(needed_by(str(copy))) == readelf(str(copy))


@pytest.mark.parametrize("number", [AARCH64, ARMHF])
def test_a_written_library_is_one_for_readelf_too(number: int, tmp_path: Path) -> None:
    path = str(
        write_library(tmp_path / "x.so", machine=number, needed=("libgomp.so.1", "libm.so.6"))
    )
    assert list(needed_by(path)) == readelf(path) == ["libgomp.so.1", "libm.so.6"]
    assert size_of(path) == os.path.getsize(path)


@cases("at", range(16, 120))
def test_damage_is_no_crash(at: int, tmp_path: Path) -> None:
    path = write_library(tmp_path / "x.so", needed=("libgomp.so.1",))
    content = bytearray(path.read_bytes())
    for damaged in (content[:at], content[:at] + b"\xff" * 16 + content[at + 16 :]):
        path.write_bytes(damaged)
        assert size_of(str(path)) >= 0
        assert all(name.isprintable() for name in needed_by(str(path)))
