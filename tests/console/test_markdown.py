"""Answers drawn as Markdown: block by block as they come, and nothing is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.console.markdown import MarkdownText
from rkllama.console.terminal import Spinner
from tests.terminal import CTRL_C, RKLLAMA, Terminal
from tests.test_cli import output
from tests.virtual_npu import write_model

TEXT = """\
# Title

Some *slanted* and **bold** text with `code`, List<int> and a [link](http://example.org).
Second line <b>of</b> it.

1. First
   with more

   and a paragraph
2. Second
   - nested
3. Third

- bullet
- other

Setext
---

```python
def f():
    # comment

    return 1
```
After ![a picture](http://example.org/p.png).

| a | b |
|---|--:|
| 1 | 2 |

<div>
raw
</div>

> quote

Last line"""
WORDS = """
Title slanted bold code List<int> link http://example.org <b>of</b> First more
paragraph Second nested Third bullet other Setext def comment return After ![a
picture](http://example.org/p.png) <div> raw </div> quote Last
"""


class Screen:
    """A stream that is no terminal, with what was drawn so far."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def draw(pieces: list[str]) -> str:
    screen = Screen()
    text = MarkdownText(screen, Spinner(""))  # type: ignore[arg-type]
    for piece in pieces:
        text.write(piece)
    text.finish()
    return screen.text


def in_pieces(text: str, lengths: list[int]) -> list[str]:
    pieces: list[str] = []
    place = 0
    while place < len(text):
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(text[place : place + length])
        place += length
    return pieces


WHOLE = draw([TEXT])


def test_everything_is_drawn_in_its_order() -> None:
    place = 0
    for word in WORDS.split():
        place = WHOLE.index(word, place)
    assert "\x1b" not in WHOLE
    assert not re.search(r"\n\n\n|[ \t]$", WHOLE, re.M)


def test_without_colours_code_keeps_its_marks() -> None:
    assert draw(["run `ls -l` now"]) == "run `ls -l` now\n"


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_it_does_not_matter_how_it_arrives(lengths: list[int]) -> None:
    assert draw(in_pieces(TEXT, lengths)) == WHOLE


@given(st.text(alphabet="ab #*-1.`>|<&\n \\[]()!_~", max_size=60), st.integers(1, 9))
def test_whatever_is_written_letters_are_not_lost(text: str, length: int) -> None:
    drawn = draw(in_pieces(text, [length]))
    for letter in "ab":
        assert drawn.count(letter) >= _visible(text).count(letter)


def _visible(text: str) -> str:
    """A text without what Markdown takes for something else: the language of a fence, and links."""
    if re.search(r"`|~|\[|&", text):
        return ""
    return text


def test_a_block_is_drawn_as_soon_as_the_next_one_begins() -> None:
    screen = Screen()
    text = MarkdownText(screen, Spinner(""))  # type: ignore[arg-type]
    for piece, drawn in (
        ("One par", ""),
        ("agraph.\n", ""),
        ("Still.", ""),
        ("\n\n", ""),
        ("N", "One paragraph. Still.\n"),
        ("ext.\n\n- a\n", "\nNext.\n"),
        ("- b\n", "\n • a\n"),
        ("- c", " • b\n"),
        ("\n\n", ""),
        ("1", ""),
        (". x", " • c\n"),
        ("\n```\n", "\n 1 x\n"),
        ("code\n\nmore\n", ""),
        ("```\n", ""),
        ("end", "\n code\n\n more\n"),
    ):
        screen.text = ""
        text.write(piece)
        assert screen.text == drawn, piece
    screen.text = ""
    text.finish()
    assert screen.text == "\nend\n"
    screen.text = ""
    text.finish()
    assert screen.text == "", "nothing is drawn twice"


def test_where_links_lead_is_drawn_wherever_that_stands() -> None:
    assert draw(["See [it][1].\n\n[1]: http://example.org\n"]) == (
        "See [it][1].\n\n[1]: http://example.org\n"
    )
    assert draw(["[1]: http://a.org\n"]) == "[1]: http://a.org\n"
    assert draw(["```\n[1]: x\n```\n"]) == " [1]: x\n"


def test_control_characters_of_the_model_are_not_drawn() -> None:
    drawn = draw(["a\x1b]0;title\x07b `c\x1b[2J` \u202e", "\n\n\x9b31m"])
    assert not set(drawn) & {"\x1b", "\x07", "\x9b", "\u202e"}


# --- On a terminal -----------------------------------------------------------------------------

ANSWER = "# Head\n\nSome **bold** `word`.\n\n- one\n- two\n"


@pytest.fixture
def marked(models: Path, npu: str) -> str:
    """A model whose answer is Markdown."""
    write_model(models / "marked.rkllm", reply=ANSWER)
    return "marked"


@pytest.mark.integration
@pytest.mark.parametrize("columns", [40, 80])
def test_an_answer_is_drawn_where_that_is_asked_for(marked: str, columns: int) -> None:
    with Terminal("run", marked, "--markdown", "hi", columns=columns) as command:
        assert command.end() == 0
    assert "\x1b[1mbold\x1b[0m" in command.raw
    assert "**" not in command.screen
    lines = command.screen.splitlines()
    assert [line.strip() for line in lines] == ["Head", "", "Some bold word.", "", "• one", "• two"]
    assert max(map(len, lines)) <= columns


@pytest.mark.integration
def test_without_colours_it_is_drawn_without_any_sequence(marked: str) -> None:
    with Terminal("run", marked, "--markdown", "hi", env={"NO_COLOR": "1"}) as command:
        assert command.end() == 0
    assert re.findall("\x1b[^\r]*", command.raw.replace("\x1b[K", "")) == []
    assert "Some bold `word`." in command.screen


@pytest.mark.integration
def test_elsewhere_it_comes_as_it_is(marked: str) -> None:
    assert output("run", marked, "--markdown", "hi") == ANSWER
    with Terminal("run", marked, "--markdown", "hi", env={"TERM": "dumb"}) as command:
        assert command.end() == 0
    assert command.screen == ANSWER


@pytest.mark.integration
def test_it_is_turned_on_and_off_in_the_chat(marked: str) -> None:
    with Terminal("run", marked) as chat:
        chat.expect(">>> ")
        assert "**bold**" in chat.ask("hi")
        assert chat.ask("/set markdown") == "Set markdown."
        assert "Some bold word." in chat.ask("hi")
        assert chat.ask("/set nomarkdown") == "Set nomarkdown."
        assert "**bold**" in chat.ask("hi")


@pytest.mark.integration
def test_what_was_written_is_drawn_when_it_is_stopped(models: Path, npu: str) -> None:
    text = "First block.\n\n```\nhalf of the code " + "word " * 200
    write_model(models / "slow.rkllm", reply=text, token_us=20_000)
    with Terminal("run", "slow", "--markdown") as chat:
        chat.expect(">>> ")
        chat.type("hi\n")
        chat.expect("First block.\n")
        chat.expect_spinner("⠼ Writing…")  # its fifth picture, and one takes 0.1 s
        chat.type(CTRL_C)
        drawn = chat.expect("(stopped)\n\n>>> ")
        chat.ask("/chat save kept")
    (file,) = (models.parent / "chats").iterdir()
    kept = json.loads(file.read_text())["messages"][1]["content"].partition("```\n")[2]
    assert kept.startswith("half of the code word")
    assert drawn.removesuffix("(stopped)\n\n>>> ").split() == kept.split()


@pytest.mark.integration
def test_thinking_is_not_drawn_but_dimmed(models: Path, npu: str) -> None:
    reply = "<think>Let **me** see.</think>\n\nIt is **four**."
    write_model(models / "DeepSeek-R1-1.5B.rkllm", reply=reply)
    with Terminal("run", "DeepSeek-R1-1.5B", "--markdown", "2+2?") as command:
        assert command.end() == 0
    assert command.screen.endswith("Thinking…\nLet **me** see.\n…done thinking.\n\nIt is four.\n")
    assert "\x1b[2m" in command.raw


@pytest.mark.integration
def test_only_what_is_drawn_imports_rich(marked: str) -> None:
    program = "import sys; sys.argv[0] = 'rkllama'; from rkllama.__main__ import main\n"
    program += "try: main()\nexcept SystemExit: pass\n"
    program += "print('rich.markdown' in sys.modules, file=sys.stderr)"
    for options, imported in (["--markdown"], "True"), ([], "False"):
        command = [RKLLAMA[0], "-c", program]
        with Terminal("run", marked, *options, "hi", program=command) as terminal:
            terminal.expect(imported)


def test_no_control_character_comes_as_a_number() -> None:
    for number in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)):
        drawn = draw([f"a&#{number};b `c` [l](http://x/&#{number};)\n\n&#{number}; last"])
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", _visible(drawn)
        )
