"""An answer drawn as Markdown while it arrives: each block when it is complete.

Only imported where that is asked for: rich's Markdown takes as long to import as a short command to run.
"""

from __future__ import annotations

import io
import re
from typing import TextIO

from rich.console import Console
from rich.markdown import Markdown

from .output import columns_of, use_colour
from .streams import control, printable
from .terminal import Spinner

_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)
"""Spaces up to the end of the line, which would be copied along with the text."""
_BLANK = re.compile(r"\A(?:(?:\x1b\[[0-9;]*m)*\n)+|(?:\n(?:\x1b\[[0-9;]*m)*)+\Z")
"""Lines without text at both ends."""
_UNDECIDED = re.compile(r"\s*(?:\d{0,9}[.)]?|[-*+>#]+|`+|~+)")
"""A line of which only this has come may still become anything."""
_CLEAR = 8
"""Characters of a line that tell which block it begins."""


class MarkdownText:
    """Draws Markdown that arrives in pieces on a terminal; `spinner` turns while a block is incomplete."""

    def __init__(self, stream: TextIO, spinner: Spinner) -> None:
        self._stream = stream
        self._spinner = spinner
        self._rest = ""
        """What is not drawn yet."""
        self._gap = ""
        """What separates it from what is."""

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
        end, in_list = _complete("\n".join(lines))
        if end:
            self._spinner.stop()
            self._draw("\n".join(lines[:end]), in_list=in_list)
            self._rest = self._rest.split("\n", end)[end]
            self._spinner.start()

    def finish(self) -> None:
        """Draw the rest, complete or not."""
        self._spinner.stop()
        if self._rest.strip():
            self._draw(self._rest, in_list=False)
        self._rest = ""

    def _draw(self, text: str, *, in_list: bool) -> None:
        drawn = io.StringIO()
        console = Console(
            file=drawn,
            width=columns_of(self._stream) or 80,
            force_terminal=True,
            color_system="standard" if use_colour(self._stream) else None,
            legacy_windows=False,
        )
        # A link would hide where it leads to.
        markdown = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        _keep_all(markdown)
        console.print(markdown)
        body = _BLANK.sub("", _PADDING.sub(r"\1", drawn.getvalue()))
        control(self._stream, f"{self._gap}{body}\n")
        self._stream.flush()
        self._gap = "" if in_list else "\n"


def _keep_all(markdown: Markdown) -> None:
    """Have rich show what it would leave out: tags, as in `List<int>`, and where pictures are."""
    for block in markdown.parsed:
        if block.type == "html_block":
            block.type, block.info = "fence", "html"
        for token in block.children or ():
            if token.type == "image":
                token.content = f"![{token.content}]({token.attrs.get('src')})"
                token.children = None
            if token.type in ("html_inline", "image"):
                token.type = "text"


def _complete(text: str) -> tuple[int, bool]:
    """Return how many lines of a text belong to blocks that are complete, and whether a list goes on
    after them. The last block, or the last item of a list, may still grow.
    """
    starts = [
        (token.map[0], token.type == "list_item_open")
        for token in Markdown(text).parsed
        if token.map and token.nesting != -1 and _may_be_cut_before(token.type, token.level)
    ]
    if not starts:
        return 0, False
    end, is_item = starts[-1]
    # The first item of a list begins where the list does.
    is_first = starts[-2:-1] == [(end, False)]
    return end, is_item and not is_first


def _may_be_cut_before(kind: str, level: int) -> bool:
    return level == 0 or (level == 1 and kind == "list_item_open")
