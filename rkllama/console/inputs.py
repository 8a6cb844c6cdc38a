"""Texts that a command reads: from stdin, or from a file."""

from __future__ import annotations

import select
import sys

from ..errors import ConfigError

_PATIENCE = 1.0
"""Seconds until a silent stdin is spoken of."""


def read_stdin() -> str:
    """Return all of stdin; say so where nothing comes at first. Raises ConfigError if it is not text."""
    if not select.select([sys.stdin.fileno()], [], [], _PATIENCE)[0]:
        sys.stderr.write("Reading stdin …\n")
        sys.stderr.flush()
    data = sys.stdin.buffer.read()
    try:
        return data.decode()
    except UnicodeDecodeError:
        from .pictures.files import picture_kind

        hint = "It is a picture: have it seen with --image -" if picture_kind(data) else None
        raise ConfigError("the text on stdin is not UTF-8", hint=hint) from None


def read_modelfile(path: str) -> str:
    """Return a Modelfile's text; `-` is stdin. Raises ConfigError."""
    if path == "-":
        return read_stdin()
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{path} cannot be read: {reason}", hint="Name the Modelfile with -f; - means stdin."
        ) from None
