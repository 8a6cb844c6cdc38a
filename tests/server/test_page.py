"""Who gets the page at /, and its headers: decisions only, and the application in this process."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bottle
import pytest

from rkllama.commands.server.serve import _tell_where
from rkllama.config import Settings, load_settings
from rkllama.engine.service import LocalService
from rkllama.serve import create_app
from rkllama.server import page
from rkllama.server.page import is_wanted, page_reply
from tests.cases import cases

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def settings(**flags: object) -> Settings:
    return load_settings(flags, {})


@pytest.mark.parametrize(
    "accept",
    [
        CHROMIUM,
        FIREFOX,
        "text/html",
        "TEXT/HTML;charset=utf-8",
        "application/json;q=0.5, text/html;q=0.6",
        "text/html; level=1; q=0.4, */*; q=0.3",
        "application/json;q=0.9, text/html, */*",
        "text/html;q=0.2, application/json;q=0, */*;q=0.9",
    ],
)
def test_a_browser_gets_the_page(accept: str) -> None:
    assert is_wanted(settings(), {"HTTP_ACCEPT": accept})
    assert not is_wanted(settings(page=False), {"HTTP_ACCEPT": accept})


@cases(
    "accept",
    [
        "*/*",
        "",
        "application/json",
        "application/json, text/plain, */*",
        "application/json, text/html",
        "text/html, application/json",
        "text/html;q=0",
        "text/html, */*",
        "text/*",
        "text/html;q=nonsense, application/*",
        ",;=,q=1",
        ";q=1" * 5000,
    ],
)
def test_every_other_client_gets_json(accept: str) -> None:
    assert not is_wanted(settings(), {"HTTP_ACCEPT": accept})


def test_without_the_header_it_is_json() -> None:
    assert not is_wanted(settings(), {})


def test_it_can_be_switched_off_everywhere() -> None:
    assert load_settings({}, {}).page is True
    assert load_settings({}, {"RKLLAMA_PAGE": "off"}).page is False
    assert load_settings({"page": False}, {"RKLLAMA_PAGE": "on"}).page is False


# --- The reply ---------------------------------------------------------------------------------


def headers_of(**environ: str) -> dict[str, str]:
    return dict(page_reply(environ).headers)


def test_it_is_packed_for_whom_can_unpack_it() -> None:
    plain = page_reply({})
    packed = page_reply({"HTTP_ACCEPT_ENCODING": "gzip, deflate, br"})
    assert isinstance(plain.body, bytes)
    assert isinstance(packed.body, bytes)
    assert plain.body == Path(page.FILE).read_bytes()
    assert gzip.decompress(packed.body) == plain.body
    assert dict(packed.headers)["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in dict(plain.headers)
    for refused in ("gzip;q=0", "identity", "br", ""):
        assert "Content-Encoding" not in headers_of(HTTP_ACCEPT_ENCODING=refused)


def test_what_a_browser_has_is_not_sent_again() -> None:
    tags = {
        name: dict(page_reply({"HTTP_ACCEPT_ENCODING": name}).headers)["ETag"]
        for name in ("gzip", "identity")
    }
    assert len(set(tags.values())) == 2, "what is packed has bytes of its own"
    for name, tag in tags.items():
        for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            reply = page_reply({"HTTP_ACCEPT_ENCODING": name, "HTTP_IF_NONE_MATCH": sent})
            assert (reply.status, reply.body) == (304, b"")
            assert dict(reply.headers)["ETag"] == tag
    assert page_reply({"HTTP_IF_NONE_MATCH": '"other"'}).status == 200


def test_its_policy_lets_only_its_own_script_and_style_run() -> None:
    text = Path(page.FILE).read_text()
    policy = headers_of()["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for tag in ("script", "style"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
        assert text.count(f"<{tag}") == 1
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<[^>]*\s(?:on\w+|style)=", text.partition("<script>")[0])


def test_its_other_headers() -> None:
    headers = headers_of()
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Vary"] == "Accept, Accept-Encoding"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Cross-Origin-Opener-Policy" not in headers, "it would be an error on a plain http page"
    secure = headers_of(HTTP_SEC_FETCH_DEST="document")
    assert secure["Cross-Origin-Opener-Policy"] == "same-origin"


# --- The application ---------------------------------------------------------------------------


@pytest.fixture
def service(models: Path) -> Iterator[LocalService]:
    made = LocalService(load_settings(), "test")
    yield made
    made.close()


def get(app: bottle.Bottle, **headers: str) -> tuple[str, dict[str, list[str]], bytes]:
    """Status, headers and body of `GET /`."""
    heads: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_HOST": "localhost",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    body = b"".join(app(environ, lambda *head: heads.append(head)))
    named: dict[str, list[str]] = {}
    for name, value in heads[0][1]:
        named.setdefault(name.lower(), []).append(value)
    return heads[0][0], named, body


def test_it_is_read_when_it_is_first_asked_for(service: LocalService) -> None:
    page._page.cache_clear()
    app = create_app(service, settings())
    assert get(app)[2].startswith(b'{"message":')
    assert page._page.cache_info().currsize == 0
    assert get(app, accept=CHROMIUM)[2].startswith(b"<!doctype html>")
    assert page._page.cache_info().currsize == 1


def test_the_page_needs_no_key_and_tells_nothing_and_the_json_does(service: LocalService) -> None:
    app = create_app(service, settings(api_keys="sesame"))
    status, headers, _ = get(app, accept=CHROMIUM, endpoint_load_metrics_format="JSON")
    assert status == "200 OK"
    assert "x-rkllama-board" not in headers
    assert get(app)[0] == "401 Unauthorized"
    status, headers, _ = get(app, authorization="Bearer sesame")
    assert status == "200 OK"
    assert "x-rkllama-board" in headers


def test_another_sites_host_and_origin_are_refused_as_ever(service: LocalService) -> None:
    app = create_app(service, settings())
    assert get(app, accept=CHROMIUM, origin="http://evil.example")[0] == "403 Forbidden"
    assert get(app, accept=CHROMIUM, host="evil.example")[0] == "403 Forbidden"


def test_caches_keep_the_two_apart(service: LocalService) -> None:
    app = create_app(service, settings())
    assert get(app)[1]["vary"] == ["Accept"]
    page_headers = get(app, accept=CHROMIUM, origin="http://localhost")[1]
    assert page_headers["vary"] == ["Accept, Accept-Encoding", "Origin"]
    off = create_app(service, settings(page=False))
    assert "vary" not in get(off, accept=CHROMIUM)[1]


# --- What a person is told ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("http://0.0.0.0:9090", "http://orangepi:9090/"),
        ("http://[::]:80", "http://orangepi:80/"),
        ("http://192.168.1.7:8080", "http://192.168.1.7:8080/"),
    ],
)
def test_serve_says_where_to_open_it(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rkllama.config.host_name", lambda: "orangepi")
    _tell_where(url, page=True)
    _tell_where(url, page=False)
    assert capsys.readouterr().err == (
        f"RKLLama listens on {url}\nOpen {told} in a browser to use it there\nRKLLama listens on {url}\n"
    )
