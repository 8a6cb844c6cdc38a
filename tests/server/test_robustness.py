"""Attacks on a running server: whatever is sent, it answers 4xx, keeps its files, and serves the next one."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest

from rkllama.serve import routes
from tests.running import LIMIT, Reply, Server
from tests.virtual_npu import directive, library, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

JSON_ROUTES = [
    (method, route.path)
    for route in routes()
    for method in route.methods
    if method in ("POST", "DELETE")
    and "<" not in route.path
    and route.path not in ("/unload_model", "/api/rkllama/drain")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared server's home; a canary lies beside the models directory."""
    home = tmp_path_factory.mktemp("robust")
    models = home / "RKLLAMA" / "models"
    models.mkdir(parents=True)
    write_model(models / "m.rkllm")
    (home / "RKLLAMA" / "canary.rkllm").write_bytes((models / "m.rkllm").read_bytes())
    return home


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Server]:
    """One server for all that must leave no trace in it."""
    env = {
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "RKLLAMA_RKLLM_LIB": library("1.2.3"),
        "RKLLAMA_LOCK": str(folder / "lock"),
        "RKLLAMA_MAX_BODY": str(1 << 20),
    }
    with Server(env=env) as server:
        yield server
    log = "".join(server.log)
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


def assert_healthy(server: Server) -> None:
    """It still answers, with text."""
    assert server.get("/health").status == 200
    answer = server.post("/generate", {"model": "m", "messages": "still there?"})
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["content"] == "still there?"


def assert_refused(answer: Reply, path: str) -> None:
    """A 4xx with the dialect's error object, which shows nothing of the inside."""
    assert 400 <= answer.status < 500, (path, answer.status, answer.body)
    if path != "/pull":
        error = answer.json["error"]
        assert error["message"] if path.startswith("/v1/") else error
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body


def raw(server: Server, data: bytes, half_close: bool = False) -> bytes:
    """Everything that the server sends to these bytes until it closes, or is silent for a second."""
    with socket.create_connection((server.host, server.port), timeout=LIMIT) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received and (part := receive(client)):
            received += part
        client.settimeout(0.2)
        while part := receive(client):
            received += part
        return received


def receive(client: socket.socket) -> bytes:
    """What has come; b"" when the server has hung up or is silent."""
    try:
        return client.recv(1 << 16)
    except (TimeoutError, ConnectionResetError):
        return b""


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# --- Bodies ------------------------------------------------------------------------------------

