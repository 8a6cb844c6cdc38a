"""The page that a browser gets at `/`: when it is meant, and the reply with its headers."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from ..config import Settings
from .routing import Reply

HTML = "text/html; charset=utf-8"
FILE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "page", "page.html")

_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_QUALITY = re.compile(r"q\s*=\s*([01](?:\.\d{0,3})?)", re.I | re.A)


def is_wanted(settings: Settings, environ: Mapping[str, Any]) -> bool:
    """Return whether a request for `/` is a browser's: one that would rather have text/html than JSON. A
    client that takes anything, or does not say, is none.
    """
    if not settings.page:
        return False
    wanted = _qualities(environ.get("HTTP_ACCEPT", ""))
    html = wanted.get("text/html", 0.0)
    others = (
        wanted[name] for name in ("application/json", "application/*", "*/*") if name in wanted
    )
    return html > next(others, 0.0)


def page_reply(environ: Mapping[str, Any]) -> Reply:
    """Return the page, packed for a client that can unpack it; nothing of it where the client has it."""
    page = _page()
    packed = _qualities(environ.get("HTTP_ACCEPT_ENCODING", "")).get("gzip", 0.0) > 0
    etag = f'"{page.digest}-gzip"' if packed else f'"{page.digest}"'
    headers = [*page.headers, ("ETag", etag)]
    # Browsers heed it, and send Sec-Fetch headers, over https and on their own machine only; elsewhere
    # it would be an error in their console.
    if "HTTP_SEC_FETCH_DEST" in environ:
        headers.append(("Cross-Origin-Opener-Policy", "same-origin"))
    if _has(environ.get("HTTP_IF_NONE_MATCH", ""), etag):
        return Reply(status=304, content_type=HTML, headers=tuple(headers))
    if packed:
        headers.append(("Content-Encoding", "gzip"))
    body = page.packed if packed else page.plain
    return Reply(body=body, content_type=HTML, headers=tuple(headers))


class _Page(NamedTuple):
    """The page in both forms, and the headers that both have."""

    plain: bytes
    packed: bytes
    digest: str
    headers: tuple[tuple[str, str], ...]


@cache
def _page() -> _Page:
    """Return the page, which is read when it is first asked for."""
    import gzip

    with open(FILE, "rb") as stream:
        plain = stream.read()
    policy = _POLICY.format(script=_hash_of("script", plain), style=_hash_of("style", plain))
    headers = (
        ("Cache-Control", "no-cache"),
        ("Vary", "Accept, Accept-Encoding"),
        ("Content-Security-Policy", policy),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    )
    packed = gzip.compress(plain, 9, mtime=0)
    return _Page(plain, packed, hashlib.sha256(plain).hexdigest()[:24], headers)


def _hash_of(tag: str, page: bytes) -> str:
    """Return the source expression that lets the page's one `tag` run, and nothing else."""
    [text] = re.findall(rb"<%b>(.*?)</%b>" % ((tag.encode(),) * 2), page, re.S)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


def _qualities(header: str) -> dict[str, float]:
    """Return what a header such as Accept names, in lower case, each with its quality."""
    return dict(_read_qualities(header))


def _read_qualities(header: str) -> Iterator[tuple[str, float]]:
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        matches = [match for part in parameters if (match := _QUALITY.fullmatch(part))]
        yield name, float(matches[0][1]) if matches else 1.0


def _has(header: str, etag: str) -> bool:
    """Return whether an If-None-Match names `etag`, which a proxy that packs may have made weak."""
    named = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in named or "*" in named
