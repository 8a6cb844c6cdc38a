"""The virtual NPU is stern: wrong layouts, wrong values and scripted faults never pass unnoticed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.virtual_npu import VERSIONS, directive, driver, library, write_model
from tests.virtual_npu.caller import ERROR, NORMAL, Caller, flush

pytestmark = pytest.mark.integration

LAYOUTS = ("1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0")
ALIKE = {"1.2.0", "1.2.1b1"}  # these two differ in their images only


@pytest.fixture(autouse=True)
def _flushed() -> Iterator[None]:
    yield
    flush()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model.rkllm")


def drive(caller: str, version: str, model: str, prompt: str = "hello") -> tuple[int, str, str]:
    """Run the C driver of one release on the library of another, as a process of its own."""
    run = subprocess.run(
        [driver(caller), library(version), model, prompt],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


# --- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_compiles_and_answers_its_own_caller(version: str, model: str) -> None:
    code, out, err = drive(version, version, model, "hello there")
    assert (code, err) == (0, "")
    assert out.endswith("hello therefinished\n")


DIFFERENT = [(a, b) for a in LAYOUTS for b in LAYOUTS if a != b and {a, b} != ALIKE]


@pytest.mark.parametrize(("caller", "version"), DIFFERENT)
def test_a_wrong_layout_never_passes(caller: str, version: str, model: str) -> None:
    code, out, err = drive(caller, version, model)
    assert code != 0
    assert "finished" not in out
    assert "vnpu: bad input: " in err


def test_versions_stand_in_the_file() -> None:
    assert b"rknn llm lib version: 1.1.4 " in Path(library("1.1.4")).read_bytes()
    assert b"RKLLM SDK (version: 1.3.0 | target: Linux" in Path(library("1.3.0")).read_bytes()
    other = library("1.2.3", reported="1.2.9")
    assert b"RKLLM SDK (version: 1.2.9 |" in Path(other).read_bytes()
    assert other != library("1.2.3")


@pytest.mark.parametrize("version", LAYOUTS)
def test_defaults_are_the_documented_ones(version: str, model: str) -> None:
    with Caller(model, version) as npu:
        param = npu.library.rkllm_createDefaultParam()
        assert [round(value, 5) for value in (param.top_p, param.temperature)] == [0.9, 0.8]
        assert round(param.repeat_penalty, 5) == 1.1
        assert (param.top_k, param.mirostat, param.mirostat_tau) == (40, 0, 5.0)
        assert not any(param.extend_param.reserved)


# --- loading -----------------------------------------------------------------------------------


def test_the_log_of_a_good_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "m.rkllm", max_context=4096, dtype="W4A16", driver="0.9.3")
    with Caller(path):
        flush()
    assert capfd.readouterr().out.splitlines() == [
        "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.3, platform: RK3588",
        "W rkllm: Your rknpu driver version is too low, please upgrade to 0.9.7.",
        f"I rkllm: loading rkllm model from {path}",
        (
            "I rkllm: rkllm-toolkit version: 1.2.3, max_context_limit: 4096, npu_core_num: 3, "
            "target_platform: RK3588, model_dtype: W4A16"
        ),
        "I rkllm: Enabled cpus: [4, 5, 6, 7]",
    ]


@pytest.mark.parametrize(
    ("config", "result", "says"),
    [
        ({"init_error": 1, "log": "malloc|load"}, -1, "failed to malloc npu memory, size: 405"),
        ({"init_null": 1, "log": "malloc"}, 0, "failed to malloc npu memory"),
        ({"toolkit": "1.3.0"}, -1, "toolkit 1.3.0, which is newer"),
        ({"board": "RK3576"}, -1, "target_platform does not match"),
        ({"max_context": 256}, -1, "max_context_len[512] must be less than"),
        ({"magic_bad": 2}, -1, "invalid rknn llm model magic"),
        ({"colour": "red"}, -1, "bad input: model key"),
        ({"tokens": "many"}, -1, "bad input: model key tokens=many"),
        ({"mode": "sing"}, -1, "bad input: model value sing"),
    ],
)
def test_a_start_that_fails(
    config: dict[str, Any],
    result: int,
    says: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", **config)) as npu:
        flush()
        assert (npu.result, npu.handle.value) == (result, None)
    assert says in "".join(capfd.readouterr())


def test_a_missing_file_and_a_foreign_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Caller(str(tmp_path / "none.rkllm")) as npu:
        assert npu.result == -1
    foreign = tmp_path / "foreign.rkllm"
    foreign.write_bytes(b"GGUF and more")
    with Caller(str(foreign)) as npu:
        flush()
        assert npu.result == 0
        assert npu.handle
    assert "invalid rknn llm model magic" in capfd.readouterr().out
    code, _, _ = drive("1.2.3", "1.2.3", str(foreign))
    assert code == -6  # the handle of such a file dies at its first run


def test_a_load_takes_its_time(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", load_ms=60)
    start = time.monotonic()
    with Caller(path):
        assert time.monotonic() - start >= 0.06


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_context_len": 0},
        {"max_new_tokens": 0},
        {"max_new_tokens": -2},
        {"top_k": -5},
        {"top_p": 1.5},
        {"temperature": -1.0},
        {"repeat_penalty": 0.0},
        {"frequency_penalty": 3.0},
        {"presence_penalty": -3.0},
        {"mirostat": 3},
        {"mirostat_eta": 2.0},
        {"n_keep": -2},
        {"enabled_cpus_num": 3},
        {"n_batch": 0},
        {"base_domain_id": -1},
    ],
)
def test_a_parameter_out_of_range_is_refused(
    parameters: dict[str, Any], model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Caller(model, **parameters) as npu:
        assert (npu.result, npu.handle.value) == (-1, None)
    assert re.search(rf"vnpu: bad input: .*{next(iter(parameters))}", capfd.readouterr().err)


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ({"segv_at": 2}, -11, "one two"),
        ({"segv_at": 0}, -11, ""),
        ({"abort_at": 1}, -6, "one"),
        ({"exit_at": 1, "exit_code": 7}, 7, "one"),
        ({"error_at": 1}, 3, "one"),
        ({"run_error": 1}, 3, ""),
        ({"run_fail": 1}, 3, ""),
    ],
)
def test_faults_in_a_run(fault: dict[str, int], code: int, text: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_model(tmp_path / "m.rkllm", trace=trace, trace_tokens=1)
    got, out, _ = drive("1.2.3", "1.2.3", path, "one two three " + directive(**fault))
    assert got == code
    assert "finished" not in out
    if code == 3:  # a process that lived had its output flushed
        assert out.endswith(text)


@pytest.mark.parametrize(
    ("fault", "code"), [({"crash_in_init": 1}, -11), ({"init_error": 1}, 3), ({"init_null": 1}, 3)]
)
def test_faults_in_init(fault: dict[str, int], code: int, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", **fault)
    assert drive("1.2.3", "1.2.3", path)[0] == code


@pytest.mark.parametrize("fault", [{"hang_at": 0}, {"hang_at": 2}, {"hang_in_init": 1}])
def test_a_hang_does_not_end(fault: dict[str, int], tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", **fault)
    command = [driver("1.2.3"), library("1.2.3"), path, "one two three"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=0.3, check=False)


def test_an_error_state_in_the_middle(model: str) -> None:
    with Caller(model) as npu:
        answer = npu.run("one two three " + directive(error_at=2))
        assert [piece.state for piece in answer.pieces] == [NORMAL, NORMAL, ERROR]
        assert npu.run("one two three").text == "one two three"


def test_bad_runs_are_refused(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model) as npu:
        assert npu.run("").result == -1
        assert npu.run(npu.input("x", role="assistant")).result == -1
        assert (
            npu.library.rkllm_run(None, npu.input("x"), npu.structs["RKLLMInferParam"](), 0) == -1
        )
        npu.on_piece = lambda piece, _: (
            npu.library.rkllm_run(npu.handle, npu._input, npu._infer, None) - -1
        )
        assert npu.run("x").text == "x"
    said = capfd.readouterr().err
    for what in ("prompt_input is empty", "neither user nor tool", "handle is NULL", "in progress"):
        assert what in said


REJECTED = """
import ctypes, sys
from tests.virtual_npu.caller import Caller
npu = Caller(sys.argv[1], sys.argv[2])
{}
"""


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("npu.call('set_chat_template', b'', None, b'')", "prompt_prefix is NULL"),
        ("npu.handle.value += 8; npu.call('abort')", "is no handle"),
        ("npu.call('clear_kv_cache', 7, None, None)", "keep_system_prompt=7"),
        ("npu.run(npu.structs['RKLLMInput'](role=b'user', input_type=9))", "input_type=9"),
        ("npu.run(npu.structs['RKLLMInput'](prompt_input=b'x'))", "role is NULL"),
        ("npu.run('x', keep_history=2)", "keep_history=2"),
        ("npu.run('x', mode=3)", "mode=3"),
        ("npu.on_piece = lambda piece, _: 3\nnpu.run('x')", "callback returned 3"),
        ("npu.on_piece = lambda piece, _: 2\nnpu.run('x')", "callback returned 2"),
        ("Caller(sys.argv[1], top_k=1109393408)", "top_k=1109393408: a float"),
        ("Caller(sys.argv[1], temperature=float('nan'))", "temperature is NaN"),
        ("Caller(sys.argv[1], top_p=5.6e-44)", "an int or pointer where a float"),
        ("Caller(sys.argv[1], enabled_cpus_mask=0)", "enabled_cpus_mask=0x0"),
        ("Caller(sys.argv[1], embed_flash=3)", "embed_flash=3"),
        ("Caller(sys.argv[1], img_start=None)", "img_start is NULL"),
    ],
)
def test_what_only_a_wrong_layout_gives_kills(code: str, says: str, model: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", REJECTED.format(code), model, "1.2.3"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == -6, run.stderr
    assert says in run.stderr
