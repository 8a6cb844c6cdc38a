"""Headers of .gguf files: written here byte by byte, so that they can be wrong in every way."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkllama.models import gguf
from rkllama.models.gguf import GGUFError, parameter_size, read_header
from tests.cost import calls
from tests.fuzzing import examples
from tests.model_files import ARRAY, BOOL, F32, I32, STRING, U32, U64, WHOLE, Pair, header, string


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_a_whole_header(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", header(WHOLE, [("a", [64, 32]), ("b", [7])]) + bytes(64))
    found = read_header(path)
    assert (found.version, found.architecture, found.name) == (3, "qwen2", "Qwen2.5 1.5B Instruct")
    assert (found.quantization, found.size_label) == ("Q4_K_M", "1.5B")
    assert (found.context_length, found.embedding_length) == (32768, 1536)
    assert found.parameters == 64 * 32 + 7
    assert (found.bos_token, found.eos_token) == ("t3", "<|im_end|>")
    assert found.eos_tokens == (1000, 7)
    assert found.chat_template == "{% for m in messages %}é{% endfor %}"
    assert (found.tokenizer, found.license, found.pooling) == ("gpt2", "apache-2.0", None)
    assert found.metadata["qwen2.rope.freq_base"] == 1e6
    assert found.metadata["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.tokens" not in found.metadata


LAYERS: list[Pair] = [
    ("general.architecture", STRING, "lfm2"),
    ("lfm2.block_count", U32, 4),
    ("lfm2.attention.head_count", U32, 16),
]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (LAYERS, 4 * 16),
        ([*LAYERS, ("lfm2.attention.head_count_kv", U32, 2)], 4 * 2),
        ([*LAYERS, ("lfm2.attention.head_count_kv", ARRAY, (I32, [0, 8, 0, 8]))], 16),
        ([*LAYERS, ("lfm2.attention.head_count_kv", ARRAY, (U32, [0] * 4))], 0),
        ([*LAYERS, ("lfm2.attention.head_count_kv", ARRAY, (F32, [8.0] * 4))], 4 * 16),
        (LAYERS[:2], None),
    ],
)
def test_the_key_value_heads_of_all_layers(
    pairs: list[Pair], expected: int | None, tmp_path: Path
) -> None:
    found = read_header(write(tmp_path / "m.gguf", header([*pairs, ("after", U32, 7)])))
    assert found.kv_heads == expected
    assert found.metadata["after"] == 7


def test_a_brief_header_ends_where_the_vocabulary_starts(tmp_path: Path) -> None:
    content = header(WHOLE)
    cut = content.index(b"tokenizer.ggml.tokens")
    found = read_header(write(tmp_path / "m.gguf", content[:cut] + b"\xff" * 100), brief=True)
    assert (found.architecture, found.context_length) == ("qwen2", 32768)
    assert (found.chat_template, found.parameters, found.eos_tokens) == (None, None, ())


def test_what_a_header_does_not_say_is_none(tmp_path: Path) -> None:
    found = read_header(write(tmp_path / "m.gguf", header([])))
    told = {field: value for field, value in found._asdict().items() if value is not None}
    assert told == {"version": 3, "eos_tokens": (), "metadata": {}}


def test_a_count_that_is_written_down_beats_the_sum(tmp_path: Path) -> None:
    pairs: list[Pair] = [("general.parameter_count", U64, 3_000_000)]
    assert (
        read_header(write(tmp_path / "m.gguf", header(pairs, [("a", [9])]))).parameters == 3_000_000
    )


def test_values_of_the_wrong_type_are_as_good_as_none(tmp_path: Path) -> None:
    pairs: list[Pair] = [
        ("general.architecture", STRING, "llama"),
        ("general.file_type", STRING, "Q4_K_M"),
        ("general.name", U32, 5),
        ("llama.context_length", F32, 2.5),
        ("llama.pooling_type", BOOL, True),
        ("tokenizer.ggml.eos_token_id", I32, -1),
        ("tokenizer.ggml.bos_token_id", U32, 10**9),
        ("tokenizer.ggml.tokens", ARRAY, (U32, [1, 2, 3])),
        ("nan", F32, float("nan")),
    ]
    found = read_header(write(tmp_path / "m.gguf", header(pairs)))
    assert (found.quantization, found.name, found.context_length) == (None, None, None)
    assert (found.pooling, found.eos_tokens, found.bos_token) == (None, (), None)
    assert "nan" not in found.metadata


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    content = header([("general.name", STRING, b"Qwen\xff"), ("x", U32, 1)])
    assert read_header(write(tmp_path / "m.gguf", content)).name == "Qwen�"


def test_windows_meet_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window's border may fall on every byte of the header."""
    content = header(WHOLE, [("a", [64, 32])])
    path = write(tmp_path / "m.gguf", content + bytes(64))
    expected = read_header(path)
    for size in (*range(1, 40), 97, 997):
        monkeypatch.setattr(gguf, "_WINDOW", size)
        assert read_header(path) == expected


