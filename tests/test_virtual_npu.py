"""The virtual NPU keeps its word: what other tests build on is proved here by a bare caller."""

from __future__ import annotations

import ctypes
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.virtual_npu import VERSIONS, directive, driver, library, read_trace, write_model
from tests.virtual_npu.caller import (
    ERROR,
    FINISH,
    NORMAL,
    WAITING,
    Caller,
    Piece,
    flush,
)

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


# --- answers -----------------------------------------------------------------------------------

TEMPLATED = [
    (
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nold<|im_end|>\n<|im_start|>assistant\n"
        "so<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    ),
    (
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "<s>[INST] {} [/INST]",
    "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "<|user|>\n{}</s>\n<|assistant|>\n",
    "<｜User｜>{}<｜Assistant｜><think>\n",
    "<用户>{}<AI>",
    "{}",
]


@pytest.mark.parametrize("template", TEMPLATED)
def test_echo_is_the_last_user_message(template: str, model: str) -> None:
    said = "How many Äpfel, 123456 or two?\nSay!"
    with Caller(model) as npu:
        assert npu.raw().run(template.format(said)).text == said
        assert npu.run(template.format(said + directive(mode="echo"))).text == said


@pytest.mark.parametrize("version", LAYOUTS)
def test_a_scripted_reply(version: str, model: str) -> None:
    reply = (
        '<think>\nhm\n</think>\n\n{"a": [1; 2]} \\ "é" 中 \U0001f600 <tool_call>\n{}</tool_call>'
    )
    with Caller(model, version) as npu:
        answer = npu.run(directive(tokens=3) + directive(reply=reply))
        assert (answer.result, answer.text, answer.last.state) == (0, reply, FINISH)
        assert npu.run("again").text == "again"


def test_a_count_of_tokens(model: str) -> None:
    with Caller(model) as npu:
        answer = npu.run(directive(tokens=150))
        assert len(answer.given) == 150
        assert answer.last.generate_tokens == 150
        assert npu.run(directive(tokens=150)).text == answer.text
        assert len({piece.token for piece in answer.given}) > 60
        nothing = npu.run(directive(tokens=0))
        assert [piece.state for piece in nothing.pieces] == [FINISH]


def test_the_model_says_what_it_was_given(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", mode="params")
    with Caller(path, "1.3.0", top_k=7, max_new_tokens=200) as npu:
        seen = json.loads(npu.run("x").text)
        assert (seen["top_k"], seen["temperature"], seen["max_new_tokens"]) == (7, 0.8, 200)
        assert (seen["template"], seen["enable_thinking"]) == ("own", True)
        sampling = npu.structs["RKLLMSamplingParam"](3, 0.5, 0, 1, 0, 0, 0, 5, 0.1)
        answer = npu.raw().run("x", sampling_params=ctypes.pointer(sampling), max_new_tokens=300)
        seen = json.loads(answer.text)
        assert (seen["top_k"], seen["top_p"], seen["temperature"]) == (3, 0.5, 0)
        assert (seen["max_new_tokens"], seen["template"]) == (300, "raw")
    with Caller(path, "1.1.4") as old:
        assert json.loads(old.run("x").text)["role"] is None


def test_sampling_shapes_what_is_drawn(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", random=40, seed=5)
    texts: dict[str, str] = {}
    ways: dict[str, dict[str, Any]] = {
        "a": {},
        "again": {},
        "cold": {"temperature": 0.0},
        "one": {"top_k": 1},
        "hot": {"temperature": 5.0, "top_k": 0, "top_p": 1.0},
    }
    for name, parameters in ways.items():
        with Caller(path, **parameters) as npu:
            texts[name] = npu.run("x").text
            assert npu.run("x").text == texts[name]
    assert texts["a"] == texts["again"] != texts["cold"]
    assert texts["cold"] == texts["one"] != texts["hot"]
    with Caller(write_model(path, random=40)) as npu:
        assert npu.run("x").text != npu.run("x").text


@pytest.mark.parametrize("kind", ["bytes", "held", "none"])
def test_characters_split_over_tokens(kind: str, model: str) -> None:
    with Caller(model) as npu:
        pieces = npu.run(directive(reply="aé中\U0001f600z", split=1, waiting=kind)).given
    states = [piece.state for piece in pieces]
    texts = [piece.text for piece in pieces]
    assert b"".join(text or b"" for text in texts).decode() == "aé中\U0001f600z"
    assert len(pieces) == 1 + 2 + 3 + 4 + 1
    incomplete = [False, True, False, True, True, False, True, True, True, False, False]
    assert states == [WAITING if wait and kind != "none" else NORMAL for wait in incomplete]
    if kind == "held":
        assert [text for text in texts if text] == [
            character.encode() for character in "aé中\U0001f600z"
        ]


def test_an_answer_can_end_inside_a_character(model: str) -> None:
    with Caller(model, max_new_tokens=2) as npu:
        assert [p.text for p in npu.run(directive(reply="\U0001f600")).given] == [b"\xf0", b"\x9f"]


# --- the end of an answer ----------------------------------------------------------------------


def test_special_tokens_are_skipped_or_shown(model: str) -> None:
    reply = directive(reply="a<|special|><think>b")
    with Caller(model) as npu:
        assert npu.run(reply).text == "a<think>b"
    with Caller(model, skip_special_token=False) as npu:
        answer = npu.run(reply)
        assert answer.text == "a<|special|><think>b<|im_end|>"
        assert answer.last.generate_tokens == 4


def test_the_end_of_sequence_token_ends_unless_ignored(model: str) -> None:
    reply = directive(reply="one<|im_end|>two")
    with Caller(model) as npu:
        assert npu.run(reply).text == "one"
    with Caller(model, "1.3.0", ignore_eos_token=True, max_new_tokens=9) as npu:
        answer = npu.run(reply)
        assert answer.text.startswith("onetwo")
        assert len(answer.given) == 9


def test_a_runtime_that_does_not_stop_by_itself(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", reply="ab", no_eos=1, eos_id=7, eos="</s>")
    with Caller(path, "1.3.0", max_new_tokens=-1) as npu:
        npu.on_piece = lambda piece, _: npu.call("abort") if len(npu._pieces) == 2000 else 0
        answer = npu.run("x")
        assert [piece.token for piece in answer.given][1] == 7
        assert (len(answer.given), answer.last.state) == (2000, FINISH)


def test_max_new_tokens(model: str) -> None:
    with Caller(model, max_new_tokens=5) as npu:
        answer = npu.run(directive(tokens=50))
        assert (len(answer.given), answer.last.generate_tokens) == (5, 5)
        assert npu.cached() == 16 + 4  # the fifth was drawn, but never computed
        assert answer.last.prefill_tokens == 16


def test_an_over_long_prompt_is_an_error(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model, max_context_len=64) as npu:
        answer = npu.raw().run("word " * 64)
        flush()
        assert (answer.result, [piece.state for piece in answer.pieces]) == (-1, [ERROR])
        assert npu.run("word").result == 0
    assert re.search(r"prompt: \d+ tokens, max context: 64", capfd.readouterr().out)


def test_a_full_context_is_shifted(model: str) -> None:
    with Caller(model, max_context_len=64, max_new_tokens=-1, n_keep=8) as npu:
        answer = npu.raw().run("a b c d " + directive(tokens=500))
        assert len(answer.given) == 500
        assert 8 < npu.cached() <= 64
        assert npu.run("a b c d again").last.prefill_tokens == 1  # the first ones were kept


# --- the KV cache ------------------------------------------------------------------------------


def chatml(turns: list[str]) -> str:
    roles = ("user", "assistant")
    told = (f"<|im_start|>{roles[i % 2]}\n{t}<|im_end|>\n" for i, t in enumerate(turns))
    return "".join(told) + "<|im_start|>assistant\n"


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0"])
def test_an_appended_prompt_costs_its_new_tokens_only(
    version: str, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    turns: list[str] = []
    with Caller(model, version, max_context_len=4096) as npu:
        npu.raw()
        cached = 0
        for turn in range(10):
            turns.append(f"Äpfel and {turn} more of them, unbelievably\U0001f600")
            answer = npu.run(chatml(turns))
            new = answer.last.prefill_tokens or 0
            assert answer.text == turns[-1]
            assert turn == 0 or new == npu.cached() - cached - len(answer.given)
            assert turn == 0 or new <= 30
            turns.append(answer.text)
            cached = npu.cached()
        flush()
        matches = re.findall(r"kv cache matches (\d+) / (\d+) tokens", capfd.readouterr().out)
        assert [int(match) > 0 for match, _ in matches] == [False, *[True] * 9]
        assert int(matches[-1][1]) - int(matches[-1][0]) == new


def test_the_same_prompt_costs_one_token(model: str) -> None:
    with Caller(model) as npu:
        first = npu.raw().run("one two three").last
        assert (first.prefill_tokens, npu.run("one two three").last.prefill_tokens) == (3, 1)
        assert npu.run("one two four").last.prefill_tokens == 1
        assert npu.run("zero two four").last.prefill_tokens == 3


def test_the_oldest_runtime_has_no_reuse(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model, "1.1.4") as npu:
        npu.run("one two three")
        npu.run("one two three")
        flush()
    assert "kv cache" not in capfd.readouterr().out


def test_clearing_the_cache(model: str) -> None:
    with Caller(model) as npu:
        assert npu.call("set_chat_template", b"You are it.", b"<u>", b"<a>") == 0
        npu.run("hello")
        everything = npu.cached()
        assert npu.call("clear_kv_cache", 1, None, None) == 0
        assert 0 < npu.cached() < everything
        assert npu.call("clear_kv_cache", 0, None, None) == 0
        assert npu.cached() == 0
        npu.run("hello")
        at, to = ctypes.c_int(1), ctypes.c_int(3)
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), ctypes.byref(to)) == 0
        assert npu.cached() == everything - 2
        to.value = 1000
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), ctypes.byref(to)) == -1
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), None) == -1
        npu.raw()
        assert npu.cached() == 0


