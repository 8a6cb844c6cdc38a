"""The Hugging Face Hub: whether it is reached from here, and takes the user's token.

One request tells both. It is made with the standard library, since importing the Hub's own client takes
longer than a second on a board.
"""

from __future__ import annotations

import email.utils
import importlib.util
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import NamedTuple

from ... import __version__
from ...hub.api import DEFAULT_ENDPOINT, is_offline, is_web_address
from ..finding import Check, Finding, Subject

_TITLE = "Hugging Face Hub"
_PATH = "/api/models?limit=1"
_MOST = 1.0
"""Seconds for all of it; looking up a name knows no limit of its own."""
_CLOCKS_DIFFER = 300.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class _Reply(NamedTuple):
    """What came back: a status, or why there is none."""

    status: int = 0
    error: BaseException | None = None
    ahead: float = 0.0
    """Seconds by which the Hub's clock is ahead of ours."""


def check_hub(_subject: Subject) -> Iterator[Finding]:
    """Is the Hub reached, and is the token that there is for it valid?"""
    address = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    endpoint = re.sub(r"(?<=://)[^/]*@", "", address)  # a login is not told
    if is_offline():
        yield _finding("good", "HF_HUB_OFFLINE is set: nothing is fetched", "HF_HUB_OFFLINE")
        return
    if not is_web_address(address):
        yield Finding(
            check="hub",
            status="broken",
            title=_TITLE,
            found=f"HF_ENDPOINT cannot be {endpoint!r}",
            good=DEFAULT_ENDPOINT,
            advice="Write it like that, or unset it.",
            source="HF_ENDPOINT",
        )
        return
    token, origin = find_token()
    reply = _ask(address, token)
    yield from _tell(endpoint, reply, origin)
    if abs(reply.ahead) > _CLOCKS_DIFFER:
        yield _clock(reply.ahead, endpoint)


def _finding(
    status: str, found: str, source: str, advice: str | None = None, good: str | None = None
) -> Finding:
    return Finding(
        check="hub",
        status="good" if status == "good" else "warning",
        title=_TITLE,
        found=found,
        good=good,
        advice=advice,
        source=source,
    )


def _tell(endpoint: str, reply: _Reply, origin: str | None) -> Iterator[Finding]:
    where = endpoint.partition("://")[2].rpartition("@")[2]
    if reply.error is not None:
        reason, advice = _explain(reply.error)
        yield _finding("warning", f"{where} is not reached: {reason}", endpoint, advice)
    elif reply.status == 401 and origin is not None:
        yield Finding(
            check="hub-token",
            status="broken",
            title="Hub token",
            found=f"{where} refuses the token in {origin}, and so every download",
            good="a valid token, or none: public models need none",
            advice="Make a new one in the Hub's settings, or take this one away.",
            cure=("unset HF_TOKEN",) if origin == "HF_TOKEN" else (),
            source=origin,
        )
    elif reply.status >= 500 or reply.status == 429:
        yield _finding(
            "warning",
            f"{where} is out of order (status {reply.status})",
            endpoint,
            "Try again later.",
        )
    elif reply.status in (401, 403, 407):
        yield _finding(
            "warning",
            f"{where} refuses to answer (status {reply.status})",
            endpoint,
            "Check HF_ENDPOINT, HF_TOKEN and the proxy settings.",
        )
    else:
        with_token = f", and takes the token in {origin}" if origin else "; no token is set"
        yield _finding("good", f"{where} is reached{with_token}", endpoint)


def _explain(error: BaseException) -> tuple[str, str]:
    """Return why a request failed, and what to do."""
    while isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    proxies = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    through = f" Its traffic goes through the proxy in {proxies[0]}." if proxies else ""
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up", f"Check the network connection and DNS.{through}"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = re.sub(r"\s+", " ", error.verify_message or "its certificate cannot be verified")
        return (
            reason,
            f"Check this machine's clock and its certificates (ca-certificates).{through}",
        )
    if isinstance(error, TimeoutError):
        return f"no answer within {_MOST:g} s", f"Check the network connection.{through}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text, f"Check the network connection and HF_ENDPOINT.{through}"


def _clock(ahead: float, endpoint: str) -> Finding:
    minutes = round(abs(ahead) / 60)
    return Finding(
        check="clock",
        status="warning",
        title="Clock",
        found=f"{minutes} minutes {'behind' if ahead > 0 else 'ahead of'} the Hub's",
        good="the time of day: certificates are only valid then",
        advice="Have it set by the network.",
        cure=("sudo timedatectl set-ntp true",),
        source=endpoint,
    )


# --- The request -------------------------------------------------------------------------------


def find_token() -> tuple[str | None, str | None]:
    """Return the token that huggingface_hub would use, and where it stands; None for none."""
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None, None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = _clean(os.environ.get(name, ""))
        if token:
            return token, name
    path = token_file()
    try:
        with open(path, encoding="utf-8") as stream:
            token = _clean(stream.read(4096))
    except (OSError, ValueError):
        return None, None
    return (token, path) if token else (None, None)


def token_file() -> str:
    """Return where `hf auth login` keeps the token."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return os.path.expanduser(os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token"))


def _clean(token: str) -> str:
    return token.replace("\r", "").replace("\n", "").strip()


def _ask(endpoint: str, token: str | None) -> _Reply:
    """Ask the Hub for one model; a thread does it, since nothing else ends in time for sure."""
    replies: list[_Reply] = []
    thread = threading.Thread(target=lambda: replies.append(_request(endpoint, token)), daemon=True)
    thread.start()
    thread.join(_MOST)
    return replies[0] if replies else _Reply(error=TimeoutError())


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token is for the Hub alone."""

    def redirect_request(self, *_: object) -> None:
        return None


def _request(endpoint: str, token: str | None) -> _Reply:
    headers = {"User-Agent": f"rkllama/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        handlers = (_Stay(), urllib.request.HTTPSHandler(context=_certificates()))
        request = urllib.request.Request(endpoint + _PATH, headers=headers)
        with urllib.request.build_opener(*handlers).open(request, timeout=_MOST) as response:
            return _Reply(response.status, ahead=_ahead(response.headers.get("Date")))
    except urllib.error.HTTPError as error:
        with error:
            return _Reply(error.code, ahead=_ahead(error.headers.get("Date")))
    except (OSError, HTTPException, ValueError) as error:
        return _Reply(error=error)


def _certificates() -> ssl.SSLContext:
    """Return the authorities that downloads believe: the user's, else those of the package certifi."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()
    package = importlib.util.find_spec("certifi")
    file = (
        os.path.join(os.path.dirname(package.origin), "cacert.pem")
        if package and package.origin
        else ""
    )
    return ssl.create_default_context(cafile=file if os.path.isfile(file) else None)


def _ahead(date: str | None) -> float:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0


CHECKS: tuple[Check, ...] = (check_hub,)
