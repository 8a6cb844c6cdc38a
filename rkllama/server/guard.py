"""Who may call the server: API keys, the Host header on loopback, and CORS. Decisions only."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from ..config import is_loopback
from ..errors import Forbidden, Unauthorized

_ALLOWED_HEADERS = "Authorization, Content-Type, X-API-Key, Anthropic-Version, Anthropic-Beta"

_APPS = ("app", "tauri", "vscode-webview", "vscode-file")
"""Schemes of programs that show pages of their own (Obsidian, VS Code), which no web site can have."""


class Guard:
    """The rules of one server. `host` is the address that it is bound to."""

    def __init__(self, host: str, api_keys: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._loopback = is_loopback(host)
        self._keys = tuple(key.encode() for key in api_keys)
        self._origins = origins

    def check(self, environ: Mapping[str, Any], public: bool) -> None:
        """Let the request pass, or raise Forbidden (Host, Origin) or Unauthorized (key)."""
        if self._loopback:
            self._check_host(environ.get("HTTP_HOST", ""))
        origin = environ.get("HTTP_ORIGIN")
        if origin and not self._origin_allowed(origin, environ):
            raise Forbidden(
                f"web pages of {origin!r} may not call this server",
                hint="Allow the origin with --origins or RKLLAMA_ORIGINS.",
            )
        if self._keys and not public and not self._has_key(environ):
            raise Unauthorized

    def _check_host(self, header: str) -> None:
        """A page that rebinds its DNS name to 127.0.0.1 still sends its own name as Host."""
        name = _host_name(header)
        if name and not is_loopback(name) and name not in map(_host_of_origin, self._origins):
            raise Forbidden(
                f"the Host header {header!r} does not name this machine",
                hint="Address the server as localhost, or start it with --host.",
            )

    def _origin_allowed(self, origin: str, environ: Mapping[str, Any]) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        if scheme in _APPS:
            return True
        same = place != "" and place == environ.get("HTTP_HOST")
        return same or is_loopback(_host_name(place))

    def _has_key(self, environ: Mapping[str, Any]) -> bool:
        """Return whether either header has a key: clients put a filler into the one that they do not mean."""
        sent = [environ.get("HTTP_X_API_KEY", "")]
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer":
            sent.append(token.strip())
        data = [value.encode("latin-1", "replace") for value in sent]
        # Every key is compared, each in constant time: neither the match nor its place can be timed.
        return sum(hmac.compare_digest(each, key) for each in data for key in self._keys) > 0

    def cors_headers(self, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return the headers that let an allowed page read the answer."""
        origin = environ.get("HTTP_ORIGIN")
        if not origin or not self._origin_allowed(origin, environ):
            return ()
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))

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


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _host_of_origin(origin: str) -> str:
    return _host_name(origin.partition("://")[2])
