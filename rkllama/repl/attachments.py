"""`/read` and `/image`: files that go along with the next message."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import RKLLamaError
from ..files import open_regular
from ..types import Message, SentImage, TextPart

LIMIT = 1 << 20
"""Bytes that a file may have: more than the longest context of a model here holds."""


class TextFile(NamedTuple):
    """A file that was read: its name, and its text."""

    name: str
    text: str

    def quoted(self) -> str:
        """Return the file for a message, in a fence that nothing in its text closes."""
        longest = max(map(len, re.findall("`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)
        end = "" if self.text.endswith("\n") else "\n"
        return f"{self.name}:\n{fence}\n{self.text}{end}{fence}\n\n"


def pictures_of(message: Message) -> list[SentImage]:
    """Return the pictures of a message that was typed here."""
    return [part for part in message.content if isinstance(part, SentImage)]


def with_pictures(text: str, pictures: Sequence[SentImage]) -> Message:
    """Return the user's message of these pictures, which come first, and a text."""
    return Message.of("user", [*pictures, TextPart(text)])


def read_text_file(path: str) -> TextFile:
    """Return a text file. Raises RKLLamaError for what is no file, too large, or not UTF-8 text."""
    path = os.path.expanduser(path)
    try:
        with open_regular(path) as stream:
            data = (
                stream.read(LIMIT + 1) or b""
            )  # None: it is one of the kernel's, and has nothing now
    except OSError as error:
        raise RKLLamaError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > LIMIT:
        raise RKLLamaError(
            f"{path} is too large: at most {LIMIT >> 20} MB are read",
            hint="Read a part of it: no model's context holds more.",
        )
    if not data.strip():
        raise RKLLamaError(f"{path} is empty")
    return TextFile(os.path.basename(path), _decoded(path, data))


def _decoded(path: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise RKLLamaError(
            f"{path} is not UTF-8 text",
            hint="Only text can be read, no documents; /image FILE shows a picture to the model.",
        )
    return text.replace("\r\n", "\n")