BODIES = {
    "empty": b"",
    "blank": b"  \r\n ",
    "cut off": b'{"model": "m", "messages": ',
    "no JSON": b"messages=hello&model=m",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a string": b'"m"',
    "NaN": b'{"model": "m", "model_name": NaN, "messages": NaN, "options": {"top_p": NaN}}',
    "too deep": b'{"model":' * 5000 + b"1" + b"}" * 5000,
    "lists too deep": b"[" * 100_000 + b"]" * 100_000,
    "a long number": b'{"model": ' + b"9" * 10_000 + b"}",
    "a great exponent": b'{"model": "m", "messages": 1e999}',
    "no UTF-8": b'{"model": "\xff\xfe\xfa"}',
    "a byte order mark": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "NUL bytes": b"\0" * 64,
    "keys without quotes": b"{model: 'm'}",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused_everywhere(shared: Server, name: str) -> None:
    for method, path in JSON_ROUTES:
        assert_refused(shared.request(method, path, BODIES[name]), path)


WRONG: list[object] = [
    None,
    True,
    -1,
    1e300,
    10**40,
    "",
    "x",
    "\0",
    "\ud800",
    [],
    [None],
    [[]],
    [{}],
]
WRONG += [{}, {"a": None}, [1], {"type": "text"}, [{"role": "user"}], [{"role": 1, "content": 1}]]
WRONG += ["../../canary", "a" * 5000]
GOOD = {"role": "user", "content": "hi"}
FIELDS: dict[str, dict[str, object]] = {
    "/load_model": {"model_name": "nothing"},
    "/generate": {
        "model": "m",
        "messages": "hi",
        "stream": False,
        "options": {},
        "max_tokens": 1,
        "stop": "x",
        "think": None,
        "format": None,
        "keep_alive": "5m",
    },
    "/rm": {"model": "nothing"},
    "/api/chat": {
        "model": "m",
        "messages": [GOOD],
        "stream": False,
        "options": {"num_predict": 1},
        "format": None,
        "tools": [],
        "think": None,
        "keep_alive": 60,
        "logprobs": False,
        "top_logprobs": None,
    },
    "/api/generate": {
        "model": "m",
        "prompt": "hi",
        "suffix": None,
        "system": "s",
        "template": None,
        "raw": False,
        "images": None,
        "context": None,
        "stream": False,
        "options": {"num_predict": 1},
        "format": None,
        "keep_alive": "1m",
    },
    "/api/embed": {"model": "m", "input": "hi", "truncate": True, "dimensions": 8, "options": {}},
    "/api/embeddings": {"model": "m", "prompt": "hi"},
    "/api/show": {"model": "m", "verbose": False},
    "/api/copy": {"source": "nothing", "destination": "other"},
    "/api/create": {
        "model": "made",
        "from": "nothing",
        "system": "s",
        "template": "{{ messages }}",
        "parameters": {"temperature": 1},
        "messages": [GOOD],
        "license": "none",
        "files": {},
        "stream": False,
    },
    "/v1/chat/completions": {
        "model": "m",
        "messages": [GOOD],
        "stream": False,
        "stream_options": None,
        "max_tokens": 1,
        "max_completion_tokens": None,
        "stop": None,
        "temperature": 1,
        "seed": 1,
        "n": 1,
        "tools": [],
        "tool_choice": None,
        "response_format": None,
        "reasoning_effort": None,
        "logprobs": None,
        "top_logprobs": None,
        "modalities": None,
    },
    "/v1/completions": {
        "model": "m",
        "prompt": "hi",
        "stream": False,
        "max_tokens": 1,
        "suffix": None,
        "echo": False,
        "n": 1,
        "logprobs": None,
    },
    "/v1/responses": {
        "model": "m",
        "input": "hi",
        "instructions": None,
        "stream": False,
        "max_output_tokens": 1,
        "text": None,
        "reasoning": None,
        "tools": [],
        "tool_choice": None,
        "previous_response_id": None,
    },
    "/v1/embeddings": {
        "model": "m",
        "input": "hi",
        "encoding_format": "float",
        "dimensions": None,
    },
    "/v1/rerank": {
        "model": "m",
        "query": "q",
        "documents": ["one", {"text": "two"}],
        "top_n": 1,
        "return_documents": False,
        "truncate": True,
    },
    "/v1/messages": {
        "model": "m",
        "messages": [GOOD],
        "max_tokens": 1,
        "system": "s",
        "stream": False,
        "stop_sequences": [],
        "temperature": 1,
        "thinking": None,
        "tools": [],
        "tool_choice": None,
        "metadata": {},
    },
    "/v1/messages/count_tokens": {"model": "m", "messages": [GOOD], "system": None, "tools": []},
}


@pytest.mark.parametrize("path", FIELDS)
def test_no_value_of_any_field_is_a_server_error(shared: Server, folder: Path, path: str) -> None:
    before = _files(folder)
    connection = shared.connect()
    with closing(connection):
        for field in FIELDS[path]:
            for value in WRONG:
                body = json.dumps({**FIELDS[path], field: value})
                connection.request("POST", path, body.encode())
                response = connection.getresponse()
                text = response.read()
                assert response.status < 500, (field, value, response.status, text)
                if response.status >= 400:
                    assert json.loads(text)["error"]
    assert _files(folder) == before


def _files(folder: Path) -> set[str]:
    """What lies in and around the models directory, but for what the server keeps for itself."""
    own = {".rkllama", "logs", "states"}
    return {
        str(file.relative_to(folder))
        for file in (folder / "RKLLAMA").rglob("*")
        if not own.intersection(file.parts)
    }


# --- HTTP --------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
RM = b"POST /rm HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = RM + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_HTTP = {
    "no HTTP": b"hello\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
    "bare line feed": GET + b"X: a\nY: b\r\n\r\n",
    "NUL in a header": GET + b"X: a\0b\r\n\r\n",
    "negative length": RM + b"Content-Length: -5\r\n\r\nhello",
    "signed length": RM + b"Content-Length: +5\r\n\r\nhello",
    "no length": RM + b"Content-Length: five\r\n\r\nhello",
    "two lengths": RM + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length of 5000 digits": RM + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a huge length": RM + b"Content-Length: 99999999999999999999\r\n\r\n",
    "bad chunk": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a long line before a chunk": CHUNKED + b"f" * (1 << 16),
    "a long trailer": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: yz\r\n" * 9363,
    "long header": GET + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "long path": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a huge chunk": CHUNKED + b"fffffffff\r\n{}",
    "lengths of two kinds": RM
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": RM + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": RM + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "a folded line": RM + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "any folded line": GET + b"X: a\r\n b\r\n\r\n",
    "an empty encoding": RM + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunks of old": b"POST /rm HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: localhost\r\n\r\n",
    "a user in the host": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:80@evil\r\n\r\n",
    "junk behind an address": b"GET / HTTP/1.1\r\nHost: [::1]evil\r\n\r\n",
    "another HTTP": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "bad authority": b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bad percent": b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_what_is_no_request_is_refused(shared: Server, name: str) -> None:
    answer = raw(shared, BAD_HTTP[name])
    assert 400 <= status_of(answer) < 500, answer[:300]
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_an_encoding_that_nobody_knows_is_refused(shared: Server) -> None:
    head = b"POST /rm HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    assert status_of(raw(shared, head + b"0\r\n\r\n")) in (400, 501)


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n", b"Content-Length: 9999999\r\n"])
def test_who_needs_not_be_told_to_go_on_is_answered_at_once(shared: Server, length: bytes) -> None:
    head = b"POST /rm HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    answer = raw(shared, head + length + b"\r\n")
    assert status_of(answer) == (413 if b"9" in length else 400), answer[:300]


def test_who_waits_for_it_is_told_to_go_on(shared: Server) -> None:
    head = b"POST /rm HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    answer = raw(shared, head + b"Content-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad Request")


def test_a_chunked_body_is_read(shared: Server) -> None:
    body = b'{"model": "m", "messages": "in pieces"}'
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7)
    )
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(shared, head + chunks + b"0\r\n\r\n")
    assert status_of(answer) == 200
    assert b'"in pieces"' in answer


