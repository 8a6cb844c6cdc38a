"""What `doctor` finds on the machine of a running server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ...config import SETTINGS, Settings


class Examination:
    """The checks of one machine, one run of them at a time: who asks meanwhile gets the result of that.

    They read files and wait for programs in threads of their own, and take nothing that an answer needs.
    """

    def __init__(self, settings: Settings, url: str | None) -> None:
        """`url` is where the server really listens, which the settings may leave open."""
        values = {setting.name: getattr(settings, setting.name) for setting in SETTINGS}
        self._settings = Settings(**values | ({"host": url} if url else {}))
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def result(self) -> Mapping[str, Any]:
        """Return the object that `rkllama doctor --json` prints."""
        own = _Run()
        with self._lock:
            run = self._run = self._run or own
        if run is own:
            try:
                run.findings = self._examine()
            finally:
                with self._lock:
                    self._run = None
                run.ended.set()
        run.ended.wait()
        if run.findings is None:  # it failed for the one who began it
            return self._examine()
        return run.findings

    def _examine(self) -> Mapping[str, Any]:
        from ...doctor.checks import examine
        from ...doctor.finding import Subject
        from ...doctor.objects import findings_object

        return findings_object(examine(Subject(settings=self._settings)))


class _Run:
    """A run of the checks, and what it has found when it has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.findings: Mapping[str, Any] | None = None
