"""A model file on the user's machine, of which a model is to be made: found in a Modelfile, and read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Literal

from ..errors import InvalidRequest
from ..types import PullProgress
from .filename import EXTENSIONS
from .modelfile import parse_modelfile

BLOCK = 1 << 20
"""Bytes read at once."""


def source_of(text: str, modelfile: str, models: str) -> str | None:
    """The path of the file that FROM means in a Modelfile that was read from the path `modelfile`; None
    where it means a model. What has no folder before it, or lies in `models`, is the name of one.
    """
    source = parse_modelfile(text).source or ""
    if "/" not in source or not source.lower().endswith(EXTENSIONS):
        return None
    path = os.path.realpath(os.path.join(os.path.dirname(modelfile), os.path.expanduser(source)))
    inside = path.startswith(os.path.join(os.path.realpath(models), ""))
    return path if os.path.isfile(path) and not inside else None


class Source:
    """A file to be read, `size` bytes long. Raises InvalidRequest."""

    def __init__(self, path: str, report: Callable[[PullProgress], object]) -> None:
        self._path = path
        self._report = report
        with self._explained():
            self.size = os.stat(path).st_size

    def blocks(self, status: Literal["copying", "verifying"]) -> Iterator[bytes]:
        """What it holds, from its beginning; each piece is reported once it has been used."""
        file, done = os.path.basename(self._path), 0
        with self._explained(), open(self._path, "rb") as stream:
            while block := stream.read(BLOCK):
                yield block
                done += len(block)
                self._report(
                    PullProgress(status=status, file=file, total=self.size, completed=done)
                )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidRequest(f"{self._path} cannot be read: {error.strerror}") from None
