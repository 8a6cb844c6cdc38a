"""What a .rknn file says of itself, and that it is not believed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.errors import LoadFailed
from rkllama.rknn.encoder import interleaved, shape_of
from rkllama.rknn.file import EncoderFile, _described, read_file, tokens_of
from rkllama.rknn.runtime import Tensor


def text(**changes: Any) -> dict[str, Any]:
    """The JSON text of an encoder of 392 x 420 pixels with two outputs, as public dumps have it."""
    return {
        "graph": [
            {"left": "input", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 0},
            {"left": "output", "left_tensor_id": 0, "right": "norm_tensor", "right_tensor_id": 7},
            {"left": "output", "left_tensor_id": 1, "right": "norm_tensor", "right_tensor_id": 2},
        ],
        "input_num": 1,
        "output_num": 2,
        "norm_tensor": [
            {"tensor_id": 0, "size": [1, 3, 392, 420], "dtype": {"vx_type": "float16"}},
            {"tensor_id": 2, "size": [1, 196, 1536]},
            {"tensor_id": 7, "size": [1, 196, 1536]},
        ],
        "target_platform": ["rk3588"],
        "version": "2.3.2",
        **changes,
    }


def written(path: Path, content: object, *, form: int = 6, model: int = 1000) -> Path:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = b"RKNN\0\0\0\0" + struct.pack("<QQ", form, model)
    gap = 0 if form == 1 else 40
    path.write_bytes(head + bytes(gap + model) + struct.pack("<Q", len(body)) + body)
    return path


@pytest.mark.parametrize("form", [1, 6])
def test_a_file_tells_its_soc_sizes_and_outputs(tmp_path: Path, form: int) -> None:
    path = written(tmp_path / "vision.rknn", text(), form=form)
    assert read_file(str(path)) == EncoderFile(
        platforms=("rk3588",),
        height=392,
        width=420,
        tokens=196,
        embedding=1536,
        outputs=2,
        version="2.3.2",
    )


def test_a_text_without_channels_first_is_read_too(tmp_path: Path) -> None:
    tensors = [
        {"tensor_id": 0, "size": [1, 392, 420, 3]},
        {"tensor_id": 7, "size": [196, 64]},
        {"tensor_id": 2, "size": [196, 64]},
    ]
    found = read_file(str(written(tmp_path / "v.rknn", text(norm_tensor=tensors))))
    assert (found.height, found.width, found.tokens, found.embedding) == (392, 420, 196, 64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"norm_tensor": 3, "graph": {}, "target_platform": 7, "output_num": "4"}',
        json.dumps(text(target_platform=["\x1b[31m", {}], version=["x"], output_num=True)).encode()[
            :0
        ],
        b'{"graph": [7, {"left": "input", "left_tensor_id": [], "right_tensor_id": 0}]}',
    ],
)
def test_a_text_that_is_not_understood_tells_nothing(tmp_path: Path, content: bytes) -> None:
    assert read_file(str(written(tmp_path / "v.rknn", content))) == EncoderFile()


def test_what_is_no_size_or_would_command_a_terminal_is_left_out(tmp_path: Path) -> None:
    content = text(
        target_platform=["\x1b[31m", {}, "RK3576"],
        version="\x07",
        output_num=1 << 40,
        norm_tensor=[
            {"tensor_id": 0, "size": [1, 3, 1 << 20, 4]},
            {"tensor_id": 7, "size": [-1, "x"]},
            {"tensor_id": 2, "size": [1]},
        ],
    )
    found = read_file(str(written(tmp_path / "v.rknn", content)))
    assert found == EncoderFile(platforms=("rk3576",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin as one"),
        (b"RKNN", "does not begin as one"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"RKNN\0\0\0\0" + struct.pack("<QQ", 99, 0) + bytes(100), "format 99"),
        (b"RKNN\0\0\0\0" + struct.pack("<QQ", 6, 1 << 62) + bytes(100), "broke off"),
        (b"RKNN\0\0\0\0" + struct.pack("<QQ", 6, 0) + bytes(40) + b"\xff" * 8, "broke off"),
    ],
)
def test_what_is_no_encoder_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "v.rknn"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=reason):
        read_file(str(path))


def test_a_folder_or_nothing_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        read_file(str(tmp_path / "none.rknn"))
    with pytest.raises(LoadFailed):
        read_file(str(tmp_path))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("input"),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "graph",
                        "norm_tensor",
                        "left",
                        "left_tensor_id",
                        "right_tensor_id",
                        "tensor_id",
                        "size",
                        "target_platform",
                        "output_num",
                        "version",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
    )
)
def test_no_json_text_is_too_strange(value: object) -> None:
    if isinstance(value, dict):
        assert isinstance(_described(value), EncoderFile)


def test_tokens_are_the_first_dimension_that_counts() -> None:
    assert tokens_of([1, 196, 1536]) == (196, 1536)
    assert tokens_of([196, 1536, 1, 1]) == (196, 1536)
    assert tokens_of([1, 1, 64, 2048]) == (64, 2048)
    assert tokens_of([1, 5]) == tokens_of([]) == (None, None)


def test_outputs_are_interleaved_for_each_token() -> None:
    assert interleaved([b"aaAA", b"bbBB", b"ccCC"], 2) == b"aabbccAABBCC"
    assert interleaved([b"aaAA"], 2) == b"aaAA"


def test_the_input_is_read_by_its_format() -> None:
    out = [Tensor((1, 4, 8), 3, 32)]
    nchw = shape_of(Tensor((1, 3, 10, 20), 0, 600), out)
    nhwc = shape_of(Tensor((1, 10, 20, 3), 1, 600), out)
    assert nchw == nhwc
    assert (nchw.height, nchw.width, nchw.tokens, nchw.embedding) == (10, 20, 4, 8)
