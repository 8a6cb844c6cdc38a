"""The files that make a service of RKLLama: which there are, where each belongs, and what it says."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..errors import InvalidRequest

_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
SERVICE, SOCKET = "rkllama.service", "rkllama.socket"
"""The units of the server."""
HOME = "/var/lib/rkllama"
"""The home of the service for all users, as its unit has it."""
ADDRESS = "127.0.0.1:8080"
"""Where its socket listens, unless an installation is told otherwise."""
_HOMES = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= hides."""


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

    @property
    def is_unit(self) -> bool:
        """Whether it is a unit, and no configuration of another program."""
        return self.target.startswith("systemd/")


SYSTEM_FILES = (
    UnitFile("rkllama.sysusers", "sysusers.d/rkllama.conf"),
    UnitFile("rkllama.tmpfiles", "tmpfiles.d/rkllama.conf"),
    UnitFile("60-rkllama.rules", "udev/rules.d/60-rkllama.rules"),
    UnitFile(SERVICE, "systemd/system/rkllama.service"),
    UnitFile(SOCKET, "systemd/system/rkllama.socket", enabled=True),
    UnitFile("rkllama-governors.service", "systemd/system/rkllama-governors.service"),
    UnitFile("rkllama-governors.socket", "systemd/system/rkllama-governors.socket", enabled=True),
)
"""Of the service for all users, in the order in which they are installed. A further unit is a row here."""
USER_FILES = (
    UnitFile("user/rkllama.service", "systemd/user/rkllama.service"),
    UnitFile(SOCKET, "systemd/user/rkllama.socket", enabled=True),
)
"""Of the service for one user."""


def render(file: UnitFile, program: tuple[str, ...]) -> str:
    """Return what a file says where `program` runs RKLLama: an absolute path and further words."""
    with open(os.path.join(_DATA, file.source), encoding="utf-8") as stream:
        return stream.read().replace("@PROGRAM@", command_line(program))


def command_line(words: tuple[str, ...]) -> str:
    """Return words as systemd reads them in ExecStart=."""
    return " ".join(quoted(word.replace("$", "$$")) for word in words)


def quoted(word: str) -> str:
    """Return a word as systemd reads it in most settings. Raises InvalidRequest for one that would end its
    line, and so write further settings, or that cannot be seen.
    """
    if not word.isprintable():
        raise InvalidRequest(
            f"{word!r} cannot stand in a unit of systemd: it has control characters",
            hint="Use another path.",
        )
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        word = word.replace(special, escaped)
    return f'"{word}"' if not word or set(word) & set(" \t'\";\\") else word


class DropIn(NamedTuple):
    """What an installation was told to do otherwise than a unit does, as a file beside it."""

    unit: str
    name: str
    text: str

    @property
    def place(self) -> str:
        """Its path, from the directory of the unit."""
        return f"{self.unit}.d/50-{self.name}.conf"


def address_drop_ins(address: str) -> list[DropIn]:
    """Return what makes the service listen on `address`, an IP address and a port."""
    return [
        DropIn(
            SOCKET,
            "address",
            "[Socket]\n# The first line takes back what the unit says.\n"
            f"ListenStream=\nListenStream={quoted(address)}\n",
        ),
        _environment("address", RKLLAMA_HOST=address),
    ]


def exit_idle_drop_in(duration: str) -> DropIn:
    """Return what ends the idle server after another time; "-1" is never."""
    return _environment("exit-idle", RKLLAMA_EXIT_IDLE=duration)


def keys_drop_in(path: str) -> DropIn:
    """Return what makes the server ask for the keys in a file."""
    return _environment("keys", RKLLAMA_API_KEY=f"@{path}")


def models_drop_in(directory: str) -> DropIn:
    """Return what makes the service use, and lets it write to, another models directory."""
    base = _environment("models", RKLLAMA_MODELS=directory)
    return base._replace(
        text=base.text + f"ReadWritePaths={quoted(f'-{directory}')}\n" + _visible(directory)
    )


def program_drop_in(program: str) -> DropIn | None:
    """Return what lets the service read a program that lies in somebody's home; None for any other."""
    text = _visible(os.path.realpath(program))
    return DropIn(SERVICE, "program", f"[Service]\n{text}") if text else None


def _visible(path: str) -> str:
    """Return the setting that lets a service see a path that is hidden from it; "" for any other."""
    return "ProtectHome=read-only\n" if path.startswith(_HOMES) else ""


def _environment(name: str, **values: str) -> DropIn:
    lines = [f"Environment={quoted(f'{variable}={value}')}\n" for variable, value in values.items()]
    return DropIn(SERVICE, name, "".join(["[Service]\n", *lines]))
