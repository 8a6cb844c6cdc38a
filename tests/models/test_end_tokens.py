"""The ids that end an answer in known families."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllama.chat.end_tokens import end_tokens
from rkllama.models.store import Store


@pytest.mark.parametrize(
    ("family", "first"),
    [
        ("qwen2.5", 151645),
        ("Qwen2", 151645),
        ("qwen3", 151645),
        ("qwen3-vl", 151645),
        ("deepseek-r1-distill-qwen", 151645),
        ("llama-3.2", 128009),
        ("tinyllama", 2),
        ("gemma-2", 107),
        ("gemma3", 106),
        ("phi-3.5", 32007),
        ("internlm2", 92542),
    ],
)
def test_known_families(family: str, first: int) -> None:
    assert end_tokens(family)[0] == first


@pytest.mark.parametrize("family", ["qwen3.5", "gemma3n", "gemma4", "phi-3-small", "glm", "", None])
def test_a_family_of_another_vocabulary_has_none(family: str | None) -> None:
    assert end_tokens(family) == ()


def test_a_model_without_files_beside_it_has_its_familys(tmp_path: Path) -> None:
    (tmp_path / "Qwen2.5-0.5B-Instruct-rk3588-w8a8.rkllm").write_bytes(b"x")
    assert Store(str(tmp_path)).resolve("Qwen2.5-0.5B-Instruct-rk3588-w8a8").eos_tokens == (
        151645,
        151643,
    )


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588.rkllm", 151645),
        ("DeepSeek-R1-Distill-Llama-8B/model.rkllm", 128009),
        ("Qwen3.5-2B-w8a8.rkllm", None),
        ("Qwen3.5-2B/model.rkllm", None),
        ("Phi-3-small-w8a8.rkllm", None),
        ("DeepSeek-R1-0528.rkllm", None),
    ],
)
def test_names_tell_more_than_the_family(path: str, first: int | None, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    store = Store(str(tmp_path))
    (info,) = store.list()
    assert (store.resolve(info.name).eos_tokens or (None,))[0] == first
