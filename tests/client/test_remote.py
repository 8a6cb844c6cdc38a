"""The client: what it sends, what it makes of answers and errors, and how it hangs up."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rkllama import errors
from rkllama.api import ollama, ollama_models
from rkllama.api.common import dumps
from rkllama.board.lock import NPULock
from rkllama.client.discover import ServerAddress, find_server
from rkllama.client.remote import RemoteService
from rkllama.config import Settings, load_settings
from rkllama.console import list as listing
from rkllama.types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    Finished,
    LoadedModel,
    Message,
    ModelDetails,
    ModelInfo,
    PullProgress,
    RerankRequest,
    SamplingParams,
    TextDelta,
    Timings,
    Tool,
    ToolCall,
    Usage,
)
from tests import dialects
from tests.cases import cases
from tests.running import Server
from tests.virtual_npu import directive, write_model

LIMIT = 10.0
DIGEST = "0123456789abcdef" * 4
QWEN = ModelInfo(
    name="qwen",
    file="qwen.rkllm",
    path="/m/qwen.rkllm",
    format="rkllm",
    size=1000,
    modified=1.75e9,
    quantization="w8a8",
    platform="rk3588",
    parameter_size="1.5B",
    family="qwen2.5",
    context_length=4096,
    digest=DIGEST,
)
BARE = ModelInfo(
    name="a/b:1b",
    file="b.gguf",
    path="/m/a/b.gguf",
    format="gguf",
    size=1,
    modified=5.5,
    digest="f" * 64,
)
LOADED = LoadedModel(
    info=QWEN,
    state="ready",
    context_length=2048,
    expires=1.8e9,
    memory=5000,
    runtime="r 1",
    pid=7,
    uses_npu=True,
)
HELLO = ChatRequest(model="qwen", messages=(Message.of("user", "Hello"),))

Prepared = tuple[int, Iterable[bytes]]


def digest(info: ModelInfo) -> str:
    return info.digest or "0" * 64


class Canned:
    """A server that plays prepared answers, one connection at a time, and keeps the requests."""

    def __init__(self, answers: dict[str, Prepared | Callable[[Any], Prepared]]) -> None:
        self._answers = answers
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[str] = []
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Canned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing a listener does not wake a thread in accept; a connection does.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(LIMIT)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            line = stream.readline().decode()
            if not line:
                return  # `rkllama list` looks whether anybody listens before it asks
            head = "".join(iter(lambda: stream.readline().decode(), "\r\n")).lower()
            length = next((h for h in head.splitlines() if h.startswith("content-length:")), ": 0")
            data = stream.read(int(length.split(":")[1]))
        call = " ".join(line.split()[:2])
        body = json.loads(data) if data else None
        self.requests.append((call, body))
        self.headers.append(head)
        answer = self._answers[call]
        status, frames = answer(body) if callable(answer) else answer
        connection.sendall(f"HTTP/1.0 {status} Whatever\r\nX-Y: z\r\n\r\n".encode())
        try:
            for frame in frames:
                connection.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            self.hung_up.set()


def settings(address: str, **values: Any) -> Settings:
    return load_settings({"host": address, **values})


def service(address: str, **values: Any) -> RemoteService:
    """The server at an address, whether it is there or not."""
    return RemoteService(ServerAddress(settings(address, **values), address))


@contextlib.contextmanager
def remote(answers: dict[str, Any], **values: Any) -> Iterator[tuple[RemoteService, Canned]]:
    with Canned(answers) as server:
        yield service(server.address, **values), server


def refused(error: errors.RKLLamaError) -> Prepared:
    return error.status, [dumps(ollama.error_body(error))]


def streamed(encoder: Any, events: Iterable[Event]) -> Prepared:
    return 200, [encoder.encode(event) for event in events]


# --- Answers -----------------------------------------------------------------------------------

TIMINGS = Timings(queue=0.5, load=0.25, prompt=0.125, generation=2.0, total=4.0)


def complete(events: list[Event]) -> list[Event]:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [*events[:-1], replace(finished, timings=TIMINGS)]


@cases("name", [name for name in dialects.ALL if name != "scored"])
@cases("encoder", [ollama.ChatEncoder, ollama.GenerateEncoder])
def test_events_arrive_as_they_left(name: str, encoder: Any) -> None:
    events = complete(dialects.ALL[name])
    path, request = "chat", HELLO
    if encoder is ollama.GenerateEncoder:
        path, request = "generate", ChatRequest(model="qwen", prompt="Hello")
    with remote({f"POST /api/{path}": streamed(encoder("qwen:latest"), events)}) as (client, _):
        assert list(client.stream(request)) == events


def test_logprobs_arrive() -> None:
    events = complete(dialects.SCORED)
    answer = streamed(ollama.ChatEncoder("qwen"), events)
    with remote({"POST /api/chat": answer}) as (client, server):
        first, second, _ = client.stream(replace(HELLO, top_logprobs=1))
    assert isinstance(first, TextDelta)
    assert [(t.token, t.logprob, t.top[0].token) for t in first.logprobs] == [("Hé", -0.25, "Ho")]
    assert second == events[1]
    assert server.requests[0][1]["top_logprobs"] == 1


def test_a_request_arrives_as_it_left() -> None:
    """What the client sends, decoded as the server does, is the same request."""
    request = ChatRequest(
        model="qwen",
        messages=(
            Message.of("system", "Be brief."),
            Message.of("user", "Weather?"),
            Message(
                role="assistant",
                reasoning="Hm.",
                tool_calls=(ToolCall(id="call_1", name="weather", arguments={"city": "Köln"}),),
            ),
            Message.of("tool", "rain", tool_call_id="call_1", tool_name="weather"),
        ),
        template="{{ messages }}",
        sampling=SamplingParams(temperature=0.0, top_k=5, min_p=0.1, seed=7, mirostat=2),
        max_tokens=-1,
        stop=("a", "b"),
        think="low",
        template_variables={"preserve_thinking": True},
        tools=(Tool(name="weather", description="d", parameters={"type": "object"}),),
        tool_choice="function:weather",
        format={"type": "object"},
        context_length=512,
        keep_alive=-1.0,
        top_logprobs=0,
    )
    answer = streamed(ollama.ChatEncoder("qwen"), dialects.SILENT)
    with remote({"POST /api/chat": answer}) as (client, server):
        list(client.stream(request))
    ((_, body),) = server.requests
    generation = dialects.decoded(ollama.decode_chat, body)
    assert (generation.request, generation.stream) == (request, True)


def test_a_prompt_arrives_as_it_left() -> None:
    request = ChatRequest(
        model="qwen", prompt="Once", system="S", template="T", suffix="end", think=False
    )
    answer = streamed(ollama.GenerateEncoder("qwen"), dialects.SILENT)
    with remote({"POST /api/generate": answer}) as (client, server):
        list(client.stream(request))
        list(client.stream(ChatRequest(model="qwen", prompt="Once", raw=True)))
    first, second = (
        dialects.decoded(ollama.decode_generate, body).request for _, body in server.requests
    )
    assert first == request
    assert second.raw is True


def test_a_system_text_beside_messages_becomes_the_first_one() -> None:
    answer = streamed(ollama.ChatEncoder("qwen"), dialects.SILENT)
    with remote({"POST /api/chat": answer}) as (client, server):
        list(client.stream(replace(HELLO, system="Be brief.")))
    messages = dialects.decoded(ollama.decode_chat, server.requests[0][1]).request.messages
    assert messages == (Message.of("system", "Be brief."), *HELLO.messages)


def test_without_a_model_the_loaded_one_answers() -> None:
    answers = {
        "GET /api/ps": (200, [dumps(ollama_models.ps_body([LOADED], digest))]),
        "POST /api/chat": streamed(ollama.ChatEncoder("qwen"), dialects.TEXT),
    }
    with remote(answers) as (client, server):
        list(client.stream(replace(HELLO, model=None)))
    assert server.requests[1][1]["model"] == "qwen"
    with (
        remote({"GET /api/ps": (200, [b'{"models":[]}'])}) as (client, _),
        pytest.raises(errors.NoModelLoaded),
    ):
        next(client.stream(replace(HELLO, model=None)))


def test_events_come_while_the_answer_is_being_written() -> None:
    encoder = ollama.ChatEncoder("qwen")
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield encoder.encode(TextDelta("first"))
        assert go_on.wait(LIMIT)
        yield encoder.encode(dialects.finished())

    with remote({"POST /api/chat": (200, slowly())}) as (client, _):
        events = client.stream(HELLO)
        assert next(events) == TextDelta("first")
        go_on.set()
        assert list(events) == [replace(dialects.finished(), timings=Timings())]


def test_closing_the_events_hangs_up() -> None:
    frame = ollama.ChatEncoder("qwen").encode(TextDelta("again and again"))

    def endless() -> Iterator[bytes]:
        while True:
            yield frame

    with remote({"POST /api/chat": (200, endless())}) as (client, server):
        events = client.stream(HELLO)
        assert next(events) == TextDelta("again and again")
        events.close()
        assert server.hung_up.wait(LIMIT)


def test_embeddings() -> None:
    result = EmbeddingResult(
        model="qwen",
        vectors=([0.6, 0.8], [1.0, 0.0]),
        usage=Usage(prompt_tokens=5),
        timings=Timings(load=0.5, total=1.0),
    )
    request = EmbeddingRequest(
        model="qwen", inputs=("a", "b"), truncate=False, dimensions=2, keep_alive=1.0
    )
    answers = {"POST /api/embed": (200, [dumps(ollama.embed_body("qwen", result))])}
    with remote(answers) as (client, server):
        assert client.embed(request) == result
    assert ollama.decode_embed(server.requests[0][1]) == request


# --- Models ------------------------------------------------------------------------------------


def test_a_ranking_has_a_score_for_each_document() -> None:
    reply = {"model": "m", "results": [{"index": 0, "relevance_score": 0.5}]}
    with remote({"POST /api/rerank": (200, [dumps(reply)])}) as (service, _):
        request = RerankRequest(model="m", query="q", documents=("a", "b"))
        assert service.rerank(replace(request, documents=("a",))).scores == (0.5,)
        with pytest.raises(errors.ServerUnreachable):
            service.rerank(request)


def test_models() -> None:
    body = ollama_models.tags_body([QWEN, BARE], digest)
    with remote({"GET /api/tags": (200, [dumps(body)])}) as (client, _):
        assert client.models() == [QWEN, BARE]


DETAILS = ModelDetails(
    info=QWEN,
    system="Be brief.",
    template="T",
    parameters=(("num_ctx", "4096"), ("stop", 'a "b"\n\u2028'), ("stop", "x y"), ("top_p", "0.9")),
    messages=(Message.of("user", "Hi"), Message.of("assistant", "Yes?")),
    license="MIT",
    modelfile="FROM x\n",
    parent="base",
    capabilities=("completion", "tools"),
    metadata={"general.name": "q"},
)


@pytest.mark.parametrize("details", [DETAILS, ModelDetails(info=BARE)])
def test_show(details: ModelDetails) -> None:
    body = ollama_models.show_body(details, digest)
    with remote({"POST /api/show": (200, [dumps(body)])}) as (client, server):
        assert client.show("qwen") == details
    assert server.requests == [("POST /api/show", {"model": "qwen"})]


@pytest.mark.parametrize(
    "model",
    [LOADED, LoadedModel(info=BARE, state="loading"), replace(LOADED, expires=None, memory=None)],
)
def test_loaded(model: LoadedModel) -> None:
    body = ollama_models.ps_body([model], digest)
    with remote({"GET /api/ps": (200, [dumps(body)])}) as (client, _):
        assert client.loaded() == [model]
        assert client.current() == model.info


def show_and_ps(reason: Any) -> dict[str, Any]:
    answer = ollama.GenerateEncoder("qwen").without_words(reason, Timings(load=1.0, total=1.0))
    return {
        "POST /api/show": (200, [dumps(ollama_models.show_body(DETAILS, digest))]),
        "GET /api/ps": (200, [dumps(ollama_models.ps_body([LOADED], digest))]),
        "POST /api/generate": (200, [dumps(answer)]),
    }


def load_call(body: object) -> ollama.LoadCall:
    call = ollama.decode_generate(body)
    assert isinstance(call, ollama.LoadCall)
    return call


def test_load() -> None:
    with remote(show_and_ps("load")) as (client, server):
        assert client.load("Qwen", keep_alive=-1.0, context_length=2048) == LOADED
    call, body = server.requests[0]
    assert call == "POST /api/generate"
    load = load_call(body)
    assert (load.model, load.keep_alive, load.context_length) == ("Qwen", -1.0, 2048)


def test_a_load_that_shall_not_last_is_no_unload() -> None:
    with remote(show_and_ps("load")) as (client, server):
        assert client.load("qwen", keep_alive=0.0) == LOADED
    load = load_call(server.requests[0][1])
    assert (load.model, load.keep_alive, load.unloads) == ("qwen", None, False)


@pytest.mark.parametrize("name", [None, "QWEN"])
def test_unload(name: str | None) -> None:
    with remote(show_and_ps("unload")) as (client, server):
        assert client.unload(name) == QWEN
    call, body = server.requests[-1]
    assert call == "POST /api/generate"
    load = load_call(body)
    assert (load.model, load.unloads) == ("qwen", True)


def test_unloading_what_is_not_loaded() -> None:
    answers = {**show_and_ps("unload"), "GET /api/ps": (200, [b'{"models":[]}'])}
    with remote(answers) as (client, server):
        for name in (None, "qwen"):
            with pytest.raises(errors.NoModelLoaded):
                client.unload(name)
    assert "POST /api/generate" not in [call for call, _ in server.requests]


def test_remove_copy_and_create() -> None:
    answers = {
        **show_and_ps("load"),
        "DELETE /api/delete": (200, []),
        "POST /api/copy": (200, []),
        "POST /api/create": (200, [dumps(ollama_models.SUCCESS)]),
    }
    with remote(answers) as (client, server):
        assert client.remove("qwen") == QWEN
        client.copy("qwen", "mine")
        assert client.create("mine", "FROM qwen\nSYSTEM Hi\n") == QWEN
    sent = dict(server.requests)
    assert ollama_models.decode_name(sent["DELETE /api/delete"]) == "qwen"
    assert ollama_models.decode_copy(sent["POST /api/copy"]) == ("qwen", "mine")
    created = ollama_models.decode_create(sent["POST /api/create"])
    assert (created.name, created.modelfile) == ("mine", "FROM qwen\nSYSTEM Hi\n")


def pull_steps() -> list[PullProgress]:
    first = PullProgress(status="resolving", file="q.rkllm")
    step = replace(first, status="downloading", total=1000, digest=DIGEST, resumed=100)
    return [
        first,
        *(replace(step, completed=completed) for completed in (100, 500, 1000)),
        replace(step, status="verifying", completed=1000),
        replace(step, status="done", completed=1000, name="q"),
    ]


def test_pull() -> None:
    encoder = ollama_models.PullEncoder()
    with remote({"POST /api/pull": (200, map(encoder.encode, pull_steps()))}) as (client, server):
        steps = client.pull("u/r/q.rkllm")
        assert server.requests == [], "nothing happens before the first step is asked for"
        *before, done = pull_steps()
        assert list(steps) == [*before, replace(done, digest=None)], "the last line has no digest"
    assert ollama_models.decode_pull(server.requests[0][1]).reference == "u/r/q.rkllm"


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_pull_that_breaks_off_is_no_success(count: int) -> None:
    frames = map(ollama_models.PullEncoder().encode, pull_steps()[:count])
    with remote({"POST /api/pull": (200, frames)}) as (client, _):
        steps = client.pull("u/r/q.rkllm")
        assert len(list(itertools.islice(steps, count))) == count
        with pytest.raises(errors.ServerUnreachable, match="in the middle of the download"):
            next(steps)


DRAIN = [
    dumps({"status": status, "running": 1, "waiting": 0, "timeout": 9.5}) + b"\n"
    for status in ("draining", "drained")
]


@pytest.mark.parametrize(("wait", "count"), [(False, 1), (True, 2)])
def test_drain(wait: bool, count: int) -> None:
    with remote({"POST /api/rkllama/drain": (200, DRAIN[:count])}) as (client, server):
        states = [state["status"] for state in client.drain(7.0, wait=wait)]
    assert states == ["draining", "drained"][:count]
    assert server.requests[0][1] == {"timeout": 7.0, "wait": wait}


@pytest.mark.parametrize("count", [0, 1])
def test_a_drain_that_breaks_off_is_no_success(count: int) -> None:
    with remote({"POST /api/rkllama/drain": (200, DRAIN[:count])}) as (client, _):
        states = client.drain(wait=True)
        assert len(list(itertools.islice(states, count))) == count
        with pytest.raises(errors.ServerUnreachable, match="before it told that it had drained"):
            next(states)


# --- Errors ------------------------------------------------------------------------------------

ERRORS = [
    errors.InvalidRequest("'n' is wrong", param="n", hint="Write it right."),
    errors.PromptTooLong("too long", prompt_tokens=5000),
    errors.ModelNotFound("qwin", candidates=("qwen", "qwen2")),
    errors.AmbiguousName("q", ("qwen", "qwen2")),
    errors.NoModelLoaded(),
    errors.ModelsDirMissing("/m"),
    errors.QueueFull(64, retry_after=7),
    errors.TooManyBodies(1024, retry_after=7),
    errors.UnsupportedEncoding("br"),
    errors.LoadFailed("refused", hint="Convert it again."),
    errors.LibraryNotFound((("/a", "absent"), ("/b", "broken")), hint="Install it."),
    errors.NPUBusy("pid 7"),
    errors.WorkerCrashed("died", exit_status=-11),
    errors.WorkerHung("hung", seconds=30.0),
    errors.DiskFull("full", needed=10, available=5),
    errors.HubGated("accept the licence"),
]


def assert_same(caught: errors.RKLLamaError, error: errors.RKLLamaError) -> None:
    assert type(caught) is type(error)
    assert (caught.text, caught.status, caught.code) == (error.text, error.status, error.code)
    assert vars(caught) == vars(error)


@cases("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_arrive_as_they_left(error: errors.RKLLamaError) -> None:
    encoder = ollama.ChatEncoder("qwen")
    inside = (200, [encoder.encode(TextDelta("so far")), encoder.error(error)])
    answers = {"POST /api/show": refused(error), "POST /api/chat": inside}
    with remote(answers) as (client, _):
        with pytest.raises(errors.RKLLamaError) as before:
            client.show("qwin")
        events = client.stream(HELLO)
        assert next(events) == TextDelta("so far")
        with pytest.raises(errors.RKLLamaError) as within:
            next(events)
    assert_same(before.value, error)
    assert_same(within.value, error)


def test_the_log_of_a_model_stays_with_the_server() -> None:
    failed = refused(errors.LoadFailed("no", log="private"))
    with (
        remote({"GET /api/ps": failed}) as (client, _),
        pytest.raises(errors.LoadFailed) as caught,
    ):
        client.loaded()
    assert caught.value.log == ""


def test_an_error_of_an_unknown_kind() -> None:
    answer = (418, [b'{"error":"I am a teapot","code":"teapot"}'])
    with (
        remote({"GET /api/ps": answer}) as (client, _),
        pytest.raises(errors.RKLLamaError, match="I am a teapot") as caught,
    ):
        client.loaded()
    assert caught.value.status == 418


def test_the_key_is_sent_and_asked_for() -> None:
    answers = {"GET /api/tags": (401, [b'{"error":"who are you?"}'])}
    with (
        remote(answers, api_keys=["secret", "other"]) as (client, server),
        pytest.raises(errors.ConfigError, match="does not accept this API key"),
    ):
        client.models()
    assert "authorization: bearer secret\r\n" in server.headers[0]
    with (
        remote(answers) as (client, _),
        pytest.raises(errors.ConfigError, match="requires an API key"),
    ):
        client.models()


@pytest.mark.parametrize(
    "answer",
    [
        (200, [b"<html>hello</html>"]),
        (404, [b"<html>not here</html>"]),
        (200, [b"[]"]),
        (200, [b'{"models":[{"name":"llama3:latest","details":{}}]}']),
        (200, [b'{"models":3}']),
        (200, [b"{}"]),
    ],
)
def test_another_kind_of_server(answer: Prepared) -> None:
    answers = {"GET /api/tags": answer, "GET /api/version": answer}
    with remote(answers) as (client, server):
        with pytest.raises(errors.ServerUnreachable, match="another program is listening"):
            client.models()
        assert find_server(settings(server.address)) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, [dumps(ollama_models.version_body("1.0.0", "/models", "/home"))]), True),
        ((200, [b'{"version":"0.12.6"}']), False),
        ((404, [b'{"error":"nothing here"}']), False),
    ],
)
def test_what_answers_as_rkllama_is_found(answer: Prepared, expected: bool) -> None:
    with Canned({"GET /api/version": answer}) as server:
        assert (find_server(settings(server.address)) is not None) is expected


def test_a_server_that_asks_for_a_key_is_one() -> None:
    with (
        Canned({"GET /api/version": (401, [b'{"error":"a key, please"}'])}) as server,
        pytest.raises(errors.ConfigError, match="requires an API key"),
    ):
        find_server(settings(server.address))


def test_nobody_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    assert find_server(settings(address)) is None
    with pytest.raises(errors.ServerUnreachable) as caught:
        service(address).models()
    assert caught.value.url == f"http://{address}"


def test_the_key_stays_here_where_the_address_stands_in_a_public_file(tmp_path: Path) -> None:
    mine = settings("127.0.0.1:0", api_keys="SECRET")
    with Canned({"GET /api/version": (401, [b'{"error":"a key, please"}'])}) as server:
        url = f"http://{server.address}"
        forged = {"pid": 1, "command": "x", "url": url}
        (tmp_path / "npu.lock").write_text(dumps(forged).decode())
        assert find_server(mine) is None
        assert not server.requests, "nobody has locked that file"
        lock = NPULock(str(tmp_path / "npu.lock"), "rkllama serve", url)
        lock.acquire()
        with pytest.raises(errors.ConfigError, match="is not sent to an address") as caught:
            find_server(mine)
        lock.release()
        assert f"RKLLAMA_HOST={url}" in caught.value.text
        assert "secret" not in server.headers[0]
        with pytest.raises(errors.ConfigError, match="does not accept this API key"):
            find_server(settings(server.address, api_keys="SECRET"))
        assert "bearer secret" in server.headers[1]


def test_an_answer_that_breaks_off() -> None:
    encoder = ollama.ChatEncoder("qwen")
    with remote({"POST /api/chat": (200, [encoder.encode(TextDelta("so"))])}) as (client, _):
        events = client.stream(HELLO)
        assert next(events) == TextDelta("so")
        with pytest.raises(errors.ServerUnreachable, match="in the middle of the answer"):
            next(events)


# --- `rkllama list`, a client of its own -------------------------------------------------------

TAGS = (200, [dumps(ollama_models.tags_body([QWEN, BARE], digest))])
VERSION = (200, [dumps(ollama_models.version_body("1.0.0", "/models", "/home"))])


def listed(address: str, patch: pytest.MonkeyPatch) -> list[object]:
    patch.setenv("RKLLAMA_HOST", address)
    return [row["name"] for row in listing.collect()]


def elsewhere(server: Canned) -> str:
    """Another spelling of its address, which does not look like this machine's."""
    return server.address.replace("127.0.0.1", "0x7f.0.0.1")


