"""Finding librkllmrt.so and telling its release."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rkllama.clib.ctypes_types import CTypes
from rkllama.errors import DOCTOR, LibraryNotFound, UnknownRuntime
from rkllama.rkllm import library as npu_library
from rkllama.rkllm.abi import header
from rkllama.rkllm.library import _MOVE_TO_X8, Defaults, open_library, read_version
from rkllama.rkllm.runtime import Runtime
from tests.virtual_npu import VERSIONS, library, write_model
from tests.virtual_npu.build import compile_c

pytestmark = pytest.mark.integration


def compiled(path: Path, source: str) -> str:
    """A shared library made of C text."""
    code = path.with_suffix(".c")
    code.write_text(source)
    compile_c("1.1.4", [code], path, "-fPIC", "-shared")
    return str(path)


def patched(path: Path, old: bytes, new: bytes) -> str:
    """A copy of the virtual NPU 1.2.3 with some bytes replaced."""
    content = Path(library("1.2.3")).read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return str(path)


# --- Finding -----------------------------------------------------------------------------------


def test_an_explicit_file_beats_the_environment(tmp_path: Path) -> None:
    environ = {"RKLLAMA_RKLLM_LIB": library("1.2.0")}
    assert open_library(library("1.3.0"), environ=environ).release == "1.3.0"
    assert open_library(environ=environ).release == "1.2.0"


def test_a_directory_stands_for_the_library_in_it() -> None:
    directory = os.path.dirname(library("1.2.3"))
    assert open_library(directory, environ={}).path == library("1.2.3")


def test_the_home_directory_is_looked_at(home: Path) -> None:
    place = home / "RKLLAMA" / "lib" / "librkllmrt.so"
    place.parent.mkdir(parents=True)
    shutil.copy(library("1.2.1"), place)
    assert open_library(environ={}).path == str(place)


def test_rkllama_home_moves_it(tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "lib" / "librkllmrt.so"
    place.parent.mkdir(parents=True)
    shutil.copy(library("1.2.1"), place)
    assert open_library(environ={"RKLLAMA_HOME": str(tmp_path / "elsewhere")}).path == str(place)


def test_the_hint_names_the_place_that_was_looked_at(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound) as caught:
        open_library(environ={"RKLLAMA_HOME": str(tmp_path)})
    assert f" to {tmp_path}/lib, or set RKLLAMA_RKLLM_LIB" in str(caught.value.hint)


def test_the_loaders_paths_come_last() -> None:
    program = (
        "from rkllama.rkllm.library import open_library\n"
        "found = open_library()\n"
        "print(found.path, found.release)"
    )
    directory = os.path.dirname(library("1.2.2"))
    environ = {**os.environ, "LD_LIBRARY_PATH": directory}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [library("1.2.2"), "1.2.2"]


def test_not_found_lists_every_place(home: Path) -> None:
    with pytest.raises(LibraryNotFound) as caught:
        open_library(environ={})
    (first, reason), (second, other) = caught.value.tried
    assert first == str(home / "RKLLAMA" / "lib" / "librkllmrt.so")
    assert "system's library paths" in second
    assert (reason, other) == ("not found", "not found")
    assert first in str(caught.value)
    assert caught.value.hint is not None
    assert "RKLLAMA_RKLLM_LIB" in caught.value.hint
    assert caught.value.hint.endswith(DOCTOR)


def test_a_named_file_that_is_missing_is_not_replaced_by_another(home: Path) -> None:
    place = home / "RKLLAMA" / "lib" / "librkllmrt.so"
    place.parent.mkdir(parents=True)
    shutil.copy(library("1.2.1"), place)
    with pytest.raises(LibraryNotFound) as caught:
        open_library(environ={"RKLLAMA_RKLLM_LIB": "/nowhere/librkllmrt.so"})
    assert caught.value.tried == (("RKLLAMA_RKLLM_LIB (/nowhere/librkllmrt.so)", "not found"),)


def test_an_unusable_file_in_the_home_directory_is_reported_beside_the_rest(home: Path) -> None:
    place = home / "RKLLAMA" / "lib" / "librkllmrt.so"
    place.parent.mkdir(parents=True)
    place.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(LibraryNotFound, match="not an ELF shared library"):
        open_library(environ={})


@pytest.mark.parametrize(
    ("machine", "name"), [(0xB7, "aarch64"), (0x28, "armhf"), (0x1234, "machine 4660")]
)
def test_a_library_for_another_machine_is_named_as_such(
    tmp_path: Path, machine: int, name: str
) -> None:
    if os.uname().machine == name:
        machine, name = 0x3E, "x86-64"
    content = bytearray(Path(library("1.2.3")).read_bytes())
    struct.pack_into("<H", content, 18, machine)
    (tmp_path / "librkllmrt.so").write_bytes(content)
    with pytest.raises(LibraryNotFound, match=f"made for {name} .*, but this Python is"):
        open_library(str(tmp_path), environ={})


def test_a_library_without_the_functions_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path / "librkllmrt.so", "int rkllm_init(void) { return 0; }")
    content = Path(path).read_bytes()
    assert content[:4] == b"\x7fELF"
    with pytest.raises(LibraryNotFound, match="it lacks rkllm_createDefaultParam"):
        open_library(path, environ={})


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
def test_a_file_that_was_cut_short_is_not_loaded(tmp_path: Path, share: float) -> None:
    content = Path(library("1.2.3")).read_bytes()
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(LibraryNotFound, match="incomplete"):
        open_library(str(path), environ={})


def test_what_the_loader_says_is_passed_on(tmp_path: Path) -> None:
    code, needed = tmp_path / "lib.c", tmp_path / "libneeded.so"
    code.write_text("int needed(void) { return 0; }")
    options = ("-fPIC", "-shared", "-Wl,--no-as-needed")
    compile_c("1.1.4", [code], needed, *options)
    compile_c("1.1.4", [code], tmp_path / "librkllmrt.so", *options, str(needed))
    needed.unlink()
    with pytest.raises(LibraryNotFound, match=r"libneeded\.so: cannot open shared object file"):
        open_library(str(tmp_path), environ={})


def test_a_missing_library_is_named_with_its_package(tmp_path: Path) -> None:
    code, needed = tmp_path / "lib.c", tmp_path / "libgomp.so.1"
    code.write_text("int needed(void) { return 0; }")
    options = ("-fPIC", "-shared", "-Wl,--no-as-needed")
    compile_c("1.1.4", [code], needed, *options)
    compile_c("1.1.4", [code], tmp_path / "librkllmrt.so", *options, str(needed))
    needed.unlink()
    with pytest.raises(LibraryNotFound, match="install the package libgomp1"):
        open_library(str(tmp_path), environ={})


# --- Identifying -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_is_recognised(version: str) -> None:
    found = open_library(library(version), environ={})
    assert (found.version, found.release, found.notices) == (version, version, ())


on_x86_64 = pytest.mark.skipif(
    os.uname().machine != "x86_64" or sys.maxsize < 1 << 32,
    reason="the virtual NPU can leave bytes unwritten by the convention of x86-64 only",
)


@on_x86_64
@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_that_leaves_the_reserved_bytes_alone_is_recognised(
    version: str, tmp_path: Path
) -> None:
    found = open_library(library(version, fieldwise=True), environ={})
    assert Defaults.of(found.handle).size < ctypes.sizeof(
        CTypes(header(version)).structs["RKLLMParam"]
    )
    assert (found.version, found.release, found.notices) == (version, version, ())
    runtime = Runtime(found)  # the virtual NPU stops the process if reserved bytes are not 0
    runtime.init(write_model(tmp_path / "m.rkllm"))
    runtime.destroy()


@on_x86_64
def test_an_unknown_release_that_leaves_the_reserved_bytes_alone_is_refused() -> None:
    with pytest.raises(UnknownRuntime, match="unknown layout"):
        open_library(library("1.3.0", reported="1.3.1", fieldwise=True), environ={})


@on_x86_64
@pytest.mark.parametrize(
    ("layout", "reported"), [("1.3.0", "1.2.3"), ("1.2.3", "1.3.0"), ("1.2.0", "1.2.3")]
)
def test_reserved_bytes_left_alone_do_not_hide_another_layout(layout: str, reported: str) -> None:
    with pytest.raises(UnknownRuntime, match=f"says that it is {reported}"):
        open_library(library(layout, reported=reported, fieldwise=True), environ={})


@pytest.mark.parametrize(
    ("version", "size"), [("1.1.4", 200), ("1.2.0", 208), ("1.2.3", 208), ("1.3.0", 184)]
)
def test_the_sentinel_shows_how_much_is_written(version: str, size: int) -> None:
    if sys.maxsize < 1 << 32:
        pytest.skip("these are the sizes of 64-bit machines")
    assert Defaults.of(ctypes.CDLL(library(version))).size == size


@pytest.mark.parametrize(
    ("layout", "reported", "release"),
    [("1.3.0", "1.3.1", "1.3.0"), ("1.2.3", "1.2.9", "1.2.3"), ("1.1.4", "1.1.5", "1.1.4")],
)
def test_an_unknown_version_with_a_known_layout_is_used_with_a_notice(
    layout: str, reported: str, release: str
) -> None:
    found = open_library(library(layout, reported=reported), environ={})
    assert (found.release, found.version) == (release, reported)
    assert f"is version {reported}, which RKLLama does not know" in found.notices[0]


@pytest.mark.parametrize(
    ("layout", "reported"),
    [("1.3.0", "1.2.3"), ("1.2.3", "1.3.0"), ("1.2.0", "1.2.3"), ("1.1.4", "1.2.0")],
)
def test_a_version_whose_layout_it_has_not_is_refused(layout: str, reported: str) -> None:
    with pytest.raises(UnknownRuntime, match=f"says that it is {reported}") as caught:
        open_library(library(layout, reported=reported), environ={})
    assert caught.value.version == reported
    assert caught.value.hint is not None
    assert "RKLLAMA_RKLLM_ABI" in caught.value.hint


def test_a_file_without_a_version_is_judged_by_its_layout(tmp_path: Path) -> None:
    path = patched(tmp_path / "librkllmrt.so", b"RKLLM SDK (version: ", b"RKLLM SDK (nothing: ")
    found = open_library(path, environ={})
    assert (found.version, found.release) == (None, "1.2.3")
    assert "is version unknown" in found.notices[0]


def _future(tmp_path: Path, size: int) -> str:
    """A library with all functions and a bigger struct."""
    names = [
        *("init", "load_lora", "load_prompt_cache", "release_prompt_cache", "destroy", "run"),
        *("run_async", "abort", "is_running"),
    ]
    functions = "".join(f"int rkllm_{name}(void) {{ return 0; }}\n" for name in names)
    source = (
        '#define V __attribute__((visibility("default")))\n'
        f"typedef struct {{ char bytes[{size}]; }} P;\n"
        "#include <string.h>\n"
        'const char text[] = "RKLLM SDK (version: 2.0.0 | target: Linux)";\n'
        "V P rkllm_createDefaultParam(void) { P p; memset(&p, 7, sizeof p); return p; }\n"
        + functions.replace("int rkllm", "V int rkllm")
    )
    return compiled(tmp_path / "librkllmrt.so", source)


@pytest.mark.parametrize("size", [184, 208, 216, 600])
def test_an_unknown_layout_is_refused(tmp_path: Path, size: int) -> None:
    path = _future(tmp_path, size)
    with pytest.raises(UnknownRuntime, match=rf"version 2\.0\.0 .*unknown layout \({size} bytes\)"):
        open_library(path, environ={})


def test_the_version_can_be_set_by_hand(tmp_path: Path) -> None:
    path = _future(tmp_path, 216)
    assert open_library(path, "1.3.0", environ={}).release == "1.3.0"
    assert open_library(path, environ={"RKLLAMA_RKLLM_ABI": "1.2.0"}).release == "1.2.0"
    assert open_library(path, "1.1.4", environ={"RKLLAMA_RKLLM_ABI": "1.2.0"}).release == "1.1.4"


def test_a_version_set_by_hand_has_to_be_known() -> None:
    with pytest.raises(UnknownRuntime, match=r"'1\.4', which is not a known version") as caught:
        open_library(library("1.3.0"), "1.4", environ={})
    assert caught.value.hint == (
        "Use one of 1.1.0, 1.1.1, 1.1.2, 1.1.3, 1.1.4, 1.2.0, 1.2.1b1, 1.2.1, 1.2.2, 1.2.3, 1.3.0."
    )


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (b"xx RKLLM SDK (version: 1.2.0 | target: Linux | build: f8ca3ae8)", "1.2.0"),
        (b"rknn llm lib version: 1.1.4 (6d5e2c1)\0", "1.1.4"),
        (b"RKLLM SDK (version: v1.2.1b1 |", "1.2.1b1"),
        (b"RKLLM SDK (version: %s | RKLLM SDK (version: 1.3.0 |", "1.3.0"),
        (b"RKLLM SDK (version: ", None),
        (b"nothing of the kind", None),
        (b"", None),
    ],
)
def test_the_version_is_found_in_the_files_bytes(
    tmp_path: Path, content: bytes, version: str | None
) -> None:
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(content)
    assert read_version(str(path)) == version


def test_the_aarch64_instructions_are_the_ones_meant() -> None:
    def mov(target: int, source: int) -> int:  # ORR Xd, XZR, Xm
        return 0xAA0003E0 | source << 16 | target

    def br(register: int) -> int:
        return 0xD61F0000 | register << 5

    assert struct.unpack("<3I", _MOVE_TO_X8) == (mov(8, 0), mov(16, 1), br(16))


def test_a_system_that_lets_nobody_make_code_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: int, protection: int) -> None:
        raise UnknownRuntime("the library's layout cannot be checked", version=None, hint="")

    monkeypatch.setattr(npu_library, "_protect", refuse)
    with pytest.raises(UnknownRuntime, match="cannot be checked"):
        npu_library._call_with_x8(0, 0)
