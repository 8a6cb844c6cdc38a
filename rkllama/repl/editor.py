"""`/edit`: a text in the user's editor."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RKLLamaError

_USUAL = ("editor", "nano", "vi")
"""What is there where neither VISUAL nor EDITOR is set; the first is Debian's choice of its user's."""


def edited(text: str) -> str:
    """Return a text as the user leaves it in the editor of VISUAL or EDITOR, without space around it.

    Raises RKLLamaError where there is none, or it fails: then what was written in it does not count.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RKLLamaError("an editor needs a terminal, and this is none")
    command = _command()
    with tempfile.TemporaryDirectory(prefix="rkllama-") as folder:
        path = os.path.join(folder, "message.md")  # editors colour and wrap by the ending
        with open(path, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(f"{text}\n" if text else "")
        _run([*command, path])
        try:
            with open(path, encoding="utf-8") as stream:
                return stream.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise RKLLamaError(f"what {command[0]} wrote cannot be read: {reason}") from None


def _command() -> list[str]:
    """Return the program and its arguments, which are quoted as in a shell."""
    name = next((name for name in ("VISUAL", "EDITOR") if os.environ.get(name, "").strip()), None)
    if name is None:
        found = next((program for program in _USUAL if shutil.which(program)), None)
        if found is None:
            raise RKLLamaError("no editor was found", hint="Set EDITOR, such as EDITOR=nano.")
        return [found]
    try:
        return shlex.split(os.environ[name])
    except ValueError as error:
        raise RKLLamaError(f"{name} cannot be {os.environ[name]!r}: {error}".lower()) from None


def _run(command: list[str]) -> None:
    with _ctrl_c_is_the_editors():
        try:
            status = subprocess.call(command)
        except OSError as error:
            raise RKLLamaError(
                f"the editor {command[0]} cannot be started: {error.strerror or error}",
                hint="Set VISUAL or EDITOR to a program that is installed.",
            ) from None
    if status:
        reason = f"with {status}" if status > 0 else f"by {signal.Signals(-status).name}"
        raise RKLLamaError(f"the editor {command[0]} ended {reason}; nothing was changed")


@contextmanager
def _ctrl_c_is_the_editors() -> Iterator[None]:
    """Pass Ctrl-C over here. A handler and not SIG_IGN, which the editor would inherit."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
