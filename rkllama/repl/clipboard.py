"""`/copy`: a text for the clipboard of whoever sits before the terminal.

By OSC 52, a sequence that the terminal obeys, and not by wl-copy or xclip: a board is mostly used over SSH
and has neither a display nor a clipboard of its own, while the terminal runs where the user is. It tells
nothing back; terminals that do not know the sequence pass it over.
"""

from __future__ import annotations

import base64
import sys

from ..console.output import is_terminal
from ..console.streams import control, printable
from ..errors import RKLLamaError

_LIMIT = 74_994
"""Bytes that every terminal takes which takes any: 100,000 in base64, with the sequence around them."""


def copy_text(text: str) -> None:
    """Send a text to the clipboard of the terminal. Raises RKLLamaError where that cannot work."""
    stream = next((stream for stream in (sys.stdout, sys.stderr) if is_terminal(stream)), None)
    if stream is None:
        raise RKLLamaError("only a terminal has a clipboard, and this is none")
    data = printable(text).encode(errors="replace")  # it may be pasted into a shell
    if len(data) > _LIMIT:
        raise RKLLamaError(f"the answer is too long to copy: terminals take {_LIMIT // 1000} kB")
    control(stream, f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
    stream.flush()
