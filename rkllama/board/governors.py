"""The setting `governors`: how this process has the board run fast while it has a model in memory.

Root writes governors, so a helper of root's does it (see governor_helper.py) for as long as a connection to
it is open. It is systemd's, behind a socket; a process that may write the governors itself, and finds no
such socket, starts one as its child.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from ..files import IMPORT_ROOT
from .sysroot import system_path

log = logging.getLogger("rkllama")

SOCKET = "/run/rkllama/governors.sock"
_LIMIT = 1.0
"""Seconds that a load waits for the helper; one that comes later is as good."""
_CHILD = """import sys
sys.path.insert(0, sys.argv.pop(1))
from rkllama.board.governor_helper import main
sys.exit(main(sys.argv[1:]))"""
"""Isolated (-I), so that neither the current directory nor a variable chooses what runs as root."""


class Governors:
    """Holds the governors while at least one model is in memory. Safe from several threads.

    It never fails: what cannot be done is logged once, and models run at the speed that they find.
    """

    def __init__(self, governors: str | None) -> None:
        """`governors` is the setting: "performance", or None to leave them alone."""
        self._wanted = governors is not None
        self._mutex = threading.Lock()
        self._models: set[str] = set()
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._told: set[str] = set()

    def hold(self, model: str) -> None:
        """Hold the governors for a model that is about to be loaded."""
        if self._wanted:
            with self._mutex:
                self._models.add(model)
                if self._connection is None or _has_ended(self._connection):
                    self._renew()

    def renew(self) -> None:
        """Hold them anew if the helper has died meanwhile; where there was none, it is not looked for."""
        if self._connection is not None:
            with self._mutex:
                if self._connection is not None and _has_ended(self._connection):
                    self._renew()

    def drop(self, model: str) -> None:
        """A model has gone; the governors stay until `settle`, as another one may take its place."""
        with self._mutex:
            self._models.discard(model)

    def settle(self) -> None:
        """Give the governors back if there is no model any more."""
        if self._wanted:
            with self._mutex:
                if not self._models:
                    self._let_go()

    def _renew(self) -> None:
        self._let_go()
        try:
            self._connection = self._ask()
        except OSError as error:  # no descriptor, or no memory, is left
            self._warn(error.strerror or str(error))

    def _ask(self) -> socket.socket | None:
        """Return a connection that holds the governors; None where there is no helper."""
        from .governor_helper import HOLD

        deadline = time.monotonic() + _LIMIT
        connection = self._connect()
        if connection is None:
            return None
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection.sendall(HOLD)
            reply = connection.recv(1 << 12)
        except TimeoutError:
            self._warn(
                f"their helper has not answered within {_LIMIT:g} s; the model is not kept waiting"
            )
            return connection
        except OSError:
            reply = b""
        if not reply:
            connection.close()
            self._warn(
                "their helper hung up: it serves root and the group rkllama, and is run from no home "
                "directory (journalctl -u rkllama-governors)"
            )
            return None
        self._tell(reply)
        return connection

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_LIMIT)
        try:
            connection.connect(system_path(SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return self._start()
        except OSError as error:
            connection.close()
            cure = "add this user to the group of the socket (sudo usermod -aG rkllama USER)"
            self._warn(f"{SOCKET}: {error.strerror or error}; {cure}")
            return None
        return connection

    def _start(self) -> socket.socket | None:
        """Start a helper as a child where this process may do what it does."""
        from .governor_keeper import scaled_clocks

        files = [system_path(clock.governor_file) for clock in scaled_clocks()]
        if not files:
            self._warn("this kernel has none that can be set")
            return None
        if not any(os.access(file, os.W_OK) for file in files):
            self._warn(
                "only root may set them, and their helper is not here: sudo rkllama service install"
            )
            return None
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD, IMPORT_ROOT],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,  # Ctrl-C, or the end of a terminal, is not for it
            )
        return ours

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_LIMIT)
            self._child = None

    def _tell(self, reply: bytes) -> None:
        """Log what a helper has set."""
        try:
            report: dict[str, Any] = json.loads(reply)
        except ValueError:
            return
        if report.get("error"):
            self._warn(report["error"])
        if report.get("set"):
            log.info("governors: performance for %s", ", ".join(report["set"]))
        for name, reason in report.get("refused", {}).items():
            self._warn(f"that of {name} cannot be set: {reason}")

    def _warn(self, text: str) -> None:
        """Log why governors stay as they are, once."""
        if text not in self._told:
            self._told.add(text)
            log.warning("governors: %s", text)


_ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "RKLLAMA_SYSROOT")
"""What a helper gets: what Python needs, and where the board is."""


def _has_ended(connection: socket.socket) -> bool:
    """Return whether a helper has gone; anything else that it sent late is read away."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while poll.poll(0):
        try:
            if not connection.recv(1 << 12):
                return True
        except OSError:
            return True
    return False
