"""Streams that begin before their first event: the application over a service that plays what happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from rkllama.config import load_settings
from rkllama.errors import Cancelled, LoadFailed
from rkllama.serve import create_app
from rkllama.service import Caller
from rkllama.types import ChatRequest, Event, Finished, TextDelta

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
PATHS: dict[str, dict[str, Any]] = {
    "/generate": {"model": "m", "messages": "Hi", "stream": True},
    "/api/chat": CHAT,
    "/api/generate": {"model": "m", "prompt": "Hi"},
    "/v1/chat/completions": {**CHAT, "stream": True},
    "/v1/completions": {"model": "m", "prompt": "Hi", "stream": True},
    "/v1/responses": {"model": "m", "input": "Hi", "stream": True},
    "/v1/messages": {**CHAT, "max_tokens": 9, "stream": True},
}
SIGNS = {"/generate": b'"content":""', "/v1/messages": b"event: ping", "/api/chat": b'"content":""'}

Play = Callable[[Caller], Generator[Event, None, None]]


class Service:
    """A service whose answers are played."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self.counted: list[int] = []

    def stream(self, request: ChatRequest, caller: Caller) -> Generator[Event, None, None]:
        return self._play(caller)

    def count_request(self, path: str, status: int) -> None:
        self.counted.append(status)


class Client:
    """What came of a request: the head, which is sent once, and the body in its parts."""

    def __init__(self, play: Play, breaks: bool = False, env: Mapping[str, str] | None = None):
        self.service = Service(play)
        settings = load_settings({}, {"RKLLAMA_ALIVE_INTERVAL": "0.1", **(env or {})})
        self._app: Any = validator(create_app(self.service, settings))  # type: ignore[arg-type]
        self._breaks = breaks
        self.status = ""
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []

    def post(self, path: str, body: object = None, **headers: str) -> Client:
        data = json.dumps(PATHS[path] if body is None else body).encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(data)),
            "wsgi.input": BytesIO(data),
            **headers,
        }
        setup_testing_defaults(environ)
        environ["HTTP_HOST"] = "localhost"
        answer = self._app(environ, self._start)
        try:
            self.parts.extend(answer)
        finally:
            answer.close()
        return self

    def _start(self, line: str, headers: Any, _: Any = None) -> Any:
        assert not self.status, "the head was sent twice"
        self.status, self.headers = line, dict(headers)
        return self._write

    def _write(self, part: bytes) -> None:
        if self._breaks:
            raise OSError("the client has gone")
        self.parts.append(part)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


def wait_long(caller: Caller) -> None:
    """Do what takes so long that a sign is due, where there are any."""
    if caller._signs is not None:
        caller._signs._due = 0.0
    caller.reassure()


def slow(caller: Caller) -> Generator[Event, None, None]:
    wait_long(caller)
    yield TextDelta("Bon")
    wait_long(caller)
    yield TextDelta("jour")
    yield Finished(reason="stop", model="m")


def failing(caller: Caller) -> Generator[Event, None, None]:
    wait_long(caller)
    raise LoadFailed("the runtime refused the model")
    yield


def broken(caller: Caller) -> Generator[Event, None, None]:
    wait_long(caller)
    raise ZeroDivisionError
    yield


@pytest.mark.parametrize("path", PATHS)
def test_the_head_goes_out_with_the_first_sign(path: str) -> None:
    client = Client(slow).post(path)
    sign = SIGNS.get(path, b'"response":""' if path == "/api/generate" else b": queue position 0")
    assert client.status == "200 OK"
    assert sign in client.parts[0]
    assert b"Bon" not in client.parts[0]
    assert client.body.count(sign) >= 2
    assert client.body.index(b"Bon") < client.body.rindex(sign)
    assert client.headers["X-Accel-Buffering"] == "no"
    assert client.service.counted == [200]


@pytest.mark.parametrize("path", PATHS)
def test_an_error_after_the_first_sign_is_a_frame(path: str) -> None:
    client = Client(failing).post(path)
    assert client.status == "200 OK"
    assert len(client.parts) == 2
    assert b"the runtime refused the model" in client.parts[1]


@pytest.mark.parametrize("path", PATHS)
def test_an_error_in_time_keeps_its_status(path: str) -> None:
    client = Client(failing, env={"RKLLAMA_ALIVE_INTERVAL": "0"}).post(path)
    assert client.status.startswith("500 ")
    assert b"the runtime refused the model" in client.body
    assert client.service.counted == [500]


def test_a_bug_after_the_first_sign_is_a_frame_that_tells_nothing_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(broken).post("/api/chat")
    assert json.loads(client.parts[1])["error"].startswith("internal error")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_that_is_not_streamed_gets_none(path: str) -> None:
    body = {**PATHS[path], "stream": False}
    client = Client(slow).post(path, body)
    assert client.headers["Content-Type"].startswith("application/json")
    assert "Bonjour" in json.dumps(json.loads(client.body))


def test_the_setting_turns_them_off() -> None:
    client = Client(slow, env={"RKLLAMA_ALIVE_INTERVAL": "0"}).post("/api/chat")
    assert [json.loads(part)["message"]["content"] for part in client.parts] == ["Bon", "jour", ""]


def test_a_sign_that_cannot_be_sent_cancels_the_answer() -> None:
    ends: list[BaseException] = []

    def play(caller: Caller) -> Generator[Event, None, None]:
        # As for a client on a real socket: one that has none cannot hang up.
        caller._fd = 0
        try:
            wait_long(caller)
        except Cancelled as error:
            ends.append(error)
            raise
        yield TextDelta("never")

    client = Client(play, breaks=True).post("/api/chat")
    assert len(ends) == 1
    assert client.body == b""


def watched(caller: Caller) -> Generator[Event, None, None]:
    for before in (2, 1, 0):
        caller.tell(before)
    yield TextDelta("Hi")
    yield Finished(reason="stop", model="m")


@pytest.mark.parametrize("interval", ["0", "10"])
def test_who_asks_to_watch_the_queue_is_told_at_once(interval: str) -> None:
    env = {"RKLLAMA_ALIVE_INTERVAL": interval}
    client = Client(watched, env=env).post("/api/chat", HTTP_X_RKLLAMA_WATCH_QUEUE="1")
    lines = [json.loads(line) for line in client.body.splitlines()]
    assert [line.get("queue_position") for line in lines] == [2, 1, 0, None, None]
    plain = Client(watched, env=env).post("/api/chat")
    assert b"queue_position" not in plain.body
