"""`boards.toml`: the boards of a fleet, and where their balancer listens."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config import parse_toml, server_url
from ..errors import ConfigError, InvalidRequest
from ..files import make_directory, not_written, write_file

FILE = "boards.toml"
"""Its name in the directory of the fleet."""
LISTEN = "127.0.0.1:8090"
"""Where the balancer listens by default: a server on the same machine has 8080."""
STATISTICS = "127.0.0.1:8404"
PEERS = "127.0.0.1:8405"
MOST = 1000
"""Boards of one balancer."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_BOARD_KEYS = ("name", "address", "parallel")
_FLEET_KEYS = ("listen", "certificate", "statistics", "peers", "board")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A server of the fleet."""

    name: str
    """What tables and HAProxy call it: letters, digits, dots and dashes."""
    host: str
    port: int = 8080
    parallel: int = 1
    """Requests that it is given at a time: the NPU writes one answer at a time."""

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return join_address(self.host, self.port)

    @property
    def url(self) -> str:
        """The address as a URL."""
        return server_url(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What `boards.toml` says."""

    boards: tuple[Board, ...]
    listen: str = LISTEN
    certificate: str | None = None
    """A PEM file with the certificate and its key, as HAProxy reads it; clients then come by HTTPS."""
    statistics: str = STATISTICS
    peers: str = PEERS
    """Where the balancer hands the table of conversations to the one that replaces it."""


def parse_board(text: str) -> Board:
    """Return the board that a command line names: `[NAME=]HOST[:PORT]`, or a URL. Raises InvalidRequest."""
    name, equals, place = text.strip().rpartition("=")
    host, port = split_address(place.removeprefix("http://").rstrip("/"), 8080)
    name = name if equals else _name_for(host)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a board",
            hint="Letters, digits, dots, dashes and underscores can: rkllama fleet init NAME=HOST:PORT",
        )
    return Board(name=name, host=host, port=port)


def parse_boards(texts: Sequence[str]) -> tuple[Board, ...]:
    """Return the boards that a command line names, each name once. Raises InvalidRequest."""
    boards: list[Board] = []
    for board in map(parse_board, texts):
        taken = {other.name for other in boards}
        if board.name in taken and "=" not in texts[len(boards)]:
            board = replace(board, name=f"{board.name}-{board.port}")
        boards.append(board)
    check_boards(boards)
    return tuple(boards)


def check_boards(boards: Sequence[Board]) -> None:
    """Raise InvalidRequest where two boards cannot be told apart, or there are none, or too many."""
    if not 1 <= len(boards) <= MOST:
        raise InvalidRequest(f"a fleet has 1 to {MOST} boards, and not {len(boards)}")
    for attribute in ("name", "address"):
        seen: set[str] = set()
        for board in boards:
            value: str = getattr(board, attribute).lower()
            if value in seen:
                raise InvalidRequest(f"two boards have the {attribute} {value}")
            seen.add(value)


def split_address(text: str, port: int | None = None) -> tuple[str, int]:
    """Return host and port of `HOST[:PORT]`; without `port` it has to have one. Raises InvalidRequest."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", text)
    host, number = "", port
    if match is not None:
        host, number = match[1] or match[2], int(match[3]) if match[3] else port
    elif _is_ipv6(text):
        host = text
    if not (_is_ipv6(host) or _HOST.fullmatch(host)) or number is None or not 0 < number < 65536:
        raise InvalidRequest(
            f"{text!r} is not an address",
            hint="Write it as 192.168.1.11:8080, or rk1.local:8080; --listen as :8090, too.",
        )
    return host, number


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    """Return whether a text is an IPv6 address; with a zone, in which anything could stand, it is none."""
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def _name_for(host: str) -> str:
    """Return a name for what has none: a machine's own, or its address as HAProxy can write it."""
    plain = host.replace(":", "-").strip("-")
    if re.fullmatch(r"[0-9.]+", plain) or ":" in host:
        return plain
    return plain.partition(".")[0]


# --- The file ----------------------------------------------------------------------------------


