"""Saved chats: files of JSON in `<home>/chats`, for their owner alone.

    {"version": 1, "model": …, "title": …, "saved": seconds since the epoch, "messages":
     [{"role", "content", "reasoning"?, "images"?}, …], "system"?, "think"?, "format"?, "parameters"?: {…}}

`parameters` have the names of a Modelfile; `images` are the names and digests of files in `NAME.pictures`.
A name that is typed is only ever compared with the names that are there, or checked to be one before a
file of that name is written.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from ..console.options import SAMPLING, ChatOptions
from ..errors import AmbiguousName, InvalidRequest, RKLLamaError
from ..files import make_private_directory, not_written, open_regular, write_file
from ..types import Message, TextPart
from .saved_pictures import SavedPictures, picture_from_json, pictures_to_json

_VERSION = 1
_ENDING = ".json"
_NAME = re.compile(r"\w[\w.-]*")
_LONGEST = 200
"""Bytes of a name: a file's may have 255."""
_LARGEST = 64 << 20
"""Bytes of a chat: far more than any model's context."""
_LATEST = 1e11
"""Seconds since the epoch, some thousand years from now."""
_ROLES = ("system", "user", "assistant")
_NEAR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedChat:
    """A chat as it was saved; `options` are what its answers are asked with, nothing of how they look."""

    name: str
    model: str
    messages: tuple[Message, ...]
    options: ChatOptions = field(default_factory=ChatOptions)
    title: str = ""
    saved: float = 0.0


