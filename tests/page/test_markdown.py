"""Markdown becomes the nodes that one expects, however it comes, and only its end is drawn again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cases import cases
from tests.page.accessibility import assert_accessible
from tests.page.looking import Look, Problems
from tests.page.markdown_page import HOST, open_markdown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration

_FILE = Path(__file__).parent.parent / "data" / "markdown_cases.jsonl"
CASES = [json.loads(line) for line in _FILE.read_text().splitlines()]
"""What texts become: [group, text, tree]."""


@pytest.fixture(scope="module")
def problems() -> Problems:
    return Problems(HOST)


@pytest.fixture(scope="module")
def markdown(
    browser: Browser, problems: Problems, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A page with the renderer, shared by all tests here."""
    folder = str(tmp_path_factory.mktemp("markdown"))
    page = open_markdown(browser, folder, problems, Look())
    yield page
    problems.assert_none(page.context)
    page.context.close()


@pytest.fixture(scope="module")
def trees(markdown: Page) -> list[dict[str, str]]:
    """The trees of all cases: whole, one character at a time, and in random pieces."""
    result: list[dict[str, str]] = markdown.evaluate(
        """texts => {
            const random = seeded(15);
            return texts.map((text) => ({
                whole: tree(whole(text)),
                byCharacter: tree(streamed(text, () => 1)),
                inPieces: tree(streamed(text, () => 1 + random(9))),
            }));
        }""",
        [text for _, text, _ in CASES],
    )
    return result


