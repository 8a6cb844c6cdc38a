"""Scanning a models directory again and again, at the price of a `stat` or two per model.

A folder whose mtime is unchanged has the same files in it, so only what changed costs a real scan.
"""

from __future__ import annotations

import os
import time

from .scan import Entry, Scan, Stamp, stamp_at

_SETTLED_NS = 2_000_000_000
"""A path that changed less than this before it was read may change again under the same mtime: some
file systems count in steps of two seconds."""


class Watch:
    """The entries of the directory `models`, and whether they still are what they were.

    Not safe for several threads at once.
    """

    def __init__(self, models: str) -> None:
        self._models = models
        self._entries: tuple[Entry, ...] = ()
        self._seen: dict[str, Stamp | None] = {}

    def entries(self) -> tuple[Entry, ...]:
        """The entries now; the very same tuple as before where nothing has changed.

        Raises ModelsDirMissing, ConfigError.
        """
        if not self._seen or not all(map(self._unchanged, self._seen)):
            self._seen = {}  # should the scan fail, nothing is known
            seen: dict[str, Stamp] = {}
            settled = time.time_ns() - _SETTLED_NS
            entries = tuple(Scan(self._models, seen).entries())
            self._entries = entries if entries != self._entries else self._entries
            self._seen = {path: at if at[0] < settled else None for path, at in seen.items()}
        return self._entries

    def is_current(self, entry: Entry) -> bool:
        """Whether a model, its folder, and which folders there are is as it was: three stats."""
        around = {os.path.realpath(self._models), os.path.dirname(entry.path), entry.path}
        return all(path in self._seen and self._unchanged(path) for path in around)

    def _unchanged(self, path: str) -> bool:
        return self._seen[path] == stamp_at(path)
