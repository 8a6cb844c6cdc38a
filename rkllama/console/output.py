"""How the commands print: sizes, times, tables, errors, and what to do when the reader of a pipe is gone.

`rkllama list` imports this module: hence nothing heavy.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import ModelNotFound, RKLLamaError

_SHORTEST = 8
"""Columns that are left of a name."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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


def human_time(moment: object) -> str:
    """Local date and time to the minute; "-" for anything that is not a number."""
    if not isinstance(moment, int | float):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "SIZE") -> str:
    """Lines with aligned columns; the column headed `right` is aligned to the right.

    On a terminal the first column is cut where a line would be too long.
    """
    lines = [tuple(row) for row in rows]
    if lines and sys.stdout.isatty():
        from .streams import printable  # before anything is aligned

        lines = [tuple(map(printable, row)) for row in lines]
        lines = _fitting(head, lines, os.get_terminal_size(sys.stdout.fileno()).columns)
    columns = [
        _aligned(column, right=column[0] == right) for column in zip(head, *lines, strict=True)
    ]
    return "".join("  ".join(cells).rstrip() + "\n" for cells in zip(*columns, strict=True))


def _fitting(
    head: Sequence[str], rows: list[tuple[str, ...]], columns: int
) -> list[tuple[str, ...]]:
    widths = [max(map(display_width, column)) for column in zip(head, *rows, strict=True)]
    room = columns - sum(widths[1:]) - 2 * (len(widths) - 1)
    if columns <= 0 or widths[0] <= room:  # some terminals do not tell
        return rows
    return [(cut_middle(row[0], max(room, _SHORTEST)), *row[1:]) for row in rows]


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
    lines = [f"Error: {error.message}", error.hint]
    if isinstance(error, ModelNotFound) and not error.hint:
        lines[1] = "`rkllama list` shows the models, `rkllama pull` downloads one."
    tried = getattr(error, "tried", None)
    if tried:
        lines[0] = "Error: librkllmrt.so cannot be used"
        lines[1:1] = [f"  {place}: {reason}" for place, reason in tried]
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))


def forget_stdout() -> None:
    """Write nothing more to stdout, whose reader (head, less) is gone, and raise no error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
