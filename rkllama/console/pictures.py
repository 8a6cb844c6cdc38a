"""Pictures that a command's user names: by an option, or by a path in what is asked."""

from __future__ import annotations

import base64
import os
import re
import sys

from ..errors import ConfigError
from ..types import SentImage

_LARGEST = 64 << 20
"""Bytes of a picture's file; a request takes no more."""
_PICTURES = r"\.(?:png|jpe?g|webp|gif|bmp|tiff?|heic)"
_PATH = (
    rf"""'([^'\n]*{_PICTURES})'|"([^"\n]*{_PICTURES})"|((?:\\.|[^\s\\'"])+{_PICTURES})(?![\w/])"""
)


def take_pictures(prompt: str) -> tuple[str, tuple[SentImage, ...]]:
    """Return a prompt without the paths of pictures in it that are there, and these pictures. A path has a
    slash, so that one can also ask about a file and not about what it shows. Raises ConfigError.
    """
    images: list[SentImage] = []

    def take(match: re.Match[str]) -> str:
        path = match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3])
        if "/" not in path or not os.path.isfile(os.path.expanduser(path)):
            return match[0]
        images.append(read_picture(path))
        return ""

    text = re.sub(_PATH, take, prompt, flags=re.IGNORECASE)
    return (text.strip() if images else prompt), tuple(images)


def read_picture(path: str) -> SentImage:
    """Return the picture at a path; `-` is stdin. Raises ConfigError."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(os.path.expanduser(path), "rb") as stream:
                data = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the picture {path} cannot be read: {reason}") from None
    name = "stdin" if path == "-" else path
    if not data or len(data) > _LARGEST:
        size = "is empty" if not data else f"has more than {_LARGEST >> 20} MB"
        raise ConfigError(f"the picture {name} {size}")
    return SentImage(
        data=base64.b64encode(data).decode(),
        instead=f"[picture {os.path.basename(name)}]\n",
        refusal=f"{name} is a picture, and this model cannot see pictures",
        where=name,
    )
