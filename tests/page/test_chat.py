"""The page's chat in a real Chromium, over the guide and the virtual NPU."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import isolate
from tests.page.accessibility import assert_accessible
from tests.page.looking import Look, new_context
from tests.running import Server
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.virtual_rknn import library as encoder_library
from tests.virtual_rknn import write_encoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.integration

Image = pytest.importorskip("PIL.Image")
sync_api = pytest.importorskip("playwright.sync_api")
sync_api.expect.set_options(timeout=15_000)
expect = sync_api.expect


PLAIN, THINKER, SEEING = "Qwen2.5-1.5B-Instruct-w8a8-rk3588", "Qwen3-1.7B-w8a8-rk3588", "seeing"
SMALL_MODEL = "small"
NO_DATABASE = """Object.defineProperty(window, 'indexedDB', {
  get() { throw new DOMException('no', 'SecurityError'); },
});"""
ROWS = """(area) => {
  area.value = 'x\\n'.repeat(30);
  area.dispatchEvent(new Event('input'));
  return area.clientHeight / parseFloat(getComputedStyle(area).lineHeight);
}"""
COMPOSED = """(area) => {
  const key = { key: 'Enter', isComposing: true, bubbles: true, cancelable: true };
  return area.dispatchEvent(new KeyboardEvent('keydown', key));
}"""
SMALL = """[...document.querySelectorAll('.chat-view button, .chat-view a, .chat-view select')]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML)"""
WEATHER = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the virtual NPU was given."""
    return tmp_path_factory.mktemp("trace") / "trace"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trace: Path) -> Iterator[Server]:
    """A server with a model of each kind: one that talks, one that thinks, one that sees."""
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, tmp_path_factory.mktemp("chat"))
        models = home / "RKLLAMA" / "models"
        write_model(models / f"{PLAIN}.rkllm", trace=trace, trace_prompt=1)
        write_model(models / f"{THINKER}.rkllm", trace=trace, trace_prompt=1)
        write_model(models / f"{SMALL_MODEL}.rkllm")
        write_model(models / SEEING / "Qwen2.5-VL-3B-Instruct.rkllm", mode="picture", embd_size=16)
        write_encoder(models / SEEING / "vision.rknn")
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
        patch.setenv("RKLLAMA_RKNN_LIB", encoder_library())
        patch.setenv("RKLLAMA_MAX_QUEUE", "1")
        with Server() as running:
            yield running


