"""stdout and stderr on a terminal: the one way through which texts of models, files and servers go to it.

A terminal obeys what it is sent: it retitles its window, rewrites what stands above, answers as if the
user had typed. So `write` leaves out what is not text, whoever writes; our own sequences go through
`control`. A stream that is no terminal is left as it is: data arrives exactly as it is.

`rkllama list` imports this module on a terminal: hence nothing heavy.
"""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_NOT_TEXT = dict.fromkeys(
    [
        *range(9), *range(11, 32), *range(127, 160),  # C0 but for tab and newline; DEL and C1
        *range(0x202A, 0x202F), *range(0x2066, 0x206A),  # bidi overrides: lines that read otherwise
    ]
)  # fmt: skip


def printable(text: str) -> str:
    """Text without control characters but newline and tab, and without bidi overrides.

    Each character is judged alone, so a sequence that arrives in pieces is as harmless as a whole one.
    """
    return text.translate(_NOT_TEXT)


class GuardedStream(io.TextIOWrapper):
    """A terminal to which `write` sends only text."""

    def write(self, text: str) -> int:
        """Write a text without what is none; return the characters that were given."""
        super().write(printable(text))
        return len(text)

    def control(self, text: str) -> None:
        """Write a text of our own as it is, control sequences included."""
        super().write(text)


def guarded(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream to use in the place of this one, which is a terminal."""
    encoding, line_buffering = stream.encoding, stream.line_buffering
    write_through = stream.write_through
    return GuardedStream(
        stream.detach(),
        encoding,
        "replace",
        line_buffering=line_buffering,
        write_through=write_through,
    )


def control(stream: TextIO, text: str) -> None:
    """Write a text of our own to a terminal as it is, control sequences included."""
    if isinstance(stream, GuardedStream):
        stream.control(text)
    else:
        stream.write(text)
