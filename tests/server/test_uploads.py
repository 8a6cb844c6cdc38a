"""Uploads over HTTP: of any size, on disk as they come, and gone where they break off."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.errors import DiskFull
from rkllama.files import RESERVE
from rkllama.models.uploads import Blobs, Upload
from tests.running import LIMIT, Reply, Server
from tests.waiting import until

pytestmark = pytest.mark.integration

MAX_BODY = 4096
DATA = os.urandom(1 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    """Its other requests have to be small."""
    with Server(env={"RKLLAMA_MAX_BODY": str(MAX_BODY)}) as running:
        yield running


@pytest.fixture
def folder(models: Path) -> Path:
    """Where uploads lie."""
    return models / ".rkllama" / "blobs"


def head(size: str, *lines: str, digest: str = DIGEST) -> bytes:
    """How a request to upload begins."""
    first = f"POST /api/blobs/sha256:{digest} HTTP/1.1"
    return "\r\n".join([first, "Host: localhost", size, *lines, "", ""]).encode()


def answer_to(server: Server, *parts: bytes) -> Reply:
    """What the server says, where it does not want all of it before that, too."""
    with socket.create_connection((server.host, server.port), timeout=LIMIT) as client:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                client.sendall(part)
        with http.client.HTTPResponse(client) as response:
            response.begin()
            return Reply(response.status, dict(response.headers), response.read())


def test_a_file_larger_than_other_bodies_is_kept(server: Server, folder: Path) -> None:
    assert len(DATA) > MAX_BODY
    assert server.post(f"/api/blobs/sha256:{DIGEST}", DATA).status == 201
    assert (folder / DIGEST).read_bytes() == DATA
    other = head(f"Content-Length: {MAX_BODY + 1}").replace(b"/api/blobs", b"/api/other")
    assert answer_to(server, other).status == 413


def test_a_file_in_chunks_is_kept(server: Server, folder: Path) -> None:
    """As `ollama create` and its Python package send them."""
    chunks = [
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (DATA[i : i + 70_000] for i in range(0, len(DATA), 70_000))
    ]
    answer = answer_to(server, head("Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
    assert answer.status == 201
    assert [path.name for path in folder.iterdir()] == [DIGEST]


def test_a_client_that_goes_away_leaves_nothing(server: Server, folder: Path) -> None:
    with socket.create_connection((server.host, server.port), timeout=LIMIT) as client:
        client.sendall(head(f"Content-Length: {len(DATA)}") + DATA[:-1])
        until(lambda: folder.is_dir() and any(folder.iterdir()))
    until(lambda: not any(folder.iterdir()))
    assert server.request("HEAD", f"/api/blobs/sha256:{DIGEST}").status == 404


def test_what_a_killed_server_was_given_is_gone_at_the_next_start_and_no_live_upload(
    server: Server, models: Path, folder: Path
) -> None:
    (models / ".rkllama").mkdir()
    (models / "m").mkdir()
    for left in (".new-0123456789abcdef", ".rkllama/.new-1", "m/.new-2"):
        (models / left).touch()  # of a download, a digest, a Modelfile
    kept = {models / "m" / "m.rkllm.part", models / "m" / ".pull.json"}
    for path in kept:
        path.touch()
    with socket.create_connection((server.host, server.port), timeout=LIMIT) as client:
        client.sendall(head(f"Content-Length: {len(DATA)}") + DATA[:-1])
        until(lambda: folder.is_dir() and any(folder.iterdir()))
        (live,) = folder.iterdir()
        with Server():  # another one over the same models
            assert list(folder.iterdir()) == [live]
            assert set((models / "m").iterdir()) == kept
            assert not (models / ".new-0123456789abcdef").exists()
            assert not (models / ".rkllama" / ".new-1").exists()
        client.sendall(DATA[-1:])
        with http.client.HTTPResponse(client) as response:
            response.begin()
            assert response.status == 201
        client.close()
    with socket.create_connection((server.host, server.port), timeout=LIMIT) as client:
        client.sendall(head(f"Content-Length: {len(DATA)}") + DATA[:-1])
        until(lambda: len(list(folder.iterdir())) == 2)
        server.stop(signal.SIGKILL)
        assert len(list(folder.iterdir())) == 2
        with Server():
            assert [path.name for path in folder.iterdir()] == [DIGEST]


def test_an_upload_leaves_as_much_room_as_a_download(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = RESERVE + len(DATA)

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    with contextlib.closing(Upload(str(models), len(DATA))) as fits:
        assert fits.failure is None
    with contextlib.closing(Upload(str(models), len(DATA) + 1)) as large:
        assert isinstance(large.failure, DiskFull)
    with contextlib.closing(Upload(str(models))) as unknown:
        unknown.append(DATA)
        assert unknown.failure is None
        Usage.free = RESERVE - 1
        unknown.append(DATA)
        assert isinstance(unknown.failure, DiskFull)


def test_a_file_that_does_not_fit_is_refused_before_it_is_sent(
    server: Server, folder: Path
) -> None:
    answer = answer_to(server, head(f"Content-Length: {10**17}"))
    assert (answer.status, answer.json["code"]) == (507, "disk_full")
    assert list(folder.iterdir()) == []


def test_what_the_disk_refuses_on_the_way_ends_the_upload(server: Server, folder: Path) -> None:
    """A file may have no more than 64 KiB here; the client would go on forever."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    answer = answer_to(server, head(f"Content-Length: {100 * len(DATA)}"), DATA, DATA)
    assert answer.status == 500
    assert "the upload cannot be saved: File too large" in answer.json["error"]
    until(lambda: not any(folder.iterdir()))


def test_a_stranger_can_send_nothing(models: Path, folder: Path) -> None:
    with Server("--api-key", "secret", env={"RKLLAMA_MAX_BODY": str(MAX_BODY)}) as server:
        path = f"/api/blobs/sha256:{DIGEST}"
        assert answer_to(server, head(f"Content-Length: {len(DATA)}")).status == 401
        assert server.post(path, DATA[:100]).status == 401
        foreign = head(
            "Content-Length: 1000000", "Origin: https://example.org", "X-API-Key: secret"
        )
        assert answer_to(server, foreign).status == 403
        assert not folder.exists()
        assert server.post(path, DATA, Authorization="Bearer secret").status == 201
        assert [file.name for file in folder.iterdir()] == [DIGEST]


def test_what_nobody_came_for_is_deleted_by_a_later_upload(models: Path, folder: Path) -> None:
    blobs = Blobs(str(models))
    with (models / "file").open("wb+") as stream:
        blobs.put(hashlib.sha256().hexdigest(), stream)
    (old,) = folder.iterdir()
    fresh = folder / "fresh"
    fresh.touch()
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    Upload(str(models)).close()
    assert list(folder.iterdir()) == [fresh]