class Chat:
    """The page as its user sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.input = page.locator(".chat-input")
        self.answers = page.locator(".chat-assistant")
        self.questions = page.locator(".chat-user")

    def choose(self, model: str) -> None:
        """Take a model in the bar."""
        self.page.locator(f'.chat-model option[value="{model}"]').wait_for(state="attached")
        self.page.select_option(".chat-model", model)

    def send(self, text: str) -> None:
        """Write and send by Enter."""
        self.input.fill(text)
        self.input.press("Enter")

    def ask(self, text: str, count: int = 1) -> Locator:
        """Send and wait until the `count`th answer has ended; returns it."""
        self.send(text)
        return self.ended(count)

    def ended(self, count: int = 1) -> Locator:
        """The `count`th answer, once it has ended."""
        expect(self.answers).to_have_count(count)
        answer = self.answers.nth(count - 1)
        expect(answer).not_to_have_attribute("aria-busy", "true")
        return answer

    def button(self, name: str, within: Locator | None = None) -> Locator:
        """A button by its label."""
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def titles(self) -> list[str]:
        """The chats in the list."""
        return self.page.locator(".chats-title").all_inner_texts()


_LOOK = Look()


def asked_last(trace: Path) -> str:
    """The prompt of the last run."""
    return str([event for event in read_trace(trace) if event["event"] == "run"][-1]["prompt"])


class Opener:
    """Opens pages, and holds them to having neither an error nor a violation of the policy."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self.url = url
        self.problems: list[str] = []
        self._contexts: list[Any] = []

    def __call__(
        self, look: Look = _LOOK, *, init: str = "", url: str = "", **options: Any
    ) -> Chat:
        context = new_context(self._browser, look, **options)
        self._contexts.append(context)
        if init:
            context.add_init_script(init)
        return self.tab(context, url)

    def tab(self, context: Any, url: str = "") -> Chat:
        """One more page in the same browser."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"{error}\n{error.stack}"))
        page.on("console", self._said)
        page.goto((url or self.url) + "/")
        page.locator(".chat-input").wait_for()
        return Chat(page)

    def _said(self, message: Any) -> None:
        # A status that is no success is told by the browser itself; tests that cause one look at the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def close(self) -> None:
        """Close all, and fail for what went wrong in them."""
        for context in self._contexts:
            context.close()
        assert self.problems == []


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Opener]:
    """Opens the page, with nothing kept from before."""
    opener = Opener(browser, server.url)
    yield opener
    opener.close()


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(
        page.evaluate(
            "[document.documentElement, document.querySelector('.chat-log')]"
            ".every((e) => e.scrollWidth <= e.clientWidth)"
        )
    )


@pytest.mark.parametrize(
    ("look", "question"),
    [
        (Look(360, "dark", "fr"), "Qu’est-ce que RKLLama\u202f?"),
        (Look(768, "light", "fr"), "Comment télécharger un modèle\u202f?"),
        (Look(1440, "light", "en"), "Which boards are supported?"),
    ],
    ids=str,
)
def test_the_guide_answers_an_example_at_each_width(
    opened: Opener, look: Look, question: str
) -> None:
    chat = opened(look)
    if look.language == "fr":
        expect(chat.page.locator(".chat-hello h1")).to_have_text("Que souhaitez-vous savoir\u202f?")
    # The guide is not in the list until it was named once.
    chat.page.evaluate("localStorage.setItem('rkllama-model', 'guide')")
    chat.page.reload()
    example = chat.page.get_by_role("button", name=question)
    example.click()
    answer = chat.ended()
    expect(answer.locator(".md")).to_contain_text("RK")
    expect(answer.locator(".chat-figures")).to_contain_text(
        "tokens/s" if look.language == "en" else "jetons/s"
    )
    expect(chat.questions).to_have_text([question])
    assert fits(chat.page)
    status = chat.page.locator(".chat-main > [aria-live=polite]")
    expect(status).to_contain_text("RK")


def test_an_answer_streams_and_is_stopped_asked_again_and_goes_on(
    opened: Opener, trace: Path
) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("slow " + directive(tokens=700, token_us=4000))
    answer = chat.answers.first
    expect(answer).to_have_attribute("aria-busy", "true")
    before = answer.locator(".md").inner_text()
    expect(answer.locator(".md")).not_to_have_text(before)
    expect(chat.button("Send")).to_be_hidden()
    chat.button("Stop").click()
    answer = chat.ended()
    expect(answer.locator(".chat-note")).to_have_text("Stopped.")
    kept = answer.locator(".md").inner_text()
    assert kept
    chat.page.reload()
    expect(answer.locator(".md")).to_have_text(kept)

    chat.button("Continue").click()
    expect(answer).to_have_attribute("aria-busy", "true")
    chat.ended()
    assert answer.locator(".md").inner_text().startswith(kept)
    assert asked_last(trace).endswith(f"<|im_start|>assistant\n{kept}"), "nothing was said anew"
    expect(answer.locator(".chat-note")).to_have_count(0)

    chat.send("again " + directive(reply="one two"))
    chat.ended(2)
    chat.button("Ask again", chat.answers.last).click()
    answer = chat.ended(2)
    expect(answer.locator(".md")).to_have_text("one two")
    expect(answer.locator(".chat-figures")).to_contain_text("of the prompt from the cache")
    expect(answer.locator(".chat-figures")).to_contain_text("to the first token")

    chat.send("slow " + directive(tokens=700, token_us=4000))
    expect(chat.answers.last.locator(".md")).not_to_be_empty()
    chat.input.press("Escape")
    expect(chat.ended(3).locator(".chat-note")).to_have_text("Stopped.")


def test_a_message_is_edited_copied_and_deleted(opened: Opener) -> None:
    chat = opened(permissions=["clipboard-read", "clipboard-write"])
    chat.choose(PLAIN)
    chat.ask("first")
    chat.ask("second", 2)
    question = chat.questions.first
    chat.button("Edit", question).click()
    area = question.locator("textarea")
    expect(area).to_be_focused()
    area.press("Escape")
    expect(chat.button("Edit", question)).to_be_focused()
    chat.button("Edit", question).click()
    area.fill("changed")
    area.press("Enter")
    answer = chat.ended(1)
    expect(answer.locator(".md")).to_have_text("changed")
    expect(chat.questions).to_have_text(["changed"])

    chat.button("Copy", answer).click()
    expect(chat.button("Copied", answer)).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "changed"

    chat.ask("third", 2)
    chat.ask("fourth", 3)
    chat.button("Ask again", chat.answers.first).click()
    chat.ended(1)
    expect(chat.questions).to_have_text(["changed"])
    chat.button("Undo").last.click()
    expect(chat.questions).to_have_text(["changed", "third", "fourth"])
    chat.button("Delete", chat.questions.last).click()
    expect(chat.questions).to_have_text(["changed", "third"])
    chat.button("Delete", chat.questions.first).click()
    expect(chat.questions).to_have_text(["third"])
    expect(chat.answers).to_have_count(1)
    chat.button("Undo").last.click()
    expect(chat.questions).to_have_text(["changed", "third"])
    chat.page.reload()
    expect(chat.questions).to_have_text(["changed", "third"])


def test_thinking_is_folded_and_can_be_switched_off(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(THINKER)
    expect(chat.page.locator(".chat-about")).to_contain_text("thinks")
    think = chat.button("Think")
    expect(think).to_have_attribute("aria-pressed", "true")
    thoughts = "<think>" + "one two " * 400 + "\nso</think>\n\nFour."
    chat.send("2+2 " + directive(reply=thoughts, token_us=4000))
    details = chat.page.locator(".chat-thoughts")
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_have_text("Thinking…")
    answer = chat.ended()
    expect(details).not_to_have_attribute("open", "")
    expect(details.locator("summary")).to_have_text(re.compile(r"Thought for \d"))
    expect(answer.locator(".md")).to_have_text("Four.")

    think.click()
    expect(think).to_have_attribute("aria-pressed", "false")
    chat.ask("plain", 2)
    assert "<think>\n\n</think>" in asked_last(trace), "the template is told not to think"


def test_tools_are_called_and_given_their_results(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.button("Settings of this chat").click()
    dialog = chat.page.get_by_role("dialog")
    dialog.get_by_label("Tools").fill("{")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text("The tools are not a JSON list.")
    dialog.get_by_label("Tools").fill(WEATHER)
    dialog.get_by_role("button", name="Save").click()
    called = '<tool_call>\n{"name": "weather", "arguments": {"city": "Lyon"}}\n</tool_call>'
    answer = chat.ask("weather? " + directive(reply=called))
    expect(answer.locator(".chat-call p")).to_have_text("Calls weather")
    expect(answer.locator(".chat-call pre")).to_have_text('{\n  "city": "Lyon"\n}')
    answer.get_by_label("Result of weather").fill("sunny, 24 degrees")
    chat.button("Send the result").click()
    chat.ended(2)
    prompt = asked_last(trace)
    assert "<tool_response>\nsunny, 24 degrees" in prompt
    expect(chat.page.locator(".chat-tool pre")).to_have_text("sunny, 24 degrees")


def file(name: str, kind: str, content: bytes) -> Any:
    """A file as it is picked in a dialog."""
    return {"name": name, "mimeType": kind, "buffer": content}


def photo(size: tuple[int, int] = (64, 64), colour: str = "#ff0000", form: str = "PNG") -> bytes:
    """A picture of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


