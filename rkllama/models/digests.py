"""The sha256 of model files: computed once, kept beside them, never in the way of a request.

    models/.rkllama/digests.json    {"version": 1, "files": {"qwen/qwen.rkllm": [size, mtime_ns, "…"]}}

A file that changed has another size or mtime, and so no digest until it is computed again. One thread
computes, in the order of asking; it is started when there is work and ends with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections import deque
from typing import Any

from ..files import write_file
from .scan import PathStamp, stamp_at

_FOLDER = ".rkllama"
_FILE = "digests.json"
_SIZE_LIMIT = 16 << 20
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

Key = tuple[str, int, int]
"""Path relative to the models directory, size, mtime_ns."""


class DigestCache:
    """The digests of the files in the directory `root` (a real path)."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._file = os.path.join(root, _FOLDER, _FILE)
        self._lock = threading.Condition()
        self._known: dict[str, tuple[int, int, str]] = {}
        self._loaded: PathStamp | None = None
        self._waiting: deque[Key] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.changes = 0
        """Grows with every digest that is learnt."""

    def get(self, path: str, size: int, mtime_ns: int) -> str | None:
        """Return the digest of the file as it is now; None where it has not been computed."""
        with self._lock:
            entry = self._known.get(self._name(path))
        return entry[2] if entry is not None and entry[:2] == (size, mtime_ns) else None

    def refresh(self) -> None:
        """Adopt the digests that another process has computed meanwhile."""
        stamp = stamp_at(self._file)
        with self._lock:
            if stamp != self._loaded:
                self._known = {**self._known, **_read(self._file)}
                self._loaded = stamp
                self.changes += 1

    def provisional(self, path: str, size: int, mtime_ns: int) -> str:
        """64 hex digits that stand for the file until its digest is known: always the same ones."""
        text = f"{self._name(path)}\0{size}\0{mtime_ns}"
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def want(self, path: str, size: int, mtime_ns: int) -> None:
        """Have the digest computed in the background."""
        key = (self._name(path), size, mtime_ns)
        with self._lock:
            entry = self._known.get(key[0])
            if self._closed or key in self._waiting or (entry and entry[:2] == key[1:]):
                return
            self._waiting.append(key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
                self._thread.start()

    def put(self, path: str, digest: str) -> None:
        """Keep a known digest for the file as it is now; ignored if the file is gone."""
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"not a sha256: {digest!r}")
        with contextlib.suppress(OSError):
            status = os.stat(path)
            self._learn((self._name(path), status.st_size, status.st_mtime_ns), digest)

    def forget(self, path: str) -> None:
        """Drop the digest of a file that has been removed."""
        with self._lock:
            if self._known.pop(self._name(path), None) is not None:
                self._save()

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to compute; return whether that happened within `timeout` seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self._thread is None, timeout)

    def close(self) -> None:
        """End the computing; what is not finished starts afresh another time."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
        self.settle(5.0)

    def _name(self, path: str) -> str:
        return path.removeprefix(os.path.join(self._root, ""))

    # --- The thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        # The runtime needs the cores more. On Linux this is the priority of this thread alone.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    self._lock.notify_all()
                    return
                key = self._waiting[0]
            digest = self._compute(key)
            if digest is not None:
                self._learn(key, digest)
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(key)

    def _compute(self, key: Key) -> str | None:
        """Return the digest; None for a file that is gone, unreadable or not the one that was asked for."""
        name, size, mtime_ns = key
        try:
            with open(os.path.join(self._root, name), "rb", buffering=0) as stream:
                sha256 = hashlib.sha256()
                while block := stream.read(_BLOCK):
                    if self._closed:
                        return None
                    sha256.update(block)
                status = os.fstat(stream.fileno())
        except OSError:
            return None
        unchanged = (status.st_size, status.st_mtime_ns) == (size, mtime_ns)
        return sha256.hexdigest() if unchanged else None

    def _learn(self, key: Key, digest: str) -> None:
        with self._lock:
            self._known[key[0]] = (key[1], key[2], digest)
            self.changes += 1
            self._save()

    def _save(self) -> None:
        """Write the file atomically; a directory that cannot be written to is ignored."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._file), exist_ok=True)
            # Another process may have written since; its entries stay, ours are the newer ones.
            files = {**_read(self._file), **self._known}
            files = {name: v for name, v in files.items() if self._is_there(name)}
            content = json.dumps({"version": 1, "files": files}, indent=0)
            write_file(self._file, content.encode())
            self._loaded = stamp_at(self._file)

    def _is_there(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self._root, name))


def _read(file: str) -> dict[str, tuple[int, int, str]]:
    """Return the entries of a digests file that make sense."""
    try:
        with open(file, encoding="utf-8") as stream:
            content: Any = json.loads(stream.read(_SIZE_LIMIT))
        files = content["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: (v[0], v[1], v[2]) for name, v in files if _is_entry(v)}


def _is_entry(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and type(value[0]) is int
        and type(value[1]) is int
        and isinstance(value[2], str)
        and _SHA256.fullmatch(value[2]) is not None
    )