class SavedChats:
    """The chats in a directory, which need not be there."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """Return the names of the files that look like chats, sorted. Raises RKLLamaError."""
        try:
            with os.scandir(self._directory) as entries:
                files = [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RKLLamaError(
                f"{self._directory} cannot be read: {error.strerror}",
                hint="Saved chats lie there, for their owner alone.",
            ) from None
        return sorted(
            name.removesuffix(_ENDING)
            for name in files
            if name.endswith(_ENDING) and _NAME.fullmatch(name.removesuffix(_ENDING))
        )

    def all(self) -> tuple[list[SavedChat], list[str]]:
        """Return the chats, the one saved last first, and what was passed over: name and reason."""
        chats, passed_over = [], []
        for name in self.names():
            try:
                chats.append(self._read(name, pictures=False))
            except RKLLamaError as error:
                passed_over.append(error.message)
        return sorted(chats, key=lambda chat: -chat.saved), passed_over

    def get(self, name: str) -> SavedChat:
        """Return the chat that a name means: exact, in any case, or a beginning that only one has.

        Raises RKLLamaError for none, one that cannot be read, and AmbiguousName.
        """
        return self._read(self._resolved(name))

    def save(self, chat: SavedChat) -> None:
        """Write a chat, in the place of the one of the same name. Raises RKLLamaError."""
        check_name(chat.name)
        path = self._path(chat.name)
        values = to_json(chat)
        content = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        try:
            make_private_directory(self._directory)
            self._pictures(chat.name).write(chat.messages)
            write_file(path, content.encode(errors="replace"), 0o600)
        except OSError as error:
            raise not_written(error, path) from None
        images = (image for message in values["messages"] for image in message.get("images", ()))
        self._pictures(chat.name).keep({image["sha256"] for image in images})

    def check(self, name: str) -> None:
        """Raise RKLLamaError where no chat has exactly this name."""
        if name not in self.names():
            raise self._missing(name)

    def remove(self, name: str) -> None:
        """Delete the chat of exactly this name, also one that cannot be read. Raises RKLLamaError."""
        self.check(name)
        try:
            os.unlink(self._path(name))
        except OSError as error:
            raise RKLLamaError(f"{name} cannot be deleted: {error.strerror}") from None
        self._pictures(name).keep(())

    def free_name(self, title: str) -> str:
        """Return a name that no chat has, made of the first words of a title."""
        words = re.findall(r"\w+", title.lower())
        base = ""
        for word in words:
            if base and len(base) + len(word) > 40:
                break
            base = f"{base}-{word}" if base else word[:40]
        base, taken = base or "chat", {name.lower() for name in self.names()}
        numbers = (f"-{number}" for number in range(2, len(taken) + 3))
        return next(name for end in ("", *numbers) if (name := base + end) not in taken)

    def _resolved(self, name: str) -> str:
        names = self.names()
        if name in names:
            return name
        lower = name.lower()
        for matches in (
            [other for other in names if other.lower() == lower],
            [other for other in names if lower and other.lower().startswith(lower)],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                reason = f"'{name[:100]}' matches several chats"
                raise AmbiguousName(name, tuple(matches[:10]), reason=reason)
        raise self._missing(name)

    def _missing(self, name: str) -> RKLLamaError:
        from difflib import get_close_matches

        near = get_close_matches(name[:100], self.names(), n=_NEAR, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else "`rkllama chats` lists them."
        return RKLLamaError(f"no saved chat is called '{name[:100]}'", hint=hint)

    def _read(self, name: str, *, pictures: bool = True) -> SavedChat:
        path = self._path(name)
        try:
            with open_regular(path) as stream:
                data = stream.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError("it is too large")
            found = self._pictures(name) if pictures else None
            return _from_json(name, json.loads(data.decode()), found)
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, RecursionError, InvalidRequest) as error:
            reason = f"it is not a chat that was saved here ({str(error)[:100]})"
        raise RKLLamaError(f"{path} cannot be read: {reason}")

    def _pictures(self, name: str) -> SavedPictures:
        return SavedPictures(os.path.join(self._directory, f"{name}.pictures"))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name + _ENDING)


def check_name(name: str) -> None:
    """Raise InvalidRequest for what cannot be the name of a chat."""
    if not _NAME.fullmatch(name) or len(os.fsencode(name)) > _LONGEST:
        raise InvalidRequest(
            f"'{name[:100]}' is not a valid name for a chat",
            hint="Use letters, digits, '.', '_' and '-'.",
        )


def to_json(chat: SavedChat) -> dict[str, Any]:
    """Return what the file of a chat holds."""
    options = chat.options
    numbers = {name: getattr(options.sampling, name) for name in SAMPLING}
    numbers |= {"num_predict": options.max_tokens, "num_ctx": options.context_length}
    parameters: dict[str, Any] = {name: n for name, n in numbers.items() if n is not None}
    if options.stop:
        parameters["stop"] = list(options.stop)
    values = {
        "version": _VERSION,
        "model": chat.model,
        "title": chat.title,
        "saved": round(chat.saved or time.time(), 3),
        "system": options.system,
        "think": options.think,
        "format": options.format,
        "parameters": parameters or None,
        "messages": [_message_to_json(message) for message in chat.messages],
    }
    return {name: value for name, value in values.items() if value is not None}


def _message_to_json(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.reasoning:
        values["reasoning"] = message.reasoning
    if images := pictures_to_json(message):
        values["images"] = images
    return values


def _from_json(name: str, values: object, pictures: SavedPictures | None) -> SavedChat:
    """Return what `to_json` made. Raises ValueError, InvalidRequest for what it cannot have made."""
    chat = _mapping(values, "the file")
    version = chat.get("version")
    if version != _VERSION:
        raise ValueError(f"version {version!r}, and this RKLLama reads version {_VERSION}")
    messages = chat.get("messages")
    if not isinstance(messages, list):
        raise ValueError("messages is not a list")
    saved = chat.get("saved")
    return SavedChat(
        name=name,
        model=_text(chat, "model"),
        messages=tuple(_message(message, pictures) for message in messages),
        options=_options(chat),
        title=_text(chat, "title"),
        saved=float(saved) if _is_time(saved) else 0.0,
    )


def _is_time(value: object) -> TypeGuard[float]:
    """Return whether it may be seconds since the epoch; NaN is in no order, and calendars have an end."""
    return isinstance(value, int | float) and 0 <= value < _LATEST


def _options(chat: Mapping[str, Any]) -> ChatOptions:
    think, format = chat.get("think"), chat.get("format")
    if think not in (None, True, False):
        raise ValueError("think is not true or false")
    if not (format in (None, "json") or isinstance(format, dict)):
        raise ValueError("format is not json or a schema")
    system = _text(chat, "system") if "system" in chat else None
    options = ChatOptions(system=system, think=think, format=format)
    for name, value in _mapping(chat.get("parameters") or {}, "parameters").items():
        if name == "stop" and isinstance(value, list):
            for text in value:
                options = options.with_parameter("stop", str(text))
        elif name in (*SAMPLING, "num_predict", "num_ctx"):
            options = options.with_number(name, value)
    return options


def _message(values: object, pictures: SavedPictures | None) -> Message:
    message = _mapping(values, "a message")
    if message.get("role") not in _ROLES:
        raise ValueError("a message has an unknown role")
    reasoning = _text(message, "reasoning") if "reasoning" in message else None
    images = message.get("images") or []
    if not isinstance(images, list):
        raise ValueError("images is not a list")
    parts = [picture_from_json(_mapping(image, "a picture"), pictures) for image in images]
    content = [*parts, TextPart(_text(message, "content"))]
    return Message.of(message["role"], content, reasoning=reasoning)


def _mapping(values: object, what: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{what} is not an object")
    return values


def _text(values: Mapping[str, Any], name: str) -> str:
    text = values.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name} is not a text")
    return text
