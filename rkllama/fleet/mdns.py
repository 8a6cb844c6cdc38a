"""Boards that announce themselves on the local network (mDNS), as avahi's `avahi-browse` finds them."""

from __future__ import annotations

import re
import shutil

from ..errors import InvalidRequest, RKLLamaError
from ..systemd.manager import output
from .boards import MOST, Board, parse_board

SERVICE = "_rkllama._tcp"
_COLUMNS = 10
_ESCAPED = re.compile(r"\\([0-9]{3})")


def browse() -> list[Board]:
    """Return the boards that the local network tells of. Raises RKLLamaError without avahi-browse.

    Anybody there can announce anything: ask before you believe it.
    """
    program = shutil.which("avahi-browse")
    if program is None:
        raise RKLLamaError(
            "avahi-browse is not installed, which finds boards on the network",
            hint="Install it (sudo apt install avahi-utils), or name the boards: rkllama fleet init HOST…",
        )
    return parse_browsed(output((program, "--resolve", "--terminate", "--parsable", SERVICE)))


def parse_browsed(text: str) -> list[Board]:
    """Return the boards in what `avahi-browse --parsable` prints, each name and each address once, by name.

    `=;eth0;IPv4;rk1;_rkllama._tcp;local;rk1.local;192.168.1.11;8080;"txt"`
    """
    found: dict[str, Board] = {}
    addresses: set[str] = set()
    for line in text.splitlines():
        cells = line.split(";")
        if len(cells) < _COLUMNS - 1 or cells[0] != "=" or cells[2] != "IPv4":
            continue
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", _ESCAPED.sub("-", cells[3])).strip("-._")
        try:
            board = parse_board(f"{name}={cells[7]}:{cells[8]}")
        except InvalidRequest:
            continue
        if board.name.lower() not in found and board.address not in addresses:
            found[board.name.lower()] = board
            addresses.add(board.address)
    return [found[name] for name in sorted(found)][:MOST]
