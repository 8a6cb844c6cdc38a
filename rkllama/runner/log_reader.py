"""Reading a log while its process may be writing to it: the last lines, and what comes after them."""

from __future__ import annotations

import codecs
import io
import os
import select
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..files import open_regular
from .log import ASIDE, ENDING

_BLOCK = 1 << 18
_MOST = 64 << 20
"""Bytes that are read at a time, and that are read at most to show the last lines."""
_PACE = 0.25
"""Seconds between two looks at a log that is followed.

The kernel tells of changes by inotify, which the standard library does not have; here it would also have to
watch the directory, for a log that is put aside or not there yet. Somebody reads along, and four `stat`
a second cost nothing beside the model that writes.
"""


class LogFile(NamedTuple):
    """A log as it is listed; `size` in bytes, `modified` in seconds since the epoch."""

    name: str
    size: int
    modified: float


def log_files(directory: str) -> list[LogFile]:
    """Return the logs of a directory, which need not be there, the latest first. Raises OSError."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(ENDING) and entry.is_file():
                    about = entry.stat()
                    name = entry.name.removesuffix(ENDING)
                    found.append(LogFile(name, about.st_size, about.st_mtime))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda log: -log.modified)


def _last_lines(stream: BinaryIO, count: int) -> tuple[list[bytes], bool]:
    """Return the last lines of a file, read from its end, and whether it has no more; it is at its end then.

    Of more than `_MOST` bytes the end is returned, as far as that has whole lines.
    """
    data, place = b"", stream.seek(0, os.SEEK_END)
    end = place
    while place and len(data) < _MOST and data.count(b"\n") <= count:
        step = min(place, max(_BLOCK, len(data)))
        place = stream.seek(place - step)
        data = stream.read(step) + data
    stream.seek(end)
    lines = io.BytesIO(data).readlines()
    if place and len(lines) > 1:
        del lines[0]  # its beginning is not there
    return lines[max(0, len(lines) - count) :], not place


class LogReader:
    """The end of the log at `path`, and what is written from then on. Everything raises OSError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def last(self, count: int) -> str:
        """Return the last `count` lines, those of the part that was put aside included."""
        self._stream = open_regular(self._path)
        lines, is_all = _last_lines(self._stream, count)
        if is_all and len(lines) < count:
            try:
                with open_regular(self._path + ASIDE) as aside:
                    lines = _last_lines(aside, count - len(lines))[0] + lines
            except OSError:
                pass
        return self._decoder.decode(b"".join(lines))

    def follow(self, reader: int) -> Iterator[str]:
        """Yield what is written, until the other end of `reader`, a file descriptor, is closed.

        A log that was put aside, truncated or removed is read on from the beginning of the new one. One
        that has grown beyond its old length at once, between two looks, cannot be told from one that grew.
        """
        poll = select.poll()
        poll.register(reader, 0)  # no event but that its reader is gone
        while True:
            data = self._stream.read(_BLOCK) if self._stream is not None else b""
            if data:
                yield self._decoder.decode(data)
            elif not self._renewed() and poll.poll(_PACE * 1000):
                return

    def _renewed(self) -> bool:
        """Return whether there is another file to read, or this one from its beginning."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False  # it comes back with the next load
        if self._stream is not None:
            if os.path.samestat(now, os.fstat(self._stream.fileno())):
                if now.st_size >= self._stream.tell():
                    return False
                self._stream.seek(0)
                return True
            if self._stream.read(1):
                # Written between the last read and the change of names.
                self._stream.seek(-1, os.SEEK_CUR)
                return True
            self._stream.close()
        self._stream = open_regular(self._path)
        return True
