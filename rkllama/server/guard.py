"""Who may call the server: API keys, the Host header on loopback, and CORS. Decisions only."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any

from ..config import is_loopback
from ..errors import Forbidden, InvalidRequest, Unauthorized
from .status.headers import EXPOSED

_ALLOWED_HEADERS = "Authorization, Content-Type, X-API-Key, Anthropic-Version, Anthropic-Beta"

_APPS = ("app", "tauri", "vscode-webview", "vscode-file")
"""Schemes of programs that show pages of their own (Obsidian, VS Code), which no web site can have."""

_PRIVATE = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
"""What the names of a home network end in: nobody can buy such a name for a web site."""
_PLACE = re.compile(
    r"(?:\[([0-9a-f:.]+(?:%[\w.~-]+)?)\]|([\w.~%!$&'()*+;=-]*))(?::\d{0,5})?", re.I | re.A
)
"""What Host may hold, and Origin behind its scheme: a name or an address, and a port. No user."""


class Guard:
    """The rules of one server. `host` is the address that it is bound to."""

    def __init__(self, host: str, api_keys: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._loopback = is_loopback(host)
        self._keys = api_keys
        self._origins = origins
        named = {place for origin in origins if (place := origin.partition("://")[2])}
        self._names = {host.lower(), *map(host_name, named)}
        if not self._loopback:
            self._names |= _own_names()

    def check(self, environ: Mapping[str, Any], public: bool) -> None:
        """Let the request pass, or raise Forbidden (Host, Origin), Unauthorized (key) or InvalidRequest
        (a Host or Origin that is none).
        """
        name = host_name(environ.get("HTTP_HOST", ""))
        if name and (self._loopback or not self._keys):
            self._check_host(name)
        origin = environ.get("HTTP_ORIGIN")
        if not origin and _is_embedded(environ):
            raise Forbidden("web pages of other sites may not use this server as a part of theirs")
        if origin and not self._origin_allowed(origin, environ):
            raise Forbidden(
                f"web pages of {origin!r} may not call this server",
                hint="Allow the origin with --origins or RKLLAMA_ORIGINS.",
            )
        if self._keys and not public and key_number(environ, self._keys) < 0:
            raise Unauthorized

    def _check_host(self, name: str) -> None:
        """A page that rebinds its DNS name to this machine still sends its own name as Host. On a network
        a key keeps such a page out as well.
        """
        if name in self._names or is_loopback(name) or (not self._loopback and _is_local(name)):
            return
        raise Forbidden(
            f"the Host header {name!r} does not name this machine",
            hint="Address the server as localhost, or start it with --host."
            if self._loopback
            else "Address the server by its IP address, list http://NAME in --origins, or set an API key.",
        )

    def _origin_allowed(self, origin: str, environ: Mapping[str, Any]) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        if scheme in _APPS:
            return True
        same = place != "" and place == environ.get("HTTP_HOST")
        # Behind a proxy Host may be another one. Only browsers set this header, over https; no page can.
        same = same or environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
        return same or is_loopback(host_name(place))

    def cors_headers(self, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return the headers that let an allowed page read the answer."""
        origin = environ.get("HTTP_ORIGIN")
        if not origin or not self._origin_allowed(origin, environ):
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED),
            ("Vary", "Origin"),
        )

    def preflight_headers(
        self, environ: Mapping[str, Any], methods: str
    ) -> tuple[tuple[str, str], ...]:
        """Return the answer to an OPTIONS request."""
        headers = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", _ALLOWED_HEADERS)
        return (
            *self.cors_headers(environ),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", headers),
            ("Access-Control-Max-Age", "600"),
        )


def _is_embedded(environ: Mapping[str, Any]) -> bool:
    """Return whether a page of another site has this as a picture, a script or a frame. It cannot read the
    answer, and its browser names no Origin, but what is asked for (a search, a checkup) would be done.
    """
    if environ.get("HTTP_SEC_FETCH_SITE") != "cross-site":
        return False
    parts = environ.get("HTTP_SEC_FETCH_DEST", "empty") not in ("document", "empty")
    return parts or environ.get("HTTP_SEC_FETCH_MODE") == "no-cors"


def host_name(place: str) -> str:
    """Return the name or address in a Host header, in lower case, without port and brackets. Raises
    InvalidRequest.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InvalidRequest(f"{place[:100]!r} is not a host and a port")
    return (match[1] or match[2] or "").lower()


def key_number(environ: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Return which of the keys stands in either header of a request, -1 without one."""
    sent = _sent_keys(environ)
    # Every key is compared, each in constant time: neither the match nor its place can be timed.
    same = [
        (n, hmac.compare_digest(each, key.encode())) for n, key in enumerate(keys) for each in sent
    ]
    return min((n for n, found in same if found), default=-1)


def _sent_keys(environ: Mapping[str, Any]) -> list[bytes]:
    """What either header has for a key: clients put a filler into the one that they do not mean."""
    sent = [environ.get("HTTP_X_API_KEY", "")]
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        sent.append(token.strip())
    return [value.encode("latin-1", "replace") for value in sent]


def _own_names() -> set[str]:
    """Return what this machine calls itself, alone and within the domains that it searches."""
    own = socket.gethostname().lower()
    short, domains = own.partition(".")[0], set[str]()
    with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="latin-1") as stream:
        for line in stream:
            word, *rest = line.lower().split() or [""]
            if word in ("search", "domain"):
                domains.update(domain.strip(".") for domain in rest)
    return {own, *(f"{short}.{domain}" for domain in domains)}


def _is_local(name: str) -> bool:
    """Return whether a name leads to no web site: an address, one word, or a home network's own."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return "." not in name or name.endswith(_PRIVATE)
