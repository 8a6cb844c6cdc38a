"""The server over the virtual NPU: what it survives, whom it serves first, what it leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rkllama.board.lock import NPULock
from tests.running import LIMIT, Reply, Server
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration


def generate(server: Server, model: str, prompt: str = "hi", **fields: object) -> Reply:
    return server.post("/generate", {"model": model, "messages": prompt, **fields})


def text_of(answer: Reply) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["content"])


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether the process ends within the given time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def in_thread(work: Any, *arguments: Any, **named: Any) -> tuple[threading.Thread, list[Any]]:
    """Run something beside the test; its result is put into the list."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work(*arguments, **named)))
    thread.start()
    return thread, results


# --- Crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "name"), [("segv_at", "SIGSEGV"), ("abort_at", "SIGABRT")])
def test_a_crash_before_the_first_token_is_an_error_with_its_name(
    emptied: Server, there: Path, fault: str, name: str
) -> None:
    write_model(there / "m.rkllm")
    answer = generate(emptied, "m", "hi " + directive(**{fault: 0}))
    assert answer.status == 500
    assert name in answer.json["error"]
    assert text_of(generate(emptied, "m", "still there?")) == "still there?"


def test_a_crash_inside_a_stream_ends_it_with_an_error_line(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm", tokens=50)
    answer = generate(emptied, "m", "hi " + directive(segv_at=20), stream=True)
    assert answer.status == 200
    *pieces, last = answer.lines
    assert pieces
    assert "SIGSEGV" in last["error"]
    assert generate(emptied, "m").status == 200


def test_an_exit_of_the_runtime_is_an_error_too(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    answer = generate(emptied, "m", "hi " + directive(exit_at=0, exit_code=7))
    assert answer.status == 500
    assert "7" in answer.json["error"]


def test_an_error_state_of_the_runtime_keeps_the_process(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert text_of(generate(emptied, "m")) == "hi"
    (child,) = emptied.children()
    assert generate(emptied, "m", "hi " + directive(run_error=1)).status == 500
    assert text_of(generate(emptied, "m")) == "hi"
    assert emptied.children() == [child]


def test_a_hung_runtime_is_ended_and_everything_else_answers_meanwhile(
    models: Path, npu: str
) -> None:
    write_model(models / "m.rkllm", tokens=30)
    limits = {"RKLLAMA_TOKEN_TIMEOUT": "1s", "RKLLAMA_PREFILL_TIMEOUT": "1s"}
    with Server(env=limits) as server:
        with server.stream("/generate", _body("m", "hi " + directive(hang_at=10))) as stream:
            assert stream.status() == 200
            lines = iter(stream)
            next(lines)
            assert server.get("/models").status == 200
            assert server.get("/api/ps").json["models"][0]["state"] == "busy"
            *_, last = lines
        assert "error" in last
        assert generate(server, "m").status == 200


def test_a_hang_before_the_first_token_has_its_own_status(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    limits = {"RKLLAMA_TOKEN_TIMEOUT": "500ms", "RKLLAMA_PREFILL_TIMEOUT": "1ms"}
    with Server(env=limits) as server:
        assert generate(server, "m", "hi " + directive(hang_at=0)).status == 504


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"init_error": 1, "log": "E RKNN: failed to malloc npu memory, size: 4059037696"},
            "memory",
        ),
        ({"init_null": 1}, "m.rkllm"),
        ({"crash_in_init": 1}, "SIG"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(
    emptied: Server, there: Path, config: dict[str, Any], words: str
) -> None:
    write_model(there / "m.rkllm", **config)
    answer = generate(emptied, "m")
    assert answer.status == 500
    assert words in answer.json["error"]
    assert emptied.get("/api/ps").json["models"] == []
    write_model(there / "good.rkllm")
    assert text_of(generate(emptied, "good")) == "hi"


def _body(model: str, prompt: str = "hi", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": prompt, "stream": True, **fields}


# --- Parents and children ----------------------------------------------------------------------


def test_a_killed_parent_leaves_no_child_and_no_lock(
    models: Path, npu: str, tmp_path: Path
) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with Server() as server:
        with server.stream("/generate", _body("m")) as stream:
            assert stream.status() == 200
            next(iter(stream))
            (child,) = server.children()
            server.process.kill()
            assert wait_gone(child, LIMIT)
        server.process.wait(LIMIT)
    lock = NPULock(str(tmp_path / "npu.lock"), "test")
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_ends_its_answers_and_children(
    models: Path, npu: str, number: int
) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with Server() as server:
        with server.stream("/generate", _body("m")) as stream:
            assert stream.status() == 200
            lines = iter(stream)
            next(lines)
            (child,) = server.children()
            assert server.stop(number) == 0
            *_, last = lines
        assert last["choices"][0]["finish_reason"] == "cancelled"
        assert wait_gone(child, LIMIT)


def test_a_signal_that_does_not_interrupt_the_wait_ends_the_server_at_once() -> None:
    with Server() as server:
        assert server.get("/health").status == 200
        pid = server.process.pid
        until(lambda: _system_call(pid) in POLLS)
        threads = map(int, os.listdir(f"/proc/{pid}/task"))
        # Linux gives the process's signal to this thread of it, if it can.
        os.kill(next(thread for thread in threads if thread != pid), signal.SIGTERM)
        assert server.process.wait(LIMIT / 2) == 0


POLLS = ("7", "73")
"""The numbers of poll on x86-64 and of ppoll on aarch64."""


def _system_call(pid: int) -> str:
    """What a process's first thread waits in: its number."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0]


def test_one_process_owns_the_npu(server: Server, models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    assert generate(server, "m").status == 200
    with Server() as second:
        answer = generate(second, "m")
        assert answer.status == 503
        assert str(server.process.pid) in answer.json["error"]
        assert server.stop() == 0
        assert generate(second, "m").status == 200


# --- The queue ---------------------------------------------------------------------------------


@pytest.mark.serial
def test_a_client_that_leaves_stops_the_runtime_within_a_token(
    emptied: Server, there: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(there / "m.rkllm", tokens=2000, token_us=20_000, trace=trace, trace_tokens=1)
    with emptied.stream("/generate", _body("m")) as stream:
        assert stream.status() == 200
        next(iter(stream))
    left = time.monotonic_ns()
    assert generate(emptied, "m", "hi " + directive(tokens=1)).status == 200
    events = read_trace(trace)
    tokens = next(event["ns"] for event in events if event["event"] == "tokens")
    # One token may be under way, and the next may begin while the hang-up travels.
    assert sum(moment > left for moment in tokens) <= 2


def test_a_client_that_leaves_in_the_queue_is_never_served(
    emptied: Server, there: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(there / "m.rkllm", tokens=50, token_us=10_000, trace=trace, trace_prompt=1)
    with emptied.stream("/generate", _body("m", "first")) as running:
        assert running.status() == 200
        lines = iter(running)
        next(lines)
        with emptied.stream("/generate", _body("m", "second")):
            _wait_for_queue(emptied, 1)
        _wait_for_queue(emptied, 0)
        for _ in lines:
            pass
    assert generate(emptied, "m", "third").status == 200
    prompts = str([event for event in read_trace(trace) if "prompt" in str(event)])
    assert "first" in prompts
    assert "third" in prompts
    assert "second" not in prompts


def _wait_for_queue(server: Server, length: int) -> None:
    """Until so many requests wait; asks over HTTP, so each look takes its time."""
    until(lambda: server.get("/health").json["queue"] == length)


def test_answers_come_in_the_order_of_asking(emptied: Server, there: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    write_model(there / "m.rkllm", tokens=20, token_us=10_000, trace=trace, trace_prompt=1)
    names = ["alpha", "beta", "gamma", "delta"]
    threads = []
    for position, name in enumerate(names):
        threads.append(in_thread(generate, emptied, "m", name)[0])
        if position:
            _wait_for_queue(emptied, position)
        else:
            _wait_for_busy(emptied)
    for thread in threads:
        thread.join(LIMIT)
    asked = [str(event) for event in read_trace(trace) if any(n in str(event) for n in names)]
    order = [next(n for n in names if n in line) for line in asked]
    assert list(dict.fromkeys(order)) == names


def _wait_for_busy(server: Server) -> None:
    until(lambda: [m for m in server.get("/api/ps").json["models"] if m["state"] == "busy"])


def test_a_full_queue_is_503_with_a_time_to_try_again(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with (
        Server("--max-queue", "1") as server,
        server.stream("/generate", _body("m")) as running,
    ):
        assert running.status() == 200
        next(iter(running))
        with server.stream("/generate", _body("m")):
            _wait_for_queue(server, 1)
            refused = generate(server, "m")
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0
            assert server.get("/models").status == 200


# --- Answers -----------------------------------------------------------------------------------


def test_no_token_is_lost_and_none_reaches_the_next_answer(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    for number in range(60):
        text = f"answer {number} of many, to its very last token {number}"
        assert text_of(generate(emptied, "m", directive(reply=text))) == text


def test_an_interrupted_answer_does_not_reach_the_next_one(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm", token_us=500)
    for number in range(10):
        prompt = directive(tokens=3000)
        with emptied.stream("/generate", _body("m", prompt)) as stream:
            assert stream.status() == 200
            next(iter(stream))
        text = f"only this {number}"
        assert text_of(generate(emptied, "m", directive(reply=text))) == text


def test_characters_split_over_tokens_arrive_whole(emptied: Server, there: Path) -> None:
    text = "Çà et là, 日本語 🙂 – fin"
    write_model(there / "m.rkllm", reply=text, split=1)
    assert text_of(generate(emptied, "m")) == text
    lines = emptied.post("/generate", _body("m")).lines
    assert "".join(line["choices"][0]["content"] for line in lines) == text


def test_a_stop_string_ends_the_answer_before_it(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm", reply="one two three four five")
    answer = generate(emptied, "m", stop=[" three"])
    assert text_of(answer) == "one two"
    assert answer.json["choices"][0]["finish_reason"] == "stop"


def test_max_tokens_ends_with_length(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm", tokens=50)
    answer = generate(emptied, "m", max_tokens=7)
    assert answer.json["usage"]["completion_tokens"] == 7
    assert answer.json["choices"][0]["finish_reason"] == "length"


def test_tools_that_do_not_fit_are_named(emptied: Server, there: Path) -> None:
    """Open WebUI sends dozens of its own with each question."""
    write_model(there / "Qwen2.5-1.5B-rk3588-w8a8.rkllm")
    tool = {"type": "function", "function": {"name": "look", "description": "word " * 3000}}
    body = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}
    answer = emptied.post("/api/chat", {**body, "tools": [tool, tool]})
    assert answer.status == 400
    assert "Its 2 tools count, too: send fewer. Shorten it" in answer.json["error"]
    body["messages"] = [{"role": "user", "content": "word " * 6000}]
    answer = emptied.post("/api/chat", body)
    assert answer.status == 400
    assert "tools" not in answer.json["error"]


def test_as_many_inputs_as_are_taken_are_embedded_and_more_are_refused(
    emptied: Server, there: Path
) -> None:
    write_model(there / "m.rkllm")
    for path, vectors in (("/v1/embeddings", "data"), ("/api/embed", "embeddings")):
        answer = emptied.post(path, {"model": "m", "input": ["a"] * 2048})
        assert answer.status == 200, answer.body
        assert len(answer.json[vectors]) == 2048
        answer = emptied.post(path, {"model": "m", "input": ["a"] * 72_000})
        assert answer.status == 400
        assert b"72000" in answer.body
        assert b"2048" in answer.body


def test_turn_ten_evaluates_its_new_tokens_only(emptied: Server, there: Path) -> None:
    write_model(there / "Qwen2.5-1.5B-rk3588-w8a8.rkllm", reply="Yes, of course. Anything else?")
    messages: list[dict[str, str]] = []
    for turn in range(10):
        messages.append({"role": "user", "content": f"Question number {turn}, if you please?"})
        answer = emptied.post("/api/chat", {"model": "qwen", "messages": messages, "stream": False})
        assert answer.status == 200, answer.body
        values = answer.json
        messages.append(values["message"])
    first = emptied.post("/api/chat", {"model": "qwen", "messages": messages[:1], "stream": False})
    alone = first.json["prompt_eval_count"]
    whole, cached = values["prompt_eval_count"], values["cached_count"]
    assert whole > 7 * alone
    # New at turn 10: its question, and the markers around it.
    assert whole - cached <= alone


# --- Models in memory --------------------------------------------------------------------------


def test_metadata_answers_while_a_model_loads(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm", load_ms=2000)
    thread, results = in_thread(generate, emptied, "m")
    until(lambda: emptied.get("/api/ps").json["models"])
    assert emptied.get("/api/ps").json["models"][0]["state"] == "loading"
    for path in ("/models", "/api/tags", "/api/version", "/health"):
        assert emptied.get(path).status == 200
    assert emptied.get("/api/ps").json["models"][0]["state"] == "loading"
    thread.join(LIMIT)
    assert text_of(results[0]) == "hi"


def test_keep_alive_zero_frees_the_model_after_its_answer(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert generate(emptied, "m").status == 200
    (child,) = emptied.children()
    assert generate(emptied, "m", keep_alive=0).status == 200
    assert wait_gone(child, LIMIT)


def test_a_short_keep_alive_expires_by_itself(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert generate(emptied, "m", keep_alive="200ms").status == 200
    until(lambda: emptied.children() == [])
    assert emptied.get("/current_model").status == 404


def test_an_explicitly_loaded_model_stays(emptied: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert emptied.post("/load_model", {"model_name": "m.rkllm"}).status == 200
    assert generate(emptied, "m", keep_alive="1ms").status == 200
    assert emptied.get("/api/ps").json["models"][0]["name"] == "m:latest"
    assert emptied.get("/current_model").json == {"model_name": "m"}


def test_the_least_recently_used_model_goes_first(models: Path, npu: str) -> None:
    for name in "abc":
        write_model(models / f"{name}.rkllm")
    with Server("--max-loaded", "2") as server:
        for name in "abac":
            assert generate(server, name).status == 200
        names = {model["name"] for model in server.get("/api/ps").json["models"]}
        assert names == {"a:latest", "c:latest"}
        assert len(server.children()) == 2


def test_a_model_that_generates_is_not_evicted(emptied: Server, there: Path) -> None:
    write_model(there / "a.rkllm", tokens=100, token_us=5000)
    write_model(there / "b.rkllm")
    with emptied.stream("/generate", _body("a")) as stream:
        assert stream.status() == 200
        lines = iter(stream)
        next(lines)
        thread, results = in_thread(generate, emptied, "b")
        *_, last = lines
    assert last["usage"]["completion_tokens"] == 100
    thread.join(LIMIT)
    assert text_of(results[0]) == "hi"


def test_unloading_cancels_the_running_answer(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with server.stream("/generate", _body("m")) as stream:
        assert stream.status() == 200
        lines = iter(stream)
        next(lines)
        assert server.post("/unload_model").status == 200
        *_, last = lines
    assert last["choices"][0]["finish_reason"] == "cancelled"
    assert server.children() == []


def test_a_context_above_the_models_limit_is_clamped(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", max_context=2048)
    assert generate(server, "m", options={"num_ctx": 32768}).status == 200
    assert server.get("/api/ps").json["models"][0]["context_length"] == 2048
    assert any("2048" in line for line in server.log)


def test_a_dead_child_is_noticed_before_the_next_answer(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm")
    assert generate(server, "m").status == 200
    (child,) = server.children()
    os.kill(child, signal.SIGKILL)
    assert wait_gone(child, LIMIT)
    assert text_of(generate(server, "m", "again")) == "again"
    assert server.children() != [child]


def test_a_model_without_a_known_template_takes_conversations_and_single_messages(
    server: Server, models: Path
) -> None:
    write_model(models / "m.rkllm")
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "second"},
    ]
    for messages, wanted in ((turns[:1], "first"), (turns, "second"), (turns[:1], "first")):
        answer = server.post("/api/chat", {"model": "m", "messages": messages, "stream": False})
        assert answer.status == 200, answer.body
        assert answer.json["message"]["content"] == wanted


def sampling_of(answer: Reply) -> float:
    """The temperature that the virtual NPU says it was given."""
    return float(json.loads(text_of(answer))["temperature"])


def test_a_runtime_that_fixes_sampling_takes_the_first_requests_own(
    server: Server, models: Path
) -> None:
    write_model(models / "m.rkllm", mode="params")
    cold = generate(server, "m", options={"temperature": 0.25})
    assert sampling_of(cold) == 0.25
    (child,) = server.children()
    # A server with clients of different habits must not load anew for each of them, but says so.
    warm = generate(server, "m", options={"temperature": 0.5})
    assert sampling_of(warm) == 0.25
    assert server.children() == [child]
    assert any("keeps the sampling" in line for line in server.log)


# --- Long conversations ------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
def test_a_conversation_longer_than_the_context_loses_its_oldest_turns(
    models: Path, version: str
) -> None:
    write_model(models / "qwen-m.rkllm")
    history = [{"role": "system", "content": "Be brief."}]
    for number in range(12):
        history.append({"role": "user", "content": f"question {number} " + "word " * 15})
        history.append({"role": "assistant", "content": f"answer {number}"})
    messages = [*history, {"role": "user", "content": "and now?"}]
    body = {"model": "qwen-m", "messages": messages, "stream": False}
    env = {"RKLLAMA_RKLLM_LIB": library(version), "RKLLAMA_CONTEXT_LENGTH": "256"}
    with Server(env=env) as server:
        answer = server.post("/api/chat", body)
        assert answer.status == 200, answer.body
        assert answer.json["message"]["content"] == "and now?"
        assert answer.json["dropped_messages"] % 8 == 0
        refused = server.post("/api/chat", {**body, "truncate": False})
        assert (refused.status, refused.json["code"]) == (400, "prompt_too_long")
        alone = {"role": "user", "content": "word " * 500}
        assert server.post("/api/chat", {**body, "messages": [*history, alone]}).status == 400
        for path, more in (("chat/completions", {}), ("responses", {"input": messages})):
            asked = {"model": "qwen-m", "messages": messages, **more}
            assert server.post(f"/v1/{path}", asked).status == 400
        asked = {"model": "qwen-m", "input": messages, "truncation": "auto"}
        shortened = server.post("/v1/responses", asked)
        assert shortened.status == 200, shortened.body
        assert shortened.json["truncation"] == "auto"