def test_kept_history_stays_until_it_is_cleared(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Caller(write_model(tmp_path / "m.rkllm", trace=trace)) as npu:
        npu.run("first", keep_history=1)
        before = npu.cached()
        second = npu.run("second", keep_history=1)
        assert npu.cached() == before + (second.last.prefill_tokens or 0) + len(second.given)
        npu.run("third")
        npu.call("clear_kv_cache", 0, None, None)
        npu.run("fourth")
    runs = [event for event in read_trace(trace) if event["event"] == "run"]
    assert [run["history"] for run in runs] == [True, True, True, False]
    assert runs[2]["matched"] > before
    assert runs[3]["matched"] == 0


def test_prompt_cache_files(model: str, tmp_path: Path) -> None:
    path, prompt = tmp_path / "system.cache", "Ünique system words, 17 of them \U0001f600 "
    with Caller(model) as npu:
        cache = npu.structs["RKLLMPromptCacheParam"](1, str(path).encode())
        whole = npu.raw().run(prompt, prompt_cache_params=ctypes.pointer(cache)).last
    with Caller(model) as npu:
        assert npu.call("load_prompt_cache", str(path).encode()) == 0
        assert npu.cached() == whole.prefill_tokens
        assert npu.call("load_prompt_cache", str(path).encode()) == -1  # not before a release
        assert npu.call("release_prompt_cache") == 0
        assert npu.call("release_prompt_cache") == -1
        assert npu.call("load_prompt_cache", model.encode()) == -1
        npu.raw()
        assert npu.call("load_prompt_cache", str(path).encode()) == 0
        assert npu.run(prompt + "more").last.prefill_tokens == 1


# --- time, abort, threads ----------------------------------------------------------------------


def test_tokens_come_when_they_are_due(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_model(
        tmp_path / "m.rkllm", prefill_us=5000, token_us=4000, trace=trace, trace_tokens=1
    )
    with Caller(path) as npu:
        perf: list[Any] = []

        def on_piece(piece: Piece, results: Any) -> int:
            time.sleep(0.002)  # a slow callback is caught up with
            if piece.state == FINISH:
                perf.append(type(results[0].perf).from_buffer_copy(results[0].perf))
            return 0

        npu.on_piece = on_piece
        start = time.monotonic_ns()
        npu.raw().run("a b c d " + directive(tokens=25))
        took = time.monotonic_ns() - start
    events = {event["event"]: event for event in read_trace(trace)}
    run, tokens = events["run"], events["tokens"]["ns"]
    prefill = run["evaluated"] * 5_000_000
    assert start <= run["ns"] <= run["ns"] + prefill <= tokens[0]
    assert len(tokens) == 25
    for number, at in enumerate(tokens, 1):
        assert at >= run["ns"] + prefill + number * 4_000_000
    assert took <= prefill + 25 * 4_000_000 + 500_000_000
    assert perf[0].prefill_tokens == run["evaluated"]
    assert perf[0].prefill_time_ms >= prefill / 1e6
    assert perf[0].generate_time_ms >= 25 * 4 - 1
    assert perf[0].memory_usage_mb > 0


def test_abort_takes_effect_at_the_next_token(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Caller(write_model(tmp_path / "m.rkllm", token_us=30_000, trace=trace)) as npu:
        npu.on_piece = lambda piece, _: npu.call("abort") if len(npu._pieces) == 3 else 0
        answer = npu.run(directive(tokens=100))
        assert (answer.result, len(answer.given), answer.last.state) == (0, 3, FINISH)
        assert npu.call("abort") == -1  # nothing runs
        npu.on_piece = lambda piece, _: 0
        assert npu.run("whole").text == "whole"
    events = {event["event"]: event for event in read_trace(trace)[:4]}
    assert events["finish"]["reason"] == "abort"
    assert events["finish"]["ns"] - events["abort"]["ns"] >= 15_000_000


def test_abort_in_prefill_takes_effect_at_its_end(tmp_path: Path) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", prefill_us=100_000)) as npu:
        timer = threading.Timer(0.02, npu.call, ("abort",))
        timer.start()
        start = time.monotonic()
        answer = npu.raw().run("one two three")
        assert time.monotonic() - start >= 0.3
        timer.join()
        assert [piece.state for piece in answer.pieces] == [FINISH]
        assert npu.cached() == 3  # the prompt was computed all the same


def test_abort_without_a_finish(tmp_path: Path) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", abort_finish=0)) as npu:
        npu.on_piece = lambda piece, _: npu.call("abort")
        answer = npu.run("one two")
        assert (answer.result, len(answer.pieces)) == (0, 1)


@pytest.mark.parametrize(("version", "running"), [("1.1.4", 0), ("1.2.3", 0), ("1.3.0", 1)])
def test_a_run_in_a_thread_of_its_own(version: str, running: int, model: str) -> None:
    seen: list[Any] = []
    done = threading.Event()
    with Caller(model, version) as npu:

        def on_piece(piece: Piece, results: Any) -> int:
            seen.append((threading.get_ident(), npu.call("is_running"), npu.call("destroy")))
            if piece.state == FINISH:
                done.set()
            return 0

        npu.on_piece = on_piece
        answer = npu.run("one two", sync=False)
        assert answer.result == 0
        assert done.wait(5)
        assert answer.text == "one two"
        assert {thread for thread, _, _ in seen} != {threading.get_ident()}
        assert {state for _, state, _ in seen} == {running}
        assert {result for _, _, result in seen} == {-1}  # not while it runs
        assert npu.run("three").text == "three"
        assert npu.call("is_running") == 1 - running


# --- what else the interface has ---------------------------------------------------------------


def test_templates_roles_and_tools(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_model(tmp_path / "t.rkllm", trace=trace, trace_prompt=1, think_template=1)
    with Caller(path) as npu:
        npu.run(npu.input("hi", think=False))
        assert npu.call("set_function_tools", b"Sys", b'[{"name": "f"}]', b"<tool_response>") == 0
        npu.run("hi")
        npu.run(npu.input("42", role="tool"))
        assert npu.call("set_function_tools", b"Sys", b"no JSON", b"x") == -1
        npu.call("set_chat_template", b"S:", b"U:", b"A:")
        npu.run(npu.input("hi", think=False))
    prompts = [event["prompt"] for event in read_trace(trace) if event["event"] == "run"]
    own = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert prompts[0] == own + "<think>\n\n</think>\n\n"
    assert prompts[1].startswith('<|im_start|>system\nSys\n<tools>\n[{"name": "f"}]\n</tools>')
    assert "<tool_response>\n42\n" in prompts[2]
    assert prompts[3] == "S:U:hiA:"


def test_token_input(model: str) -> None:
    with Caller(model) as npu:
        tokens = [piece.token for piece in npu.raw().run("one two, three").given]
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        made = npu.structs["RKLLMInput"](role=b"user", input_type=1)
        made.token_input = npu.structs["RKLLMTokenInput"](ids, len(tokens))
        answer = npu.run(made)
        assert (answer.text, answer.last.prefill_tokens) == ("one two, three", 1)
        ids[1] = 1 << 25
        assert npu.run(made).result == -1


@pytest.mark.parametrize(("version", "again"), [("1.2.1", 3), ("1.2.3", 1)])
def test_embedding_input_reuses_the_cache_from_1_2_3(
    version: str, again: int, tmp_path: Path
) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", reply="yes", embd_size=8), version) as npu:
        rows = (ctypes.c_float * 24)(*[number / 8 for number in range(24)])
        made = npu.structs["RKLLMInput"](role=b"user", input_type=2)
        made.embed_input = npu.structs["RKLLMEmbedInput"](rows, 3)
        assert npu.run(made).last.prefill_tokens == 3
        assert npu.run(made).last.prefill_tokens == again
        rows[5] = math.nan
        assert npu.run(made).result == -1


@pytest.mark.parametrize("version", LAYOUTS)
def test_multimodal_input(version: str, tmp_path: Path) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", embd_size=8), version) as npu:
        rows = (ctypes.c_float * 32)()
        made = npu.input("")
        made.input_type = 3
        multi = made.multimodal_input
        multi.prompt = b"What is <image>?"
        image = multi.image if hasattr(multi, "image") else multi
        image.image_embed, image.n_image_tokens = rows, 4
        for name, value in {"n_image": 1, "image_width": 16, "image_height": 16}.items():
            if hasattr(image, name):
                setattr(image, name, value)
        for name in ("image_start", "image_end", "image_content"):
            if hasattr(image, name):
                setattr(image, name, b"")
        answer = npu.run(made)
        assert (answer.result, answer.text) == (0, "What is <image>?")
        multi.prompt = b"What is it?"
        assert npu.run(made).result == -1


def hidden(npu: Caller, text: str) -> list[list[float]]:
    """The rows of a run for the last hidden layer."""
    rows: list[list[float]] = []

    def on_piece(piece: Piece, results: Any) -> int:
        layer = results[0].last_hidden_layer
        if piece.state != FINISH:
            size = layer.embd_size
            flat = layer.hidden_states[: layer.num_tokens * size]
            rows.extend(flat[at : at + size] for at in range(0, len(flat), size))
        return 2 if npu.version == "1.3.0" and piece.state != FINISH else 0

    npu.on_piece = on_piece
    assert npu.run(text, mode=1).last.state == FINISH
    return rows


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
def test_hidden_states(version: str, model: str) -> None:
    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    with Caller(model, version) as npu:
        cat, same, near, far = (
            hidden(npu, text)[-1]
            for text in (
                "the cat sat on the mat",
                "the cat sat on the mat",
                "The cat sat on a mat",
                "quarterly profits rose sharply",
            )
        )
        assert cat == same
        assert product(cat, cat) == pytest.approx(1, abs=1e-5)
        assert product(cat, near) > 0.7 > 0.4 > product(cat, far)
        assert npu._pieces[0].state == (4 if version == "1.1.4" else NORMAL)


def test_unreleased_buffers_are_kept_and_told(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Caller(model, "1.3.0") as npu:
        hidden(npu, "released")
        npu.on_piece = lambda piece, _: 0
        npu.run("kept", mode=1)
        npu.run("kept", mode=1)
    flush()
    assert "W rkllm: 2 output buffers were never released" in capfd.readouterr().out


def test_logits(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", vocab_size=2048, reply="yes indeed", eos_id=3)
    rows: list[list[float]] = []
    with Caller(path) as npu:
        token = npu.raw().run("is it so").given[0].token

        def on_piece(piece: Piece, results: Any) -> int:
            if piece.state == NORMAL:
                found = results[0].logits
                rows.append(found.logits[: found.num_tokens * found.vocab_size])
            return 0

        npu.on_piece = on_piece
        npu.run("is it so", mode=2)
    assert len(rows[0]) == 3 * 2048
    last = rows[0][-2048:]
    assert last.index(max(last)) == token
    assert all(map(math.isfinite, last))


def test_a_batch_advances_together(model: str) -> None:
    with Caller(model, n_batch=3) as npu:
        seen: list[list[tuple[int, bytes | None]]] = []

        def on_piece(piece: Piece, results: Any) -> int:
            if piece.state == NORMAL:
                seen.append([(result.token_id, result.text) for result in results])
            return 0

        npu.on_piece = on_piece
        prompts = ["one", "one two three", "one two"]
        inputs = (npu.structs["RKLLMInput"] * 3)(*map(npu.input, prompts))
        answer = npu.run(inputs)
        assert (answer.result, answer.last.state, len(seen)) == (0, FINISH, 3)
        for slot, prompt in enumerate(prompts):
            assert b"".join(step[slot][1] or b"" for step in seen).decode() == prompt
        assert seen[2][0] == (-1, None)


def test_lora_by_name(model: str, tmp_path: Path) -> None:
    adapter = write_model(tmp_path / "pirate.lora", reply="Arr")
    with Caller(model) as npu:
        make = npu.structs["RKLLMLoraAdapter"]
        by_name = npu.structs["RKLLMLoraParam"](b"pirate")
        assert npu.run("hi", lora_params=ctypes.pointer(by_name)).result == -1
        assert npu.call("load_lora", make(b"/no/such/file", b"pirate", 1.0)) == -1
        assert npu.call("load_lora", make(adapter.encode(), b"pirate", 1.0)) == 0
        assert npu.run("hi", lora_params=ctypes.pointer(by_name)).text == "Arr"
        assert npu.run("hi").text == "hi"


def test_cross_attention_parameters(model: str) -> None:
    floats, positions = (ctypes.c_float * 4)(), (ctypes.c_int32 * 4)()
    with Caller(model, use_cross_attn=1) as npu:
        make = npu.structs["RKLLMCrossAttnParam"]
        assert npu.run("hi").result == -1
        assert npu.call("set_cross_attn_params", make(floats, floats, floats, positions, 0)) == -1
        assert npu.call("set_cross_attn_params", make(floats, floats, floats, positions, 4)) == 0
        assert npu.run("hi").text == "hi"
    with Caller(model) as npu:
        make = npu.structs["RKLLMCrossAttnParam"]
        assert npu.call("set_cross_attn_params", make(floats, floats, floats, positions, 4)) == -1


def test_a_pause_is_no_end(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model) as npu:
        npu.on_piece = lambda piece, _: int(len(npu._pieces) == 2)
        first = npu.run("one two three")
        assert (first.text, first.last.state) == ("one two", NORMAL)
        npu.on_piece = lambda piece, _: 0
        assert npu.run("something else").text == " three"  # the old answer goes on
        assert npu.run("something else").text == "something else"
    assert "callback returned 1 (pause)" in capfd.readouterr().err


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
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == -6, run.stderr
    assert says in run.stderr