def read_fleet(directory: str) -> Fleet:
    """Return the fleet of a directory. Raises ConfigError, which names what is wrong with the file."""
    path = os.path.join(directory, FILE)
    try:
        with open(path, encoding="utf-8") as stream:
            return _fleet(parse_toml(stream.read()))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing",
            hint="`rkllama fleet init BOARD…` writes it, with the host of each board.",
        ) from None
    except InvalidRequest as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def is_edited(directory: str, fleet: Fleet) -> bool:
    """Return whether the file, which says `fleet`, has more in it than `write_fleet` would write."""
    with open(os.path.join(directory, FILE), encoding="utf-8") as stream:
        return stream.read() != fleet_text(fleet)


def write_fleet(directory: str, fleet: Fleet, *, keep: bool = False) -> str:
    """Replace the file, and return its path; `keep` the one that was there as boards.toml.old. Raises
    RKLLamaError.
    """
    path = os.path.join(directory, FILE)
    try:
        make_directory(directory)
        if keep:
            os.replace(path, f"{path}.old")
        write_file(path, fleet_text(fleet).encode(), 0o644)
    except OSError as error:
        raise not_written(error, path) from None
    return path


def fleet_text(fleet: Fleet) -> str:
    """Return what the file says."""
    lines = [
        "# The boards behind one address. After a change: rkllama fleet update",
        f"listen = {quote(fleet.listen)}",
        f"statistics = {quote(fleet.statistics)}",
        f"peers = {quote(fleet.peers)}",
    ]
    if fleet.certificate is not None:
        lines.append(f"certificate = {quote(fleet.certificate)}")
    for board in fleet.boards:
        lines += ["", "[[board]]"]
        lines += [f"name = {quote(board.name)}", f"address = {quote(board.address)}"]
        if board.parallel != 1:
            lines.append(f"parallel = {board.parallel}")
    return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    """Return a text as a string of TOML."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _fleet(table: Mapping[str, Any]) -> Fleet:
    _check_keys(table, _FLEET_KEYS, "the file")
    rows = table.get("board")
    if not isinstance(rows, list):
        raise InvalidRequest("it names no board", hint='Each begins with a line "[[board]]".')
    boards = tuple(_board(row, number) for number, row in enumerate(rows, 1))
    check_boards(boards)
    return checked(
        Fleet(
            boards=boards,
            listen=_text(table, "listen", LISTEN),
            certificate=_text(table, "certificate", "") or None,
            statistics=_text(table, "statistics", STATISTICS),
            peers=_text(table, "peers", PEERS),
        )
    )


def checked(fleet: Fleet) -> Fleet:
    """Return a fleet with addresses and certificate as HAProxy reads them. Raises InvalidRequest."""
    path = fleet.certificate
    if path is not None:
        path = os.path.abspath(os.path.expanduser(path))
        if not path.isprintable() or set(path) & set("'\"\\"):
            raise InvalidRequest(f"the certificate cannot be {path!r}: it has a quote or worse")
    listen, statistics, peers = map(_bound, (fleet.listen, fleet.statistics, fleet.peers))
    if len({listen, statistics, peers}) < 3:
        raise InvalidRequest("listen, statistics and peers must be three addresses")
    return replace(fleet, listen=listen, statistics=statistics, peers=peers, certificate=path)


def _bound(text: str) -> str:
    """Return an address to listen at; `*` or nothing before the port is every address of the machine."""
    place = text.strip()
    if place.startswith((":", "*:")):
        place = f"0.0.0.0:{place.rpartition(':')[2]}"
    return join_address(*split_address(place))


def _board(row: object, number: int) -> Board:
    if not isinstance(row, dict):
        raise InvalidRequest(f"board {number} is not a table")
    _check_keys(row, _BOARD_KEYS, f"board {number}")
    address, name = _text(row, "address", ""), _text(row, "name", "")
    board = parse_board(f"{name}={address}" if name else address)
    parallel = row.get("parallel", 1)
    if type(parallel) is not int or not 1 <= parallel <= 1024:
        raise InvalidRequest(f"board {board.name}: parallel must be 1 to 1024")
    return replace(board, parallel=parallel)


def _text(table: Mapping[str, Any], name: str, default: str) -> str:
    value = table.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text")
    return value


def _check_keys(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    if unknown := sorted(set(table) - set(names)):
        raise InvalidRequest(
            f"{where} has unknown keys: {', '.join(map(repr, unknown))}",
            hint=f"There are {', '.join(names)}.",
        )