@pytest.mark.parametrize("name", ["lengths of two kinds", "chunked in two lines", "chunks of old"])
def test_no_request_hides_behind_another(shared: Server, name: str) -> None:
    """Who could disagree with a proxy about a request's end is answered once and cut off."""
    answer = raw(shared, BAD_HTTP[name] + GET + b"\r\n")
    assert status_of(answer) == 400
    assert len(re.findall(rb"HTTP/1\.\d \d", answer)) == 1
    assert b"Connection: close" in answer


def test_a_chunk_beyond_the_limit_is_refused_before_it_comes(shared: Server) -> None:
    assert status_of(raw(shared, CHUNKED + b"%x\r\n" % ((1 << 20) + 1))) == 413


@pytest.mark.parametrize("path", ["/generate", "/api/chat", "/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_in_the_dialect(
    shared: Server, path: str, chunked: bool
) -> None:
    size = 2 << 20
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    if chunked:
        data = (
            b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 2
        )
    else:
        data = b"Content-Length: %d\r\n\r\n" % size
    answer = raw(shared, head + data)
    assert status_of(answer) == 413, answer[:200]
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    text = error["message"] if path.startswith("/v1") else error
    assert str(1 << 20) in text
    assert "RKLLAMA_MAX_BODY" in text


def test_a_body_of_just_the_limit_is_read(shared: Server) -> None:
    body = b'{"model": "m", "messages": "hi"}'
    body += b" " * ((1 << 20) - len(body))
    assert shared.request("POST", "/generate", body).status == 200
    # The refusal does not wait for the body, nor may a test: its last bytes could meet a closed socket.
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    assert raw(shared, head % (len(body) + 1)).startswith(b"HTTP/1.1 413")


def test_a_body_shorter_than_its_length_is_never_carried_out(shared: Server, folder: Path) -> None:
    head = b"POST /rm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"
    assert raw(shared, head + b'{"model": "m.rkllm"}', half_close=True) == b""
    assert (folder / "RKLLAMA" / "models" / "m.rkllm").exists()


def test_requests_in_one_packet_are_answered_in_order(shared: Server) -> None:
    one = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    paths = (b"/", b"/models", b"/nothing", b"/api/version")
    answer = raw(shared, b"".join(one % path for path in paths))
    parts = answer.split(b"HTTP/1.1 ")[1:]
    assert [int(part[:3]) for part in parts] == [200, 200, 404, 200]
    assert b"m.rkllm" in parts[1]
    assert b'"rkllama"' in parts[3]


def test_http_1_0_is_answered_and_closed(shared: Server) -> None:
    answer = raw(shared, b"GET /models HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200")
    assert answer.endswith(b'{"models":["m.rkllm"]}')


def test_a_get_with_a_body_is_answered(shared: Server) -> None:
    assert shared.request("GET", "/models", b"x" * 100_000).json == {"models": ["m.rkllm"]}


def test_percent_encoded_paths_are_paths(shared: Server) -> None:
    assert shared.get("/%6Dodels").status == 200
    assert shared.get("/api%2Fversion").status == 200
    for path in ("/models/..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "//etc/passwd", "/%00"):
        assert shared.get(path).status in (400, 404)


@pytest.mark.parametrize("path", ["/", "/api/x", "/v1/x", "/v1/messages/x", "/%0d%0aX-Evil:%201"])
def test_unknown_methods_and_paths_are_refused_in_the_dialect(shared: Server, path: str) -> None:
    for method in ("PATCH", "TRACE", "PROPFIND", "CONNECT", "A" * 500):
        answer = shared.request(method, path)
        assert_refused(answer, path)
        assert "x-evil" not in answer.headers


def test_nothing_that_a_client_sends_begins_a_line_of_the_log(shared: Server) -> None:
    shared.get("/%0aINFO%20forged%20line")
    shared.post("/rm", {"model": "x\nINFO forged too"})
    shared.get("/%1b[2Jcleared")
    assert shared.get("/health").status == 200
    assert not any(line.startswith("INFO") for line in shared.log)
    assert not any("\x1b" in line for line in shared.log)


# --- Names that lead elsewhere -----------------------------------------------------------------

ESCAPES = (
    "../canary",
    "../canary.rkllm",
    "..",
    ".",
    "/",
    "",
    "./../canary.rkllm",
    "m/../../canary.rkllm",
    "..\\canary.rkllm",
    "%2e%2e/canary.rkllm",
    "~/RKLLAMA/canary.rkllm",
    "file:///etc/passwd",
    "/etc/passwd",
    "canary.rkllm\0.rkllm",
    "*",
    ".rkllama",
    "m.rkllm/..",
)
NAMED = (
    ("POST", "/load_model", "model_name"),
    ("DELETE", "/rm", "model"),
    ("POST", "/rm", "model"),
    ("DELETE", "/api/delete", "model"),
    ("POST", "/api/show", "model"),
    ("POST", "/api/copy", "source"),
    ("POST", "/api/copy", "destination"),
    ("POST", "/api/create", "from"),
    ("POST", "/api/create", "model"),
    ("POST", "/generate", "model"),
    ("POST", "/api/chat", "model"),
    ("POST", "/v1/chat/completions", "model"),
    ("POST", "/v1/messages", "model"),
    ("POST", "/pull", "model"),
    ("POST", "/api/pull", "model"),
)
REST: dict[str, object] = {
    "source": "m",
    "destination": "../copied",
    "from": "m",
    "messages": [GOOD],
    "max_tokens": 1,
    "stream": False,
}


@pytest.mark.parametrize(("method", "path", "field"), NAMED)
def test_no_name_leads_out_of_the_models_directory(
    shared: Server, folder: Path, method: str, path: str, field: str
) -> None:
    before = _files(folder)
    absolute = str(folder / "RKLLAMA" / "canary.rkllm")
    for name in (*ESCAPES, absolute):
        if not name and path == "/v1/messages":
            continue  # that client cannot leave the model out, so "" is the loaded one
        body = {**REST, "model": "made", field: name}
        answer = shared.request(method, path, body)
        assert_refused(answer, path)
    assert _files(folder) == before


@pytest.mark.parametrize("name", ESCAPES)
def test_no_path_leads_out_of_the_models_directory(shared: Server, name: str) -> None:
    for path in ("/v1/models/", "/api/blobs/", "/api/blobs/sha256:"):
        answer = shared.get(path + quote(name, safe=""))
        assert 400 <= answer.status < 500 or (path, name.strip("/")) == ("/v1/models/", "")
        assert 400 <= shared.post(path + quote(name, safe=""), b"x").status < 500


def test_uploads_are_kept_under_their_own_digest_only(shared: Server, folder: Path) -> None:
    before = _files(folder)
    digest = "sha256:" + "0" * 64
    assert_refused(shared.post(f"/api/blobs/{digest}", b"something else"), "/api/blobs")
    assert shared.request("HEAD", f"/api/blobs/{digest}").status == 404
    for file in ("../../x.rkllm", "x.rkllm", "a" * 300 + ".rkllm", "..", "/etc/x.rkllm", ".rkllm"):
        body = {"model": "made", "files": {file: digest}, "stream": False}
        assert_refused(shared.post("/api/create", body), "/api/create")
    assert _files(folder) == before
    blobs = folder / "RKLLAMA" / "models" / ".rkllama" / "blobs"
    assert list(blobs.iterdir()) == []


def test_an_upload_becomes_a_model_whatever_the_length_of_its_name(
    shared: Server, folder: Path
) -> None:
    import hashlib

    data = (folder / "RKLLAMA" / "models" / "m.rkllm").read_bytes() + b"\nan upload"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert shared.post(f"/api/blobs/{digest}", data).status == 201
    assert shared.request("HEAD", f"/api/blobs/{digest}").status == 200
    long = {"model": "up", "files": {"a" * 300 + ".rkllm": digest}, "stream": False}
    assert_refused(shared.post("/api/create", long), "/api/create")
    body = {"model": "up", "files": {"../up.rkllm": digest}, "stream": False}
    before = _files(folder)
    for wrong in ({"model": "user/up"}, {"model": "m"}, {"modelfile": "MESSAGE nobody hi"}):
        assert_refused(shared.post("/api/create", {**body, **wrong}), "/api/create")
        assert _files(folder) == before
    assert shared.post("/api/create", body).status == 200
    try:
        names = [model["name"] for model in shared.get("/api/tags").json["models"]]
        assert "up:latest" in names
        assert len(names) == 2  # and not the file once more
        answer = shared.post("/api/generate", {"model": "up", "prompt": "yes", "stream": False})
        assert answer.json["response"] == "yes"
    finally:
        assert shared.request("DELETE", "/rm", {"model": "up"}).status == 200
    assert shared.get("/models").json["models"] == ["m.rkllm"]


# --- Connections -------------------------------------------------------------------------------


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def threads(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def test_half_sent_requests_keep_nobody_waiting(shared: Server) -> None:
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(socket.create_connection((shared.host, shared.port))))
            for _ in range(60)
        ]
        for number, client in enumerate(clients):
            client.sendall(head + (b"" if number % 2 else b'\r\n{"mod'))
        assert_healthy(shared)
        for client in clients:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):  # the server waits for the rest of it still
                client.recv(1)


