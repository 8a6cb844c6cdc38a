"""The page as a server sends it: at its address and behind a prefix, with a key and without, switched off."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import isolate
from tests.page.looking import LOOKS, Look, Problems, new_context, show
from tests.proxies import program, proxy
from tests.running import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
VIEWS = ("chat", "models", "board")


# --- The file ----------------------------------------------------------------------------------


def test_the_page_is_what_its_source_gives_and_small() -> None:
    done = subprocess.run(
        [sys.executable, "tools/page.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = (ROOT / "rkllama" / "page" / "page.html").read_bytes()
    assert len(gzip.compress(text, 9)) <= 60_000


def test_its_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("page-*.png"))
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.stat().st_size < 80_000
        assert f"(docs/pictures/{picture.name})" in (ROOT / "README.md").read_text()


# --- Over HTTP ---------------------------------------------------------------------------------


WELCOME = '{"message":"Bienvenue sur RK-LLama !","github":"https://github.com/notpunhnox/rkllama"}'


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*", "User-Agent": "curl/8.9.1"}])
def test_every_other_client_gets_what_it_has_always_got(
    server: Server, headers: dict[str, str]
) -> None:
    reply = server.get("/", **headers)
    assert reply.body.decode() == WELCOME
    assert reply.headers["content-type"] == "application/json"
    assert "content-security-policy" not in reply.headers


def test_a_browser_gets_it_packed_and_then_not_again(server: Server) -> None:
    first = server.get("/", **HTML, **{"Accept-Encoding": "gzip"})
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert len(first.body) == int(first.headers["content-length"]) <= 60_000
    plain = server.get("/", **HTML)
    assert gzip.decompress(first.body) == plain.body
    head = server.request("HEAD", "/", headers={**HTML, "Accept-Encoding": "gzip"})
    assert head.body == b""
    assert head.headers["content-length"] == first.headers["content-length"]
    assert head.headers["content-security-policy"] == first.headers["content-security-policy"]
    again = {**HTML, "Accept-Encoding": "gzip", "If-None-Match": first.headers["etag"]}
    unchanged = server.get("/", **again)
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert server.get("/index.html", **HTML).status == 404


def test_the_description_has_both(server: Server) -> None:
    content = server.get("/openapi.json").json["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/html"}


def test_no_page_is_as_before_for_everybody(models: Path) -> None:
    with Server("--no-page") as server:
        for accept in (HTML, {}):
            reply = server.get("/", **accept)
            assert reply.headers["content-type"] == "application/json"
            assert reply.json["message"]
            assert "vary" not in reply.headers
        assert not any("browser" in line for line in server.log)


# --- In a browser ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", LOOKS, indirect=True, ids=str)
def test_every_view_is_there_without_a_fault(page: Page) -> None:
    language = page.evaluate("document.documentElement.lang")
    for view in VIEWS:
        show(page, view)
        assert page.locator("[aria-current=page]").get_attribute("data-tab") == view
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{view} can be scrolled sideways by {wide} pixels"
    word = {"en": "Models", "fr": "Modèles"}[language]
    assert page.locator("[data-tab=models]").inner_text() == word


def test_the_policy_stops_what_is_put_into_the_page(
    open_page: Callable[..., Page], problems: Problems
) -> None:
    page = open_page()
    assert (
        page.evaluate("""() => {
      try { document.body.innerHTML = '<img src=x onerror=alert(1)>'; } catch { return 'refused'; }
    }""")
        == "refused"
    )
    page.evaluate("""() => {
      const script = document.createElement('script');
      try { script.text = 'window.ran = true'; } catch { return; }
      document.body.append(script);
    }""")
    page.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))"
    )
    assert page.evaluate("window.ran") is None
    problems.expect("CSP: require-trusted-types-for")
    problems.expect("CSP: img-src")
    problems.expect("Trusted(HTML|Script)' assignment")
    problems.expect("127.0.0.2")  # what Chromium itself says of the image that it did not fetch


def test_it_is_asked_for_again_but_not_sent_again(page: Page) -> None:
    with page.expect_response(lambda response: response.url.endswith("/")) as response:
        page.reload()
    assert response.value.status in (200, 304)
    sizes = response.value.request.sizes()
    assert sizes["responseBodySize"] < 1000


# --- A key -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("locked"))
        with Server("--api-key", "sesame") as running:
            yield running


def test_the_key_is_asked_for_kept_and_asked_for_again_where_it_is_wrong(
    browser: Browser, locked: Server
) -> None:
    problems = Problems(f"{locked.host}:{locked.port}")
    context = new_context(browser, Look(), base_url=locked.url)
    problems.watch(context)
    page = context.new_page()
    page.goto("/#models")
    entry = page.locator("dialog input[type=password]")
    entry.fill("open")
    entry.press("Enter")
    page.get_by_text("does not know this key").wait_for()
    assert page.evaluate("localStorage.getItem('rkllama-key')") == "open"
    entry.fill("sesame")
    with page.expect_response(lambda response: response.status == 200):
        entry.press("Enter")
    page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("localStorage.getItem('rkllama-key')") == "sesame"
    problems.expect("401")
    page.reload()
    show(page, "board")
    assert page.locator("dialog").count() == 0
    problems.assert_none(context)
    context.close()


# --- A prefix ----------------------------------------------------------------------------------


def test_it_works_below_a_prefix_of_a_proxy(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    name = next(filter(program, ("nginx", "haproxy")), None)
    if name is None:
        pytest.skip("neither nginx nor HAProxy is installed")
    with proxy(name, server, tmp_path, 30, prefix="/board/") as port:
        problems = Problems(f"127.0.0.1:{port}")
        context = new_context(browser, Look(768), base_url=f"http://127.0.0.1:{port}")
        problems.watch(context)
        page = context.new_page()
        paths: list[str] = []
        page.on("request", lambda request: paths.append(request.url.partition(str(port))[2]))
        page.goto("/board/")
        for view in VIEWS:
            show(page, view)
        page.wait_for_load_state("networkidle")
        assert any("/api/" in path for path in paths)
        assert all(path.startswith("/board/") for path in paths), paths
        page.goto("/board#models")  # nginx sends a browser on to /board/, HAProxy does not
        show(page, "board")
        problems.assert_none(context)
        context.close()
