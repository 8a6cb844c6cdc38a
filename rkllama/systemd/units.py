"""The files that make a service of RKLLama: which there are, where each belongs, and what it says."""

from __future__ import annotations

import os
from typing import NamedTuple

_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


class UnitFile(NamedTuple):
    """A file of the service."""

    source: str
    """Below data/."""
    target: str
    """Below /etc where an administrator installs it, below /usr/lib where a package does; of a user's
    service below ~/.config."""
    enabled: bool = False
    """Whether it is a unit that an installation enables and starts."""

    @property
    def name(self) -> str:
        """The name that systemd knows it by."""
        return os.path.basename(self.target)


SYSTEM_FILES = (
    UnitFile("rkllama.sysusers", "sysusers.d/rkllama.conf"),
    UnitFile("rkllama.tmpfiles", "tmpfiles.d/rkllama.conf"),
    UnitFile("60-rkllama.rules", "udev/rules.d/60-rkllama.rules"),
    UnitFile("rkllama.service", "systemd/system/rkllama.service"),
    UnitFile("rkllama.socket", "systemd/system/rkllama.socket", enabled=True),
)
"""Of the service for all users, in the order in which they are installed. A further unit is a row here."""
USER_FILES = (
    UnitFile("user/rkllama.service", "systemd/user/rkllama.service"),
    UnitFile("rkllama.socket", "systemd/user/rkllama.socket", enabled=True),
)
"""Of the service for one user."""


def render(file: UnitFile, program: tuple[str, ...]) -> str:
    """Return what a file says where `program` is the command line that runs RKLLama, an absolute path first."""
    with open(os.path.join(_DATA, file.source), encoding="utf-8") as stream:
        return stream.read().replace("@PROGRAM@", command_line(program))


def command_line(words: tuple[str, ...]) -> str:
    """Return words as systemd reads them in ExecStart=."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"' if not word or set(word) & set(" \t'\";\\") else word
