"""How the commands print: sizes, times, tables, errors, and what to do when the reader of a pipe is gone.

`rkllama list` imports this module: hence nothing heavy.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import ModelNotFound, RKLLamaError

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
    """Lines with aligned columns; the column headed `right` is aligned to the right."""
    columns = [
        _aligned(column, right=column[0] == right) for column in zip(head, *rows, strict=True)
    ]
    return "".join("  ".join(cells).rstrip() + "\n" for cells in zip(*columns, strict=True))


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
