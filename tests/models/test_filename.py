"""Names as people give them; the numbered ones are real repositories and files."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.models.filename import (
    FAMILIES,
    ModelName,
    least_size,
    parse_model_name,
    parse_platform,
    parse_quantization,
)
from tests.cases import cases


def told(
    quantization: str | None = None,
    platform: str | None = None,
    parameter_size: str | None = None,
    family: str | None = None,
    *,
    context_length: int | None = None,
    toolkit: str | None = None,
    variant: str | None = None,
) -> ModelName:
    return ModelName(
        quantization, platform, parameter_size, family, context_length, toolkit, variant
    )


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("Qwen2.5-1.5B-Instruct-w8a8-rk3588.rkllm", 750_000_000),
        ("gemma-270m_W4A16_g64.rkllm", 67_500_000),
        ("Qwen2.5-1.5B-Instruct.rkllm", None),
        ("model-w8a8.rkllm", None),
        ("Qwen3-30B-A3B-w8a8.rkllm", None),
        ("Qwen2.5-1.5B-Instruct-w8a8.gguf", None),
    ],
)
def test_a_name_tells_how_large_the_file_is_at_least(name: str, least: int | None) -> None:
    assert least_size(name) == least


REAL = [
    (
        "Llama-3.2-1B-Instruct-rk3588-w8a8_g128-opt-0-hybrid-ratio-0.0.rkllm",
        "c01zaut/Llama-3.2-1B-Instruct-rk3588-1.1.1",
        told("w8a8_g128", "rk3588", "1B", "llama3", toolkit="1.1.1", variant="instruct"),
    ),
    (
        "Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-1-hybrid-ratio-1.0.rkllm",
        "c01zaut/Qwen2.5-1.5B-Instruct-rk3588-1.1.1",
        told("w8a8", "rk3588", "1.5B", "qwen2.5", toolkit="1.1.1", variant="instruct"),
    ),
    (
        "gemma-2-2b-it-rk3588-w8a8-opt-0-hybrid-ratio-0.5.rkllm",
        "c01zaut/gemma-2-2b-it-RK3588-1.1.4",
        told("w8a8", "rk3588", "2B", "gemma2", toolkit="1.1.4", variant="instruct"),
    ),
    (
        "Llama-3.1-8B-Instruct-rk3588-w8a8_g512-opt-0-hybrid-ratio-0.0.rkllm",
        "c01zaut/Llama-3.1-8B-Instruct-rk3588-1.1.1",
        told("w8a8_g512", "rk3588", "8B", "llama3", toolkit="1.1.1", variant="instruct"),
    ),
    (  # the platform stands in the repository's name only
        "Qwen2.5-1.5B-Instruct-w8a8-opt1-hybrid-ratio-1.0.rkllm",
        "c01zaut/Qwen2.5-1.5B-Instruct-RK3588-1.1.4",
        told("w8a8", "rk3588", "1.5B", "qwen2.5", toolkit="1.1.4", variant="instruct"),
    ),
    (  # the repository's id itself ends in .rkllm
        "deepseek-coder-6.7b-instruct_w8a8_g128_rk3588.rkllm",
        "jamescallander/deepseek-coder-6.7b-instruct_w8a8_g128_rk3588.rkllm",
        told("w8a8_g128", "rk3588", "6.7B", "deepseek-coder", variant="instruct"),
    ),
    (
        "DeepSeek-R1-Distill-Qwen-1.5B_w8a8_g128_rk3588.rkllm",
        "kautism/DeepSeek-R1-Distill-Qwen-1.5B_w8a8_g128_rk3588.rkllm",
        told("w8a8_g128", "rk3588", "1.5B", "deepseek-r1"),
    ),
    (  # _ is a decimal point
        "qwen-chat-1_8B.rkllm",
        "Pelochus/qwen-1_8B-rk3588",
        told(None, "rk3588", "1.8B", "qwen", variant="instruct"),
    ),
    (  # the sizes disagree: the file is right
        "qwen2-1.8B-rk3588.rkllm",
        "Pelochus/qwen2-1_5B-rk3588",
        told(None, "rk3588", "1.8B", "qwen2"),
    ),
    (
        "tinyllama-v1.0-1.1B-rk3588.rkllm",
        "Pelochus/tinyllama-v1-rk3588",
        told(None, "rk3588", "1.1B", "tinyllama"),
    ),
    (
        "Qwen-1_8B-Chat.rkllm",
        "FydeOS/Qwen-1_8B-Chat_rkLLM",
        told(None, None, "1.8B", "qwen", variant="instruct"),
    ),
    (  # quantisation and toolkit stand in the branch
        "meta-llama_Llama-3.2-3B-rk3588.rkllm",
        "macrae/Llama-3-2-3B-rk3588@w8a8_g512-toolkitv1.1.1",
        told("w8a8_g512", "rk3588", "3B", "llama3", toolkit="1.1.1"),
    ),
    (  # v1.0 is not the toolkit
        "TinyLlama-1.1B-Chat-v1.0-rk3588-w8a8-opt-0-hybrid-ratio-0.5.rkllm",
        "punchnox/Tinnyllama-1.1B-rk3588-rkllm-1.1.4",
        told("w8a8", "rk3588", "1.1B", "tinyllama", toolkit="1.1.4", variant="instruct"),
    ),
    (  # the context stands in the repository's name only
        "Qwen3-8B-rk3588-w8a8_g512-opt-1-hybrid-ratio-1.0.rkllm",
        "dulimov/Qwen3-8B-rk3588-1.2.1-unsloth-16k",
        told("w8a8_g512", "rk3588", "8B", "qwen3", context_length=16384, toolkit="1.2.1"),
    ),
    (
        "gemma-3-4b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm",
        "datakurre/gemma-3-4b-it-rk3588-1.2.0",
        told("w8a8", "rk3588", "4B", "gemma3", toolkit="1.2.0", variant="instruct"),
    ),
    (
        "Qwen3-1.7B-w8a8-rk3588.rkllm",
        "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3",
        told("w8a8", "rk3588", "1.7B", "qwen3", toolkit="1.2.3"),
    ),
    (  # 4k is a context, and no size is told
        "Phi-3-Mini-4K-Instruct-w8a8-rk3588.rkllm",
        "GatekeeperZA/Phi-3-mini-4k-instruct-w8a8",
        told("w8a8", "rk3588", None, "phi3", context_length=4096, variant="instruct"),
    ),
    (
        "DeepSeek-R1-Distill-Qwen-1.5B_W4A16_G128_RK3576.rkllm",
        "JiahaoLi/DeepSeek-R1-Distill-Qwen-RK3576",
        told("w4a16_g128", "rk3576", "1.5B", "deepseek-r1"),
    ),
    (
        "qwen3-vl-2b-instruct_w4a16_g128_rk3576.rkllm",
        "JiahaoLi/Qwen3-VL-RK3576",
        told("w4a16_g128", "rk3576", "2B", "qwen3-vl", variant="instruct"),
    ),
    (
        "Qwen3-4B-Base-rk3576-w4a16-grq-v1.2.3-RKLLM.rkllm",
        None,
        told("w4a16", "rk3576", "4B", "qwen3", toolkit="1.2.3", variant="base"),
    ),
    (
        "qwen2.5-vl-3b-w8a8_level1_rk3588.rkllm",
        None,
        told("w8a8", "rk3588", "3B", "qwen2.5-vl"),
    ),
    (
        "model.rkllm",
        "VRxiaojie/Qwen2.5-3B-Instruct-RKLLM1.1.4",
        told(None, None, "3B", "qwen2.5", toolkit="1.1.4", variant="instruct"),
    ),
    ("model.rkllm", "3ib0n/Qwen2-VL-2B-rkllm", told(None, None, "2B", "qwen2-vl")),
    ("model.rkllm", "happyme531/InternVL3_5-2B-RKLLM", told(None, None, "2B", "internvl")),
]


@cases(("file", "repo", "expected"), REAL)
def test_real_names(file: str, repo: str | None, expected: ModelName) -> None:
    assert parse_model_name(file, repo) == expected


@cases(("file", "repo", "expected"), REAL)
def test_case_does_not_matter(file: str, repo: str | None, expected: ModelName) -> None:
    assert parse_model_name(file.upper(), repo and repo.upper()) == expected
    assert parse_model_name(file.lower(), repo and repo.lower()) == expected


@cases(
    ("file", "expected"),
    [
        ("Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf", ("Q4_K_M", "30B-A3B", "qwen3")),
        ("qwen3.6-35BA3B-w4a16.rkllm", ("w4a16", "35B-A3B", "qwen3")),
        ("gemma-3n-E2B-it-UD-Q4_K_XL.gguf", ("Q4_K_XL", "E2B", "gemma3n")),
        ("Mixtral-8x7B-v0.1.IQ4_XS.gguf", ("IQ4_XS", "8x7B", "mistral")),
        ("gemma-2b-it.fp16.gguf", ("F16", "2B", "gemma")),
        ("gemma-7b.gguf", (None, "7B", "gemma")),
        ("open_llama_3b-q8_0.gguf", ("Q8_0", "3B", "llama")),
        ("llama-2-7b-chat.Q5_K_S.gguf", ("Q5_K_S", "7B", "llama2")),
        ("SmolVLM-256M-Instruct.rkllm", (None, "256M", "smolvlm")),
        ("SmolLM2-135M-bf16.gguf", ("BF16", "135M", "smollm2")),
        ("internlm2_5-1_8b-chat-w8a8.rkllm", ("w8a8", "1.8B", "internlm2")),
        ("MiniCPM-V-2_6_w8a8_rk3588.rkllm", ("w8a8", None, "minicpm-v")),
        ("MiniCPM-V-4_5-rk3588.rkllm", (None, None, "minicpm-v")),
        ("MiniCPM-V-4_w8a8_rk3588.rkllm", ("w8a8", None, "minicpm-v4")),
        ("MiniCPM-o-2_6.rkllm", (None, None, "minicpm-v")),
        ("Janus-Pro-1B_w8a8_rk3588.rkllm", ("w8a8", "1B", "janus")),
        ("deepseekocr_w8a8_rk3588.rkllm", ("w8a8", None, "deepseek-ocr")),
        ("MiniCPM3-4B.rkllm", (None, "4B", "minicpm3")),
        ("MiniCPM4-0.5B.rkllm", (None, "0.5B", "minicpm4")),
        ("MiniCPM-2B-sft.rkllm", (None, "2B", "minicpm")),
        ("Phi-4-mini-instruct.rkllm", (None, None, "phi4-mini")),
        ("chatglm3-6b-w8a8.rkllm", ("w8a8", "6B", "chatglm3")),
        ("Phi-3.5-mini-instruct.rkllm", (None, None, "phi3")),
        ("Qwen1.5-0.5B-Chat.rkllm", (None, "0.5B", "qwen1.5")),
        ("bge-small-en-v1.5-f16.gguf", ("F16", None, "bert")),
        ("stories15M-q4_0.gguf", ("Q4_0", None, None)),
        ("model.rkllm", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_other_names(file: str, expected: tuple[str | None, ...]) -> None:
    name = parse_model_name(file)
    assert (name.quantization, name.parameter_size, name.family) == expected


def test_a_date_is_no_context_and_one_million_is_one() -> None:
    assert parse_model_name("Qwen3-4B-Instruct-2507.rkllm").context_length is None
    assert parse_model_name("Qwen2.5-7B-Instruct-1M.gguf").context_length == 1 << 20
    assert parse_model_name("Qwen2.5-7B-ctx8192.rkllm").context_length == 8192


def test_later_repositories_only_complete_the_earlier_ones() -> None:
    name = parse_model_name("a-w8a8.rkllm", "Qwen2.5-0.5B", None, "x/Llama-3.2-1B-rk3576")
    assert name == told("w8a8", "rk3576", "0.5B", "qwen2.5")


def test_the_rk3588s_runs_what_the_rk3588_runs() -> None:
    assert parse_platform("Qwen-RK3588S-w8a8") == "rk3588"
    assert parse_platform("RK3582") == parse_platform("RK3583") == "rk3588"
    assert parse_platform("x-rv1126b") == "rv1126b"
    assert parse_platform("ark3588") is None
    assert parse_quantization("Qwen3-Q6_K.gguf") == "Q6_K"


@given(st.text(max_size=200), st.none() | st.text(max_size=200))
def test_any_text_is_a_name(file: str, repo: str | None) -> None:
    name = parse_model_name(file, repo)
    assert name.family is None or name.family in FAMILIES


def test_a_long_name_takes_no_long_time() -> None:
    # Linear patterns: this would take minutes with one that backtracks.
    for part in ("w8a8_g", "1_", "-1.1", "q4_k_", "rk3588", "v1.1.1"):
        parse_model_name(part * 20_000)


@pytest.mark.integration
def test_the_import_is_lean() -> None:
    """`rkllama list` imports it: a dataclass or pathlib would double that command's start."""
    code = (
        "import sys; before = set(sys.modules); import rkllama.models.filename;"
        "print(*sorted({'dataclasses', 'inspect', 'pathlib', 'typing'} & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
