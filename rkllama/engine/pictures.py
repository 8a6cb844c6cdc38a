"""Pictures in a request: for a model with eyes their bytes, for another one words, or a refusal."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from ..errors import InvalidRequest, Unsupported
from ..runner.frames import MAX_BYTES
from ..types import ChatRequest, ImagePart, Message, Part, SentImage, TextPart, joined_parts

MAX_IMAGES = 32
"""Pictures in one request, those of earlier turns included."""


def with_pictures(request: ChatRequest, *, sees: bool, problem: str | None = None) -> ChatRequest:
    """Return the request as a model that `sees`, or does not, can take it. `problem` is why the encoder that
    it has cannot be used.

    Raises Unsupported for a picture that is sent now to a model without eyes, InvalidRequest for what is no
    picture, too many or too large.
    """
    if not any(isinstance(part, SentImage) for part in _parts(request)):
        return request
    if sees:
        _check(list(_sent(request)))
    take = _seen if sees else partial(_told, problem=problem)
    return replace(
        request,
        messages=tuple(_with(message, take) for message in request.messages),
        images=tuple(map(take, request.images)),
    )


def without_earlier_pictures(request: ChatRequest) -> ChatRequest:
    """Return the request without the pictures before its last question, which may be several messages of the
    user, for a model that they would confuse.
    """
    messages = request.messages
    earlier = max((at for at, message in enumerate(messages) if message.role == "user"), default=0)
    while earlier and messages[earlier - 1].role == "user":
        earlier -= 1
    left = tuple(_with(message, _left_out) for message in messages[:earlier])
    return replace(request, messages=left + messages[earlier:])


def images_of(messages: Iterable[Message]) -> tuple[bytes, ...]:
    """Return the pictures of a conversation in their order."""
    return images_in(part for message in messages for part in message.content)


def images_in(parts: Iterable[Part]) -> tuple[bytes, ...]:
    """Return the pictures among parts."""
    return tuple(part.data for part in parts if isinstance(part, ImagePart))


def _parts(request: ChatRequest) -> Iterator[Part]:
    yield from request.images
    for message in request.messages:
        yield from message.content


def _sent(request: ChatRequest) -> Iterator[SentImage]:
    return (part for part in _parts(request) if isinstance(part, SentImage))


def _check(images: Sequence[SentImage]) -> None:
    """Raise InvalidRequest where they are more than one request may have."""
    check_count(len(images), images[min(len(images) - 1, MAX_IMAGES)].where)
    size = sum(len(image.data) for image in images) * 3 // 4
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"the pictures have {size >> 20} MB together, at most {MAX_BYTES >> 20} MB are taken",
            hint="Make them smaller, or leave out those of earlier turns.",
            param=images[0].where,
        )


def check_count(number: int, param: str) -> None:
    """Raise InvalidRequest for more pictures than one request may have."""
    if number > MAX_IMAGES:
        raise InvalidRequest(
            f"the conversation has {number} pictures, at most {MAX_IMAGES} are taken",
            hint="Leave out those of earlier turns.",
            param=param,
        )


def _with(message: Message, take: Callable[[Part], Part]) -> Message:
    if not any(isinstance(part, SentImage) for part in message.content):
        return message
    return replace(message, content=joined_parts(map(take, message.content)))


def _left_out(part: Part) -> Part:
    return TextPart("") if isinstance(part, SentImage) else part


def _told(part: Part, problem: str | None) -> Part:
    """Return the words in place of a picture, or raise Unsupported."""
    if not isinstance(part, SentImage):
        return part
    if part.refusal is None:
        return TextPart(part.instead)
    if problem is None:
        raise Unsupported(part.refusal, param=part.where)
    raise Unsupported(
        f"{part.refusal}: {problem}",
        param=part.where,
        hint="`rkllama doctor` looks at the encoders of models.",
    )


def _seen(part: Part) -> Part:
    """Return a picture's bytes; one of an earlier turn that cannot be read is told in words."""
    if not isinstance(part, SentImage):
        return part
    problem = part.problem
    if problem is None:
        try:
            return ImagePart(base64.b64decode("".join(part.data.split()), validate=True))
        except ValueError:
            problem = "it is not valid base64: send the bytes of its file in base64"
    if part.refusal is None:
        return TextPart(part.instead)
    place = part.where.removesuffix(".type")
    raise InvalidRequest(f"the picture in '{place}' cannot be read: {problem}", param=part.where)
