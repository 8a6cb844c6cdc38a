"""How far a model is that is being loaded, told from what its process has read and has in memory."""

from __future__ import annotations

import contextlib
import os

from ..errors import RKLLamaError
from ..runner.proc import is_model_process, read_process
from ..service import Service
from ..types import ModelInfo

_LARGE = 200_000_000
"""Bytes of a model from which on the process itself, some 40 MB, does not count."""
_LEAST, _MOST = 5, 99
"""Percent that are shown: below, it may be nothing of the model; above, something else is being done."""


class LoadingText:
    """A spinner's text for a model that is being loaded, each time it is called."""

    def __init__(self, service: Service, model: ModelInfo) -> None:
        self._service = service
        self._model = model
        self._pid: int | None = None

    def __call__(self) -> str:
        """Return it as it is now; without percent where nothing tells them."""
        text = f"Loading {self._model.name}…"
        if self._model.size < _LARGE:
            return text
        if self._pid is None:
            self._pid = self._find()
        percent = 0 if self._pid is None else bytes_of(self._pid) * 100 // self._model.size
        return f"{text} {min(percent, _MOST)}%" if percent >= _LEAST else text

    def _find(self) -> int | None:
        """Return the model's process, unless it is another machine's."""
        with contextlib.suppress(RKLLamaError):
            for model in self._service.loaded():
                if model.state == "loading" and model.info.path == self._model.path and model.pid:
                    return model.pid if is_model_process(model.pid) else None
        return None


def bytes_of(pid: int) -> int:
    """Return how many bytes a process has read or has in memory, whichever is more; 0 if nothing tells."""
    resident = read_process(pid, "statm").split()
    memory = int(resident[1]) * os.sysconf("SC_PAGE_SIZE") if len(resident) > 1 else 0
    for line in read_process(pid, "io").splitlines():
        name, _, value = line.partition(b":")
        if name == b"rchar":
            return max(memory, int(value))
    return memory
