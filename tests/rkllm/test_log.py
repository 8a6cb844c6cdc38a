"""The runtime's log lines, as users have reported them."""

from __future__ import annotations

import pytest

from rkllama.errors import DOCTOR
from rkllama.rkllm.log import cache_match, complaint, diagnose, notices, prompt_too_long, read_facts
from tests.cases import cases

GOOD = """\
I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588
I rkllm: loading rkllm model from /userdata/models/x.rkllm
I rkllm: rkllm-toolkit version: 1.2.2, max_context_limit: 16384, npu_core_num: 3, \
target_platform: RK3588, model_dtype: W8A8
I rkllm: Enabled cpus: [4, 5, 6, 7]
"""
START = GOOD.splitlines(keepends=True)[0]


def test_facts_of_a_good_start() -> None:
    known = read_facts(GOOD)
    assert (known.runtime, known.driver, known.platform) == ("1.2.3", "0.9.8", "RK3588")
    assert (known.toolkit, known.max_context_limit, known.core_num) == ("1.2.2", 16384, 3)
    assert (known.target_platform, known.dtype) == ("RK3588", "W8A8")
    assert diagnose(GOOD) is None
    assert notices(known) == ()


def test_of_several_loads_the_last_one_counts() -> None:
    again = GOOD.replace("16384", "4096").replace("W8A8", "W4A16_G128")
    known = read_facts(GOOD + again)
    assert (known.max_context_limit, known.dtype) == (4096, "W4A16_G128")


def test_an_unknown_toolkit_is_not_a_version() -> None:
    assert read_facts(GOOD.replace("1.2.2", "unknown")).toolkit is None


def test_an_empty_log_tells_nothing() -> None:
    known = read_facts("")
    assert all(getattr(known, name) is None for name in known.__slots__)
    assert diagnose("") is None


@cases(
    ("lines", "words"),
    [
        (
            "E RKNN: failed to malloc npu memory, size: 4059037696, flags: 0x2\nload model file error!",
            "enough memory for the model (4059037696 more bytes",
        ),
        ("E RKNN: failed to allocate handle, ret: -1, errno: 12", "not have enough memory"),
        ("E RKNN: [08:48:14.826] invalid rknn llm model magic\nrknn_init fail! ret=-1", "format"),
        (": invalid magic characters '\\ufffd'\n: error: failed to load model", "format"),
        ("E RKNN: [08:48:14.826] load model file error!", "could not read"),
        (
            "E rkllm: max_context[16384] must be less than the model's max_context_limit[4096]",
            "16384 tokens is above the model's limit of 4096",
        ),
        ("The model target_platform does not match!", "another SoC"),
        ("E rkllm: matmul(w8a8) run failed", "failed to compute"),
        ("E RKNN: failed to open rknpu module, need to insmod rknpu driver!", "driver"),
        ("E rkllm: Tokenizer is unavailable: model has no internal tokenizer", "tokenizer"),
        ("GGML_ASSERT(view_src == NULL || data_size == 0) failed", "GGML_ASSERT(view_src"),
        ("rknn_init fail! ret=-1", "could not be started"),
        ("failed to convert handle(29) to fd, errstr: Too many open files", "file descriptors"),
    ],
)
def test_known_complaints(lines: str, words: str) -> None:
    known = complaint(START + lines + "\n")
    assert known is not None
    assert words in known.message
    assert known.hint
    assert diagnose(START + lines) == known


def test_an_unknown_error_is_explained_by_the_versions() -> None:
    error = "E rkllm: something nobody has seen\n"
    newer = diagnose(GOOD.replace("toolkit version: 1.2.2", "toolkit version: 1.3.0") + error)
    assert newer is not None
    assert "1.3.0 is newer than the runtime 1.2.3" in newer.message
    other = diagnose(GOOD.replace("target_platform: RK3588", "target_platform: RK3576") + error)
    assert other is not None
    assert "made for RK3576, but this is RK3588" in other.message
    driver = "W rkllm: Your rknpu driver version is too low, please upgrade to 0.9.7.\n"
    old = diagnose(GOOD.replace("0.9.8", "0.8.2") + driver + error)
    assert old is not None
    assert "driver 0.8.2 is too old" in old.message
    said = diagnose(GOOD + error)
    assert said is not None
    assert said.message == 'the runtime said "E rkllm: something nobody has seen"'
    assert diagnose(GOOD) is None


def test_the_variants_of_a_soc_are_one_platform() -> None:
    log = GOOD.replace("target_platform: RK3588", "target_platform: RK3588S")
    known = diagnose(log + "E rkllm: something\n")
    assert known is not None
    assert "RK3588" not in known.message