@cases("number", range(len(CASES)), ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_a_text_becomes_its_tree(number: int, trees: list[dict[str, str]]) -> None:
    _, text, tree = CASES[number]
    assert trees[number] == {"whole": tree, "byCharacter": tree, "inPieces": tree}, text


def test_how_a_text_comes_makes_no_difference(markdown: Page) -> None:
    """Whatever the text is: made of marks and words by chance, one in ten longer than a piece."""
    different = markdown.evaluate("differentInPieces(150)")
    assert different == []


# --- While it comes ----------------------------------------------------------------------------


def shown(markdown: Page, text: str) -> str:
    """Return the tree of a text that is not over."""
    tree: str = markdown.evaluate(
        """text => {
            const view = markdownView();
            view.append(text);
            view.work(Infinity, Infinity);
            return tree(view.node);
        }""",
        text,
    )
    return tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a **bold", "<p>a <strong>bold</strong></p>"),
        ("a **bold*", "<p>a <strong>bold</strong></p>"),
        ("a **", "<p>a </p>"),
        ("a `code", "<p>a <code>code</code></p>"),
        ("see [the docs](https://exam", "<p>see the docs</p>"),
        ("text\n-", "<p>text</p>"),
        ("text\n--", "<p>text</p>"),
        ("text\n\n1", "<p>text</p>"),
        ("text\n\n| a | b", "<p>text</p><p></p>"),
        ("| a | b |\n|--", "<p></p>"),
        (
            "| a |\n|---|\n| 1",
            "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>",
        ),
        ("```py\nx = 1", "<pre py>x = 1</pre>"),
        ("```py\nx\n``", "<pre py>x\n</pre>"),
        ("- a\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    ],
)
def test_what_is_begun_does_not_flicker(markdown: Page, text: str, tree: str) -> None:
    assert shown(markdown, text) == tree


_SHAPES = {
    "prose": "(i) => (i % 50 === 49 ? '\\n\\n' : i % 7 ? 'word ' : '**bold** ')",
    "one paragraph": "(i) => (i % 7 ? 'word ' : '**bold** ')",
    "code": "(i) => (i ? (i % 9 ? 'x = 1 ' : '\\n') : '```py\\n')",
    "table": "(i) => (i ? (i % 9 ? '| word ' : '|\\n') : '| a | b | c |\\n|---|---|---|\\n')",
    "list": "(i) => (i % 9 ? 'word ' : '\\n- ')",
    "nested list": "(i) => (i % 9 ? 'word ' : '\\n' + '  '.repeat((i / 9) % 6) + '- ')",
    "quote": "(i) => (i % 9 ? 'word ' : '\\n> ')",
}


@pytest.mark.parametrize("shape", _SHAPES)
def test_only_the_end_is_drawn_again(markdown: Page, shape: str) -> None:
    """10 000 tokens: none puts more nodes in than a short text would, and those of the first half stay."""
    work: dict[str, Any] = markdown.evaluate(f"workOf({_SHAPES[shape]})")
    assert work["same"]
    assert (
        work["most"] <= 600
    )  # a piece of 4096 characters has that many at most, in any shape above
    assert work["mean"] <= 150  # for ten tokens: a line of code is coloured anew with each
    assert work["early"] == 0
    assert work["nodes"] <= 15_000


def test_a_selection_stays_while_text_comes(markdown: Page) -> None:
    assert (
        markdown.evaluate(
            """() => {
                const view = markdownView();
                document.getElementById('view').replaceChildren(view.node);
                const show = (text) => { view.append(text); view.work(Infinity, Infinity); };
                show('first *second* third');
                getSelection().selectAllChildren(view.node.querySelector('em'));
                show(' fourth **fifth** sixth');
                return getSelection().toString();
            }"""
        )
        == "second"
    )


def test_a_long_text_comes_in_slices(markdown: Page) -> None:
    """Frames show it bit by bit; `end` resolves when all is there."""
    lengths = markdown.evaluate(
        """async () => {
            const view = markdownView();
            document.getElementById('view').replaceChildren(view.node);
            view.append('word '.repeat(40_000));
            const lengths = [];
            const note = () => lengths.push(view.node.textContent.length);
            const all = { childList: true, subtree: true, characterData: true };
            new MutationObserver(note).observe(view.node, all);
            await view.end();
            await new Promise(requestAnimationFrame);
            return lengths;
        }"""
    )
    assert len(lengths) > 3
    assert lengths[0] < 50_000
    assert lengths[-1] == 199_999


# --- Nodes -------------------------------------------------------------------------------------


def put(markdown: Page, text: str) -> None:
    markdown.evaluate(
        "text => document.getElementById('view').replaceChildren(renderMarkdown(text))", text
    )


def test_links_open_elsewhere_and_tell_nothing(markdown: Page) -> None:
    put(markdown, "[a](https://e.com) ![b](https://e.com/b.png) https://e.com <x@e.com>")
    links = markdown.locator("#view a")
    assert links.count() == 4
    for at in range(4):
        assert links.nth(at).get_attribute("rel") == "noopener noreferrer nofollow"
        assert links.nth(at).get_attribute("target") == "_blank"
        assert links.nth(at).get_attribute("title") == links.nth(at).get_attribute("href")
    assert markdown.locator("#view img").count() == 0


def test_each_block_has_its_own_direction(markdown: Page) -> None:
    put(
        markdown,
        "שלום\n\n- مرحبا\n- hello\n\n> שלום\n\n| a |\n|---|\n| שלום |\n\n`code`\n\n```\nx\n```",
    )
    directions = markdown.evaluate(
        """() => ['p', 'li', 'li + li', 'blockquote', 'td', 'pre code'].map(
            (name) => getComputedStyle(document.querySelector(`#view .md ${name}`)).direction)"""
    )
    assert directions == ["rtl", "rtl", "ltr", "rtl", "rtl", "ltr"]


def test_code_is_copied_as_it_is(markdown: Page) -> None:
    """Over plain http, where there is no navigator.clipboard; and by selecting it."""
    code = "".join(f"line {i}\n\n" for i in range(2000)) + "\tlast <b>"
    put(markdown, f"```py\n{code}\n```")
    assert markdown.evaluate("navigator.clipboard === undefined")
    assert markdown.locator("#view .md-box").count() > 2
    markdown.get_by_role("button", name="Copy").click()
    markdown.get_by_role("button", name="Copied").wait_for()
    selected = markdown.evaluate(
        """() => {
            getSelection().selectAllChildren(document.querySelector('#view pre code'));
            return getSelection().toString();
        }"""
    )
    assert selected.rstrip("\n") == code
    markdown.evaluate(
        """() => {
            const area = document.createElement('textarea');
            document.getElementById('view').replaceChildren(area);
            area.focus();
        }"""
    )
    markdown.keyboard.press("Control+V")
    assert markdown.locator("#view textarea").input_value() == code


@pytest.mark.parametrize(
    ("code", "pieces"),
    [
        ("py\nreturn 12 # note", ["k return", "n 12", "c # note"]),
        ("js\nconst a = 'x'; // # no", ["k const", "s 'x'", "c // # no"]),
        ("sql\nSELECT 1 -- c", ["k SELECT", "n 1", "c -- c"]),
        ("c\n/* a\nb */ int", ["c /* a", "c b */", "k int"]),
        ('python\n"""a\nb""" if', ['s """a', 's b"""', "k if"]),
        ("text\nreturn 12 # note", []),
        ("__proto__\nreturn", []),
    ],
)
def test_code_is_coloured(markdown: Page, code: str, pieces: list[str]) -> None:
    put(markdown, f"```{code}\n```")
    found = markdown.evaluate(
        """() => [...document.querySelectorAll('#view code span span')]
            .map((span) => `${span.className.slice(3)} ${span.textContent}`)"""
    )
    assert found == pieces


def test_nothing_scrolls_the_page_sideways(markdown: Page) -> None:
    long = "x" * 600
    markdown.set_viewport_size({"width": 360, "height": 740})
    put(
        markdown,
        f"{long}\n\n`{long}`\n\n```\n{long}\n```\n\n|{'a|' * 30}\n|{'-|' * 30}\n\n- {long}\n\n$${long}$$",
    )
    width, boxes = markdown.evaluate(
        """() => {
            const boxes = [...document.querySelectorAll('#view pre, #view .md-table')];
            const scrolls = (box) => box.scrollWidth > box.clientWidth;
            return [document.getElementById('view').scrollWidth, boxes.map(scrolls)];
        }"""
    )
    markdown.set_viewport_size({"width": 1440, "height": 900})
    assert width <= 360
    assert boxes == [True, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(markdown: Page, axe: str, scheme: Any) -> None:
    markdown.emulate_media(color_scheme=scheme)
    put(
        markdown,
        "# A\n\n## B\n\ntext *a* `b` [c](https://e.com) [bank.com](https://e.com)\n\n- [ ] d\n- [x] e\n\n"
        "> f\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```py\nreturn 'a' + 12 # note\n```\n\n1. a\n2. b\n\n#### G",
    )
    assert_accessible(markdown, axe)
