"""Who may call the server: API keys, Host and Origin, and what it says when anyone may."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.config import is_loopback, load_settings
from rkllama.errors import ConfigError, Forbidden, InvalidRequest, Unauthorized
from rkllama.server import guard
from rkllama.server.guard import Guard
from tests.cases import cases
from tests.conftest import isolate
from tests.running import Reply, Server
from tests.virtual_npu import library


def environ(**headers: str) -> dict[str, str]:
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()}


# --- Keys --------------------------------------------------------------------------------------


def test_keys_are_separated_by_commas_or_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# for the kitchen\nfrom-file-1\n\n  from-file-2  \n")
    for text, keys in (
        ("one", ("one",)),
        ("one,two, three", ("one", "two", "three")),
        (f"@{file}", ("from-file-1", "from-file-2")),
        (f"one,@{file}", ("one", "from-file-1", "from-file-2")),
    ):
        assert load_settings({"api_keys": text}).api_keys == keys
        assert load_settings(environ={"RKLLAMA_API_KEY": text}).api_keys == keys


def test_a_key_file_in_the_home_directory(home: Path) -> None:
    (home / "keys").write_text("secret\n")
    assert load_settings({"api_keys": "@~/keys"}).api_keys == ("secret",)


@pytest.mark.parametrize("text", ["", " ", ",", "@/nothing/there", "@", "@{tmp}"])
def test_no_key_where_one_is_asked_for_is_an_error(tmp_path: Path, text: str) -> None:
    """`--api-key "$KEY"` with an unset variable must not serve everybody."""
    with pytest.raises(ConfigError, match="--api-key"):
        load_settings({"api_keys": text.format(tmp=tmp_path)})


def test_an_empty_key_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="no key"):
        load_settings({"api_keys": f"@{tmp_path}/keys"})


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load_settings(environ={"RKLLAMA_API_KEY": ""}).api_keys == ()


KEYED = Guard("0.0.0.0", ("first-key", "clé"), ())


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer  first-key "},
        {"x_api_key": "first-key"},
        {"authorization": "Bearer clé".encode().decode("latin-1")},
        {"authorization": "Bearer filler", "x_api_key": "first-key"},
        {"authorization": "Bearer first-key", "x_api_key": "filler"},
    ],
)
def test_a_key_opens(headers: dict[str, str]) -> None:
    KEYED.check(environ(**headers), public=False)


@cases(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "first-key"},
        {"authorization": "Basic first-key"},
        {"authorization": "Bearer first-ke"},
        {"authorization": "Bearer first-key2"},
        {"authorization": "Bearer first-key, Bearer x"},
        {"authorization": "Bearer FIRST-KEY"},
        {"x_api_key": ""},
        {"x_api_key": "\u20ac"},
    ],
)
def test_anything_else_does_not(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        KEYED.check(environ(**headers), public=False)
    KEYED.check(environ(**headers), public=True)


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(sent: bytes, key: bytes) -> bool:
        compared.append(key)
        return hmac.compare_digest(sent, key)

    monkeypatch.setattr(guard, "hmac", type("hmac", (), {"compare_digest": compare}))
    keys = ("a", "b", "c")
    for sent in ("a", "c", "x"):
        compared.clear()
        try:
            Guard("0.0.0.0", keys, ()).check(environ(x_api_key=sent), public=False)
        except Unauthorized:
            assert sent == "x"
        assert compared == [b"a", b"b", b"c"]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose key is in a file, and one origin that may call it; no test here changes it."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text("secret\n")
    arguments = ("--api-key", f"other,@{folder}/keys", "--origins", "https://ui.example/")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        with Server(*arguments) as server:
            yield server


@pytest.mark.integration
def test_without_its_key_every_dialect_refuses_in_its_own_shape(keyed: Server) -> None:
    def error(method: str, path: str, **headers: str) -> Any:
        answer = keyed.request(method, path, {} if method == "POST" else None, headers)
        assert answer.status == 401, (path, answer.status)
        return answer.json

    assert "clé" in error("GET", "/models")["error"]
    assert error("POST", "/generate", **{"Accept-Language": "en"})["error"].startswith("a valid")
    assert isinstance(error("GET", "/api/tags")["error"], str)
    assert "API key" in error("POST", "/v1/chat/completions")["error"]["message"]
    anthropic = error("POST", "/v1/messages")
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "authentication_error"
    for path in ("/rm", "/load_model", "/unload_model", "/pull", "/api/create", "/api/pull"):
        error("POST", path)
    for key in ("secret", "other"):
        assert keyed.get("/models", Authorization=f"Bearer {key}").status == 200
        assert keyed.get("/v1/models", **{"x-api-key": key}).status == 200
    assert keyed.get("/health").status == 200


@pytest.mark.integration
def test_the_key_stands_in_no_log_and_no_answer(keyed: Server) -> None:
    keyed.get("/models", Authorization="Bearer secret")
    answer = keyed.get("/models", Authorization="Bearer secrets")
    assert b"secret" not in answer.body
    assert not any("secret" in line for line in keyed.log)


# --- Host --------------------------------------------------------------------------------------


@cases(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.255", True),
        ("::1", True),
        ("127.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.256", False),
        ("127.0.0", False),
        ("127.0.0.x", False),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_an_address_and_no_beginning_of_a_name(host: str, local: bool) -> None:
    assert is_loopback(host) == local


LOCAL = Guard("127.0.0.1", (), ("https://ui.example", "http://board.local:3000"))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "[::1]"],
)
def test_this_machine_may_be_called_by_its_names(host: str) -> None:
    LOCAL.check(environ(host=host), public=False)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::2]:8080",
        "192.168.1.5:8080",
        "0.0.0.0:8080",
        "board.local",
    ],
)
def test_a_rebound_name_is_refused_on_loopback(host: str) -> None:
    for public in (True, False):
        with pytest.raises(Forbidden):
            Guard("127.0.0.1", ("key",), ()).check(environ(host=host), public=public)
    Guard("192.168.1.5", ("key",), ()).check(environ(host=host, x_api_key="key"), public=False)


OPEN = Guard("0.0.0.0", (), ("https://chat.example.org",))
"""On a network, for everybody: what a page finds there under its own name is for no page."""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "192.168.1.5:8080",
        "[fe80::1]:8080",
        "localhost",
        "board",
        "board:8080",
        "board.local:8080",
        "host.docker.internal",
        "chat.example.org:8080",
        socket.gethostname(),
    ],
)
def test_without_a_key_a_network_names_the_machine(host: str) -> None:
    OPEN.check(environ(host=host), public=False)


@pytest.mark.parametrize("host", ["evil.example", "127.evil.example:8080", "192.168.1.5.evil.org"])
def test_without_a_key_a_rebound_name_is_refused_on_a_network_too(host: str) -> None:
    with pytest.raises(Forbidden, match="does not name this machine") as caught:
        OPEN.check(environ(host=host), public=True)
    assert "--origins" in str(caught.value.hint)


MALFORMED = (
    "localhost@evil.example",
    "127.0.0.1:80@evil.example",
    "user:password@localhost",
    "[::1]evil.example",
    "[::1]@evil.example:80",
    "[::1",
    "[localhost]",
    "localhost:port",
    "localhost:80:80",
    "localhost, localhost",
    "localhost/evil.example",
    "localhost evil.example",
    "localhost#@evil.example",
)


@cases("place", MALFORMED)
def test_what_is_no_host_is_a_bad_request_everywhere(place: str) -> None:
    for each in (LOCAL, KEYED, OPEN):
        with pytest.raises(InvalidRequest):
            each.check(environ(host=place, x_api_key="first-key"), public=True)
        with pytest.raises(InvalidRequest):
            each.check(environ(host="localhost", origin=f"http://{place}"), public=True)


def test_the_host_of_an_allowed_origin_may_be_called() -> None:
    LOCAL.check(environ(host="board.local:8080"), public=False)
    with pytest.raises(Forbidden):
        Guard("127.0.0.1", (), ("*",)).check(environ(host="evil.example"), public=False)


@pytest.mark.integration
def test_a_rebound_name_reaches_nothing(server: Server) -> None:
    for path in ("/models", "/api/tags", "/v1/models", "/health"):
        answer = server.get(path, Host="evil.example")
        assert answer.status == 403
        assert answer.json["error"]
    answer = server.request("POST", "/v1/messages", {}, {"Host": "127.evil.example"})
    assert answer.json["error"]["type"] == "permission_error"


# --- Origin ------------------------------------------------------------------------------------


@cases(
    ("origin", "host", "allowed"),
    [
        ("https://ui.example", "localhost", True),
        ("http://localhost:3000", "localhost:8080", True),
        ("http://127.0.0.1", "localhost:8080", True),
        ("http://[::1]:5173", "localhost:8080", True),
        ("http://ui.example", "localhost", False),
        ("https://ui.example:444", "localhost", False),
        ("https://ui.example.evil.example", "localhost", False),
        ("https://evil.example", "localhost", False),
        ("http://127.evil.example", "localhost", False),
        ("http://localhost.evil.example", "localhost", False),
        ("app://obsidian.md", "localhost", True),
        ("tauri://localhost", "", True),
        ("vscode-webview://1abc", "localhost", True),
        ("appx://obsidian.md", "localhost", False),
        ("https://app", "localhost", False),
        ("null", "localhost", False),
        ("null", "", False),
        ("file://", "", False),
        ("x", "x", False),
    ],
)
def test_pages_of_allowed_origins_may_call(origin: str, host: str, allowed: bool) -> None:
    sent = environ(origin=origin, host=host)
    if allowed:
        LOCAL.check(sent, public=False)
        assert ("Access-Control-Allow-Origin", origin) in LOCAL.cors_headers(sent)
    else:
        with pytest.raises(Forbidden):
            LOCAL.check(sent, public=False)
        assert LOCAL.cors_headers(sent) == ()


def test_a_server_on_a_network_serves_its_own_pages() -> None:
    bound = Guard("0.0.0.0", (), ())
    bound.check(environ(origin="http://board:8080", host="board:8080"), public=False)
    with pytest.raises(Forbidden):
        bound.check(environ(origin="http://board:9090", host="board:8080"), public=False)


@pytest.mark.parametrize(
    ("site", "allowed"),
    [("same-origin", True), ("same-site", False), ("cross-site", False), ("none", False)],
)
def test_a_browser_vouches_for_the_servers_own_page_behind_a_proxy(
    site: str, allowed: bool
) -> None:
    sent = environ(origin="https://home.example", host="127.0.0.1:8080", sec_fetch_site=site)
    if allowed:
        LOCAL.check(sent, public=False)
    else:
        with pytest.raises(Forbidden):
            LOCAL.check(sent, public=False)
    with pytest.raises(Forbidden):  # it says nothing of where a name leads
        LOCAL.check({**sent, "HTTP_HOST": "home.example"}, public=False)


@pytest.mark.parametrize(
    ("site", "mode", "dest", "allowed"),
    [
        ("cross-site", "no-cors", "image", False),
        ("cross-site", "no-cors", "empty", False),
        ("cross-site", "navigate", "iframe", False),
        ("cross-site", "navigate", "document", True),
        ("same-origin", "cors", "empty", True),
        ("none", "navigate", "document", True),
    ],
)
def test_a_page_elsewhere_does_not_have_the_server_for_a_picture(
    site: str, mode: str, dest: str, allowed: bool
) -> None:
    sent = environ(host="localhost", sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=dest)
    if allowed:
        LOCAL.check(sent, public=False)
    else:
        with pytest.raises(Forbidden):
            LOCAL.check(sent, public=True)


def test_a_star_allows_every_page() -> None:
    Guard("127.0.0.1", (), ("*",)).check(
        environ(origin="https://evil.example", host="localhost"), public=False
    )


def test_origins_are_read_as_browsers_send_them() -> None:
    settings = load_settings({"origins": "https://UI.example/, http://b:1"})
    assert settings.origins == ("https://ui.example", "http://b:1")
    assert load_settings({"origins": "*"}).origins == ("*",)


@pytest.mark.parametrize("text", ["ui.example", "https://", "https://ui.example/a", "https://*.a"])
def test_what_no_browser_sends_as_its_origin_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--origins cannot be .* is not an origin such as https://"
    ):
        load_settings({"origins": f"http://b:1,{text}"})


def preflight(server: Server, path: str, origin: str) -> Reply:
    return server.request(
        "OPTIONS",
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, x-stainless-os",
        },
    )


@pytest.mark.integration
def test_a_preflight_needs_no_key_and_tells_who_may_call(keyed: Server) -> None:
    for path in ("/generate", "/api/chat", "/v1/chat/completions", "/v1/models/some/name"):
        answer = preflight(keyed, path, "https://ui.example")
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"
        assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
        refused = preflight(keyed, path, "https://evil.example")
        assert "access-control-allow-origin" not in refused.headers
    assert "POST" in preflight(keyed, "/rm", "x").headers["access-control-allow-methods"]
    assert preflight(keyed, "/nothing", "https://ui.example").status == 404


@pytest.mark.integration
def test_an_allowed_page_can_read_answers_and_errors(keyed: Server) -> None:
    origin, key = {"Origin": "https://ui.example"}, {"Authorization": "Bearer secret"}
    for headers, status in (({**origin, **key}, 200), (origin, 401)):
        answer = keyed.request("GET", "/models", headers=headers)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"
    answer = keyed.request("GET", "/models", headers={**key, "Origin": "https://evil.example"})
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


# --- The warning -------------------------------------------------------------------------------


@pytest.mark.integration
def test_an_open_server_on_a_network_says_so_in_one_line(models: Path, npu: str) -> None:
    def warnings(*arguments: str) -> list[str]:
        with Server(*arguments) as server:
            assert server.request("GET", "/health").status == 200
        return [line for line in server.log if "WARNING" in line]

    (line,) = warnings("--host", "0.0.0.0")
    assert "no API key" in line
    assert warnings("--host", "0.0.0.0", "--api-key", "k") == []
    assert warnings() == []
