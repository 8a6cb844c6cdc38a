"""Root's part of the setting `governors`: it sets governors to "performance" while somebody asks for it.

    server ──connects, sends one byte──▶ helper ──writes──▶ /sys/…/governor
           ◀──a line of JSON: what was set──

An open connection that has sent HOLD is a hold. While there is one, "performance" stands; when the last one
ends, and the kernel closes it however the server died, what stood there before is written back. What a peer
says chooses nothing else: no path and no value comes from it.

A helper that was killed does no harm: the next one, or systemd with `--restore`, puts back what it has left
(see governor_keeper.py). Servers of root's have a helper each where systemd has none.

Its unit, rkllama-governors.service, runs it as `rkllama governor-helper`. It takes its connections from
systemd's socket (LISTEN_FDS), or has one connection as its standard input. It ends when nobody has been
there for a while.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Sequence

from .governor_keeper import Keeper
from .sysroot import system_path

HOLD = b"h"
_STATE = "/run/rkllama-governors"
_IDLE = 30.0
"""Seconds without a connection after which the helper ends: a model that comes at once finds it running."""
_PATIENCE = 5.0
"""Seconds in which a peer has to ask for something."""
_MOST = 16
"""Connections at a time; each server has one."""
_LISTEN_FD = 3
"""The first descriptor that systemd passes."""
_SO_PEERGROUPS = 59
"""The same on every architecture that has the NPU; Python has no name for it."""


class Helper:
    """Serves connections until nobody is there any more."""

    def __init__(
        self,
        keeper: Keeper,
        listener: socket.socket | None,
        connection: socket.socket | None,
        *,
        idle: float = _IDLE,
        patience: float = _PATIENCE,
    ) -> None:
        self._keeper = keeper
        self._listener = listener
        self._idle = idle
        self._patience = patience
        self._waiting: dict[socket.socket, float] = {}
        """Connections that have not asked yet, and until when they may."""
        self._holders: set[socket.socket] = set()
        self._poll = select.poll()
        if listener is not None:
            listener.setblocking(False)
            self._poll.register(listener, select.POLLIN)
        if connection is not None:
            self._add(connection)

    def run(self, wake: int) -> None:
        """Serve until nobody is there, or `wake` can be read; then put back what was before."""
        self._poll.register(wake, select.POLLIN)
        try:
            while self._listener is not None or self._connections():
                ready = {fd for fd, _ in self._poll.poll(self._timeout())}
                if wake in ready or not (ready or self._connections()):
                    return
                self._serve(ready)
        finally:
            self._keeper.release()
            for connection in self._connections():
                self._end(connection)

    def _connections(self) -> list[socket.socket]:
        return [*self._waiting, *self._holders]

    def _timeout(self) -> float | None:
        """Return milliseconds to wait for something."""
        if self._waiting:
            return max(0.0, min(self._waiting.values()) - time.monotonic()) * 1000
        return None if self._holders else self._idle * 1000

    def _serve(self, ready: set[int]) -> None:
        for connection in self._connections():
            if connection.fileno() in ready:
                self._read(connection)
        for connection, deadline in list(self._waiting.items()):
            if deadline <= time.monotonic():
                self._end(connection)
        if not self._holders:
            self._keeper.release()
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # it has gone again
            return
        if len(self._connections()) >= _MOST or not _may_ask(connection, listener):
            connection.close()
        else:
            self._add(connection)

    def _add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._waiting[connection] = time.monotonic() + self._patience
        self._poll.register(connection, select.POLLIN)

    def _end(self, connection: socket.socket) -> None:
        self._poll.unregister(connection)
        self._waiting.pop(connection, None)
        self._holders.discard(connection)
        connection.close()

    def _read(self, connection: socket.socket) -> None:
        """Take what a peer asks for; one that asks for anything but a hold is sent away."""
        try:
            asked = connection.recv(16)
        except BlockingIOError:
            return
        except OSError:
            asked = b""
        if asked != HOLD or connection in self._holders:
            self._end(connection)
            return
        del self._waiting[connection]
        self._holders.add(connection)
        with contextlib.suppress(OSError):  # it has gone again: the next reading tells
            connection.send(json.dumps(self._hold()).encode() + b"\n")

    def _hold(self) -> dict[str, object]:
        try:
            return self._keeper.hold()._asdict()
        except OSError as error:
            return {"error": f"what was before cannot be kept: {error.strerror or error}"}


def _may_ask(connection: socket.socket, listener: socket.socket) -> bool:
    """Return whether a peer is root, this user, or of the group that the socket belongs to."""
    _, uid, gid = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    if uid in (0, os.geteuid()):
        return True
    try:
        about = os.stat(listener.getsockname())
    except OSError:
        return False
    if not about.st_mode & stat.S_IWGRP:
        return False
    return about.st_gid == gid or about.st_gid in _groups(connection)


def _groups(connection: socket.socket) -> set[int]:
    """Return the further groups of a peer; none before Linux 4.13, or where there are more than 256."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        return set()
    return {number for (number,) in struct.iter_unpack("I", data)}


def state_directory() -> str:
    """Return where helpers keep what was before: where systemd says, else below /run."""
    return os.environ.get("RUNTIME_DIRECTORY") or system_path(_STATE)


def _local_socket(fd: int, *, listens: bool) -> socket.socket:
    """Return what was handed over. Raises OSError for anything but a stream of this machine's that listens,
    or does not: another one could always be read, and the helper would never rest.
    """
    found = socket.socket(fileno=fd)
    is_local = (found.family, found.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
    if not is_local or bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) != listens:
        found.detach()
        raise OSError(errno.ENOTSUP, "it is another kind of socket")
    return found


def _wake_on_signals() -> int:
    """Return a descriptor that can be read as soon as the process is told to end."""
    wake, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake


def main(arguments: Sequence[str]) -> int:
    """Serve, or with `--restore` only put back what a killed helper has left; return the exit code."""
    if list(arguments) not in ([], ["--restore"]):
        sys.stderr.write("The only option is --restore.\n")
        return 2
    wake = _wake_on_signals()
    try:
        keeper = Keeper(state_directory())
    except OSError as error:
        sys.stderr.write(f"{state_directory()} cannot be used: {error.strerror or error}\n")
        return 1
    if arguments:
        return 0
    try:
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            helper = Helper(keeper, _local_socket(_LISTEN_FD, listens=True), None)
        else:
            helper = Helper(keeper, None, _local_socket(0, listens=False))
    except OSError:
        sys.stderr.write("This is started by systemd, or by a server that runs as root.\n")
        return 2
    helper.run(wake)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
