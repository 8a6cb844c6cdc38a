"""`rkllama doctor --fix`: what needs no root is done, and the rest becomes one script.

The cures are lines for a shell, and names of others stand in them. So nothing goes through a shell here: a
line is only carried out if it is one of a few plain commands, and the script has it as it was quoted.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from ..files import IMPORT_ROOT
from ..models.uploads import clear_leftovers
from .finding import Finding

Kind = Literal["do", "ask", "script", "hand"]
"""Is done at once; is done if the user agrees; needs root, or changes the system; only shows something, or
is for the user to decide."""

_LONGEST = 200
"""Characters of a comment."""
_ONLY_SHOW = {"journalctl", "dmesg", "cat", "ls", "ps", "du", "df"}
_HEAD = """#!/bin/sh
# What `rkllama doctor --fix` leaves to you. Read it, then run it: sh FILE
set -e
command -v sudo >/dev/null 2>&1 || sudo() { "$@"; }
"""


class Fixed(NamedTuple):
    """What has been done, what could not be, and the script with the rest ("" for none)."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    script: str


def kind_of(line: str) -> Kind:
    """Return what is to become of a line that cures something."""
    try:
        words = shlex.split(line)
    except ValueError:
        return "hand"
    if len(words) == 3 and words[0] == "chmod" and words[1] in ("600", "700"):
        return "do"
    if words[:3] in (["rkllama", "runtime", "install"], ["rkllama", "runtime", "use"]):
        return "ask"
    if words[:2] == ["rkllama", "pull"]:
        return "ask"
    if len(words) == 3 and words[0] == "mv" and words[2] == f"{words[1]}.unusable":
        return "ask"
    # A model may be called sudo.
    if words[:1] == ["sudo"] or (words[:1] == ["echo"] and words[2:4] == ["|", "sudo"]):
        command = words[words.index("sudo") + 1 :][:1]
        return "hand" if command and command[0] in _ONLY_SHOW else "script"
    installs = words[1:4] == ["-m", "pip", "install"] or words[:3] == ["uv", "pip", "install"]
    return "script" if installs else "hand"


def fix(
    findings: Iterable[Finding],
    models: str,
    *,
    agree: Callable[[str], bool],
    say: Callable[[str], object],
) -> Fixed:
    """Cure what needs no root, and return a script for the rest.

    `agree` is asked before something is fetched or chosen; `say` is told what is done. What killed
    processes have left in the directory `models` is removed as well.
    """
    clear_leftovers(models)
    done, failed, seen = [], [], set()
    rest: list[tuple[Finding, list[str], list[str]]] = []
    for finding in findings:
        if finding.status not in ("broken", "warning"):
            continue
        root, hand = [], []
        for line in finding.cure:
            if line in seen:
                continue
            seen.add(line)
            kind = kind_of(line)
            if kind == "script":
                root.append(line)
            elif kind == "hand" or (kind == "ask" and not agree(_question(line))):
                hand.append(line)
            elif reason := _carry_out(line):
                say(f"Failed: {line}: {reason}")
                failed.append(line)
                hand.append(line)
            else:
                say(f"Done: {line}")
                done.append(line)
        rest.append((finding, root, hand))
    return Fixed(tuple(done), tuple(failed), write_script(rest))


def _question(line: str) -> str:
    words = shlex.split(line)
    if words[0] == "mv":
        return f"Rename {words[1]} to {words[2]}?"
    if words[1] == "pull":
        return f"Continue the download of {words[2]}?"
    if words[2] == "use":
        return f"Use librkllmrt {' for '.join(words[3:])}?"
    return f"Fetch librkllmrt{''.join(f' {word}' for word in words[3:])}, the NPU's runtime?"


def _carry_out(line: str) -> str | None:
    """Do what a line says; return why that failed."""
    words = shlex.split(line)
    try:
        if words[0] == "chmod":
            _restrict(words[2], int(words[1], 8))
        elif words[0] == "mv":
            _rename(words[1], words[2])
        else:
            return _run(words[1:])
    except OSError as error:
        return error.strerror or str(error)
    return None


def _restrict(path: str, mode: int) -> None:
    """Set the mode of a file or directory of this user's; a link that has come there is not followed."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise OSError(0, "it is neither a file nor a directory")
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _rename(old: str, new: str) -> None:
    if os.path.lexists(new):
        raise FileExistsError(0, f"{new} is there already")
    os.rename(old, new)


def _run(arguments: list[str]) -> str | None:
    """Run one of our own commands; what it prints goes to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "rkllama", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
        cwd=IMPORT_ROOT,
    )
    return f"it ended with status {done.returncode}" if done.returncode else None


def write_script(cures: Iterable[tuple[Finding, list[str], list[str]]]) -> str:
    """Return a script of findings, the lines to run and those to decide on; "" where there is none."""
    parts, by_hand = [], []
    for finding, lines, hand in cures:
        if lines:
            parts.append("\n".join(["", *_comments(finding), *lines, ""]))
        by_hand += [f"#   {_plain(line)}" for line in hand]
    if by_hand:
        parts.append("\n".join(["", "# Left for you to decide, so not run here:", *by_hand, ""]))
    return _HEAD + "".join(parts) if parts else ""


def _comments(finding: Finding) -> list[str]:
    texts = [f"{finding.title}: {finding.found}", finding.advice or ""]
    return [f"# {_plain(text)}" for text in texts if text]


def _plain(text: str) -> str:
    """Return a text that cannot end the comment that it stands in."""
    text = "".join(char if char.isprintable() else " " for char in text)
    text = re.sub(" +", " ", text).strip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
