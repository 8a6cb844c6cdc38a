"""HAProxy's configuration for a fleet, and the two maps that it reads: pure text, made of `data/`.

The syntax is that of HAProxy 2.4 and later; Debian 12 has 2.6.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from .boards import Board, Fleet
from .routes import EVERYWHERE, Group, Routes

CONFIGURATION = "haproxy.cfg"
MODELS_MAP = "models.map"
BOARDS_MAP = "boards.map"
FINGERPRINT = "/configuration"
"""The path below the statistics' address at which HAProxy tells which configuration it runs."""
STATISTICS_CSV = "/;csv"
_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
_ROOT = "    user haproxy\n    group haproxy\n"


def configuration(
    fleet: Fleet, routes: Routes, directory: str, *, check: str = "/ready", root: bool = False
) -> str:
    """Return the text of haproxy.cfg, whose maps lie in `directory`.

    `check` is the path that tells whether a board is ready; with `root` HAProxy is started by root, and
    becomes the user that Debian has for it.
    """
    boards = {board.name: (number, board) for number, board in enumerate(fleet.boards, 1)}
    text = _filled(
        "haproxy.cfg",
        USER=_ROOT if root else "",
        CHECK=check,
        PEERS=fleet.peers,
        BIND=_bind(fleet),
        GROUPS="".join(_group(group, boards, directory) for group in routes.groups),
        BOARDS="".join(_quick_lines(fleet, routes)),
        STATISTICS=fleet.statistics,
        DIRECTORY=directory,
    )
    content = "".join([text, *maps(fleet, routes).values()])
    return text.replace("@DIGEST@", hashlib.sha256(content.encode()).hexdigest()[:16])


def maps(fleet: Fleet, routes: Routes) -> dict[str, str]:
    """Return the texts of the maps, by the names of their files."""
    boards = [f"{number} {board.name}\n" for number, board in enumerate(fleet.boards, 1)]
    models = [f"{name} {group}\n" for name, group in sorted(routes.models.items())]
    return {BOARDS_MAP: "".join(boards), MODELS_MAP: "".join(models)}


def _filled(name: str, **values: str) -> str:
    """Return a file of `data/` with its places filled; one that fills lines takes their end along."""
    with open(os.path.join(_DATA, name), encoding="utf-8") as stream:
        text = stream.read()
    for place, value in values.items():
        text = text.replace(f"\n@{place}@\n", f"\n{value}").replace(f"@{place}@", value)
    return text


def _bind(fleet: Fleet) -> str:
    if fleet.certificate is None:
        return fleet.listen
    return f"{fleet.listen} ssl crt '{fleet.certificate}' alpn h2,http/1.1"


def _group(group: Group, boards: dict[str, tuple[int, Board]], directory: str) -> str:
    """Return the backend of a group; where it is one board, there is nothing to choose."""
    lines = [f"backend {group.name}\n"]
    if len(group.boards) > 1:
        lines = [_filled("group.cfg", NAME=group.name, DIRECTORY=directory)]
    for number, board in (boards[name] for name in group.boards):
        lines.append(
            f"    server {board.name} {board.address} id {number} check maxconn {board.parallel}\n"
        )
    return "".join(lines)


def _quick_lines(fleet: Fleet, routes: Routes) -> Iterator[str]:
    """Yield the boards, and which of them has what the first one may not have."""
    for group in routes.groups[1:]:
        yield f"    use-server {group.boards[0]} if {{ var(txn.group) -m str {group.name} }}\n"
    for number, board in enumerate(fleet.boards, 1):
        yield f"    server {board.name} {board.address} id {number} track {EVERYWHERE}/{board.name}\n"