def test_a_large_vocabulary_is_stepped_over_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "_WINDOW", 1 << 16)
    tokens = [f"token{n}" for n in range(20_000)]
    pairs: list[Pair] = [
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.eos_token_id", U32, 19_999),
    ]
    path = write(tmp_path / "m.gguf", header(pairs))
    assert read_header(path).eos_token == "token19999"
    made = calls(lambda: read_header(path))
    assert made["read"] < 20
    assert made.total() < 2 * len(pairs) * len(tokens)  # one for a string, and little else
    tracemalloc.start()
    try:
        read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 16  # the file has more than ten times the window
    assert os.path.getsize(path) > 10 << 16


# --- What is wrong -----------------------------------------------------------------------------


def pair(key: str, kind: int, body: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(key) + struct.pack("<I", kind) + body


HUGE = struct.pack("<Q", 1 << 63)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin with GGUF"),
        (b"GGUF", "does not begin with GGUF"),
        (b"\x7fELF" + bytes(100), "does not begin with GGUF"),
        (header([], version=1), "version 1 files"),
        (header([], version=4), "version 4 files"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian files"),
        (b"GGUF" + struct.pack("<I", 3) + HUGE + HUGE, "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + HUGE, "a string of"),
        (pair("k", STRING, HUGE), "a string of"),
        (pair("k", STRING, struct.pack("<Q", 50)), "truncated"),
        (pair("k", 99, b""), "unknown type 99"),
        (pair("k", U64, b"123"), "truncated"),
        (pair("k", ARRAY, struct.pack("<I", U32) + HUGE), "truncated"),
        (pair("k", ARRAY, struct.pack("<I", STRING) + HUGE), "strings"),
        (pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1)), "array of the type 9"),
        (pair("k", ARRAY, struct.pack("<IQ", STRING, 1) + HUGE), "truncated"),
        (header(WHOLE)[:-1], "truncated"),
        (header([], [("a", [1])])[:-1], "truncated"),
        (header([], [("a", [1] * 9)]), "9 dimensions"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = write(tmp_path / "m.gguf", content)
    with pytest.raises(GGUFError, match=reason) as caught:
        read_header(path)
    assert caught.value.path == path
    assert "m.gguf" in str(caught.value)
    assert caught.value.hint


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, reason in (("nowhere", "No such file"), ("", "directory"), ("pipe.gguf", "regular")):
        with pytest.raises(GGUFError, match=reason):
            read_header(str(tmp_path / path))


def test_many_empty_strings_are_refused_soon(tmp_path: Path) -> None:
    """A sparse file costs its writer nothing, so its size is no limit for us."""
    path = tmp_path / "m.gguf"
    content = pair("k", ARRAY, struct.pack("<IQ", STRING, 1 << 26))
    path.write_bytes(content)
    os.truncate(path, len(content) + (8 << 26))
    with pytest.raises(GGUFError, match="strings"):
        read_header(str(path))


def test_a_file_that_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.gguf", header(WHOLE))
    size = os.stat(path).st_size
    monkeypatch.setattr(gguf, "_WINDOW", 64)
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        status = real(fd)
        if status.st_size == size:
            os.truncate(path, size // 2)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(GGUFError):
        read_header(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "m.gguf"


def assert_survives(path: Path, content: bytes) -> None:
    for brief in (True, False):
        try:
            read_header(write(path, content), brief=brief)
        except GGUFError:
            continue


SMALL = header(
    [pair for pair in WHOLE if "tokens" not in pair[0] and pair[1] != ARRAY]
    + [("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "bb", ""]))],
    [("a", [64, 32]), ("b", [7])],
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes(scratch: Path, content: bytes) -> None:
    assert_survives(scratch, b"GGUF\x03\0\0\0" + content)


@pytest.mark.integration
@settings(max_examples=examples(2))
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(SMALL)),
)
def test_any_damage(scratch: Path, changes: list[tuple[int, int]], end: int) -> None:
    content = bytearray(SMALL)
    for position, byte in changes:
        content[position] = byte
    assert_survives(scratch, bytes(content[:end] if end % 3 else content))


# --- Words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1_543_714_304, "1.5B"),
        (8_000_000_000, "8B"),
        (134_515_008, "135M"),
        (3_000_000, "3M"),
        (22_713_216, "22.7M"),
        (12_345, "12.3K"),
        (7, "7"),
        (671_026_419_200, "671B"),
    ],
)
def test_parameter_size(count: int, expected: str) -> None:
    assert parameter_size(count) == expected


def test_the_file_types_are_llama_cpps() -> None:
    package = pytest.importorskip("gguf")
    theirs = {int(kind): kind.name.removeprefix("MOSTLY_") for kind in package.LlamaFileType}
    theirs[0] = "F32"
    assert {number: theirs[number] for number in gguf._FILE_TYPES} == gguf._FILE_TYPES
