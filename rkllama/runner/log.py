"""The log file of a model's process, as its parent keeps it: below a limit, with marks to read from.

It may quote prompts and answers: only its owner can read it, whatever the umask.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zlib
from typing import BinaryIO

from ..files import make_private_directory, private

log = logging.getLogger("rkllama")

LIMIT = 4 << 20
"""Bytes from which a log is put aside, as NAME.log.1, and starts anew."""
ENDING, ASIDE = ".log", ".1"
"""What the name of a log ends with, and what is added to that of one that was put aside."""
_LONGEST = 255 - len(ENDING + ASIDE)
"""Bytes of a log's name without its endings."""
_TAIL = 16 << 10
"""Bytes that `tail` returns at most of each of its parts."""


class ChildLog:
    """The log of one process, which appends to it."""

    def __init__(self, path: str) -> None:
        """Make room for a new process's lines. Raises OSError."""
        self.path = path
        self._start = _rotate(path)
        """Where in the file the process's own lines start,"""
        self._loaded = self._command = self._start
        """where its load ended, and where its last command began."""

    def mark_loaded(self) -> None:
        """The load ends."""
        self._loaded = self._size()

    def mark_command(self) -> None:
        """Begin a command. A log over its limit is truncated: a process may live for years."""
        self._command = self._size()
        if self._command > LIMIT:
            with contextlib.suppress(OSError):
                with (
                    open(self.path, "rb") as whole,
                    open(self.path + ASIDE, "wb", opener=private) as aside,
                ):
                    shutil.copyfileobj(whole, aside)
                os.truncate(self.path, 0)  # the process appends: it goes on at the new end
                self._start = self._loaded = self._command = 0

    def tail(self) -> str:
        """Return the last lines that the process wrote while it loaded and since the last command began.

        What earlier commands made it say does not explain what happens now.
        """
        try:
            with open(self.path, "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                load = _end_of_part(stream, self._start, self._loaded)
                return load + _end_of_part(stream, self._command, size)
        except OSError:
            return ""

    def _size(self) -> int:
        try:
            return os.stat(self.path).st_size
        except OSError:
            return 0


def log_path(directory: str, name: str) -> str:
    """Return where the process of a model logs; the name of one in a folder can be longer than a file's may
    be.
    """
    file = name.replace("/", "_")
    if len(os.fsencode(file)) > _LONGEST:
        file = f"{file[:50]}-{zlib.crc32(os.fsencode(file)):08x}"
    return os.path.join(directory, file + ENDING)


def open_log(path: str) -> tuple[str, ChildLog]:
    """Return the log at `path`, or the null device where that cannot be written: no reason not to run.

    Raises OSError where not even that can.
    """
    try:
        child_log = ChildLog(path)
        with open(path, "ab", opener=private):
            return path, child_log
    except OSError as error:
        log.warning(
            "the log %s cannot be written (%s): what the runtime says is lost",
            path,
            error.strerror or error,
        )
        return os.devnull, ChildLog(os.devnull)


def _end_of_part(stream: BinaryIO, start: int, end: int) -> str:
    """The text between two places of a file; where that is long, the end of it."""
    start = max(start, end - _TAIL)
    stream.seek(start)
    return stream.read(max(0, end - start)).decode("utf-8", "replace")


def _rotate(path: str) -> int:
    """Keep the log below its limit; the size from which this process's lines start."""
    make_private_directory(os.path.dirname(path))
    try:
        with open(path, "ab", opener=private):  # an older release's may be open to all
            pass
        size = os.path.getsize(path)
        if size > LIMIT:
            os.replace(path, path + ASIDE)
            return 0
        return size
    except FileNotFoundError:
        return 0
