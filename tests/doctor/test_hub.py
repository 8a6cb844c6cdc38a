"""The Hub: whether it is reached, and whether it takes the token."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rkllama.doctor.finding import Finding
from rkllama.doctor.software import hub
from rkllama.doctor.software.hub import check_hub, find_token
from tests.doctor.examine import look
from tests.hub.loopback import LoopbackHub


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub of our own."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def only() -> Finding:
    (finding,) = look(check_hub)
    return finding


def test_the_hub_is_reached_without_a_token(remote: LoopbackHub) -> None:
    finding = only()
    assert (finding.check, finding.status) == ("hub", "good")
    assert finding.found.endswith("is reached; no token is set")
    assert [seen.headers.get("authorization") for seen in remote.seen] == [None]


def test_a_valid_token(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good\n")
    finding = only()
    assert finding.status == "good"
    assert finding.found.endswith("is reached, and takes the token in HF_TOKEN")
    assert "hf_good" not in str(finding)


def test_a_token_that_is_refused(remote: LoopbackHub, home: Path) -> None:
    file = home / "hf" / "token"
    file.parent.mkdir()
    file.write_text("hf_old\n")
    finding = only()
    assert (finding.check, finding.status) == ("hub-token", "broken")
    assert str(file) in finding.found
    assert "hf_old" not in str(finding)


def test_the_users_wish_to_have_no_token(
    remote: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert only().status == "good"
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    assert find_token() == ("hf_old", "HF_TOKEN")


@pytest.mark.parametrize(
    ("status", "expected"), [(503, "warning"), (429, "warning"), (404, "good")]
)
def test_a_hub_that_is_out_of_order_and_a_mirror_of_files(
    status: int, expected: str, remote: LoopbackHub
) -> None:
    remote.api_fault = (status, {})
    assert only().status == expected


def test_the_token_does_not_follow_a_redirect(
    remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    remote.api_fault = (302, {"Location": f"{remote.storage}/elsewhere"})
    assert only().status == "good"
    assert [seen.origin for seen in remote.seen] == [remote.endpoint]


class Past(BaseHTTPRequestHandler):
    """A Hub whose clock is years behind."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "Sat, 01 Jan 2022 00:00:00 GMT"

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def served(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of `Past`, behind TLS if there is a context; gives its port."""
    with HTTPServer(("127.0.0.1", 0), Past) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_clock_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        reached, clock = look(check_hub)
    assert (reached.status, clock.check, clock.status) == ("good", "clock", "warning")
    assert clock.found.endswith("minutes ahead of the Hub's")
    assert "behind the Hub's" in hub._clock(3600.0, "x").found


@pytest.mark.integration
def test_a_certificate_that_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate}"
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *named], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with served(context) as port:
        monkeypatch.setenv("HF_ENDPOINT", f"https://127.0.0.1:{port}")
        finding = only()
        assert (finding.status, "self-signed certificate" in finding.found) == ("warning", True)
        assert "clock" in (finding.advice or "")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert look(check_hub)[0].status == "good"


@contextmanager
def silent() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_MOST", 0.2)
    with silent() as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        finding = only()  # it would wait forever
    assert finding.status == "warning"
    assert "no answer within 0.2 s" in finding.found


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and listening to nobody
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        finding = only()
    assert (finding.status, "Connection refused" in finding.found) == ("warning", True)


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HTTP_PROXY", "http://me:word@127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://me:word@127.0.0.1:9")
    finding = only()
    assert finding.status == "warning"
    assert "the proxy in HTTP_PROXY" in (finding.advice or "")
    assert "word" not in str(finding)


def test_a_name_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    finding = only()
    assert finding.status == "warning"
    assert "its name cannot be looked up" in finding.found or "no answer" in finding.found


def test_offline_by_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert only().status == "good"


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert (only().status, only().good) == ("broken", "https://huggingface.co")


@pytest.mark.parametrize("login", ["t0ken", "me:t0ken", "me:t0@ken"])
def test_a_login_in_the_endpoint_is_not_told(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{login}@127.0.0.1:9")
    told = look(check_hub)
    assert told
    assert "t0" not in repr(told)
    assert "ken@" not in repr(told)