def test_nothing_leaks_over_hundreds_of_requests(shared: Server) -> None:
    assert_healthy(shared)
    before, tasks, children = open_files(shared), threads(shared), shared.children()
    for number in range(60):
        shared.get("/models")
        shared.post("/generate", b"{")
        shared.post("/api/chat", {"model": "m", "messages": [GOOD]})
        body = {"model": "m", "messages": "hi " + directive(tokens=3000, token_us=1000)}
        with shared.stream("/generate", {**body, "stream": True}) as stream:
            if number % 2:
                assert stream.status() == 200
    assert_healthy(shared)
    until(lambda: open_files(shared) <= before)
    assert threads(shared) <= tasks
    assert shared.children() == children


def test_sixty_connections_at_once_are_all_answered(shared: Server) -> None:
    results: list[int] = []

    def ask() -> None:
        body = {"model": "m", "messages": "hi " + directive(tokens=5), "stream": True}
        results.append(shared.post("/generate", body).status)

    asking = [threading.Thread(target=ask) for _ in range(60)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(LIMIT)
    assert results == [200] * 60


def test_more_connections_than_a_process_may_open_keep_nobody_out(models: Path, npu: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        server = Server().__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with ExitStack() as stack:
        stack.push(server)
        with ExitStack() as clients:
            for _ in range(250):
                client = socket.create_connection((server.host, server.port), timeout=LIMIT)
                clients.enter_context(closing(client))
            assert server.get("/health").status == 200
            assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 150
        assert not any("WARNING" in line or "ERROR" in line for line in server.log)
