"""Boards as trees of `/proc`, `/sys`, `/dev`, one text file each: `NAME.board` beside this file.

    RK3588, vendor's kernel 6.1, all right      what it is
    like rk3588                                 what is not told here is as on that board
    first npu-clock                             the check that must come first of what is wrong
    model NAME.rkllm 1900000000     a model of so many bytes that lies there
    remove /sys/class/devfreq/dmc               a file or folder that this board does not have
    /sys/module/rknpu/version: 0.9.8            a file of one line
    /proc/meminfo:                              a file of more lines, indented by two spaces;
      MemTotal:       16218192 kB               `\\0` in it is a NUL
    crw-rw---- root:0 render:105 226:129 /dev/dri/renderD129
                                                what `lstat` said, see rkllama.board.sysroot

Empty lines and those that begin with `#` are passed over. Paths and contents are those of the vendor's
kernels 5.10 and 6.1.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

_GGUF = struct.pack("<4sIQQQ20sIQ5s", b"GGUF", 3, 0, 1, 20, b"general.architecture", 8, 5, b"llama")
"""The head of a file without tensors: version, numbers of tensors and of values, and the one value."""
HERE = Path(__file__).parent


class Board(NamedTuple):
    """What a file tells of a board."""

    title: str
    first: str | None
    """The check that must come first among its warnings and what is broken; None for a healthy board."""
    files: dict[str, str]
    nodes: dict[str, str]
    models: dict[str, int]


def names() -> list[str]:
    """The names of all boards, in order."""
    return sorted(path.stem for path in HERE.glob("*.board"))


def read_board(name: str) -> Board:
    """The board of a name."""
    title, *lines = (HERE / f"{name}.board").read_text().splitlines()
    board = Board(title, None, {}, {}, {})
    path = ""
    for line in lines:
        if line.startswith("  "):
            board.files[path] += line[2:] + "\n"
        elif line.startswith("like "):
            board = read_board(line[5:])._replace(title=title, first=None)
        elif line.startswith("first "):
            board = board._replace(first=line[6:])
        elif line.startswith("model "):
            board.models[line.split()[1]] = int(line.split()[2])
        elif line.startswith("remove "):
            _remove(board, line[7:])
        elif line.startswith("/"):
            path, text = re.fullmatch(r"(/.*?):(?: (.*))?", line).groups()  # type: ignore[union-attr]
            board.files[path] = text + "\n" if text else ""
        elif line and not line.startswith("#"):
            board.nodes[line.split()[4]] = line
    return board


def _remove(board: Board, path: str) -> None:
    entries: dict[str, Any]
    for entries in (board.files, board.nodes, board.models):
        gone = [entry for entry in entries if f"{entry}/".startswith(f"{path}/")]
        for entry in gone:
            del entries[entry]


def build_board(name: str, directory: Path) -> Path:
    """Make the tree of a board in a directory, for RKLLAMA_SYSROOT; answers its root."""
    board, root = read_board(name), directory / name
    for path, text in board.files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # The device tree's texts end with a NUL, not with a line.
        file.write_text(text.rstrip("\n").replace("\\0", "\0") if "\\0" in text else text)
    root.mkdir(exist_ok=True)
    (root / "NODES").write_text("".join(f"{line}\n" for line in board.nodes.values()))
    return root


def put_models(name: str, directory: Path) -> None:
    """Make the files of a board's models: whole at both ends, and with a hole between that takes no room."""
    directory.mkdir(parents=True, exist_ok=True)
    for file, size in read_board(name).models.items():
        with open(directory / file, "wb") as stream:
            stream.write(_GGUF if file.endswith(".gguf") else b"RKLLM")
            stream.truncate(size - 1)
            stream.seek(size - 1)
            stream.write(b"\1")
