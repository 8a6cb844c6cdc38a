"""The bodies of requests, in memory and all under one limit. Files of models go to disk instead."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from ..errors import (
    BodyTooLarge,
    InvalidRequest,
    RKLLamaError,
    TooManyBodies,
    UnsupportedEncoding,
)

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 1 << 20
"""Bytes from which on a block is mapped by itself, and gone when it is freed."""
_SMALL = 64 << 10
"""Bytes of each body that take no room, so that large ones keep no small ones out."""


class Bodies:
    """Room for `limit` bytes of bodies, those that come and those of requests that are being answered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Return whether there was room for so many bytes more; if so, they are taken."""
        with self._lock:
            fits = self._held + size <= self.limit
            if fits:
                self._held += size
        return fits

    def give_back(self, size: int) -> None:
        """Free what was taken."""
        with self._lock:
            self._held -= size


class Body:
    """One body as it comes, and the stream from which it is read, once: a buffer like waitress's own.

    No piece raises anything: `failure` says that there is no room.
    """

    def __init__(self, room: Bodies) -> None:
        self.failure: RKLLamaError | None = None
        self._room = room
        self._length = 0
        self._taken = 0
        self._data = io.BytesIO()

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes) -> None:
        """Add the next piece; after a failure it is dropped."""
        needed = max(0, self._length + len(data) - _SMALL - self._taken)
        if self.failure is not None or not self._room.take(needed):
            self.failure = TooManyBodies(self._room.limit)
            return
        self._taken += needed
        self._length += len(data)
        self._data.write(data)

    def getfile(self) -> io.BytesIO:
        """Return the application's input."""
        self._data.seek(0)
        return self._data

    def close(self) -> None:
        """Free its room."""
        self._room.give_back(self._taken)
        self._length = self._taken = 0
        self._data.close()

    __del__ = close
    """The server closes what it has read; of a connection that breaks off it drops the request only."""


def keep_little_memory() -> None:
    """Have glibc's malloc give large blocks back, and not keep those of each thread apart; see mallopt(3).

    By default it learns from a freed block of up to 32 MiB to keep the next one of that size.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 2)


# --- Compressed ones ---------------------------------------------------------------------------

_PIECE = 256 << 10
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW = 8 << 20
"""Bytes that a zstd decoder may look back; encoders go beyond only when told to, and it is memory."""


def decoder_of(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """Return what yields a body of this Content-Encoding unpacked, in pieces; None for one as it is.

    Raises UnsupportedEncoding; what is returned raises InvalidRequest for what is not of this encoding.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return _gunzip
    if name == "deflate":
        return _inflate
    decoder = _zstd_decoder() if name == "zstd" else None
    if decoder is None:
        raise UnsupportedEncoding(encoding[:100])
    return decoder


def decode(data: bytes, decoder: Callable[[bytes], Iterator[bytes]], limit: int) -> Iterator[bytes]:
    """Yield a body unpacked, in pieces. Raises BodyTooLarge beyond `limit` bytes, InvalidRequest."""
    length = 0
    try:
        for piece in decoder(data):
            length += len(piece)
            if length > limit:
                raise BodyTooLarge(limit)
            yield piece
    except (zlib.error, ValueError) as error:
        raise InvalidRequest(f"the body cannot be unpacked: {error}") from None


def _gunzip(data: bytes) -> Iterator[bytes]:
    while data:  # there may be several, one behind the other
        data = yield from _unzip(zlib.decompressobj(_GZIP), data)


def _inflate(data: bytes) -> Iterator[bytes]:
    """Unpack zlib's format, or, as some clients send, what is in it."""
    wrapped = data[:1] and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    rest = yield from _unzip(zlib.decompressobj(15 if wrapped else -15), data)
    if rest:
        raise ValueError("there is something behind its end")


def _unzip(unpacker: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Yield what one compressed stream holds; return what comes behind it."""
    while not unpacker.eof:
        piece = unpacker.decompress(data, _PIECE)
        data = unpacker.unconsumed_tail
        if not piece and not unpacker.eof and not data:
            raise ValueError("it ends too early")
        yield piece
    rest: bytes = unpacker.unused_data
    return rest


def _zstd_decoder() -> Callable[[bytes], Iterator[bytes]] | None:
    """Return the standard library's (from Python 3.14 on), or that of the package zstandard."""
    if sys.version_info >= (3, 14):
        return _unzstd_of_library
    try:
        import zstandard
    except ImportError:
        return None

    def unpack(data: bytes) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        with decompressor.stream_reader(data, read_across_frames=True) as stream:
            try:
                while piece := stream.read(_PIECE):
                    yield piece
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from None

    return unpack


def _unzstd_of_library(data: bytes) -> Iterator[bytes]:
    from compression import zstd

    option = {zstd.DecompressionParameter.window_log_max: _WINDOW.bit_length() - 1}
    try:
        while data:
            unpacker = zstd.ZstdDecompressor(options=option)
            while not unpacker.eof:
                piece = unpacker.decompress(data, _PIECE)
                data = b""
                if not piece and unpacker.needs_input and not unpacker.eof:
                    raise ValueError("it ends too early")
                yield piece
            data = unpacker.unused_data
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from None
