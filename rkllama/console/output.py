"""How the commands print: colours, sizes, times, tables, errors, and what if the reader of a pipe is gone.

`rkllama list` imports this module: hence nothing heavy.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import ModelNotFound, RKLLamaError

_SHORTEST = 8
"""Columns that are left of a name."""
_READABLE = 20
"""Columns that a name should have before columns of lesser use are left out."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
"""Headings, what matters less, errors, what is loaded, notes and what is incomplete."""


def is_terminal(stream: TextIO) -> bool:
    """Return whether control sequences may be written to a stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def use_colour(stream: TextIO) -> bool:
    """Return whether colours may be written, too (see no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def styled(text: str, style: str, stream: TextIO) -> str:
    """Return a text in one of the styles above where the stream shows them."""
    return f"\x1b[{style}m{text}\x1b[0m" if text and use_colour(stream) else text


def write_styled(text: str, stream: TextIO | None = None) -> None:
    """Write a text with styles, to stdout if no stream is given; what others wrote in it has gone through
    `printable` before.
    """
    stream = stream or sys.stdout
    if use_colour(stream):
        from .streams import control

        control(stream, text)
    else:
        stream.write(text)


def columns_of(stream: TextIO) -> int:
    """Return the width of the terminal behind a stream; 0 for none, or one that does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def print_note(text: str) -> None:
    """Print something on stderr that is no error but should be known."""
    write_styled(styled("Note:", YELLOW, sys.stderr), sys.stderr)
    sys.stderr.write(f" {text}\n")


def human_size(size: object) -> str:
    """Return bytes as people read them, in powers of 1000: "1.9 GB"; "-" for anything that is not a
    number.
    """
    if not isinstance(size, int | float):
        return "-"
    number = float(size)
    for unit in ("B", "kB", "MB"):
        if number < 999.95:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


_AGO = (
    ("month", 2629746, 2 * 2629746),
    ("week", 604800, 2 * 604800),
    ("day", 86400, 2 * 86400),
    ("hour", 3600, 3600),
    ("minute", 60, 60),
)
"""Units of time, their seconds, and from how many seconds on they are used."""
_LONG_AGO = 2 * 31556952


def human_time(moment: object) -> str:
    """Return how long ago something was, as people say it; the date of what was years ago, or is to come.

    "-" for anything that is not a number.
    """
    if not isinstance(moment, int | float):
        return "-"
    ago = time.time() - moment
    if not -60 < ago < _LONG_AGO:  # the clock of a board without a battery
        return time.strftime("%Y-%m-%d", time.localtime(moment))
    for unit, seconds, least in _AGO:
        if ago >= least:
            count = int(ago // seconds)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: str = "SIZE",
    lesser: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> str:
    """Lines with aligned columns; the column headed `right` is aligned to the right.

    On a terminal whose lines would be too long the columns in `lesser` are left out, the first ones first,
    until a name has room, and then the first column is cut. `styles` has one for each row, or "".
    """
    lines = [tuple(head), *(tuple(row) for row in rows)]
    width = columns_of(sys.stdout)
    if len(lines) > 1 and sys.stdout.isatty():
        from .streams import printable  # before anything is aligned, and before it gets its style

        lines = [tuple(map(printable, line)) for line in lines]
    if len(lines) > 1 and width:
        lines = _fitting(lines, width, lesser)
    columns = [_aligned(column, right=column[0] == right) for column in zip(*lines, strict=True)]
    texts = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    if use_colour(sys.stdout):
        looks = [BOLD, *styles]
        texts[: len(looks)] = [
            styled(text, look, sys.stdout) if look else text
            for text, look in zip(texts, looks, strict=False)
        ]
    return "".join(f"{text}\n" for text in texts)


def _fitting(
    lines: list[tuple[str, ...]], columns: int, lesser: Sequence[str]
) -> list[tuple[str, ...]]:
    widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
    shown = list(range(len(widths)))
    wanted = min(widths[0], _READABLE)
    for name in (None, *lesser):
        if name in lines[0]:
            shown.remove(lines[0].index(name))
        room = columns - sum(widths[number] + 2 for number in shown[1:])
        if room >= (widths[0] if name is None else wanted):
            break
    room = max(room, _SHORTEST)
    return [(cut_middle(line[0], room), *[line[number] for number in shown[1:]]) for line in lines]


def cut_middle(text: str, width: int) -> str:
    """Return a text cut in the middle to `width` columns: names differ at both ends."""
    if display_width(text) <= width:
        return text
    left, right = text[: len(text) // 2], text[len(text) // 2 :]
    while left and display_width(left) > (width - 1) // 2:
        left = left[:-1]
    while right and display_width(left) + 1 + display_width(right) > width:
        right = right[1:]
    return f"{left}…{right}"


def _aligned(cells: Sequence[str], *, right: bool) -> list[str]:
    if "".join(cells).isascii():  # nearly always, and then one call per cell does
        most = max(map(len, cells))
        return [cell.rjust(most) if right else cell.ljust(most) for cell in cells]
    widths = [display_width(cell) for cell in cells]
    most = max(widths)
    fills = [" " * (most - width) for width in widths]
    pairs = zip(cells, fills, strict=True)
    return [fill + cell if right else cell + fill for cell, fill in pairs]


def display_width(text: str) -> int:
    """Return the columns that a terminal needs for a text without control characters."""
    if text.isascii():
        return len(text)
    return sum(map(char_width, text))


def char_width(char: str) -> int:
    """0 for what is drawn over its neighbour, 2 for wide characters, else 1."""
    if char < "\u0300":
        return 1
    import unicodedata

    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def print_error(error: RKLLamaError) -> None:
    """Print what happened and what to do next on stderr; for a missing library, each place searched."""
    lines = [f" {error.message}", error.hint]
    if isinstance(error, ModelNotFound) and not error.hint:
        lines[1] = "`rkllama list` shows the models, `rkllama pull` downloads one."
    tried = getattr(error, "tried", None)
    if tried:
        lines[0] = " librkllmrt.so cannot be used"
        lines[1:1] = [f"  {place}: {reason}" for place, reason in tried]
    write_styled(styled("Error:", RED, sys.stderr), sys.stderr)
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))


def forget_stdout() -> None:
    """Write nothing more to stdout, whose reader (head, less) is gone, and raise no error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
