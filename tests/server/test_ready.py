"""Readiness and draining of the real process: what a balancer sees of a board, and what it loses there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.board.lock import NPULock
from tests import prepared
from tests.conftest import isolate
from tests.engine.test_metrics import figures
from tests.running import LIMIT, Server
from tests.server.test_serving import in_thread
from tests.virtual_npu import directive, library, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

SLOW = {"tokens": 40, "token_us": 20_000}
"""An answer of 0.8 s."""


def body(prompt: str = "hi", **fields: object) -> dict[str, object]:
    return {"model": "m", "messages": prompt, "stream": True, **fields}


def reason(server: Server, query: str = "") -> str | None:
    """Why the server is not ready; None: it is."""
    reply = server.get(f"/ready{query}")
    assert (reply.status == 200) == (reply.json["status"] == "ready")
    assert reply.status in (200, 503)
    found: str | None = reply.json.get("reason")
    return found


# --- One server for what changes nothing -------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, tmp_path_factory.mktemp("ready"))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
        patch.setenv("RKLLAMA_API_KEY", "secret")
        patch.setenv("RKLLAMA_BOARD_NAME", "shelf-3")
        models = home / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        write_model(models / "m.rkllm", tokens=5)
        write_model(models / "private.rkllm", tokens=5)
        with Server() as server:
            yield server


KEY = {"Authorization": "Bearer secret"}


def test_a_server_that_would_serve_is_ready_for_whoever_asks(shared: Server) -> None:
    assert reason(shared) is None
    assert reason(shared, "?model=m") is None
    assert reason(shared, "?model=m:latest") is None
    assert shared.request("HEAD", "/ready").status == 200
    assert shared.get("/models").status == 401


def test_what_is_not_there_is_not_served_and_nobody_is_told_more(shared: Server) -> None:
    reply = shared.get("/ready?model=mm")
    assert reply.json["reason"] == "model_not_found"
    assert set(reply.json) == {"status", "reason", "error"}
    assert "mm" not in reply.json["error"]
    assert "x-rkllama-board" not in reply.headers
    assert shared.get("/health").status == 200


def test_a_model_s_name_is_not_found_letter_by_letter(shared: Server) -> None:
    assert reason(shared, "?model=p") == "model_not_found"
    assert shared.post("/api/show", {"model": "p"}, **KEY).status == 200
    assert reason(shared, "?model=p") == "model_not_found"
    assert reason(shared, "?model=private") is None


def test_answers_name_the_board_and_strangers_do_not_learn_it(shared: Server) -> None:
    for stream in (False, True):
        reply = shared.request("POST", "/generate", body(stream=stream), KEY)
        assert reply.headers["x-rkllama-board"] == "shelf-3"
    assert "x-rkllama-board" not in shared.get("/models").headers
    assert "x-rkllama-board" not in shared.get("/health").headers


def test_the_second_turn_tells_what_was_cached_and_has_the_same_session(shared: Server) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    first = shared.request(
        "POST", "/v1/chat/completions", {"model": "m", "messages": messages}, KEY
    )
    answer = first.json["choices"][0]["message"]
    messages += [answer, {"role": "user", "content": "two"}]
    second = shared.request(
        "POST", "/api/chat", {"model": "m", "messages": messages, "stream": False}, KEY
    )
    assert second.headers["x-rkllama-session"] == first.headers["x-rkllama-session"]
    assert int(second.headers["x-rkllama-cached-tokens"]) > 0
    other = shared.request("POST", "/api/generate", {"model": "m", "prompt": "x"}, KEY)
    assert other.headers["x-rkllama-session"] != first.headers["x-rkllama-session"]
    assert "x-rkllama-cached-tokens" not in other.headers, "it is a stream"


def test_a_session_that_was_sent_is_given_back_unless_it_is_none(shared: Server) -> None:
    sent = shared.request(
        "POST", "/generate", body(), {**KEY, "x-rkllama-session": "chat-1.user~2"}
    )
    assert sent.headers["x-rkllama-session"] == "chat-1.user~2"
    for bad in ("", "two words", "x" * 129, "né"):
        headers = {**KEY, "x-rkllama-session": bad.encode().decode("latin-1")}
        reply = shared.request("POST", "/generate", body(), headers)
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-rkllama-session"])


def test_the_load_is_reported_in_the_form_that_is_asked_for(shared: Server) -> None:
    asked = {**KEY, "endpoint-load-metrics-format": "TEXT"}
    text = shared.request("POST", "/generate", body(stream=False), asked)
    form, _, fields = text.headers["endpoint-load-metrics"].partition(" ")
    values = dict(field.split("=") for field in fields.split(", "))
    assert form == "TEXT"
    assert float(values["application_utilization"]) >= 0
    assert float(values["named_metrics.kv_cache_utilization"]) > 0
    asked["endpoint-load-metrics-format"] = "json"
    form, _, report = (
        shared.request("GET", "/ready", None, asked).headers["endpoint-load-metrics"].partition(" ")
    )
    assert form == "JSON"
    assert json.loads(report)["named_metrics"]["num_requests_running"] == 0
    for plain in ("BIN", ""):
        reply = shared.request("GET", "/ready", None, {"endpoint-load-metrics-format": plain})
        assert "endpoint-load-metrics" not in reply.headers


# --- What makes a server unready ---------------------------------------------------------------


def test_a_full_queue_and_its_figures(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", **SLOW)
    write_model(models / "other.rkllm")
    with Server("--max-queue", "1") as server, server.stream("/generate", body()) as first:
        assert first.status() == 200
        lines = iter(first)
        next(lines)
        assert reason(server) is None
        with server.stream("/generate", body()) as second:
            until(lambda: server.get("/health").json["queue"] == 1)
            assert reason(server) == "queue_full"
            assert reason(server, "?model=m") == "queue_full"
            found = figures(server)
            assert found['rkllama_requests_running{model="m"}'] == 1
            assert found['rkllama_requests_waiting{model="m"}'] == 1
            assert found['rkllama_requests_running{model="other"}'] == 0
            assert server.post("/generate", body(stream=False)).status == 503
            for _ in lines:
                pass
            assert second.status() == 200
            for _ in second:
                pass
        assert reason(server) is None
        found = figures(server)
        assert 0 < found['rkllama_kv_cache_usage_ratio{model="m"}'] < 1
        assert 'rkllama_kv_cache_usage_ratio{model="other"}' not in found
        assert [name for name in found if name.startswith('rkllama_info{version="')]


def test_an_npu_that_another_holds(server: Server, models: Path, tmp_path: Path) -> None:
    write_model(models / "m.rkllm")
    assert reason(server) is None
    other = NPULock(str(tmp_path / "npu.lock"), "test")
    other.acquire()
    assert reason(server) == "npu_busy"
    assert reason(server, "?model=m") == "npu_busy"
    assert reason(server, "?model=guide") == "model_not_found", "asking writes nothing"
    other.release()
    assert reason(server) is None
    assert server.post("/generate", body(stream=False)).status == 200
    assert reason(server) is None, "it holds the NPU itself"


def test_a_crash_loop(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm")
    crash = body("hi " + directive(segv_at=0), stream=False)
    for _ in range(3):
        assert reason(server) is None
        assert server.post("/generate", crash).status == 500
    assert reason(server) == "crash_loop"
    assert reason(server, "?model=m") == "crash_loop"
    assert server.get("/health").status == 200
    assert server.post("/generate", body(stream=False)).status == 200
    assert reason(server) is None


def test_a_board_without_a_runtime(models: Path, tmp_path: Path) -> None:
    write_model(models / "m.rkllm")
    with Server(env={"RKLLAMA_RKLLM_LIB": str(tmp_path / "none.so")}) as server:
        assert reason(server) == "no_runtime"


def test_a_model_that_is_to_stay_is_loaded_before_the_server_is_ready(
    models: Path, npu: str
) -> None:
    write_model(models / "m.rkllm", load_ms=300)
    write_model(models / "other.rkllm")
    with Server("--model", "m") as server:
        assert reason(server) == "model_not_loaded"
        assert reason(server, "?model=other") is None
        until(lambda: reason(server) is None)
        (child,) = server.children()
        assert server.post("/generate", body("hi " + directive(segv_at=0))).status == 500
        # Nobody asks for it, and it is back.
        until(lambda: reason(server) is None and server.children() not in ([], [child]))
        assert server.post("/unload_model").status == 200
        assert reason(server) is None, "its user wanted it to go"


def test_a_model_that_is_to_stay_and_cannot_be_loaded_may_be_given_up(
    models: Path, npu: str
) -> None:
    write_model(models / "m.rkllm", init_error=1)
    with Server("--model", "m") as server:
        until(lambda: "could not be loaded" in "".join(server.log))
        assert reason(server) == "model_not_loaded"
        server.post("/api/generate", {"model": "m", "keep_alive": 0})
        assert reason(server) is None, "it is not tried again"


# --- Draining ----------------------------------------------------------------------------------


def test_a_first_sigterm_lets_answers_end_and_those_that_wait_have_their_turn(
    models: Path, npu: str
) -> None:
    write_model(models / "m.rkllm", **SLOW)
    with (
        Server("--drain-timeout", "20s") as server,
        server.stream("/generate", body()) as running,
    ):
        assert running.status() == 200
        lines = iter(running)
        next(lines)
        waiting, answers = in_thread(server.post, "/generate", body(stream=False))
        until(lambda: server.get("/health").json["queue"] == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: reason(server) == "draining")
        assert server.get("/health").status == 200
        late = server.post("/generate", body(stream=False))
        assert late.status == 503
        assert int(late.headers["retry-after"]) > 0
        assert late.headers["connection"] == "close"
        *_, last = lines
        assert last["choices"][0]["finish_reason"] == "stop"
        waiting.join(LIMIT)
        assert answers[0].status == 200
        assert server.process.wait(LIMIT) == 0


def test_requests_are_taken_until_a_balancer_has_noticed(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm")
    with Server() as server:
        assert reason(server) is None
        assert reason(server) is None
        drain, lines = in_thread(server.post, "/api/rkllama/drain", {"wait": True})
        until(lambda: reason(server) == "draining")
        # It is idle, and would have ended.
        assert server.post("/generate", body(stream=False)).status == 200
        assert reason(server) == "draining"
        assert reason(server) == "draining"
        drain.join(LIMIT)
        assert lines[0].lines[-1]["status"] == "drained"
        assert server.process.wait(LIMIT) == 0


def test_a_second_sigterm_ends_at_once(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with (
        Server(env={"RKLLAMA_DRAIN_TIMEOUT": "1h"}) as server,
        server.stream("/generate", body()) as running,
    ):
        assert running.status() == 200
        lines = iter(running)
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: reason(server) == "draining")
        assert server.stop() == 0
        *_, last = lines
        assert last["choices"][0]["finish_reason"] == "cancelled"


def test_what_is_not_answered_in_time_is_sent_away_or_cancelled(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with Server() as server, server.stream("/generate", body()) as running:
        assert running.status() == 200
        lines = iter(running)
        next(lines)
        waiting, answers = in_thread(server.post, "/generate", body(stream=False))
        until(lambda: server.get("/health").json["queue"] == 1)
        first, last = server.post("/api/rkllama/drain", {"timeout": 0.3, "wait": True}).lines
        assert first["status"] == "draining"
        assert (first["running"], first["waiting"]) == (1, 1)
        assert last["status"] == "timed out"
        waiting.join(LIMIT)
        assert answers[0].status == 503
        assert "retry-after" in answers[0].headers
        *_, end = lines
        assert end["choices"][0]["finish_reason"] == "cancelled"
        assert server.process.wait(LIMIT) == 0


def test_the_command_waits_until_nothing_is_left(models: Path, npu: str) -> None:
    write_model(models / "m.rkllm", tokens=100_000, token_us=1000)
    with Server() as server, server.stream("/generate", body()) as running:
        assert running.status() == 200
        next(iter(running))
        command = prepared.Popen(
            [sys.executable, "-m", "rkllama", "drain"],
            env={**os.environ, "RKLLAMA_HOST": server.url},
            stderr=subprocess.PIPE,
            text=True,
        )
        with command:
            assert command.stderr is not None
            assert "Running: 1, waiting: 0, time left: 600 s" in command.stderr.readline()
            assert command.poll() is None
            running.close()
            assert "All requests are answered" in command.stderr.read()
        assert command.returncode == 0
        assert server.process.wait(LIMIT) == 0


def test_a_wrong_time_is_refused_and_drains_nothing(shared: Server) -> None:
    for bad in (-1, "soon", 1e9, True):
        reply = shared.request("POST", "/api/rkllama/drain", {"timeout": bad}, KEY)
        assert reply.status == 400
        assert "timeout" in reply.json["error"]
    assert shared.post("/api/rkllama/drain").status == 401
    assert reason(shared) is None


def test_an_idle_server_ends_as_soon_as_it_is_asked_without_a_body(
    server: Server, models: Path
) -> None:
    reply = server.request("POST", "/api/rkllama/drain", b"")
    assert reply.json["status"] == "draining"
    assert server.process.wait(LIMIT) == 0


# --- Names -------------------------------------------------------------------------------------


def test_an_alias_is_the_same_name_in_every_dialect_and_list(models: Path, npu: str) -> None:
    write_model(models / "Qwen3-4B-w8a8-rk3588.rkllm", tokens=2)
    name, chat = "Qwen3-4B-w8a8-rk3588", [{"role": "user", "content": "hi"}]
    aliases = {"RKLLAMA_ALIASES": "chat=qwen3:4b,gone=mistral"}
    with Server(env=aliases) as server:
        assert any("the alias gone (mistral): model 'mistral' not found" in e for e in server.log)
        asked = {"model": "chat", "messages": chat, "stream": False, "max_tokens": 9}
        for path in ("/generate", "/api/chat", "/v1/chat/completions", "/v1/messages"):
            assert server.post(path, asked).status == 200, path
        assert reason(server, "?model=chat") is None
        entries = {each["id"]: each for each in server.get("/v1/models").json["data"]}
        assert {key: each["state"] for key, each in entries.items()} == {
            name: "ready",
            "chat": "ready",
        }
        assert entries["chat"]["root"] == name
        assert server.get("/v1/models/chat").json["id"] == "chat"
        tags = server.get("/api/tags").json["models"]
        assert [each["name"] for each in tags] == [f"{name}:latest", "chat:latest"]
        assert tags[1]["digest"] == tags[0]["digest"]
        assert server.get("/models").json["models"] == [f"{name}.rkllm"]
        missing = server.post("/api/chat", {**asked, "model": "gone"})
        assert missing.status == 404
        assert "'gone' is an alias of 'mistral' in the settings" in missing.json["hint"]
        assert server.request("DELETE", "/api/delete", {"model": "chat"}).status == 400
        listed = _rkllama("list", RKLLAMA_HOST=server.url).stdout
        assert f"= {name}" in listed
        assert _rkllama("stop", "chat", RKLLAMA_HOST=server.url).returncode == 0
    alone = _rkllama("list", "--json", **aliases)
    assert [row.get("alias_of") for row in json.loads(alone.stdout)] == [None, name]
    assert "passed over the alias gone (mistral): model 'mistral' not found" in alone.stderr


def _rkllama(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
