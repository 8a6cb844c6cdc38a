"""The states on this board: found, kept within their budget, written whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..files import RESERVE, free_space
from .disk import Disk
from .folder import Folder
from .header import Header
from .index import Entry, Index
from .policy import Speeds

log = logging.getLogger("rkllama")

_SHARE = 10
"""The default budget is one such part of what is free, the states themselves counted as free."""
_MOST = 4 << 30
FAILURES = 2
"""Failures from which on a runtime is not trusted any more."""
_OWN = 4096
"""Bytes of the disk that a state's header takes."""


class Figures(NamedTuple):
    """What /metrics tells of the states; bytes and counts since the start, but for the first two."""

    states: int
    size: int
    budget: int
    hits: int
    misses: int
    loaded: int
    written: int
    written_in_hour: int
    hourly: int
    seconds_saved: float
    refused: int
    """States that were found damaged, foreign or not what the runtime made of them."""


@dataclass(slots=True)
class Draft:
    """A file that the runtime is to write; `size` is what it is expected to take."""

    state: str
    path: str
    size: int


class StateStore:
    """The directory of states, for one process. `open` it first; thread-safe then."""

    def __init__(self, path: str, budget: int | None = None, hourly: int | None = None) -> None:
        """`budget` and `hourly` are bytes, None for the defaults; a budget of 0 is no store at all."""
        self._folder = Folder(path)
        self._disk = Disk(self._folder.path, hourly)
        self._wanted = budget
        self._budget = 0
        self._index = Index()
        self._last_use = 0
        self._drafts: dict[str, Draft] = {}
        self._lock = threading.RLock()
        self._commits: list[threading.Thread] = []
        self._closed = False
        self._hits = self._misses = self._refused = 0
        self._loaded = self._written = 0
        self._saved = 0.0

    def open(self) -> bool:
        """Take the directory and read its headers; False where there is nothing to be had from it, which the
        log says.
        """
        if self._wanted == 0:
            return False
        try:
            if not self._folder.take():
                log.info("conversations are not kept: another process uses %s", self._folder.path)
                return False
            self._disk.open()
            self._read()
        except OSError as error:
            self._folder.release()
            log.warning("conversations are not kept in %s: %s", self._folder.path, error)
            return False
        return True

    def _read(self) -> None:
        for state, header, used in self._folder.headers():
            stamp = self._folder.stamp(state)
            if stamp is not None and stamp.size == header.size:
                self._index.add(Entry(state, header, used))
                self._last_use = max(self._last_use, used)
        self._folder.sweep({entry.state for entry in self._index})
        held = self._index.size
        self._budget = self._wanted or min(_MOST, (free_space(self._folder.path) + held) // _SHARE)
        self._make_room(0)

    @property
    def directory(self) -> str:
        """Where they are."""
        return self._folder.path

    @property
    def speeds(self) -> Speeds:
        """What the disk does."""
        return self._disk.speeds

    @property
    def budget(self) -> int:
        """Bytes that the states may take."""
        return self._budget

    def bytes_per_token(self, key: str) -> float | None:
        """Return the bytes that a token takes in the states of `key`; None where none has told."""
        return self._index.bytes_per_token(key)

    # --- Finding and loading -------------------------------------------------------------------

    def find(self, key: str, text: bytes, fits: Callable[[Entry], bool]) -> Entry | None:
        """Return the longest state that is a prefix of `text` and that `fits`."""
        with self._lock:
            return next((entry for entry in self._index.matches(key, text) if fits(entry)), None)

    def path(self, entry: Entry) -> str | None:
        """Return the path of a state's file, found to be whole; None for one that is not, which is dropped.

        Its content is read once in a process; from then on what the system tells of the file has to
        stay as it was.
        """
        stamp = self._folder.stamp(entry.state)
        if stamp is None or stamp.size != entry.header.size:
            self._refuse(entry, "its file is gone or another one")
            return None
        if entry.stamp is None:
            started = time.perf_counter()
            if self._folder.crc(entry.state) != entry.header.crc:
                self._refuse(entry, "its file is damaged")
                return None
            with self._lock:
                self._disk.note_read(stamp.size, time.perf_counter() - started)
            entry.stamp = stamp
        # Its times may change until what the runtime wrote has come to the disk.
        if entry.stamp != stamp and not (entry.stamp[:2] == stamp[:2] and not entry.committed):
            self._refuse(entry, "its file has changed")
            return None
        return self._folder.payload(entry.state)

    def _refuse(self, entry: Entry, reason: str) -> None:
        log.warning("a saved conversation of %s is dropped: %s", entry.header.model, reason)
        self._refused += 1
        self.drop(entry)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Drop a state that the runtime did not take, or that it did not use as it should."""
        self._refuse(entry, reason)

    def has_failed(self, runtime: str) -> bool:
        """Return whether a runtime (see key.identity_key) has shown that it cannot do with states."""
        with self._lock:
            return self._folder.failures(runtime) >= FAILURES

    def note_failure(self, runtime: str, *, sure: bool) -> None:
        """Remember a failure of a runtime, in later processes too, until the states are cleared. What may
        have had another reason counts when it comes again.
        """
        with self._lock:
            self._folder.note_failures(runtime, FAILURES if sure else 1)

    def note_hit(self, entry: Entry, seconds: float, saved: float) -> None:
        """Count a state that was loaded in `seconds` and spared `saved` seconds."""
        with self._lock:
            self._hits += 1
            self._loaded += entry.header.size
            self._saved += max(0.0, saved)
            self._disk.note_read(entry.header.size, seconds)
            entry.used = self._next_use()
            self._folder.touch(entry.state, entry.used)

    def _next_use(self) -> int:
        """Return the time, later than that of every other use: the order of uses is what counts, also on a
        board whose clock was set back, and within one tick of the kernel's.
        """
        self._last_use = max(time.time_ns(), self._last_use + 1)
        return self._last_use

    def note_miss(self) -> None:
        """Count a long prompt for which there was nothing, neither here nor in memory."""
        self._misses += 1

    def drop(self, entry: Entry) -> None:
        """Remove a state."""
        with self._lock:
            self._index.remove(entry)
            self._folder.remove(entry.state)

    # --- Writing -------------------------------------------------------------------------------

    def draft(self, size: int, superseded: Entry | None = None) -> Draft | None:
        """Return a place for a state of about `size` bytes; None where budget, disk or wear do not allow it.

        States make room for it: first the one that it supersedes, which is in the runtime's memory.
        """
        with self._lock:
            needed = size + _OWN
            if self._closed or needed > self._budget:
                return None
            if not self._disk.may_write(needed + self._drafted()):
                return None
            if self.lacks_space(needed):
                return None
            if self._room() < needed and superseded is not None:
                self.drop(superseded)
            self._make_room(needed)
            state = os.urandom(8).hex()
            try:
                draft = Draft(state, self._folder.draft(state), needed)
            except OSError:
                return None
            self._drafts[state] = draft
            return draft

    def lacks_space(self, size: int) -> bool:
        """Return whether the disk has no room for `size` bytes more, whatever the budget says."""
        return free_space(self._folder.path) < size + RESERVE

    def _room(self) -> int:
        return self._budget - self._index.size - _OWN * len(self._index) - self._drafted()

    def _drafted(self) -> int:
        return sum(draft.size for draft in self._drafts.values())

    def _make_room(self, needed: int) -> None:
        """Drop the least recently used states, pinned ones last."""
        if self._room() >= needed:
            return
        for entry in sorted(self._index, key=lambda entry: (entry.header.pinned, entry.used)):
            self.drop(entry)
            if self._room() >= needed:
                return

    def discard(self, draft: Draft) -> None:
        """Remove what was written to a draft, if anything."""
        with self._lock:
            if self._drafts.pop(draft.state, None) is not None:
                with suppress(OSError):
                    self._disk.note_write(os.stat(draft.path).st_size)
                self._folder.remove(draft.state)

    def keep(
        self, draft: Draft, text: bytes, header: Header, superseded: Entry | None = None
    ) -> Entry | None:
        """Take what the runtime has written to a draft: it can be loaded at once, and outlives this process
        as soon as it is on the disk. The state that it supersedes goes then. What `header` says of
        the text and of the file is filled in here.
        """
        with self._lock:
            if self._closed or draft.state not in self._drafts:
                return None
            size = self._written_size(draft, header.model)
            if size == 0:
                self.discard(draft)
                return None
            del self._drafts[draft.state]
            header = replace(
                header,
                prefix=hashlib.sha256(text).hexdigest(),
                prefix_crc=zlib.crc32(text),
                length=len(text),
                size=size,
                created=time.time(),
            )
            stamp = self._folder.stamp(draft.state)
            entry = Entry(draft.state, header, self._next_use(), stamp, committed=False)
            self._written += size
            self._disk.note_write(size)
            self._index.add(entry)
            self._make_room(0)
            if entry not in self._index:
                return None
            self._start_commit(entry, superseded)
            return entry

    def _written_size(self, draft: Draft, model: str) -> int:
        """Return the size of what the runtime has written, which is a state's file from now on; else 0."""
        try:
            return self._folder.written(draft.state)
        except OSError as error:
            log.warning("a conversation of %s is not kept: %s", model, error)
            return 0

    def _start_commit(self, entry: Entry, superseded: Entry | None) -> None:
        thread = threading.Thread(
            target=self._commit, args=(entry, superseded), name="states", daemon=True
        )
        thread.start()  # Ctrl-C may keep it from starting: then there is none to wait for
        self._commits = [other for other in self._commits if other.is_alive()] + [thread]

    def _commit(self, entry: Entry, superseded: Entry | None) -> None:
        """Bring a state to the disk, in a thread of its own: the next run does not wait for it."""
        started = time.perf_counter()
        try:
            self._folder.sync(entry.state)
            seconds = time.perf_counter() - started
            crc, stamp = self._folder.crc(entry.state), self._folder.stamp(entry.state)
            with self._lock:
                self._disk.note_sync(entry.header.size, seconds)
                if entry not in self._index or crc is None:
                    self.drop(entry)
                    return
                entry.header = replace(entry.header, crc=crc)
                self._folder.commit(entry.state, entry.header, entry.used)
                entry.stamp, entry.committed = stamp, True
                if superseded is not None and not superseded.header.pinned:
                    self.drop(superseded)
        except OSError as error:
            if entry in self._index:
                log.warning("a conversation of %s is not kept: %s", entry.header.model, error)
                self.drop(entry)

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until what was kept is on the disk."""
        deadline = time.monotonic() + timeout
        for thread in list(self._commits):
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self, timeout: float = 10.0) -> None:
        """Bring what was kept to the disk, and let another process have the directory."""
        with self._lock:
            self._closed = True
        self.settle(timeout)
        with self._lock:
            for draft in list(self._drafts.values()):
                self.discard(draft)
            self._folder.release()

    def figures(self) -> Figures:
        """What is there and what was done."""
        with self._lock:
            return Figures(
                states=len(self._index),
                size=self._index.size,
                budget=self._budget,
                hits=self._hits,
                misses=self._misses,
                loaded=self._loaded,
                written=self._written,
                written_in_hour=self._disk.recent,
                hourly=self._disk.hourly,
                seconds_saved=self._saved,
                refused=self._refused,
            )
