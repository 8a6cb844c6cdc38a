"""What the kernel tells of a model's process on this machine: RKLLAMA_SYSROOT does not concern it."""

from __future__ import annotations

_MARK = b"rkllama.runner.child"


def is_model_process(pid: int) -> bool:
    """Return whether a process of this machine runs a model.

    A server's address does not tell whether its processes are here: it may be the near end of a tunnel.
    """
    return _MARK in read_process(pid, "cmdline")


def read_process(pid: int, name: str) -> bytes:
    """Return one of the kernel's files on a process; empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as stream:
            return stream.read()
    except OSError:
        return b""