@cases(
    ("lines", "words"),
    [
        (
            "E rkllm: The number of enabled CPUs must be greater than or equal to the number of NPU cores.",
            "fewer CPUs than the model uses NPU cores",
        ),
        ("E rkllm: The n_batch must be between 1 and 100, but got 0", "not 0"),
        (
            (
                "E RKNN: failed to convert handle(1020) to fd, errno: 24, errstr: Too many open files\n"
                "E RKNN: failed to malloc npu memory, size: 80, flags: 0x2"
            ),
            "file descriptors",
        ),
        ("E rkllm: invalid rkllm model!", "file format"),
        ("E rkllm: Platform error: must be either RK3588 or RK3576", "another SoC"),
        (
            "I rkllm: Your platform is unknown\nE rkllm: Platform error: must be either RK3588",
            "does not recognise this board's SoC",
        ),
        ("E rkllm: Query platform error!", "does not recognise"),
        ("E rkllm: Get device properties failed", "cannot reach the NPU's driver"),
        ("E RKNN: Device is not available", "cannot reach"),
        ("Warning: The model version is too old, please use the latest toolkit", "too old"),
        ("I RKNN: hw_version = -1", "cannot reach"),
        ("ggml_calloc: failed to allocate 123 bytes", "the board does not have enough memory"),
        (":0: fatal error", "the board does not have enough memory"),
        ("E RKNN: can not create weight memory for domain 0", "memory domain"),
        ("E RKNN: meet unkown shape, op name: matmul", "longer than what the model was made for"),
        (
            "E rkllm: The model target_platform does not match!\nThe model version is too old",
            "toolkit too old",
        ),
    ],
)
def test_a_failure_has_its_cause(lines: str, words: str) -> None:
    known = diagnose(START + lines + "\n")
    assert known is not None
    assert words in known.message
    assert known.hint


_TOO_LOW = "W rkllm: Your rknpu driver version is too low, please upgrade to 0.9.7.\n"


@cases(
    "lines",
    [
        "E RKNN: failed to open rknpu module, need to insmod rknpu driver!",
        "E rkllm: Get device properties failed",
        "I rkllm: Your platform is unknown\nE rkllm: Platform error: must be either RK3588",
        "E RKNN: failed to malloc npu memory, size: 4059037696, flags: 0x2",
        "E RKNN: failed to allocate handle, ret: -1, errno: 12",
        "E RKNN: can not create weight memory for domain 0",
        "ggml_calloc: failed to allocate 123 bytes",
        "failed to convert handle(29) to fd, errstr: Too many open files",
        "E rkllm: The number of enabled CPUs must be greater than or equal to the number of NPU cores.",
        "E rkllm: matmul(w8a8) run failed",
        f"{_TOO_LOW}E RKNN: failed to malloc npu memory, size: 80, flags: 0x2",
        f"{_TOO_LOW}E rkllm: Tokenizer is unavailable: model has no internal tokenizer",
        _TOO_LOW,
    ],
)
def test_where_the_board_is_to_blame_doctor_is_named_at_the_end(lines: str) -> None:
    known = diagnose(f"{START}{lines}\n")
    assert known is not None
    assert known.hint.endswith(DOCTOR)
    assert known.hint.count(DOCTOR) == 1


@pytest.mark.parametrize(
    "lines",
    [
        "E rkllm: invalid rkllm model!",
        "The model target_platform does not match!",
        "E rkllm: Tokenizer is unavailable: model has no internal tokenizer",
        "E rkllm: news",
    ],
)
def test_where_the_model_is_to_blame_doctor_is_not_named(lines: str) -> None:
    known = diagnose(f"{START}{lines}\n")
    assert known is not None
    assert DOCTOR not in known.hint


@pytest.mark.parametrize(
    "lines",
    [
        "I RKNN: hw_version = -1\nI rkllm: Your platform is lite",
        "W rkllm: Warning: The model version is too old, please use the latest toolkit",
    ],
)
def test_what_only_explains_a_failure_fails_no_load(lines: str) -> None:
    assert complaint(f"{START}{lines}\n") is None


def test_a_driver_that_is_too_old_is_named_beside_every_failure() -> None:
    driver = "W rkllm: Your rknpu driver version is too low, please upgrade to 0.9.7.\n"
    start = START.replace("0.9.8", "0.9.2") + driver
    for line in ("GGML_ASSERT(x) failed", "E rkllm: load model file error!", "E rkllm: news", ""):
        known = diagnose(f"{start}{line}\n")
        assert known is not None
        assert "rknpu driver 0.9.2 is too old" in known.message
        assert known.hint.count("rknpu driver 0.9.8 or newer") == 1


def test_the_last_line_that_looks_like_an_error_is_quoted_without_control_characters() -> None:
    known = diagnose(START + "E rkllm: first\nE RKNN: \x1b[31mlast\x07\nI rkllm: by the way\n")
    assert known is not None
    assert known.message == 'the runtime said "E RKNN:  [31mlast"'


def test_warnings_of_a_good_load_become_notices() -> None:
    driver = "W rkllm: Your rknpu driver version is too low, please upgrade to 0.9.7.\n"
    old, newer = notices(
        read_facts(
            GOOD.replace("0.9.8", "0.9.6").replace(
                "toolkit version: 1.2.2", "toolkit version: 1.3.0"
            )
            + driver
        )
    )
    assert "0.9.6 is older than 0.9.7" in old
    assert old.endswith(DOCTOR)
    assert "toolkit 1.3.0, newer than the runtime 1.2.3" in newer


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("prompt gather than max context (prompt: 1299 tokens, max context: 1020)", (1299, 1020)),
        ("prompt gather than max context, prompt: 40 tokens, max context: 32", (40, 32)),
        ("prompt greater than max context", (None, None)),
        ("load model file error!", None),
    ],
)
def test_a_prompt_that_does_not_fit(line: str, expected: object) -> None:
    assert prompt_too_long(f"E rkllm: {line}\n") == expected


def test_prefix_reuse_is_that_of_the_last_run() -> None:
    log = "I rkllm: kv cache matches 0 / 14 tokens\nI rkllm: kv cache matches 13 / 20 tokens\n"
    assert cache_match(log) == (13, 20)
    assert cache_match(GOOD) is None
