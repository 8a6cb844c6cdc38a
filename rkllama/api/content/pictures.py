"""Pictures in requests: bytes in base64, alone or in a data URL. No URL that leads elsewhere is followed."""

from __future__ import annotations

from ...errors import Unsupported
from ...types import Part, SentImage, TextPart, joined_parts, text_parts
from ..common import Fields, left_out

IMAGE_KINDS = ("image_url", "input_image")
"""The types of OpenAI's parts that hold a picture."""

_URL = "it is a URL, which is not fetched: send the picture itself, as data:image/png;base64,..."
_NO_DATA = "it is no picture: send the bytes of its file in base64"


def sent_image(
    source: str,
    where: str,
    *,
    refusal: str | None = None,
    instead: str | None = None,
) -> SentImage:
    """Return a picture from base64, or from a data URL. `refusal` is None where the conversation may go on
    without it; `instead` are the words for that.
    """
    data, problem = _base64_of(source.strip())
    return SentImage(
        data=data,
        instead=left_out("image") if instead is None else instead,
        refusal=refusal,
        problem=problem,
        where=where,
    )


def unreadable_image(
    where: str, problem: str = _NO_DATA, *, refusal: str | None = None
) -> SentImage:
    """Return a picture that no model can see, such as one that is named by the id of a file."""
    return SentImage(
        data="", instead=left_out("image"), refusal=refusal, problem=problem, where=where
    )


def image_part(part: Fields, *, refuse: bool) -> SentImage:
    """Return the picture in one of OpenAI's parts; `refuse` is for one that is sent now."""
    where = f"{part.where}type"
    kind = part.text("type")
    refusal = f"'{where}' is '{kind}': this model accepts only text" if refuse else None
    url = part.raw("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    if not isinstance(url, str):
        return unreadable_image(where, refusal=refusal)
    return sent_image(url, where, refusal=refusal)


def read_content(
    message: Fields, name: str = "content", *, refuse: bool = True
) -> tuple[Part, ...] | None:
    """Return a content that is a string or a list of OpenAI's parts; None when absent. Raises Unsupported for
    what is neither text nor picture.
    """
    value = message.raw(name)
    if not isinstance(value, list):
        text = message.text(name)
        return None if text is None else text_parts(text)
    return joined_parts(_read_part(part, refuse) for part in message.objects(name) or ())


def _read_part(part: Fields, refuse: bool) -> Part:
    kind = part.need("type", part.text)
    if kind in IMAGE_KINDS:
        return image_part(part, refuse=refuse)
    if kind != "text":
        raise Unsupported(
            f"'{part.where}type' is '{kind[:40]}': models here accept only text and pictures",
            param=f"{part.where}type",
        )
    return TextPart(part.need("text", part.text))


def _base64_of(source: str) -> tuple[str, str | None]:
    """Return the base64 in `source`, and what is wrong with it as far as can be seen without decoding."""
    if not source:
        return "", _NO_DATA
    if source[:5].lower() == "data:":
        head, comma, data = source.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            return "", _NO_DATA
        return data, None
    return ("", _URL) if "://" in source[:20] else (source, None)
