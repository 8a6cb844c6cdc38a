"""The service manager of this machine or of one user, or the unit files of another root directory."""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import RKLLamaError

_ENDS = 90.0
"""Seconds after which a command of systemd counts as hung: it waits for units to start and to stop."""
_TELLS = 10.0
"""Seconds within which it tells of a unit: that waits for nothing."""
_PROPERTIES = (
    "ActiveState,Environment,FragmentPath,Id,InactiveExitTimestampMonotonic,Listen,LoadState,MainPID,"
    "NeedDaemonReload,DropInPaths,Result,SubState,UnitFileState"
)


class Manager(NamedTuple):
    """Whom systemctl speaks with."""

    user: bool = False
    """Whether it is the manager of this user, and not that of the machine."""
    root: str = ""
    """The directory of a system that does not run; then only its files are changed."""

    @property
    def configuration(self) -> str:
        """The directory below which the files of the service lie."""
        if self.user:
            return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return f"{self.root}/etc"

    @property
    def units(self) -> str:
        """The directory of its units."""
        return os.path.join(self.configuration, "systemd", "user" if self.user else "system")

    def systemctl(self, *words: str) -> tuple[str, ...]:
        """Return the command line that says something to this manager."""
        whom = ["--user"] if self.user else [f"--root={self.root}"] if self.root else []
        return ("systemctl", *whom, *words)

    def require(self) -> None:
        """Raise RKLLamaError where there is no such manager."""
        if not self.root and not os.path.isdir("/run/systemd/system"):
            raise RKLLamaError(
                "this machine is not run by systemd",
                hint="Have whatever starts programs here run `rkllama serve`. For an image of another "
                "system there is --root DIR.",
            )

    def show(self, unit: str, timeout: float = _TELLS) -> dict[str, str]:
        """Return what the manager knows of a unit. Raises RKLLamaError, also after `timeout` seconds."""
        text = run(self.systemctl("show", unit, "-p", _PROPERTIES), timeout)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def is_unread(self, about: dict[str, str]) -> bool:
        """Return whether the files of a unit, of which `show` told, have changed since the manager read them.

        It does not see a new directory of drop-ins itself.
        """
        beside = glob.glob(os.path.join(glob.escape(self.units), f"{about.get('Id')}.d", "*.conf"))
        unknown = set(beside) - set(about.get("DropInPaths", "").split())
        return about.get("NeedDaemonReload") == "yes" or bool(unknown)

    def is_enabled(self, unit: str) -> bool:
        """Return whether a unit is started at boot, or when its user logs in."""
        return output(self.systemctl("is-enabled", unit)).strip() == "enabled"


def run(words: Sequence[str], timeout: float = _ENDS) -> str:
    """Run a program to its end and return what it printed. Raises RKLLamaError where it fails."""
    done = _run(words, timeout)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = f": {said[-1]}" if said else f" with exit code {done.returncode}"
        raise RKLLamaError(
            f"`{' '.join(words)}` failed{reason}",
            hint="Run the command again once that is mended: what is done already is not done twice.",
        )
    return done.stdout


def output(words: Sequence[str]) -> str:
    """Return what a program prints, whatever its exit code. Raises RKLLamaError where it is missing."""
    return _run(words, _ENDS).stdout


def _run(words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise RKLLamaError(
            f"{words[0]} is not installed", hint="It comes with systemd (apt install systemd)."
        ) from None
    except subprocess.TimeoutExpired:
        raise RKLLamaError(f"`{' '.join(words)}` has not ended within {timeout:g} s") from None
    except OSError as error:
        raise RKLLamaError(f"{words[0]} cannot be started: {error.strerror}") from None
