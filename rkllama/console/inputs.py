"""Texts that a command reads: from stdin, or from a file."""

from __future__ import annotations

import os
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


def completed_path(typed: str) -> list[str]:
    """Return the paths that begin with what is typed, folders with a slash at the end."""
    folder, name = os.path.split(typed)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name)
    except OSError:
        return []
    return [
        os.path.join(folder, entry.name) + "/" * entry.is_dir()
        for entry in entries
        if entry.name.startswith(name) and (name.startswith(".") or entry.name[0] != ".")
    ]


def completed_picture(typed: str) -> list[str]:
    """Return the paths of pictures, and of folders, that begin with what is typed."""
    from .pictures.files import has_picture_ending

    return [path for path in completed_path(typed) if path[-1] == "/" or has_picture_ending(path)]
