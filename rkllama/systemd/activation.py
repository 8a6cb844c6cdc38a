"""The socket that systemd listens on in a server's name and hands over on its start: sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from ..errors import ConfigError

_FIRST = 3
"""The number of the first file descriptor that is handed over."""
_HINT = (
    "Leave one ListenStream= with a TCP address in the socket unit: systemctl edit rkllama.socket"
)


def activated_socket(environ: MutableMapping[str, str]) -> socket.socket | None:
    """Return the listening TCP socket that was handed over to this process; None where there is none.

    The variables are taken out of `environ`, and no child inherits the socket. Raises ConfigError for
    sockets that cannot be served.
    """
    for_this_process = environ.pop("LISTEN_PID", "") == str(os.getpid())
    number = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not for_this_process or not number.isdecimal() or not number.lstrip("0"):
        return None
    if number.lstrip("0") != "1":
        raise ConfigError(f"systemd handed over {number[:20]} sockets; one is served", hint=_HINT)
    return _listening(_FIRST)


def _listening(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"what systemd handed over is no socket: {error.strerror}") from None
    tcp = listener.family in (socket.AF_INET, socket.AF_INET6)
    if not (tcp and listener.type == socket.SOCK_STREAM and listens):
        listener.detach()  # it is not ours to close
        raise ConfigError("systemd handed over a socket that does not listen on TCP", hint=_HINT)
    return listener
