"""An answer drawn as Markdown while it arrives: each block when it is complete.

Only imported where that is asked for: rich's Markdown takes as long to import as a short command to run.
"""

from __future__ import annotations

import io
import re
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.markdown import Markdown

from .output import columns_of, use_colour
from .streams import control, printable
from .terminal import Spinner

_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)
"""Spaces up to the end of the line, which would be copied along with the text."""
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_BLANK = re.compile(r"\A(?:(?:\x1b\[[0-9;]*m)*\n)+|(?:\n(?:\x1b\[[0-9;]*m)*)+\Z")
"""Lines without text at both ends."""
_UNDECIDED = re.compile(r"\s*(?:\d{0,9}[.)]?|[-*+>#]+|`+|~+)")
"""A line of which only this has come may still become anything."""
_DEFINITION = re.compile(r"^( {0,3})\[(?=[^\]\n]+\]:)", re.MULTILINE)
"""Begins a line that says where links lead, of which Markdown shows nothing."""
_CLEAR = 8
"""Characters of a line that tell which block it begins."""


class _Block(NamedTuple):
    """The line where a block starts; whether it goes on with a list: then no empty line precedes it."""

    start: int
    goes_on: bool


class MarkdownText:
    """Draws Markdown that arrives in pieces on a terminal; `spinner` turns while a block is incomplete."""

    def __init__(self, stream: TextIO, spinner: Spinner) -> None:
        self._stream = stream
        self._spinner = spinner
        self._rest = ""
        """What is not drawn yet."""
        self._gap = ""
        """What separates it from what is,"""
        self._goes_on = False
        """unless it goes on with a list."""

    def write(self, text: str) -> None:
        """Take some more, and draw what is complete by now."""
        # Before anything is drawn: rich's own sequences are the only ones that reach the terminal.
        self._rest += printable(text)
        self._spinner.text = "Writing…"
        lines = self._rest.split("\n")
        if "\n" not in text and len(lines[-1]) > _CLEAR:
            return
        if _UNDECIDED.fullmatch(lines[-1]):
            lines[-1] = ""
        blocks = _blocks("\n".join(lines))
        if len(blocks) > 1:  # the last one, or the last item of a list, may still grow
            self._spinner.stop()
            self._draw(lines[: blocks[-1].start], blocks[:-1])
            self._goes_on = blocks[-1].goes_on
            self._rest = self._rest.split("\n", blocks[-1].start)[blocks[-1].start]
            self._spinner.start()

    def finish(self) -> None:
        """Draw the rest, complete or not."""
        self._spinner.stop()
        self._draw(self._rest.split("\n"), _blocks(self._rest))
        self._rest = ""

    def _draw(self, lines: list[str], blocks: list[_Block]) -> None:
        """Draw each block by itself: how it looks does not depend on what came with it."""
        starts = [*(block.start for block in blocks), len(lines)]
        for block, end in zip(blocks, starts[1:], strict=True):
            if not (block.goes_on or self._goes_on):
                control(self._stream, self._gap)
            self._goes_on, self._gap = False, "\n"
            control(self._stream, f"{self._drawn(lines[block.start : end])}\n")
        self._stream.flush()

    def _drawn(self, lines: list[str]) -> str:
        drawn = io.StringIO()
        console = Console(
            file=drawn,
            width=columns_of(self._stream) or 80,
            force_terminal=True,
            color_system="standard" if use_colour(self._stream) else None,
            legacy_windows=False,
        )
        text = "\n".join(lines)
        if not text.lstrip().startswith(("```", "~~~")):
            text = _DEFINITION.sub(r"\1\[", text)
        # A link would hide where it leads to.
        markdown = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        _keep_all(markdown, coloured=use_colour(self._stream))
        console.print(markdown)
        text = _BLANK.sub("", _PADDING.sub(r"\1", drawn.getvalue()))
        # Once more: what was written as &#8238; is a character by now.
        return "".join(
            part if part.startswith("\x1b") else printable(part) for part in _COLOUR.split(text)
        )


def _keep_all(markdown: Markdown, *, coloured: bool) -> None:
    """Have rich show what it would leave out: tags, as in `List<int>`, where pictures are, and without
    colours what is code.
    """
    for block in markdown.parsed:
        if block.type == "html_block":
            block.type, block.info = "fence", "html"
        for token in block.children or ():
            if token.type == "image":
                token.content = f"![{token.content}]({token.attrs.get('src')})"
                token.children = None
            if token.type == "code_inline" and not coloured:
                token.content = f"`{token.content}`"
            if token.type in ("html_inline", "image"):
                token.type = "text"


def _blocks(text: str) -> list[_Block]:
    """Return where the blocks of a text begin; each item of a list is one."""
    blocks: list[_Block] = []
    for token in Markdown(_DEFINITION.sub(r"\1\[", text)).parsed:
        if token.map is None or token.nesting < 0:
            continue
        if token.level == 1 and token.type == "list_item_open":
            if token.map[0] != blocks[-1].start:  # the first one begins where its list does
                blocks.append(_Block(token.map[0], True))
        elif token.level == 0:
            blocks.append(_Block(token.map[0], False))
    return blocks
