"""The steps of an installation as values: each can be shown as a line of a shell, done, and found done."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..errors import RKLLamaError
from ..files import NewFile, make_directory, not_written
from .manager import run

_STAMP = re.compile(rb"# Installed by `rkllama [a-z ]+`; sha256 of what follows: ([0-9a-f]{64})\n")


class Step(Protocol):
    """A step. Nothing is remembered between two runs: whether it is needed is seen from the system."""

    about: str
    """What it does, as an order: "Make the user rkllama"."""

    def line(self) -> str:
        """Return what does the same in a shell."""

    def is_needed(self) -> bool:
        """Return whether it is not done yet."""

    def do(self) -> str | None:
        """Do it, and return what the user has to be told. Raises RKLLamaError."""


def stamped(text: str, command: str = "service install") -> bytes:
    """Return a file's content with a first line by which an edited one is known, and what has written it."""
    body = text.encode()
    digest = hashlib.sha256(body).hexdigest()
    line = f"# Installed by `rkllama {command}`; sha256 of what follows: {digest}\n"
    return line.encode() + body


def is_edited(content: bytes) -> bool:
    """Return whether a file is not as an installation wrote it, whichever version that was of."""
    match = _STAMP.match(content)
    return match is None or hashlib.sha256(content[match.end() :]).hexdigest() != match[1].decode()


def read(path: str) -> bytes | None:
    """Return the content of a file; None where there is none. Raises RKLLamaError."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RKLLamaError(f"{path} cannot be read: {error.strerror}") from None


class WriteFile:
    """Write a file of the service, unless somebody has edited it."""

    def __init__(self, path: str, text: str, *, force: bool = False) -> None:
        self.about = f"Write {path}"
        self.path = path
        self._content = stamped(text)
        self._force = force

    def line(self) -> str:
        text = self._content.decode()
        return f"install -D -m 644 /dev/stdin {shlex.quote(self.path)} <<'EOF'\n{text}EOF"

    @property
    def is_kept(self) -> bool:
        """Whether somebody has edited the file, and it stays as it is."""
        there = read(self.path)
        return there is not None and is_edited(there) and not self._force

    def is_needed(self) -> bool:
        return read(self.path) != self._content and not self.is_kept

    def do(self) -> str | None:
        there, told = read(self.path), None
        try:
            _make_public_directory(os.path.dirname(self.path))
            if there is not None and is_edited(there):
                os.replace(self.path, f"{self.path}.old")
                told = f"The edited file is now {self.path}.old."
            with NewFile(os.path.dirname(self.path)) as new:
                os.fchmod(new.stream.fileno(), 0o644)
                new.stream.write(self._content)
                new.place(self.path)
        except OSError as error:
            raise not_written(error, self.path) from None
        return told


class RemoveFile:
    """Remove a file of the service unless somebody has edited it, and its drop-in directory once empty."""

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.about = f"Remove {path}"
        self.path = path
        self._force = force

    def line(self) -> str:
        return f"rm {shlex.quote(self.path)}"

    @property
    def is_kept(self) -> bool:
        """Whether somebody has edited the file, and it stays."""
        there = read(self.path)
        return there is not None and is_edited(there) and not self._force

    def is_needed(self) -> bool:
        return read(self.path) is not None and not self.is_kept

    def do(self) -> str | None:
        try:
            os.unlink(self.path)
        except OSError as error:
            raise RKLLamaError(f"{self.path} cannot be removed: {error.strerror}") from None
        if self.path.endswith(".conf") and os.path.dirname(self.path).endswith(".d"):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self.path))
        return None


class Command:
    """Run a program, where that is needed."""

    def __init__(
        self,
        about: str,
        words: Sequence[str],
        needed: Callable[[], bool],
        follows: Callable[[], bool] = lambda: False,
    ) -> None:
        """`follows` tells whether it is needed, too, once the steps before it have been done."""
        self.about = about
        self._words = tuple(words)
        self._needed = needed
        self.follows = follows

    def is_needed(self) -> bool:
        return self._needed()

    def line(self) -> str:
        return shlex.join(self._words)

    def do(self) -> str | None:
        run(self._words)
        return None


class MakeKey:
    """Make a file with an API key that only the server's user can read."""

    def __init__(self, path: str, shown: str, owner: Callable[[], tuple[int, int]]) -> None:
        """`shown` is the path for the server, to which another root may have to be added; `owner` tells
        uid and gid when they are there.
        """
        self.about = f"Make an API key in {shown}"
        self.path = path
        self._owner = owner

    def line(self) -> str:
        path = shlex.quote(self.path)
        return (
            f"(umask 077; head -c 32 /dev/urandom | base64 > {path}); "
            f"chown --reference={shlex.quote(os.path.dirname(self.path))} {path}"
        )

    def is_needed(self) -> bool:
        return not os.path.lexists(self.path)

    def do(self) -> str | None:
        key = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            make_directory(os.path.dirname(self.path))
            with open(os.open(self.path, flags, 0o600), "w") as stream:
                os.fchown(stream.fileno(), *self._owner())
                stream.write(f"{key}\n")
        except OSError as error:
            raise not_written(error, self.path) from None
        return f"The API key, which is not shown again: {key}"


class RemoveTree:
    """Remove a directory with all that is in it."""

    def __init__(self, path: str) -> None:
        self.about = f"Remove {path} and all that is in it"
        self.path = path

    def line(self) -> str:
        return f"rm -r {shlex.quote(self.path)}"

    def is_needed(self) -> bool:
        return os.path.lexists(self.path)

    def do(self) -> str | None:
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise RKLLamaError(
                f"{error.filename or self.path} cannot be removed: {error.strerror or error}"
            ) from None
        return None


def _make_public_directory(path: str) -> None:
    """Make a directory that everybody can read, and those above it that are missing. Raises OSError."""
    if os.path.isdir(path):
        return
    _make_public_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 - whatever the umask: it holds no secret


def pending(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that are to be done, as far as can be told before any of them is."""
    found: list[Step] = []
    for step in steps:
        if step.is_needed() or (found and isinstance(step, Command) and step.follows()):
            found.append(step)
    return found


def carry_out(steps: Sequence[Step]) -> Iterator[tuple[Step, str | None]]:
    """Do what is needed; yield each step that was done with what the user has to be told of it.

    Raises RKLLamaError; then what is done stays, and the next run goes on from there.
    """
    for step in steps:
        if step.is_needed():
            yield step, step.do()
