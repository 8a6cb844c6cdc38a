"""The model of `rkllama serve --model`: it is in memory from the start, and again after its process died."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...errors import RKLLamaError

log = logging.getLogger("rkllama")

_FIRST, _LONGEST = 5.0, 300.0
"""Seconds between two tries to load it: twice as many after each that failed."""


class Keeper:
    """Loads a model in a thread of its own, whenever it is to be in memory and is not."""

    def __init__(self, name: str, path: str, load: Callable[[], object]) -> None:
        """`load` loads the model, or finds that it is in memory. Raises RKLLamaError."""
        self._name = name
        self.path = path
        self._load = load
        self._change = threading.Condition()
        self._missing = True
        self._losses = 0
        self._ended = False

    @property
    def missing(self) -> bool:
        """Whether the model is to be in memory, and is not."""
        return self._missing and not self._ended

    def start(self) -> None:
        """Begin to load it; nobody waits for that."""
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def note_lost(self, path: str) -> None:
        """Load the model again if it is the one at `path`, whose process has died."""
        if path == self.path:
            with self._change:
                self._missing = True
                self._losses += 1
                self._change.notify()

    def end(self, path: str | None = None) -> None:
        """Leave the model alone from now on, if it is the one at `path`: the user has unloaded it. Without
        a `path` the server is about to end.
        """
        if path in (None, self.path):
            with self._change:
                self._ended = True
                self._change.notify()

    def _run(self) -> None:
        delay = _FIRST
        while self._wait():
            losses = self._losses
            try:
                self._load()
            except RKLLamaError as error:
                if self._ended:
                    return
                log.error("--model %s: %s", self._name, error.text)
                with self._change:
                    self._change.wait_for(lambda: self._ended, delay)
                delay = min(2 * delay, _LONGEST)
            else:
                delay = _FIRST
                with self._change:
                    self._missing = self._losses != losses

    def _wait(self) -> bool:
        """Wait until the model is missing; return False at the end."""
        with self._change:
            self._change.wait_for(lambda: self._missing or self._ended)
            return not self._ended