PASTE = """(kind) => {
  const bytes = Uint8Array.from(atob(kind.data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], kind.name, { type: kind.type }));
  const event = kind.event === 'paste'
    ? new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(kind.event, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector(kind.at).dispatchEvent(event);
}"""


def test_pictures_come_by_file_paste_and_drop_and_stay_with_the_chat(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    expect(chat.button("Add pictures")).to_be_hidden()
    given = {"name": "a.png", "type": "image/png", "data": base64.b64encode(photo()).decode()}
    chat.page.evaluate(PASTE, {**given, "event": "paste", "at": ".chat-input"})
    expect(chat.page.locator(".notice.error")).to_contain_text("does not see pictures")
    chat.button("Close").click()

    chat.choose(SEEING)
    expect(chat.button("Add pictures")).to_be_visible()
    files = chat.page.locator("input.chat-file[multiple]")
    large = file("large.jpg", "image/jpeg", photo((3000, 1000), "#0000ff", "JPEG"))
    files.set_input_files([large])
    thumbs = chat.page.locator(".chat-composer .chat-thumb")
    expect(thumbs).to_have_count(1)
    size = thumbs.first.locator("img").evaluate(
        "async (i) => { await i.decode(); return [i.naturalWidth, i.naturalHeight]; }"
    )
    assert size == [1536, 512]
    chat.page.evaluate(PASTE, {**given, "event": "paste", "at": ".chat-input"})
    expect(thumbs).to_have_count(2)
    chat.page.evaluate(PASTE, {**given, "event": "drop", "at": ".chat-input"})
    expect(thumbs).to_have_count(3)
    chat.button("Remove picture 2").click()
    expect(thumbs).to_have_count(2)
    chat.page.evaluate(
        PASTE, {**given, "event": "drop", "at": ".chat-log", "name": "b.txt", "type": "text/plain"}
    )
    expect(chat.page.locator(".notice.error")).to_contain_text("b.txt")
    chat.button("Close").click()
    files.set_input_files([file(f"{n}.png", "image/png", photo()) for n in range(9)])
    expect(thumbs).to_have_count(8)
    expect(chat.page.locator(".notice.error")).to_contain_text("8 pictures")
    for _ in range(6):
        chat.button("Remove picture 3").click()

    answer = chat.ask("what is it?")
    expect(answer.locator(".md")).to_contain_text("picture 2")
    expect(answer.locator(".md")).to_contain_text("#ff0000")
    chat.page.reload()
    expect(chat.page.locator(".chat-user .chat-thumb img")).to_have_count(2)
    camera = chat.page.locator("input.chat-file[capture]")
    assert camera.get_attribute("capture") == "environment"
    assert camera.get_attribute("accept") == "image/*"


def test_settings_of_a_chat_reach_the_model(opened: Opener, trace: Path) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.button("Settings of this chat").click()
    dialog = chat.page.get_by_role("dialog")
    dialog.get_by_label("System prompt").fill("Speak like a pirate.")
    values = {
        "Temperature": "0.5",
        "Top p": "0.75",
        "Top k": "7",
        "Repeat penalty": "1.5",
        "Longest answer": "200",
        "Context": "8192",
        "Seed": "5",
    }
    for label, value in values.items():
        dialog.get_by_label(label).fill(value)
    dialog.get_by_role("button", name="Save").click()
    answer = chat.ask("x " + directive(mode="params"))
    told = json.loads(answer.locator(".md").inner_text().replace("\u201c", '"'))
    assert told["temperature"] == 0.5
    assert told["top_p"] == 0.75
    assert told["top_k"] == 7
    assert told["repeat_penalty"] == 1.5
    assert told["max_new_tokens"] == 200
    assert told["max_context_len"] == 8192
    prompt = asked_last(trace)
    assert "Speak like a pirate." in prompt
    chat.page.reload()
    chat.answers.first.wait_for()
    chat.button("Settings of this chat").click()
    expect(dialog.get_by_label("System prompt")).to_have_value("Speak like a pirate.")
    expect(dialog.get_by_label("Temperature")).to_have_value("0.5")
    dialog.get_by_role("button", name="Reset").click()
    expect(dialog.get_by_label("Temperature")).to_have_value("")


def test_limits_are_told_and_what_was_dropped(opened: Opener) -> None:
    chat = opened()
    chat.choose(SMALL_MODEL)
    chat.button("Settings of this chat").click()
    dialog = chat.page.get_by_role("dialog")
    dialog.get_by_label("Context").fill("256")
    dialog.get_by_role("button", name="Save").click()
    limited = chat.ask("x " + directive(tokens=400))
    expect(limited.locator(".chat-note")).to_have_text(
        "The answer has reached its limit of tokens."
    )
    for turn in range(2, 6):
        chat.ask(f"{'words of many kinds ' * 6} {directive(reply='a b c')}", turn)
    expect(chat.answers.last.locator(".chat-notes")).to_contain_text(
        "earlier messages did not fit the context."
    )
    repeated = chat.ask("r " + directive(reply="ha" * 200), 6)
    expect(repeated.locator(".chat-note").last).to_have_text(
        re.compile("repeating itself|limit of tokens")
    )


def test_errors_have_their_hint_and_a_retry(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    answer = chat.ask("x " + directive(segv_at=0))
    expect(answer.get_by_role("alert")).to_be_visible()
    assert answer.locator(".error-text").inner_text()
    chat.button("Edit", chat.questions.first).click()
    chat.questions.first.locator("textarea").fill("x " + directive(reply="partly said", error_at=2))
    chat.button("Send", chat.questions.first).click()
    answer = chat.ended()
    expect(answer.get_by_role("alert")).to_be_visible()
    chat.button("Try again", answer).click()
    answer = chat.ended()
    expect(answer.get_by_role("alert")).to_be_visible()


def test_the_place_in_the_queue_is_told_and_a_full_queue_is_waited_for(
    opened: Opener, server: Server
) -> None:
    chat, other = opened(), opened()
    for each in (chat, other):
        each.choose(PLAIN)
    slow = {
        "model": PLAIN,
        "messages": [{"role": "user", "content": directive(tokens=90_000, token_us=4000)}],
        "options": {"num_predict": 90_000},
    }
    with server.stream("/api/chat", slow) as running:
        assert running.status() == 200
        chat.send("mine")
        expect(chat.answers.first).to_contain_text("1 request before you")
        other.send("and mine")
        # Not at once: the other one is to have waited for a time that is told.
        expect(other.answers.first).to_contain_text(re.compile(r"Trying again in [1-4]"))
    expect(chat.ended().locator(".md")).to_have_text("mine")
    expect(chat.answers.first.locator(".chat-figures")).to_contain_text("in the queue")
    expect(other.ended().locator(".md")).to_have_text("and mine")


class Gate:
    """A relay that a test closes and opens again on the same port."""

    def __init__(self, server: Server) -> None:
        self._target = (server.host, server.port)
        self._ends: list[socket.socket] = []
        self.port = 0
        self.open()

    def open(self) -> None:
        """Take connections, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Cut all connections, and take no new ones."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_lost_connection_keeps_what_came_and_goes_on(
    opened: Opener, server: Server, trace: Path
) -> None:
    gate = Gate(server)
    chat = opened(url=f"http://127.0.0.1:{gate.port}")
    chat.choose(PLAIN)
    chat.send("x " + directive(tokens=700, token_us=4000))
    answer = chat.answers.first
    expect(answer.locator(".md")).not_to_be_empty()
    gate.close()
    expect(answer.locator(".chat-status")).to_contain_text("Trying again until it is back")
    kept = answer.locator(".md").inner_text()
    assert kept
    gate.open()
    chat.ended()
    assert len(answer.locator(".md").inner_text()) > len(kept)
    assert f"<|im_start|>assistant\n{kept[:20]}" in asked_last(trace), "it went on from there"

    gate.close()
    chat.send("still there? " + directive(reply="yes, again"))
    expect(chat.answers.nth(1)).to_contain_text("Trying again until it is back")
    gate.open()
    expect(chat.ended(2).locator(".md")).to_have_text("yes, again")
    gate.close()


def test_chats_are_listed_searched_renamed_and_deleted(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.ask("About apples\n" + directive(reply="They grow on trees."))
    page = chat.page
    page.get_by_role("link", name="New chat").click()
    chat.ask("About pears\n" + directive(reply="They grow on bushes."))
    expect(page.locator(".chats-title")).to_have_text([re.compile("pears"), re.compile("apples")])

    search = page.get_by_label("Search chats")
    page.locator(".chat-log").focus()
    page.keyboard.press("/")
    expect(search).to_be_focused()
    search.fill("TREES")
    expect(page.locator(".chats-title")).to_have_text([re.compile("apples")])
    expect(page.locator(".chats-when")).to_contain_text("grow on trees")
    search.fill("nowhere")
    expect(page.locator(".chats-none")).to_have_text("No chat has these words.")
    search.press("Escape")
    expect(page.locator(".chats-title")).to_have_count(2)
    chat.input.focus()
    page.keyboard.press("Control+k")
    expect(search).to_be_focused()

    page.get_by_role("link", name="apples").click()
    expect(chat.questions).to_contain_text(["apples"])
    page.locator(".chats-more").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Title").fill("Fruit")
    dialog.get_by_label("Title").press("Enter")
    expect(page.locator(".chats-title").last).to_have_text("Fruit")
    chat.ask("more", 2)
    expect(page.locator(".chats-title").first).to_have_text("Fruit")

    page.locator(".chats-more").first.click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator(".chats-title")).to_have_count(1)
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    chat.button("Undo").click()
    expect(page.locator(".chats-title")).to_have_text(["Fruit", re.compile("pears")])
    page.get_by_role("link", name="Fruit").click()
    expect(chat.answers).to_have_count(2)


def test_chats_go_out_as_files_and_come_in_again(opened: Opener, tmp_path: Path) -> None:
    chat = opened()
    chat.choose(SEEING)
    page = chat.page
    page.locator("input.chat-file[multiple]").set_input_files([file("a.png", "image/png", photo())])
    page.locator(".chat-composer .chat-thumb").wait_for()
    chat.ask("What colour?")
    dialog = page.get_by_role("dialog")

    def saved(button: str) -> Path:
        page.locator(".chats-more").first.click()
        with page.expect_download() as download:
            dialog.get_by_role("button", name=button).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    markdown = saved("Save as Markdown")
    assert markdown.name == "What-colour.md"
    text = markdown.read_text()
    assert text.startswith("# What colour?\n\n## You\n\n![Picture 1](data:image/png;base64,")
    assert f"## {SEEING}\n\npicture 1: #ff0000" in text
    exported = saved("Save as JSON")
    whole = json.loads(exported.read_text())
    assert [message["role"] for message in whole["chats"][0]["messages"]] == ["user", "assistant"]

    other = opened()
    imports = other.page.locator("input[type=file][accept*=json]")
    imports.set_input_files(str(exported))
    expect(other.page.locator(".chats-title")).to_have_text(["What colour?"])
    other.page.locator(".chats-link").click()
    expect(other.page.locator(".chat-user .chat-thumb img")).to_have_count(1)
    expect(other.answers).to_contain_text(["#ff0000"])

    whole["chats"].append({**whole["chats"][0], "messages": [{"role": "user", "content": 5}]})
    for name, content, reason in (
        ("bad.json", json.dumps(whole), "chats[1].messages[0].content"),
        ("text.json", "{", "not a JSON file"),
        ("other.json", "[]", "not an export of this page"),
        (
            "script.json",
            json.dumps(
                {
                    **whole,
                    "chats": [
                        {
                            **whole["chats"][0],
                            "messages": [
                                {
                                    "role": "user",
                                    "content": "",
                                    "images": ["http://evil.example/x.png"],
                                }
                            ],
                        }
                    ],
                }
            ),
            "messages[0].images",
        ),
    ):
        imports.set_input_files([file(name, "application/json", content.encode())])
        notice = other.page.locator(".notice.error")
        expect(notice).to_contain_text(reason)
        other.button("Close", notice).click()
    expect(other.page.locator(".chats-title")).to_have_count(1)
    with other.page.expect_download() as download:
        other.button("Export all").click()
    assert len(json.loads(Path(download.value.path()).read_text())["chats"]) == 1


def test_a_chat_in_two_tabs_loses_nothing(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.ask("first")
    other = opened.tab(chat.page.context)
    other.page.locator(".chats-link").click()
    expect(other.answers).to_have_count(1)
    chat.ask("second", 2)
    expect(other.answers).to_have_count(2)
    chat.send("slow " + directive(tokens=600, token_us=4000))
    expect(chat.answers.nth(2).locator(".md")).not_to_be_empty()
    other.button("Delete", other.questions.nth(1)).click()
    expect(chat.page.locator(".notice")).to_contain_text("changed in another tab")
    chat.ended(3)
    expect(chat.page.locator(".chats-title")).to_have_text(["first (copy)", "first"])
    other.page.reload()
    expect(other.questions.first).to_have_text("first")
    other.page.get_by_role("link", name="first (copy)").click()
    expect(other.answers).to_have_count(3)


def test_without_a_database_chats_live_in_memory(opened: Opener) -> None:
    chat = opened(init=NO_DATABASE)
    expect(chat.page.locator(".chats-note")).to_contain_text("keeps no data")
    chat.choose(PLAIN)
    chat.ask("one")
    chat.page.get_by_role("link", name="New chat").click()
    chat.ask("two")
    chat.page.get_by_role("link", name="one").click()
    expect(chat.questions).to_have_text(["one"])


def test_what_was_written_is_kept_and_keys_do_what_they_say(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.input.fill("line")
    chat.input.press("Shift+Enter")
    chat.page.keyboard.type("two")
    assert chat.input.input_value() == "line\ntwo"
    rows = chat.input.evaluate(ROWS)
    assert 8 <= rows < 9
    chat.input.fill("a draft")
    assert chat.input.evaluate(COMPOSED), "Enter that ends a composition is the keyboard's"
    chat.page.reload()
    expect(chat.input).to_have_value("a draft")
    chat.input.press("Enter")
    chat.ended()
    expect(chat.input).to_have_value("")
    chat.input.fill("another")
    chat.page.get_by_role("link", name="New chat").click()
    expect(chat.input).to_have_value("")
    chat.page.go_back()
    expect(chat.input).to_have_value("another")


def test_on_a_phone_the_list_is_a_drawer_and_enter_a_new_line(opened: Opener) -> None:
    chat = opened(Look(360))
    chat.choose(PLAIN)
    chat.input.fill("one")
    chat.input.press("Enter")
    assert chat.input.input_value() == "one\n"
    chat.button("Send").tap()
    chat.ended()
    assert fits(chat.page)
    drawer = chat.page.locator(".chats")
    expect(drawer).to_be_hidden()
    chat.button("Show the chats").tap()
    expect(drawer).to_be_visible()
    expect(chat.page.get_by_label("Search chats")).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(chat.button("Show the chats")).to_be_focused()
    chat.button("Show the chats").tap()
    chat.page.get_by_role("link", name="New chat").tap()
    expect(drawer).to_be_hidden()
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    small = chat.page.evaluate(SMALL)
    assert small == []


def test_an_answer_goes_on_while_something_else_is_shown(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("slow " + directive(tokens=500, token_us=4000))
    expect(chat.answers.first.locator(".md")).not_to_be_empty()
    chat.page.get_by_role("link", name="Board", exact=True).click()
    expect(chat.input).not_to_be_attached()
    chat.page.get_by_role("link", name="Chat", exact=True).click()
    expect(chat.questions).to_have_count(1)
    chat.page.get_by_role("link", name="New chat").click()
    expect(chat.page.locator(".chat-hello")).to_be_visible()
    chat.page.locator(".chats-link").first.click()
    answer = chat.ended()
    expect(answer.locator(".chat-figures")).to_contain_text("500 tokens")


def long_chat(count: int) -> bytes:
    """An export with one chat of so many messages."""
    messages = [
        {
            "role": "assistant" if n % 2 else "user",
            "content": f"Message {n}. " + "Some words that fill a line or two. " * (n % 7),
        }
        for n in range(count)
    ]
    chat = {"title": "long", "created": 1, "updated": 1, "settings": {}, "messages": messages}
    return json.dumps({"format": "rkllama-chats", "version": 1, "chats": [chat]}).encode()


def test_a_chat_of_2000_messages_opens_at_its_end_and_draws_what_is_looked_at(
    opened: Opener,
) -> None:
    chat = opened()
    page = chat.page
    page.locator("input[type=file][accept*=json]").set_input_files(
        [file("l.json", "application/json", long_chat(2000))]
    )
    page.locator(".chats-link").click()
    expect(page.get_by_text("Message 1999.")).to_be_in_viewport()
    drawn = "document.querySelectorAll('.chat-message').length"
    whole = page.locator(".chat-log").evaluate(
        "(log) => log.textContent.match(/Message \\d+/g).length"
    )
    assert whole == 2000, "the browser's own search finds all"
    assert page.evaluate(drawn) < 100
    page.locator(".chat-log").evaluate("(log) => { log.scrollTop = 0; }")
    expect(page.locator(".chat-bubble", has_text="Message 0.")).to_be_in_viewport()
    assert page.evaluate(drawn) < 200
    end = chat.button("To the end")
    end.click()
    expect(page.get_by_text("Message 1999.")).to_be_in_viewport()
    expect(end).to_be_hidden()


def test_many_tokens_leave_the_page_responsive_and_the_reader_where_he_is(opened: Opener) -> None:
    chat = opened()
    chat.choose(PLAIN)
    chat.send("x " + directive(tokens=2000, token_us=1000))
    log = chat.page.locator(".chat-log")
    gap = "(log) => log.scrollHeight - log.clientHeight - log.scrollTop"
    expect(chat.page.locator(".chat-assistant .md")).to_have_text(re.compile(r"(\S+\s+){600}"))
    assert log.evaluate(gap) < 80, "the scroll follows"
    log.hover()
    chat.page.mouse.wheel(0, -400)
    expect(chat.button("To the end")).to_be_visible()
    top = log.evaluate("(log) => log.scrollTop")
    chat.ended()
    assert log.evaluate("(log) => log.scrollTop") == top, "who reads above is left there"
    assert log.evaluate(gap) > 80


def test_a_server_without_models_says_what_to_do(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, tmp_path_factory.mktemp("none"))
        (home / "RKLLAMA" / "models").mkdir(parents=True)
        with Server() as server:
            opener = Opener(browser, server.url)
            chat = opener()
            expect(chat.page.locator(".chat-hello")).to_contain_text(
                "There is no model on this board yet."
            )
            expect(chat.page.get_by_role("link", name="Get a model")).to_have_attribute(
                "href", "#models"
            )
            chat.button("Use the guide").click()
            chat.button("What is RKLLama?").click()
            expect(chat.ended().locator(".md")).to_contain_text("Rockchip")
            expect(chat.page.locator(".chat-model")).to_have_value("guide")
            opener.close()


@pytest.mark.parametrize("look", [Look(360, "dark", "fr"), Look(1440, "light", "en")], ids=str)
def test_nothing_serious_in_a_chat_with_everything(opened: Opener, axe: str, look: Look) -> None:
    chat = opened(look)
    page = chat.page
    page.locator("input[type=file][accept*=json]").set_input_files(
        [file("all.json", "application/json", every_kind())]
    )
    page.locator(".chats-link").first.wait_for(state="attached")
    page.evaluate("document.querySelector('.chats-link').click()")
    expect(chat.answers).to_have_count(4)
    for details in page.locator(".chat-thoughts summary").all():
        details.click()
    chat.choose(SEEING)
    page.locator("input.chat-file[multiple]").set_input_files([file("a.png", "image/png", photo())])
    page.locator(".chat-composer .chat-thumb").wait_for()
    assert fits(page)
    assert_accessible(page, axe)
    page.keyboard.press("Control+k")
    assert_accessible(page, axe)
    page.locator(".chats-more").first.click()
    page.get_by_role("dialog").wait_for()
    assert_accessible(page, axe)
    page.keyboard.press("Escape")


def every_kind() -> bytes:
    """An export of a chat that has all that a chat can have."""
    picture = f"data:image/png;base64,{base64.b64encode(photo()).decode()}"
    figures = {"first": 0.4, "speed": 12.5, "tokens": 40, "cached": 0.8, "loaded": 2, "queued": 1}
    call = {"id": "1", "name": "weather", "arguments": {"city": "Lyon" * 40}}
    error = {"message": "the model's process was killed by SIGSEGV", "hint": "Its log is x."}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "look " * 60, "images": [picture]},
        {"role": "assistant", "content": "", "thinking": "Hm.\nSo.", "thought": 2, "calls": [call]},
        {"role": "tool", "content": "sunny", "toolName": "weather", "callId": "1"},
        {"role": "assistant", "content": "# Sun\n\n`code`\n\n| a | b |\n|-|-|\n| 1 | 2 |"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "cut", "end": "lost", "figures": figures, "dropped": 2},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "", "end": "error", "error": error},
    ]
    chat = {"title": "all", "created": 1, "updated": 1, "settings": {}, "messages": messages}
    return json.dumps({"format": "rkllama-chats", "version": 1, "chats": [chat]}).encode()
