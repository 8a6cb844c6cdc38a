"""The pictures of a saved chat: files in a folder beside it, named for their content.

They are kept as they were, since a model that saw one knows it again by its bytes; in the chat's own file
they would make each list of chats read megabytes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..console.pictures.files import LIMIT, named_picture
from ..files import make_private_directory, open_regular, write_file
from ..types import Message, Part, TextPart
from .attachments import pictures_of

_DIGEST = re.compile("[0-9a-f]{64}")
_LONGEST = 255


class SavedPictures:
    """The pictures in the folder `path`, which need not be there."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, messages: Iterable[Message]) -> None:
        """Write the pictures of a chat that are not there yet. Raises OSError."""
        for message in messages:
            for picture in pictures_of(message):
                data = base64.b64decode(picture.data)
                path = os.path.join(self._path, hashlib.sha256(data).hexdigest())
                if not os.path.exists(path):
                    make_private_directory(self._path)
                    write_file(path, data, 0o600)

    def keep(self, digests: Collection[str]) -> None:
        """Delete those that have none of these sha256, and a folder that is empty then."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._path):
                if _DIGEST.fullmatch(name) and name not in digests:
                    os.unlink(os.path.join(self._path, name))
            os.rmdir(self._path)

    def read(self, name: str, digest: str) -> Part:
        """Return a picture; words in its place where its file is gone or is another one."""
        try:
            with open_regular(os.path.join(self._path, digest)) as stream:
                data = stream.read(LIMIT + 1)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            return TextPart(f"[the picture {name} is missing]\n")
        return named_picture(name, base64.b64encode(data).decode())


def pictures_to_json(message: Message) -> list[dict[str, Any]]:
    """Return what the file of a chat holds of a message's pictures: name, sha256 and bytes."""
    entries = []
    for picture in pictures_of(message):
        data = base64.b64decode(picture.data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": picture.where, "sha256": digest, "size": len(data)})
    return entries


def picture_from_json(values: Mapping[str, Any], pictures: SavedPictures | None) -> Part:
    """Return a picture that a chat's file names; without `pictures` only its name. Raises ValueError."""
    name, digest = values.get("name"), values.get("sha256")
    if not isinstance(name, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("a picture has no name or no sha256")
    name = name[:_LONGEST]
    return named_picture(name, "") if pictures is None else pictures.read(name, digest)
