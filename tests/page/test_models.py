"""The view "Models" in a browser: what is here, the search, downloads that break off and are resumed."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.boards import build_board
from tests.conftest import isolate
from tests.hub.loopback import Fault, LoopbackHub
from tests.page.accessibility import assert_accessible
from tests.page.conftest import Open
from tests.page.looking import LOOKS, Look, Problems, show, wait_for
from tests.running import Server
from tests.virtual_npu import library, write_model
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.integration

CHAT = "Qwen3-1.7B-w8a8-rk3588"
EMBEDDING = "Qwen3-Embedding-0.6B-w8a8-rk3588"
LARGE = b"vnpu model 1\nend\n" + bytes(2_000_000)
SMALL = b"vnpu model 1\nend\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server of this module lives in."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """A Hub with some models that fit an RK3588 and some that do not."""
    with LoopbackHub() as running:
        files = {"Qwen3-4B-w8a8-rk3588.rkllm": SMALL, "Qwen3-4B-w8a8_g128-rk3588.rkllm": SMALL}
        running.add("user/Qwen3-4B", files, downloads=320, tags=("rkllm",))
        files = {"Qwen3-0.6B-w4a16-rk3576.rkllm": SMALL}
        running.add("user/Qwen3-0.6B-rk3576", files, downloads=9, tags=("rkllm",))
        for name in ("one", "two", "three", "five", "six"):
            running.add(f"user/{name}", {f"{name}-w8a8-rk3588.rkllm": LARGE})
        yield running


@pytest.fixture(scope="module")
def server(folder: Path, hub: LoopbackHub) -> Iterator[Server]:
    """A server on an RK3588 with the guide, a model to chat with and one for embeddings."""
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, folder) / "RKLLAMA" / "models"
        patch.setenv("RKLLAMA_SYSROOT", str(build_board("rk3588", folder)))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        for name in (CHAT, EMBEDDING, "Old-1B-w8a8-rk3588"):
            write_model(models / name / f"{name}.rkllm", size=1_000_000)
        with Server() as running:
            running.post("/api/show", {"model": "guide"})
            running.post("/api/copy", {"source": CHAT, "destination": "short"})
            yield running


def card(page: Page, name: str) -> Locator:
    """The card of a model that is here."""
    return page.locator(f'.models-model[data-model="{name}:latest"]')


def offer(page: Page, reference: str) -> Locator:
    """The result of a search."""
    return page.locator(f'[data-reference="{reference}"]')


def download(page: Page, name: str) -> Locator:
    """The row of a download, by a part of its title."""
    return page.locator(".models-download").filter(has_text=name)


def assert_fits(page: Page) -> None:
    """Fail where something must be scrolled sideways to be seen."""
    width = page.evaluate("document.documentElement.clientWidth")
    inner = "document.getElementById('view').scrollWidth"
    assert page.evaluate(f"Math.max({inner}, document.documentElement.scrollWidth)") <= width


def record_speech(page: Page) -> None:
    """Keep what the live region says from now on, for `spoken`."""
    page.evaluate(
        """() => {
          window.spoken = [];
          const region = document.querySelector('.models-page > [role=status]');
          const note = () => window.spoken.push(region.textContent);
          new MutationObserver(note).observe(region, { childList: true });
        }"""
    )


def is_idle(folder: Path) -> bool:
    """Return whether no download into this folder is running in the server."""
    for note in folder.glob("*.part.json"):
        with open(note) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


WORDS = {
    "en": ("thinks", "embeddings", "1,024 tokens", "Chat template", "Nothing of that name"),
    "fr": (
        "réfléchit",
        "vecteurs",
        "1\u202f024 jetons",
        "Modèle de conversation",
        "Aucun",
    ),
}


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_what_is_here(look: Look, open_page: Open) -> None:
    thinks, embeds, context, template, nothing = WORDS[look.language]
    page = open_page(look, "/#models")
    chat, embedding, guide = (card(page, name) for name in (CHAT, EMBEDDING, "guide"))
    chat.get_by_text(thinks).wait_for()
    embedding.get_by_text(embeds).wait_for()
    assert "w8a8" in chat.inner_text()
    assert "1.7B" in chat.inner_text()
    assert "RK3588" in chat.inner_text()
    assert context in guide.inner_text()
    assert embedding.locator("a.button").is_hidden()
    assert_fits(page)
    guide.locator(".models-actions button").nth(1).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("guide.gguf", exact=True).wait_for()
    assert "Apache-2.0" in dialog.inner_text()
    dialog.get_by_text(template, exact=True).click()
    assert "<|im_start|>" in dialog.locator("pre").first.inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("nothing-is-called-so")
    page.get_by_text(nothing).wait_for()
    chat.locator("a.button").click()
    page.wait_for_selector('#view[data-view="chat"]')
    assert page.evaluate("localStorage.getItem('rkllama-model')") == CHAT


def test_a_model_is_loaded_and_unloaded(open_page: Open, server: Server) -> None:
    page = open_page(path="/#models")
    model = card(page, CHAT)
    model.get_by_role("button", name=f"Load: {CHAT}", exact=True).click()
    model.get_by_text("in memory, 4 min").wait_for()
    assert [one["state"] for one in server.get("/api/ps").json["models"]] == ["ready"]
    assert "librkllmrt 1.2.3" in model.inner_text()
    before = model.get_by_text("in memory").inner_text()
    until(lambda: model.get_by_text("in memory").inner_text() != before, "it does not count down")
    model.get_by_role("button", name=f"Unload: {CHAT}", exact=True).click()
    model.get_by_role("button", name=f"Load: {CHAT}", exact=True).wait_for()
    assert model.get_by_text("in memory").count() == 0
    assert server.get("/api/ps").json["models"] == []


def test_what_is_deleted_is_named_first(
    open_page: Open, server: Server, problems: Problems
) -> None:
    page = open_page(path="/#models")
    page.get_by_role("button", name="Delete: Old-1B-w8a8-rk3588").click()
    dialog = page.get_by_role("dialog")
    assert re.search(r"Old-1B-w8a8-rk3588\.rkllm \(1\sMB\)", dialog.inner_text())
    page.keyboard.press("Escape")
    names = [model["name"] for model in server.get("/api/tags").json["models"]]
    assert "Old-1B-w8a8-rk3588:latest" in names
    page.get_by_role("button", name="Delete: Old-1B-w8a8-rk3588").click()
    dialog.get_by_role("button", name="Delete").click()
    card(page, "Old-1B-w8a8-rk3588").wait_for(state="detached")
    names = [model["name"] for model in server.get("/api/tags").json["models"]]
    assert "Old-1B-w8a8-rk3588:latest" not in names
    wait_for(page, "document.activeElement.matches('.models-model h3')")
    # A name of another model takes nothing else with it, and that model stays while the name is there.
    page.get_by_role("button", name=f"Delete: {CHAT}").click()
    dialog.get_by_role("button", name="Delete").click()
    page.get_by_text("is still needed by short").wait_for()
    problems.expect("status of 400")
    page.get_by_role("button", name="Delete: short").click()
    assert f"since {CHAT} uses it" in dialog.inner_text()
    dialog.get_by_role("button", name="Delete").click()
    card(page, "short").wait_for(state="detached")
    assert card(page, CHAT).is_visible()


def test_the_search_says_what_fits(open_page: Open, server: Server, axe: str) -> None:
    page = open_page(Look(360, "dark"), "/#models")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("searchbox").press_sequentially("qwen3")
    best = offer(page, "qwen3:4b")
    best.get_by_text("Recommended").wait_for()
    assert sum("search" in url for url in asked) == 1
    page.get_by_text("2 files fit RK3588").wait_for()
    assert best.get_by_text("320 downloads").is_visible()
    page.get_by_text("1 other file that fits").click()
    assert offer(page, "qwen3:4b-w8a8_g128").is_visible()
    page.get_by_text("1 file that does not fit").click()
    other = offer(page, "user/Qwen3-0.6B-rk3576/Qwen3-0.6B-w4a16-rk3576.rkllm")
    assert other.get_by_text("it is for RK3576").is_visible()
    assert_fits(page)
    assert_accessible(page, axe)
    best.get_by_role("button", name="Download: qwen3:4b").click()
    best.get_by_text("Already here").wait_for()
    card(page, "qwen3:4b").or_(page.locator('[data-model="qwen3:4b"]')).wait_for()
    page.get_by_role("combobox").select_option("gguf")
    page.get_by_text("Nothing of that name was found.").wait_for()
    assert any("format=gguf" in url for url in asked)


def test_a_download_breaks_off_goes_on_and_is_resumed(
    open_page: Open, hub: LoopbackHub, server: Server
) -> None:
    size, held = len(LARGE), Fault(hold_after=1000, drop_after=0)
    hub.fail(
        "one-w8a8-rk3588.rkllm",
        Fault(drop_after=size * 3 // 10),
        Fault(drop_after=size * 3 // 10),
        held,
    )
    page = open_page(path="/#models")
    page.get_by_text("Reading…").wait_for(state="detached")
    record_speech(page)
    page.get_by_role("searchbox").fill("user/one")
    page.get_by_role("button", name="Download “user/one”").click()
    row = download(page, "one-w8a8-rk3588.rkllm")
    row.get_by_text(re.compile(r"^60% · 1\.2\sMB of 2\sMB")).wait_for()
    assert [text.rpartition(" ")[2] for text in page.evaluate("spoken")] == ["25%", "50%"]
    # Another view is shown: it goes on, and the bar at the top tells.
    show(page, "board")
    page.get_by_role("link", name="1 download, 60%").click()
    row.get_by_role("button", name="Stop").click()
    wait_for(page, "document.activeElement.id === 'models-downloads'")
    part = download(page, "Incomplete")
    part.get_by_text(re.compile(r"^60% · 1\.2\sMB of 2\sMB")).wait_for()
    page.reload()
    download(page, "Incomplete").get_by_role("button", name="Go on").click()
    row.get_by_text(re.compile(r"^60% · 1\.2\sMB of 2\sMB")).wait_for()
    held.released.set()
    card(page, "one-w8a8-rk3588").wait_for()
    assert page.locator(".models-download").count() == 0
    ranges = [seen.headers.get("range") for seen in hub.downloads("one-w8a8-rk3588.rkllm")]
    assert ranges[0] is None
    assert int(str(ranges[-1]).removeprefix("bytes=").removesuffix("-")) >= size * 6 // 10
    path = server.post("/api/show", {"model": "one-w8a8-rk3588"}).json["details"]["path"]
    assert Path(path).read_bytes() == LARGE


def test_several_downloads_and_what_goes_wrong(
    open_page: Open, hub: LoopbackHub, server: Server, folder: Path
) -> None:
    held = {name: Fault(hold_after=1000) for name in ("two", "three", "five")}
    for name, fault in held.items():
        hub.fail(f"{name}-w8a8-rk3588.rkllm", fault)
    page = open_page(Look(360, "light", "fr"), "/#models")
    box = page.get_by_role("searchbox")
    for text in ("user/two", "user/three", "user/four"):
        box.fill(text)
        page.locator(".models-typed button").click()
    for name in ("two-w8a8-rk3588.rkllm", "three-w8a8-rk3588.rkllm"):
        download(page, name).get_by_role("button", name="Arrêter").wait_for()
    failed = download(page, "user/four")
    failed.get_by_text("has no repository user/four").wait_for()
    assert (
        failed.locator(".error-hint").inner_text()
        == "Check the spelling; set HF_TOKEN if it is private."
    )
    assert_fits(page)
    files = {"four-w8a8-rk3588.rkllm": SMALL, "four-w8a8_g128-rk3588.rkllm": SMALL}
    hub.add("user/four", files)
    failed.get_by_role("button", name="Réessayer").click()
    page.locator('.models-model[data-model^="four-w8a8"]').wait_for()
    # A fourth one waits for its turn.
    for text in ("user/five", "user/six"):
        box.fill(text)
        page.locator(".models-typed button").click()
    download(page, "user/six").get_by_text("En attente d’un autre téléchargement").wait_for()
    held["five"].released.set()
    for name in ("five", "six"):
        card(page, f"{name}-w8a8-rk3588").wait_for()
    # What is stopped can be deleted; a question names it.
    download(page, "two-w8a8-rk3588.rkllm").get_by_role("button", name="Arrêter").click()
    part = download(page, "Incomplet")
    part.get_by_role("button", name="Supprimer").click()
    dialog = page.get_by_role("dialog")
    assert "two-w8a8-rk3588.rkllm" in dialog.inner_text()
    held["two"].released.set()
    until(lambda: is_idle(folder / "home/RKLLAMA/models/two-w8a8-rk3588"), "it is still fetched")
    dialog.get_by_role("button", name="Supprimer").click()
    part.wait_for(state="detached")
    held["three"].released.set()
    card(page, "three-w8a8-rk3588").wait_for()
    assert "incomplete" not in server.get("/api/tags").json


def test_nothing_is_here_yet(open_page: Open, server: Server, problems: Problems) -> None:
    page = open_page()
    page.route("**/api/tags", lambda route: route.fulfill(json={"models": []}))
    show(page, "models")
    page.unroute("**/api/tags")
    page.get_by_role("button", name="Use the guide").click()
    card(page, "guide").wait_for()
    # The way to the server is lost and found again.
    page.route("**/api/tags", lambda route: route.abort())
    show(page, "board")
    show(page, "models")
    page.get_by_role("alert").wait_for()
    problems.expect("net::ERR_FAILED")
    page.unroute("**/api/tags")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("alert").wait_for(state="detached")
