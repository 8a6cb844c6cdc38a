"""Texts that a command reads: from stdin, or from a file."""

from __future__ import annotations

import os
import re
import select
import sys

from ..errors import ConfigError, Unsupported

_PATIENCE = 1.0
"""Seconds until a silent stdin is spoken of."""


_PICTURES = r"\.(?:png|jpe?g|webp|gif|bmp|tiff?|heic)"
_PATH = (
    rf"""'([^'\n]*{_PICTURES})'|"([^"\n]*{_PICTURES})"|((?:\\.|[^\s\\'"])+{_PICTURES})(?![\w/])"""
)


def check_no_picture(prompt: str) -> None:
    """Raise Unsupported if a prompt names a picture that is there, by a path with a slash.

    Users of Ollama show pictures like that; a model that got the path as text would make something up.
    """
    for match in re.finditer(_PATH, prompt, re.IGNORECASE):
        path = match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3])
        if "/" in path and os.path.isfile(os.path.expanduser(path)):
            raise Unsupported(
                f"{path} is a picture, and no model can see pictures here",
                hint="To ask about the file and not about what it shows, write its name without a slash.",
            )


def read_stdin() -> str:
    """Return all of stdin; say so where nothing comes at first. Raises ConfigError if it is not text."""
    if not select.select([sys.stdin.fileno()], [], [], _PATIENCE)[0]:
        sys.stderr.write("Reading stdin …\n")
        sys.stderr.flush()
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise ConfigError("the text on stdin is not UTF-8") from None


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
