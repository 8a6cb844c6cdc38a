"""Texts that a command is given: on stdin, or in a file."""

from __future__ import annotations

import sys

from ..errors import ConfigError


def read_stdin() -> str:
    """All of stdin. Raises ConfigError where it is no text."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise ConfigError("the text on stdin is not UTF-8") from None


def read_modelfile(path: str) -> str:
    """A Modelfile's text; `-` is stdin. Raises ConfigError."""
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
