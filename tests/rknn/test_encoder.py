"""The binding of librknnrt over the virtual one."""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rkllama.errors import LibraryNotFound, LoadFailed, OutOfMemory, RuntimeFailed
from rkllama.rknn.abi import CODES
from rkllama.rknn.encoder import Encoder, Shape
from rkllama.rknn.file import EncoderFile, read_file
from rkllama.rknn.library import find_library, look_for_library
from rkllama.rknn.runtime import Context
from tests.virtual_npu import read_trace
from tests.virtual_rknn import library, write_encoder

pytestmark = pytest.mark.integration


def opened(directory: Path, *, soc: str | None = "RK3588", **config: Any) -> Encoder:
    path = write_encoder(directory / "e.rknn", trace=directory / "trace", **config)
    return Encoder(path, soc=soc, library=library())


def _keys(key: str, code: int) -> dict[str, Any]:
    return {key: code}


def events(directory: Path) -> list[dict[str, Any]]:
    return read_trace(directory / "trace")


def pixels(width: int, height: int) -> bytes:
    """A picture whose columns grow redder and whose rows grow greener."""
    return b"".join(
        bytes([x * 255 // width, y * 255 // height, 7]) for y in range(height) for x in range(width)
    )


def rows(embeddings: bytes, size: int) -> list[tuple[float, ...]]:
    row = struct.Struct(f"={size}f")
    return list(row.iter_unpack(embeddings))


@pytest.mark.parametrize("nchw", [True, False])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_the_library_tells_the_shape(tmp_path: Path, nchw: bool, rank: int) -> None:
    encoder = opened(tmp_path, height=30, width=42, tokens=36, embedding=24, nchw=nchw, rank=rank)
    assert encoder.shape == Shape(height=30, width=42, tokens=36, embedding=24, outputs=1)
    encoder.close()


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_outputs_stand_together_for_each_token(tmp_path: Path, outputs: int) -> None:
    encoder = opened(tmp_path, outputs=outputs, embedding=16)
    found = rows(encoder.encode(pixels(28, 28)), 16 * outputs)
    encoder.close()
    assert len(found) == 9
    for token, row in enumerate(found):
        for output in range(outputs):
            assert row[output * 16 : output * 16 + 3] == (1000 + output, token, 9)
    assert found[0][4] < found[1][4] < found[2][4]  # red grows along a line
    assert found[0][5] < found[3][5] < found[6][5]  # and green from line to line
    assert {row[6] for row in found} == {7}
    (destroyed,) = [e for e in events(tmp_path) if e["event"] == "encoder_destroy"]
    assert (destroyed["runs"], destroyed["leaked"]) == (1, 0)


def test_an_encoder_is_kept_for_many_pictures_and_freed_once(tmp_path: Path) -> None:
    encoder = opened(tmp_path)
    first, other = (bytes([value]) * (28 * 28 * 3) for value in (10, 200))
    assert encoder.encode(first) == encoder.encode(first) != encoder.encode(other)
    encoder.close()
    encoder.close()
    names = [e["event"] for e in events(tmp_path)]
    assert names == ["encoder_init", "encoder_cores", *["encode"] * 3, "encoder_destroy"]
    with pytest.raises(RuntimeFailed, match="without a loaded encoder"):
        encoder.encode(first)


@pytest.mark.parametrize(
    ("soc", "mask"), [("RK3588", 7), ("RK3588S", 7), ("RK3576", 3), ("RK3562", None), (None, None)]
)
def test_the_cores_are_those_of_the_soc(tmp_path: Path, soc: str | None, mask: int | None) -> None:
    board = soc or "RK3588"
    opened(tmp_path, soc=soc, board=board, platform=board).close()
    assert [e["mask"] for e in events(tmp_path) if e["event"] == "encoder_cores"] == [
        mask for mask in [mask] if mask is not None
    ]


@pytest.mark.parametrize("code", CODES)
def test_each_code_of_loading_is_put_into_words(tmp_path: Path, code: int) -> None:
    with pytest.raises(LoadFailed) as caught:
        opened(tmp_path, init_code=code)
    assert f"e.rknn could not be loaded: rknn_init failed with code {code}" in caught.value.message
    assert CODES[code] in caught.value.message
    assert isinstance(caught.value, OutOfMemory) == (code == -4)


def test_an_encoder_for_another_soc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="made for another SoC"):
        opened(tmp_path, platform="RK3576")


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.rknn"
    path.write_bytes(b"RKNN")
    with pytest.raises(LoadFailed, match="no encoder"):
        Encoder(str(path), soc="RK3588", library=library())


@pytest.mark.parametrize("key", ["mask_code", "query_code"])
def test_what_fails_after_loading_frees_the_encoder(tmp_path: Path, key: str) -> None:
    with pytest.raises(LoadFailed, match="cannot be used: rknn_"):
        opened(tmp_path, **_keys(key, -7))
    assert [e["event"] for e in events(tmp_path)][-1] == "encoder_destroy"


@pytest.mark.parametrize("key", ["set_code", "run_code", "get_code", "release_code"])
def test_a_run_that_fails_says_with_which_code_and_leaks_nothing(tmp_path: Path, key: str) -> None:
    encoder = opened(tmp_path, **_keys(key, -9))
    with pytest.raises(RuntimeFailed, match="failed with code -9: the output is wrong"):
        encoder.encode(pixels(28, 28))
    encoder.close()
    assert events(tmp_path)[-1]["leaked"] == 0


def test_an_output_of_another_size_is_not_read_and_released(tmp_path: Path) -> None:
    encoder = opened(tmp_path, short_output=1)
    with pytest.raises(RuntimeFailed, match="572 bytes instead of 576"):
        encoder.encode(pixels(28, 28))
    encoder.close()
    assert events(tmp_path)[-1]["leaked"] == 0


def test_pixels_of_another_size_never_reach_the_library(tmp_path: Path) -> None:
    encoder = opened(tmp_path)
    with pytest.raises(RuntimeFailed, match="2349 bytes of pixels for an encoder of 2352"):
        encoder.encode(pixels(28, 28)[:-3])
    encoder.close()


def test_the_library_names_its_versions(tmp_path: Path) -> None:
    context = Context(find_library(library())[1], write_encoder(tmp_path / "e.rknn"))
    assert context.version() == ("2.3.2 (virtual)", "0.9.8")
    context.close()


def test_the_files_text_tells_the_same(tmp_path: Path) -> None:
    path = write_encoder(
        tmp_path / "e.rknn", tokens=196, embedding=32, outputs=4, platform="RK3576"
    )
    assert read_file(path) == EncoderFile(
        platforms=("rk3576",),
        height=28,
        width=28,
        tokens=196,
        embedding=32,
        outputs=4,
        version="2.3.2",
    )


def test_the_library_is_found_like_the_other_one(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LibraryNotFound, match=r"librknnrt\.so cannot be used") as caught:
        find_library()
    assert "RKLLAMA_RKNN_LIB" in caught.value.text
    assert look_for_library() is None
    own = home / "RKLLAMA" / "lib" / "librknnrt.so"
    own.parent.mkdir(parents=True)
    own.symlink_to(library())
    assert (find_library()[0], look_for_library()) == (str(own), str(own))
    monkeypatch.setenv("RKLLAMA_RKNN_LIB", library())
    assert find_library()[0] == library()
    wrong = tmp_path / "text.so"
    wrong.write_text("no library")
    with pytest.raises(LibraryNotFound, match=r"not an ELF shared library"):
        find_library(str(wrong))


_ABUSE = """
import ctypes, json, sys
from rkllama.rknn.library import find_library
from rkllama.rknn.runtime import Context
from rkllama.rknn.abi import header
path, steps = sys.argv[1:]
context = Context(find_library()[1], path)
call, number = context._functions, context._context
structs = context._types.structs
pixels = bytes(28 * 28 * 3)
given = structs["rknn_input"](buf=ctypes.cast(pixels, ctypes.c_void_p), size=len(pixels), type=3, fmt=1)
taken = structs["rknn_output"](want_float=1)
for step in json.loads(steps):
    if step == "set": call["rknn_inputs_set"](number, 1, given)
    elif step == "run": call["rknn_run"](number, None)
    elif step == "get": call["rknn_outputs_get"](number, 1, taken, None)
    elif step == "release": call["rknn_outputs_release"](number, 1, taken)
    elif step == "destroy": call["rknn_destroy"](number)
"""


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        (["run", "destroy"], "rknn_run before rknn_inputs_set"),
        (["set", "get", "destroy"], "rknn_outputs_get before rknn_run"),
        (["set", "run", "get", "get", "release", "destroy"], "last outputs are not released"),
        (["set", "run", "get", "destroy"], "1 outputs were never released"),
        (["set", "run", "get", "release", "release"], "released before"),
        (["destroy", "destroy"], "is no context"),
        ([], "was never destroyed"),
        (["set", "run", "get", "release", "destroy"], ""),
    ],
)
def test_the_virtual_library_is_stern(tmp_path: Path, steps: list[str], complaint: str) -> None:
    path = write_encoder(tmp_path / "e.rknn")
    done = subprocess.run(
        [sys.executable, "-c", _ABUSE, path, json.dumps(steps)],
        env={"RKLLAMA_RKNN_LIB": library(), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert complaint in done.stderr
    assert bool(done.stderr) == bool(complaint)
    assert (done.returncode < 0) == (complaint in ("released before", "is no context"))


def test_the_virtual_library_takes_no_wrong_input(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = Context(find_library(library())[1], write_encoder(tmp_path / "e.rknn"))
    call, number, structs = context._functions, context._context, context._types.structs
    data = pixels(28, 28)
    right = {"size": len(data), "type": 3, "fmt": 1}
    for wrong in ({"size": 5}, {"type": 2}, {"fmt": 0}, {"pass_through": 1}, {"index": 1}):
        given = structs["rknn_input"](
            buf=ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), **{**right, **wrong}
        )
        assert call["rknn_inputs_set"](number, 1, ctypes.byref(given)) in (-5, -8), wrong
    for mask in (5, 6, 8):
        assert call["rknn_set_core_mask"](number, mask) == -5
    info = structs["rknn_input_output_num"]()
    assert call["rknn_query"](number, 0, ctypes.byref(info), 4) == -5
    context.close()
    assert capfd.readouterr().err.count("vnpu: bad input") == 9
