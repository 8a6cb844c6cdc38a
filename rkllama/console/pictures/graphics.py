"""Small pictures on terminals that show some: by kitty's protocol, iTerm2's, or as sixels.

Which one a terminal knows is told by the environment alone: a question to the terminal would wait for an
answer that many never give. Within tmux or screen there is none, for they pass no pictures on.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TextIO, get_args

from ...errors import RKLLamaError
from ...types import SentImage
from ..output import is_terminal
from ..streams import control

Protocol = Literal["kitty", "iterm2", "sixel"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_SIZE = 320, 200
"""Pixels that a picture has at most: some ten lines of text."""
_MOST_PIXELS = 40_000_000
_CHUNK = 4096
"""Characters of base64 that kitty takes at a time."""
_COLOURS = 64
_KONSOLE = 220400
"""The first release of Konsole that shows pictures."""
_SIXEL_TERMS = r"foot|mlterm|contour|yaft|.*sixel"


def find_protocol(env: Mapping[str, str] = os.environ) -> Protocol | None:
    """Return how the terminal shows pictures; None where nothing says that it does."""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if env.get("TMUX") or env.get("STY") or re.match("screen|tmux|dumb", term):
        return None
    if "kitty" in term or "ghostty" in term or program == "ghostty" or env.get("KITTY_WINDOW_ID"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    version = env.get("KONSOLE_VERSION", "")
    if re.match(_SIXEL_TERMS, term) or (version.isdecimal() and int(version) >= _KONSOLE):
        return "sixel"
    return None


def show_pictures(pictures: Sequence[SentImage], protocol: Protocol | None = None) -> None:
    """Draw pictures on stderr, if that is a terminal that shows some. What cannot be drawn is left out."""
    protocol = protocol or find_protocol()
    if protocol is None or not is_terminal(sys.stderr):
        return
    for picture in pictures:
        # Pillow raises anything for what is damaged; the model's process says so, in the words of an error.
        with contextlib.suppress(Exception):
            _draw(_small(base64.b64decode(picture.data)), protocol, sys.stderr)


def check_shows(protocol: Protocol | None) -> None:
    """Raise RKLLamaError where pictures would not be shown: no terminal, one that is not known, no Pillow."""
    if not is_terminal(sys.stderr):
        raise RKLLamaError("only a terminal shows pictures, and this is none")
    if protocol is None:
        raise RKLLamaError(
            "this terminal is not known to show pictures",
            hint=f"If it does, say how: /set images {' | '.join(PROTOCOLS)}",
        )
    from importlib.util import find_spec

    if find_spec("PIL") is None:
        from ...board.installation import how_to_add_an_extra

        raise RKLLamaError(
            "pictures need Pillow, which is not installed", hint=how_to_add_an_extra("vision")
        )


def _small(data: bytes) -> Any:
    """Return the picture as it is drawn."""
    import warnings

    from PIL import Image, ImageOps

    from ...backends.vision.picture import FORMATS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Any = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError("it is too large to be drawn small")
        image.draft("RGB", (2 * _SIZE[0], 2 * _SIZE[1]))
        image.thumbnail((2 * _SIZE[0], 2 * _SIZE[1]))
        image = ImageOps.exif_transpose(image).convert("RGBA")
    image.thumbnail(_SIZE)
    return image


def _draw(image: Any, protocol: Protocol, stream: TextIO) -> None:
    if protocol == "sixel":
        text = sixels(image)
    else:
        out = io.BytesIO()
        image.save(out, "PNG")
        text = (_kitty if protocol == "kitty" else _iterm2)(out.getvalue())
    stream.flush()
    control(stream, f"{text}\n")
    stream.flush()


def _kitty(png: bytes) -> str:
    data = base64.b64encode(png).decode()
    pieces = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    text = ""
    for number, piece in enumerate(pieces):
        # q=2: no answer, which would arrive as if the user had typed it.
        head = "a=T,f=100,q=2," if number == 0 else ""
        text += f"\x1b_G{head}m={int(number < len(pieces) - 1)};{piece}\x1b\\"
    return text


def _iterm2(png: bytes) -> str:
    return f"\x1b]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\x07"


def sixels(image: Any) -> str:
    """Return a picture as sixels: rows of six pixels, a colour at a time."""
    from PIL import Image

    plain = Image.new("RGB", image.size, (255, 255, 255))
    plain.paste(image, mask=image if image.mode == "RGBA" else None)
    few = plain.quantize(_COLOURS)
    palette, width, height = few.getpalette() or [], few.width, few.height
    pixels = few.tobytes()
    parts = [f'\x1bPq"1;1;{width};{height}']
    for number in range(len(palette) // 3):
        percents = [round(value * 100 / 255) for value in palette[3 * number : 3 * number + 3]]
        parts.append(f"#{number};2;{';'.join(map(str, percents))}")
    for top in range(0, height, 6):
        rows = [pixels[row * width : (row + 1) * width] for row in range(top, min(top + 6, height))]
        parts.append("$".join(_band(rows, colour) for colour in sorted(set(b"".join(rows)))))
        parts.append("-")
    return "".join(parts) + "\x1b\\"


def _band(rows: list[bytes], colour: int) -> str:
    """Return six rows of one colour; a character has six pixels, the upper one in the lowest bit."""
    width = len(rows[0])
    bits = bytearray(width)
    for number, row in enumerate(rows):
        at = row.find(colour)
        while at >= 0:
            bits[at] |= 1 << number
            at = row.find(colour, at + 1)
    text = "".join(chr(63 + value) for value in bits)
    return f"#{colour}" + re.sub(
        r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", text.rstrip("?")
    )
