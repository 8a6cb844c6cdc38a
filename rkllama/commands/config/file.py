"""One setting in the text of a configuration file, changed or removed; every other line stays as it is.

A library for that (tomlkit) would be a dependency for a file of a dozen plain lines. Here the standard
library's own parser says where each statement ends, and has the last word on what came out: a change that
would do more than was asked for is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...config import LONGEST_CONFIG, parse_toml
from ...errors import ConfigError
from ...files import make_directory, not_written, open_regular, write_file


class _Statement(NamedTuple):
    """Lines `start` to `end` (not included), which set `key`; "" for a comment or an empty line."""

    start: int
    end: int
    key: str


def change_file(path: str, name: str, value: str | None) -> bool:
    """Set `name` to `value`, written as TOML, in a file that need not be there; None removes it.

    Return whether that changed anything. Raises ConfigError, also for a file that is not TOML.
    """
    path = os.path.realpath(path)  # a link is its user's way to keep the file elsewhere
    try:
        make_directory(os.path.dirname(path))
        with _alone(os.path.dirname(path)):
            text, mode = _read(path)
            changed = changed_text(text, name, value, path)
            if changed == text:
                return False
            write_file(path, changed.encode(), mode)
    except OSError as error:
        raise not_written(error, path) from None
    return True


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Be the only command that changes a file there: of two at a time, one would undo the other's change."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(path: str) -> tuple[str, int]:
    """Return the text of a file and its permissions; a new one may hold keys, and is its owner's alone."""
    try:
        with open_regular(path) as stream:
            text = stream.read(4 * LONGEST_CONFIG).decode()  # parsing tells that it is too long
            return text, stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return "", 0o600
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def changed_text(text: str, name: str, value: str | None, path: str) -> str:
    """Return a configuration with `name` set to `value`, written as TOML; None removes it.

    Raises ConfigError, with the `path` where the text stands.
    """
    try:
        before = parse_toml(text)
        lines = text.split("\n")
        after = {key: old for key, old in before.items() if key != name}
        if value is not None:
            after[name] = parse_toml(f"{name} = {value}")[name]
        result = "\n".join(_with(lines, name, value))
        if parse_toml(result) != after:
            raise ValueError("it is set in a way that only you can change")
    except ValueError as error:
        raise ConfigError(
            f"{name} cannot be changed in {path}: {error}", hint="Edit the file by hand."
        ) from None
    return result


def _with(lines: list[str], name: str, value: str | None) -> list[str]:
    statements = _statements(lines)
    end = "\r" if lines[0].endswith("\r") else ""
    own = next((one for one in statements if one.key == name), None)
    if own is not None:
        new = [] if value is None else [_in_place_of(lines[own.start : own.end], name, value, end)]
        return [*lines[: own.start], *new, *lines[own.end :]]
    if value is None:
        return lines
    # After the last one that is set: what follows it may be a table, or a comment on the end.
    place = max((one.end for one in statements if one.key), default=None)
    if place is None:
        place = statements[-1].end if statements else 0
    new = [f"{name} = {value}{end}"]
    if place == len(lines):  # the last line has no end yet
        return [*lines, *new, ""] if lines[-1] else [*lines[:-1], *new, ""]
    return [*lines[:place], *new, *lines[place:]]


def _statements(lines: list[str]) -> list[_Statement]:
    """Return the statements before the first table, whose keys are not settings. Raises ValueError."""
    statements = []
    start = 0
    while start < len(lines) and not lines[start].lstrip().startswith("["):
        table, end = _statement_at(lines, start)
        statements.append(_Statement(start, end, next(iter(table), "")))
        start = end
    return statements


def _statement_at(lines: list[str], start: int) -> tuple[dict[str, Any], int]:
    """Return what the statement on a line sets, and the line after it: the first lines that are whole."""
    for end in range(start + 1, len(lines) + 1):
        try:
            return parse_toml("\n".join(lines[start:end]) + "\n"), end
        except ValueError:
            if end == len(lines):
                raise
    raise AssertionError("unreachable")


def _in_place_of(old: list[str], name: str, value: str, end: str) -> str:
    """Return the line that sets a value anew, with the comment that stands behind the old one."""
    line = old[-1].removesuffix("\r")
    whole = "\n".join([*old[:-1], line])
    for place in (number for number, char in enumerate(line) if char == "#"):
        if _is_same("\n".join([*old[:-1], line[:place]]), whole):
            begin = line[:place]
            return f"{name} = {value}{begin[len(begin.rstrip()) :]}{line[place:]}{end}"
    return f"{name} = {value}{end}"


def _is_same(text: str, whole: str) -> bool:
    try:
        return parse_toml(f"{text}\n") == parse_toml(f"{whole}\n")
    except ValueError:
        return False