def test_list_knows_a_server_behind_a_proxy(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    """A proxy puts a name of its own into `Server`."""
    write_model(models / "mine.rkllm")
    with Canned({"GET /api/tags": TAGS, "GET /api/version": VERSION}) as server:
        for address in (elsewhere(server), server.address):
            assert listed(address, monkeypatch) == ["qwen", "a/b:1b"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, [b"<html>hello</html>"]),
        (404, [b"<html>not here</html>"]),
        (200, [b'{"models":[{"name":"llama3:latest","details":{}}]}']),
        (200, [b'{"models":3}']),
    ],
)
def test_list_shows_no_other_models_than_those_of_the_machine_that_was_named(
    answer: Prepared, monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    write_model(models / "mine.rkllm")
    with Canned({"GET /api/tags": answer, "GET /api/version": answer}) as server:
        with pytest.raises(errors.ServerUnreachable, match="another program is listening"):
            listed(elsewhere(server), monkeypatch)
        with pytest.raises(errors.ServerUnreachable, match="another program is listening"):
            listed(server.address, monkeypatch)


# --- A real server -----------------------------------------------------------------------------


@pytest.mark.integration
def test_through_a_running_server(models: Path, server: Server) -> None:
    write_model(models / "echo.rkllm")
    client = service(f"{server.host}:{server.port}")
    found = find_server(settings(f"{server.host}:{server.port}"))
    assert found is not None
    assert found.url == f"http://{server.host}:{server.port}"
    (info,) = client.models()
    assert (info.name, info.path) == ("echo", str(models / "echo.rkllm"))
    assert client.loaded() == []
    *events, finished = client.stream(ChatRequest(model="echo", prompt="Hello", max_tokens=8))
    assert "".join(event.text for event in events if isinstance(event, TextDelta))
    assert isinstance(finished, Finished)
    assert (finished.model, client.current().name) == ("echo", "echo")
    *_, finished = client.stream(ChatRequest(model="echo", prompt="x " + directive(reply="&" * 40)))
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.repeats) == ("length", True)
    assert client.load("ECHO", keep_alive=-1.0).expires is None
    assert client.unload().name == "echo"
    with pytest.raises(errors.NoModelLoaded):
        client.unload()
    with pytest.raises(errors.ModelNotFound):
        client.show("nobody")
    assert client.remove("echo").name == "echo"
    assert client.models() == []
