"""The machine's cores and memory, and what a model needs of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rkllama.backends.hardware import batch_for, cache_bytes, physical_cores, threads_for
from rkllama.models.gguf import read_header
from tests.model_files import ARRAY, I32, STRING, U32, Pair, header


@pytest.mark.parametrize(
    ("size", "batch"), [(3 << 20, 512), (98_362_432, 256), (253_113_024, 128), (1 << 30, 64)]
)
def test_batches_are_smaller_for_larger_models(size: int, batch: int, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as stream:
        stream.truncate(size)
    assert batch_for(str(path)) == batch
    assert threads_for(str(path)) == (1 if size < 16 << 20 else physical_cores())


@pytest.mark.parametrize(
    ("cores", "wanted"),
    [
        ([("0-1", None), ("0-1", None), ("2-3", None), ("2-3", None)], 2),
        ([(str(n), 400 if n < 4 else 1024) for n in range(8)], 4),
        ([(str(n), None) for n in range(4)], 4),
        ([(None, None)], 1),
    ],
)
def test_as_many_threads_as_there_are_real_or_big_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: list[tuple[str | None, int | None]],
    wanted: int,
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(tmp_path))
    for number, (siblings, capacity) in enumerate(cores):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        if siblings is not None:
            (folder / "thread_siblings_list").write_text(f"{siblings}\n")
        if capacity is not None:
            (folder.parent / "cpu_capacity").write_text(f"{capacity}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(len(cores))))
    assert physical_cores() == wanted


def test_a_hybrid_model_has_a_cache_in_the_layers_with_attention_only(tmp_path: Path) -> None:
    """What LFM2 1.2B says of itself: six of its sixteen layers have eight heads each."""
    heads = [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]
    pairs: list[Pair] = [
        ("general.architecture", STRING, "lfm2"),
        ("lfm2.block_count", U32, 16),
        ("lfm2.embedding_length", U32, 2048),
        ("lfm2.attention.head_count", U32, 32),
        ("lfm2.attention.head_count_kv", ARRAY, (I32, heads)),
    ]
    (tmp_path / "m.gguf").write_bytes(header(pairs))
    values_of_a_token = 2 * 6 * 8 * 64
    assert cache_bytes(read_header(str(tmp_path / "m.gguf")), 100) == 100 * 2 * values_of_a_token
