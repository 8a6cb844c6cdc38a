"""The virtual NPU's clock, aborts and threads, and every other part of its interface."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.virtual_npu import directive, read_trace, write_model
from tests.virtual_npu.caller import FINISH, NORMAL, Caller, Piece, flush
from tests.waiting import until

pytestmark = pytest.mark.integration

LAYOUTS = ("1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0")


@pytest.fixture(autouse=True)
def _flushed() -> Iterator[None]:
    yield
    flush()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model.rkllm")


# --- time, abort, threads ----------------------------------------------------------------------


@pytest.mark.serial
def test_tokens_come_when_they_are_due(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_model(
        tmp_path / "m.rkllm", prefill_us=5000, token_us=4000, trace=trace, trace_tokens=1
    )
    with Caller(path) as npu:
        perf: list[Any] = []

        def on_piece(piece: Piece, results: Any) -> int:
            time.sleep(0.003)  # a slow callback is caught up with
            if piece.state == FINISH:
                perf.append(type(results[0].perf).from_buffer_copy(results[0].perf))
            return 0

        npu.on_piece = on_piece
        start = time.monotonic_ns()
        npu.raw().run("a b c d " + directive(tokens=100))
    events = {event["event"]: event for event in read_trace(trace)}
    run, tokens = events["run"], events["tokens"]["ns"]
    prefill = run["evaluated"] * 5_000_000
    assert start <= run["ns"] <= run["ns"] + prefill <= tokens[0]
    assert len(tokens) == 100
    for number, at in enumerate(tokens, 1):
        assert at >= run["ns"] + prefill + number * 4_000_000
    late = tokens[-1] - (run["ns"] + prefill + 100 * 4_000_000)
    assert late < 150_000_000, "each token came 3 ms later than the one before"
    assert perf[0].prefill_tokens == run["evaluated"]
    assert perf[0].prefill_time_ms == pytest.approx(prefill / 1e6, rel=1e-5)
    assert perf[0].generate_time_ms >= 100 * 4
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
    assert events["finish"]["ns"] >= events["run"]["ns"] + 4 * 30_000_000


def test_abort_in_prefill_takes_effect_at_its_end(tmp_path: Path) -> None:
    with Caller(write_model(tmp_path / "m.rkllm", prefill_us=100_000)) as npu:

        def abort_when_it_runs() -> None:
            until(lambda: npu.call("is_running") == 0)
            assert npu.call("abort") == 0

        aborting = threading.Thread(target=abort_when_it_runs)
        aborting.start()
        start = time.monotonic()
        answer = npu.raw().run("one two three")
        assert time.monotonic() - start >= 0.3
        aborting.join()
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
