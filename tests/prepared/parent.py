"""The process that has imported what `python -m rkllama` imports, and forks; start.py asks it."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import runpy
import signal
import socket
import sys
from typing import Any

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT = 0x8000
_MODULES = (
    "typer",
    "jinja2",
    "waitress",
    "bottle",
    "rkllama.cli",
    "rkllama.engine.service",
    "rkllama.chat.sandbox",
    "rkllama.console.one_file",
    "rkllama.console.pictures.files",
    "rkllama.client.remote",
    "rkllama.server.app",
    "rkllama.server.transport",
    "rkllama.commands.run",
    "rkllama.commands.models",
    "rkllama.commands.chats",
    "rkllama.commands.logs",
    "rich.console",
    "rich.progress",
    "httpx",
    "yaml",
    "filelock",
    "tqdm.auto",
)
"""None of these reads a variable of ours when it is imported, as huggingface_hub does."""


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns twice: None when the connection ends, and a request in each child."""
    while True:
        length, streams, _, _ = socket.recv_fds(connection, 4, 3)
        if not length:
            return None
        body = b""
        while len(body) < int.from_bytes(length, "big"):
            body += connection.recv(int.from_bytes(length, "big") - len(body))
        pid = _fork_for_our_parent()
        if not pid:
            connection.close()
            _take(streams)
            request: dict[str, Any] = json.loads(body)
            return request
        for fd in streams:
            os.close(fd)
        connection.sendall(b"%d\n" % pid)


def _fork_for_our_parent() -> int:
    """os.fork, but for whose child it is: the test's, who waits for it."""
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None)
    number = _CLONE[platform.machine()]
    python.PyOS_BeforeFork()
    pid: int = libc.syscall(number, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError("the process cannot be made")
    return pid


def _take(streams: list[int]) -> None:
    """Make these descriptors the standard streams."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in streams:
        os.close(fd)
    was = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    for number, (name, old) in enumerate(was.items()):
        stream = open(  # noqa: SIM115 - it stays open
            number, "w" if number else "r", -1, old.encoding, old.errors, "\n", closefd=False
        )
        stream.reconfigure(write_through=old.write_through)
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def become(request: dict[str, Any]) -> None:
    """Take what a process gets when it is started."""
    if request["session"]:
        os.setsid()
    if request["terminal"]:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.umask(request["umask"])
    for one, limit in request["limits"]:
        if resource.getrlimit(one) != tuple(limit):
            resource.setrlimit(one, limit)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.path[0] = request["directory"]
    sys.argv = ["rkllama", *request["arguments"]]


def main() -> None:
    """Import, and fork as long as somebody asks."""
    for name in _MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    try:
        request = serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    if request is not None:
        become(request)
        runpy.run_module("rkllama", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
