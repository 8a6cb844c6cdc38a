"""Eight clients that do whatever they like for some seconds; after that, everything is as it was."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Reply, Server
from tests.virtual_npu import directive, write_model
from tests.waiting import Task, until

pytestmark = pytest.mark.integration

CLIENTS = 8
SECONDS = 5.0
REFUSALS = {400, 404, 409, 499, 500, 503, 504}


@pytest.fixture
def hurried(models: Path, npu: str) -> Iterator[Server]:
    """A server for one model at a time that soon calls a silent runtime hung."""
    for name in "ab":
        write_model(models / f"{name}.rkllm", token_us=200)
    limits = {"RKLLAMA_TOKEN_TIMEOUT": "1s", "RKLLAMA_PREFILL_TIMEOUT": "1s"}
    with Server("--max-loaded", "1", env=limits) as server:
        yield server


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


class Client:
    """One client's random actions; `wrong` is what must not have happened."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.number = server, number
        self.choices = random.Random(number)
        self.wrong: list[str] = []
        self.complete = 0

    def run(self, until_when: float) -> None:
        """Act until the time is over."""
        actions = (self.whole, self.streamed, self.streamed, self.leave, self.crash, self.models)
        turn = 0
        while time.monotonic() < until_when:
            turn += 1
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                self.choices.choice(actions)(f"client {self.number} turn {turn} to the last word")

    def body(self, prompt: str, **fields: object) -> dict[str, object]:
        return {"model": self.choices.choice("ab"), "messages": prompt, **fields}

    def check(self, text: str, wanted: str, reason: str | None) -> None:
        """A complete answer is exactly what was scripted; a cancelled one a beginning of it."""
        if reason == "stop":
            self.complete += 1
        if not (text == wanted if reason == "stop" else wanted.startswith(text)):
            self.wrong.append(f"{text!r} instead of {wanted!r} ({reason})")

    def refused(self, answer: Reply) -> bool:
        if answer.status != 200 and answer.status not in REFUSALS:
            self.wrong.append(f"status {answer.status}: {answer.body!r}")
        if b"internal error" in answer.body:
            self.wrong.append(f"{answer.body!r}")
        return answer.status != 200

    def whole(self, text: str) -> None:
        keep_alive = self.choices.choice([None, 0, "1ms", "5m"])
        body = self.body(directive(reply=text), keep_alive=keep_alive)
        answer = self.server.post("/generate", body)
        if not self.refused(answer):
            choice = answer.json["choices"][0]
            self.check(choice["content"], text, choice["finish_reason"])

    def streamed(self, text: str) -> None:
        text = " ".join([text] * self.choices.randrange(1, 20))
        with self.server.stream("/generate", self.body(directive(reply=text), stream=True)) as got:
            if got.status() != 200:
                return
            said, reason = "", None
            for line in got:
                if "error" in line:
                    if "internal error" in line["error"]:
                        self.wrong.append(str(line))
                    break
                said += line["choices"][0]["content"]
                reason = line["choices"][0]["finish_reason"]
        self.check(said, text, reason)

    def leave(self, _text: str) -> None:
        prompt = directive(tokens=self.choices.choice([1, 5, 50, 5000]))
        with self.server.stream("/generate", self.body(prompt, stream=True)) as got:
            lines = iter(got)
            if self.choices.random() < 0.7 and got.status() == 200:
                for _ in range(self.choices.randrange(4)):
                    next(lines, None)

    def crash(self, _: str) -> None:
        fault = self.choices.choice(["segv_at", "abort_at", "exit_at", "error_at", "hang_at"])
        at = self.choices.choice([0, 1, 5])
        if fault == "hang_at" and self.choices.random() < 0.8:  # each costs a second
            return
        prompt = directive(**{"tokens": 10, fault: at})
        self.refused(self.server.post("/generate", self.body(prompt)))

    def models(self, _: str) -> None:
        what = self.choices.randrange(4)
        if what == 0:
            self.refused(self.server.post("/load_model", {"model_name": self.choices.choice("ab")}))
        elif what == 1:
            self.refused(self.server.post("/unload_model"))
        elif len(self.server.get("/health").json["models"]) > 1:
            self.wrong.append("more models than may be loaded")


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one that has, and that nobody has asked about yet, is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_after_any_mixture_of_use_and_abuse_all_is_as_before(hurried: Server) -> None:
    assert hurried.post("/generate", {"model": "a", "messages": "hi"}).status == 200
    assert hurried.post("/unload_model").status == 200
    until(lambda: hurried.children() == [])
    before = descriptors(hurried)
    clients = [Client(hurried, number) for number in range(CLIENTS)]
    end = time.monotonic() + SECONDS
    tasks = [Task(lambda client=client: client.run(end)) for client in clients]  # type: ignore[misc]
    for task in tasks:
        while not task.wait(0.02):
            assert len([pid for pid in hurried.children() if is_running(pid)]) <= 1
        task.result()
    assert [wrong for client in clients for wrong in client.wrong] == []
    assert sum(client.complete for client in clients) > 0
    assert hurried.process.poll() is None
    for name in "ab":
        body = {"model": name, "messages": directive(reply=name), "keep_alive": -1}
        answer = hurried.post("/generate", body)
        assert answer.json["choices"][0]["content"] == name
    assert hurried.get("/health").json["queue"] == 0
    assert len(hurried.children()) == 1
    assert hurried.post("/unload_model").status == 200
    until(lambda: hurried.children() == [])
    until(lambda: descriptors(hurried) <= before)
    assert not [line for line in hurried.log if "Traceback" in line]
