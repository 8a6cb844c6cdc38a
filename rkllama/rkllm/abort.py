"""Stopping a run of librkllmrt from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .callback import Results


class Aborter:
    """Calls rkllm_abort, always from a thread of its own.

    The vendor's way to stop a run is a call from another thread than the one that runs; what it does
    inside the callback is not known. The thread is started with the first abort.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._calling = threading.Lock()
        self._asked = threading.Event()
        self._results: Results | None = None
        """Those of the run in progress."""
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def running(self, results: Results) -> Iterator[None]:
        """Direct aborts at the run that gives `results` while the block runs."""
        with self._lock:
            self._results = results
        try:
            yield
        finally:
            with self._lock:
                self._results = None
                self._asked.clear()
            with self._calling:  # a call under way is over before another run can begin
                pass

    def cancel(self) -> None:
        """Stop the run in progress, if there is one."""
        with self._lock:
            if self._results is None:
                return
            if self._results.stopped is None:
                self._results.stopped = "cancelled"
            self.ask()  # under the lock: a moment later the run may be over and this hit the next one

    def ask(self) -> None:
        """Have rkllm_abort called for the run in progress."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="abort", daemon=True)
            self._thread.start()
        self._asked.set()

    def _serve(self) -> None:
        while True:
            self._asked.wait()
            with self._calling:
                with self._lock:
                    due = self._asked.is_set() and self._results is not None
                    self._asked.clear()
                    if self._closed:
                        return
                if due:
                    self._call()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closed = True
        self._asked.set()
        if self._thread is not None:
            self._thread.join()
