"""Compressed bodies: read within the limits of all others, or refused by the name of their encoding."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from rkllama.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from rkllama.server import bodies
from rkllama.server.bodies import decode, decoder_of
from tests.cases import cases
from tests.running import Server
from tests.server.test_hard_clients import resident
from tests.server.test_robustness import raw, status_of
from tests.virtual_npu import write_model

MIB = 1 << 20
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without a frame": ("deflate", raw_deflate),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd at its best": ("zstd", zstandard.ZstdCompressor(level=19).compress),
}


def unpack(data: bytes, encoding: str, limit: int = MIB) -> bytes:
    decoder = decoder_of(encoding)
    return data if decoder is None else b"".join(decode(data, decoder, limit))


@cases("name", PACKERS)
@cases("size", [0, 1, 10, 300_000, MIB])
def test_what_was_packed_is_unpacked(name: str, size: int) -> None:
    encoding, pack = PACKERS[name]
    data = bytes(range(251)) * (size // 251 + 1)
    assert unpack(pack(data[:size]), encoding) == data[:size]


@pytest.mark.parametrize("name", PACKERS)
def test_not_a_byte_more_than_the_limit_is_unpacked(name: str) -> None:
    encoding, pack = PACKERS[name]
    with pytest.raises(BodyTooLarge):
        unpack(pack(b"x" * (MIB + 1)), encoding)
    decoder = decoder_of(encoding)
    assert decoder is not None
    assert max(map(len, decode(pack(b"\0" * 8 * MIB), decoder, 8 * MIB))) <= 256 << 10


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_what_was_not_packed_is_a_bad_request(encoding: str) -> None:
    _, pack = PACKERS[encoding]
    for data in (b"{}", b"x" * 1000, pack(b"x" * 1000) + b"more"):
        with pytest.raises(InvalidRequest, match="cannot be unpacked"):
            unpack(data, encoding)
    if encoding != "zstd":
        with pytest.raises(InvalidRequest, match="ends too early"):
            unpack(pack(b"x" * 1000)[:-6], encoding)


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, gzip", "GZIP2", "*"])
def test_what_cannot_be_unpacked_is_named(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        decoder_of(encoding)
    assert caught.value.encoding == encoding
    assert encoding in caught.value.message


def test_without_its_package_zstd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_zstd_decoder", lambda: None)
    with pytest.raises(UnsupportedEncoding, match="zstd"):
        decoder_of("zstd")
    assert decoder_of("identity") is decoder_of("") is None


@pytest.fixture
def small(models: Path, npu: str) -> Iterator[Server]:
    """A server that takes bodies of 1 MiB."""
    write_model(models / "m.rkllm")
    with Server(env={"RKLLAMA_MAX_BODY": str(MIB)}) as running:
        yield running


@pytest.mark.integration
def test_compressed_requests_are_answered_by_every_api(small: Server) -> None:
    for name, (encoding, pack) in PACKERS.items():
        for path, rest in (
            ("/generate", {"model": "m", "messages": "hi"}),
            ("/api/chat", {**CHAT, "stream": False}),
            ("/v1/chat/completions", CHAT),
            ("/v1/messages", {**CHAT, "max_tokens": 5}),
        ):
            body = pack(json.dumps(rest).encode())
            answer = small.request("POST", path, body, {"Content-Encoding": encoding})
            assert answer.status == 200, (name, path, answer.body)


@pytest.mark.integration
def test_bombs_are_too_large_and_leave_no_memory(small: Server) -> None:
    bombs = {
        encoding: pack(b" " * 64 * MIB)
        for encoding, pack in PACKERS.values()
        if encoding in ("gzip", "deflate", "zstd")
    }
    assert small.get("/health").status == 200
    before = resident(small)
    for _ in range(5):
        for encoding, bomb in bombs.items():
            answer = small.request("POST", "/v1/messages", bomb, {"Content-Encoding": encoding})
            assert answer.status == 413, answer.body
            assert "RKLLAMA_MAX_BODY" in answer.json["error"]["message"]
    assert resident(small) - before < 24 * MIB
    body = b'{"model": "m", "messages": "hi"}' + b" " * (MIB - 32)
    for _ in range(12):  # what was unpacked has left the room for all
        answer = small.request(
            "POST", "/generate", gzip.compress(body), {"Content-Encoding": "gzip"}
        )
        assert answer.status == 200, answer.body


@pytest.mark.integration
def test_an_unknown_encoding_is_refused_before_the_body_comes(small: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: br\r\nContent-Length: 1000\r\n\r\n"
    for path in (b"/generate", b"/api/chat", b"/v1/responses", b"/v1/messages"):
        answer = raw(small, head % path)
        assert status_of(answer) == 415
        assert b"br" in answer.partition(b"\r\n\r\n")[2]
    upload = b"/api/blobs/sha256:" + b"0" * 64
    for encoding in (b"br", b"gzip"):
        answer = raw(small, (head % upload).replace(b"br", encoding).replace(b"1000", b"1") + b"x")
        assert status_of(answer) == 415
