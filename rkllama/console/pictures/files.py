"""Pictures that the user of the command line names: their files, what comes on stdin, and paths in a prompt.

Nothing is decoded here: the first bytes tell whether it is a picture that can be, and the model's process
does the rest.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...errors import RKLLamaError, Unsupported
from ...files import open_regular
from ...types import ModelDetails, SentImage

LIMIT = 20 << 20
"""Bytes that a picture may have: in base64 it has to fit into a request (the setting max_body)."""
STDIN = "-"
_STDIN_NAME = "the picture on stdin"

_KINDS = r"\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|hei[cf]|avif)"
_PATH = re.compile(
    rf"""'((?:[^'\n]|'\\'')*{_KINDS})'|"([^"\n]*{_KINDS})\""""
    rf"""|(?<![^\s(\[<=,])(?![(\[<])((?:\\.|[^\s\\'"])+?{_KINDS})(?![\w/.-]*\w)""",
    re.IGNORECASE,
)
"""In single quotes, in double ones, or without: then a word is looked at once, from its beginning."""
_HOW = "PNG, JPEG, WebP, GIF and BMP can be read"


class Named(NamedTuple):
    """A picture that a text names: where it stands there, and its path."""

    start: int
    end: int
    path: str


def read_picture(path: str) -> SentImage:
    """Return the picture in a file, or on stdin for "-". Raises RKLLamaError for what is none, or large."""
    if path == STDIN:
        return _picture(sys.stdin.buffer.read(LIMIT + 1), _STDIN_NAME, _STDIN_NAME)
    if "://" in path and not path.startswith("file://"):
        raise RKLLamaError(
            f"{path[:200]} is a URL, which is not fetched",
            hint="Download the picture, and name its file.",
        )
    path = local_path(path)
    try:
        with open_regular(path) as stream:
            data = stream.read(LIMIT + 1) or b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RKLLamaError(f"the picture {path} cannot be read: {reason}") from None
    return _picture(data, path, os.path.basename(path))


def _picture(data: bytes, path: str, name: str) -> SentImage:
    if not data:
        raise RKLLamaError(f"{path} is empty")
    kind = picture_kind(data)
    if kind is None:
        raise RKLLamaError(f"{path} is not a picture", hint=f"{_HOW}.")
    if kind not in _READABLE:
        raise RKLLamaError(
            f"{path} is a picture of the kind {kind}, which cannot be read",
            hint=f"Convert it first: {_HOW}.",
        )
    if len(data) > LIMIT:
        raise RKLLamaError(
            f"{path} is too large: a picture may have {LIMIT >> 20} MB",
            hint="Make it smaller first: models see less than 1400 x 1400 pixels of it anyhow.",
        )
    return named_picture(name, base64.b64encode(data).decode())


def named_picture(name: str, data: str) -> SentImage:
    """Return a picture of the user's: its file in base64, and the name that it is told by."""
    return SentImage(data=data, instead=f"[picture {name}]", where=name)


_READABLE = ("PNG", "JPEG", "WebP", "GIF", "BMP")


def picture_kind(data: bytes) -> str | None:
    """Return the kind of picture that a file's first bytes tell, None where they tell none."""
    for kind, beginning in (
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("JPEG", b"\xff\xd8\xff"),
        ("GIF", b"GIF8"),
        ("BMP", b"BM"),
        ("TIFF", b"II*\0"),
        ("TIFF", b"MM\0*"),
    ):
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf", b"avi"):
        return "AVIF" if data[8:11] == b"avi" else "HEIC"
    return None


# --- Paths -------------------------------------------------------------------------------------


def local_path(path: str) -> str:
    """Return a path as the file system has it: `~` and file:// are resolved."""
    if path.startswith("file://"):
        from urllib.parse import unquote

        host, slash, rest = path[len("file://") :].partition("/")
        return unquote(slash + rest) if host in ("", "localhost", os.uname().nodename) else path
    return os.path.expanduser(path)


def shell_path(path: str) -> str:
    """Return a path as it is meant by people, and terminals, that write it as for a shell."""
    if len(path) > 2 and path[0] == path[-1] and path[0] in "'\"":
        return path[1:-1].replace("'\\''", "'")
    return path if os.path.exists(local_path(path)) else re.sub(r"\\(.)", r"\1", path)


def named_pictures(text: str) -> Iterator[Named]:
    """Yield the pictures that a text names by a path with a slash: as it is, in quotes, with backslashes,
    or as file://. Only files that are there: others are talked about.
    """
    for match in _PATH.finditer(text):
        path = _unquoted(match)
        if "/" in path and os.path.isfile(local_path(path)):
            yield Named(match.start(), match.end(), path)


def _unquoted(match: re.Match[str]) -> str:
    if match[3]:
        return re.sub(r"\\(.)", r"\1", match[3])
    return match[2] or match[1].replace("'\\''", "'")


def path_alone(text: str) -> str | None:
    """Return the path, where a text is nothing but that of a picture, whether it is there or not."""
    text = text.strip()
    match = _PATH.fullmatch(text)
    if match is None:
        return None
    path = _unquoted(match)
    return path if "/" in path and "://" not in path.removeprefix("file://") else None


def has_picture_ending(path: str) -> bool:
    """Return whether a path ends as those of pictures do."""
    return re.search(rf"{_KINDS}$", path, re.IGNORECASE) is not None


def argument_picture(word: str) -> str | None:
    """Return the path of the picture that an argument of the command line is as a whole: of a file that is
    there, or with a slash of one that should be.
    """
    if not has_picture_ending(word):
        return None
    if os.path.isfile(local_path(word)):
        return word
    plain = "://" not in word.removeprefix("file://") and not re.search(r"\s", word)
    return word if "/" in word and plain else None


def take_pictures(text: str, before: int = 0) -> tuple[str, list[SentImage]]:
    """Return a text without the paths of pictures at its ends, and the pictures; one in the middle becomes
    "picture 2", as it is counted with the `before` ones of the same message. Raises RKLLamaError.
    """
    found = list(named_pictures(text))
    pictures = [read_picture(named.path) for named in found]
    pieces, position = [], 0
    for number, named in enumerate(found, before + 1):
        pieces += [text[position : named.start], f"picture {number}"]
        position = named.end
    pieces.append(text[position:])
    while len(pieces) > 1 and not pieces[-1].strip():
        del pieces[-2:]
    while len(pieces) > 1 and not pieces[0].strip():
        del pieces[:2]
    return ("".join(pieces).strip() if found else text), pictures


# --- Models ------------------------------------------------------------------------------------


def check_sees(details: ModelDetails, pictures: Sequence[SentImage]) -> None:
    """Raise Unsupported where there are pictures and the model sees none."""
    if not pictures or "vision" in details.capabilities:
        return
    name = details.info.name
    if details.encoder is not None and details.encoder.problem is not None:
        raise Unsupported(
            f"{name} cannot see pictures here: {details.encoder.problem}",
            hint="`rkllama doctor` looks at the encoders of models.",
        )
    raise Unsupported(
        f"{pictures[0].where} is a picture, and {name} sees none",
        hint="`rkllama list` marks the models that see. To ask about the file and not about what it shows, "
        "write its name within the prompt, without a slash.",
    )


def shown_names(pictures: Sequence[SentImage]) -> str:
    """Return lines that stand for the pictures of a message."""
    return "".join(f"[{picture.where}]\n" for picture in pictures)
