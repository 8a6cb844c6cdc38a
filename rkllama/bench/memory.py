"""The models in memory: putting them back after a measurement, and what the kernel tells of the process that
runs the measured one.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

from ..errors import RKLLamaError
from ..runner.proc import is_model_process, read_process
from ..service import Service
from ..types import LoadedModel, ModelInfo

_IN_USE = ("busy", "loading")


def find_loaded(service: Service, info: ModelInfo) -> LoadedModel | None:
    """Return a model as it is in memory; None where it is not."""
    return next((model for model in service.loaded() if model.info.path == info.path), None)


def unload_idle(service: Service, info: ModelInfo) -> bool:
    """Unload a model; return whether it is out of memory now. One that answers somebody else stays."""
    loaded = find_loaded(service, info)
    if loaded is None:
        return True
    if loaded.state in _IN_USE:
        return False
    service.unload(info.name)
    return True


class Residents:
    """What a service has in memory at the beginning; `keep_alive` is in seconds, for a model that stays."""

    def __init__(self, service: Service, measured: ModelInfo, keep_alive: float) -> None:
        self._service = service
        self._measured = measured
        self._keep_alive = keep_alive
        self.models = tuple(service.loaded())

    @property
    def in_use(self) -> tuple[str, ...]:
        """The names of those that somebody else uses."""
        return tuple(model.info.name for model in self.models if model.state in _IN_USE)

    def restore(self) -> None:
        """Unload the measured model, and load again what was to stay: what had no end, and the measured model
        itself, which other requests may expect. What cannot be loaded is left out.
        """
        with contextlib.suppress(RKLLamaError):
            if not unload_idle(self._service, self._measured):
                # Perhaps it is our own answer that is still being broken off: this waits for its end.
                self._service.load(self._measured.name, keep_alive=self._keep_alive)
                unload_idle(self._service, self._measured)
        for model in reversed(self.models):  # the most recently used one last
            if model.expires is None or model.info.path == self._measured.path:
                self._load(model)

    def _load(self, model: LoadedModel) -> None:
        keep_alive = -1.0 if model.expires is None else model.expires - time.time()
        if model.expires is not None and keep_alive <= 0:
            return
        with contextlib.suppress(RKLLamaError):
            if find_loaded(self._service, model.info) is None:
                self._service.load(model.info.name, keep_alive=keep_alive)


# --- The model's process -----------------------------------------------------------------------


def is_here(model: LoadedModel) -> bool:
    """Return whether the model's process runs on this machine."""
    return model.pid is not None and is_model_process(model.pid)


def peak_memory(pid: int) -> int | None:
    """Return the most bytes that a process and those that it started have had resident; each one's own peak.

    None where the kernel does not tell.
    """
    peaks = [_status_kilobytes(one, "VmHWM") for one in (pid, *_descendants(pid))]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) * 1024 if known else None


def cpu_affinity(pid: int) -> str | None:
    """Return the CPUs that a process may run on, "0-3,6"."""
    match = re.search(rb"(?m)^Cpus_allowed_list:\s*(\S+)", read_process(pid, "status"))
    return match[1].decode() if match else None


def _status_kilobytes(pid: int, name: str) -> int | None:
    match = re.search(rb"(?m)^%s:\s*(\d+) kB" % name.encode(), read_process(pid, "status"))
    return int(match[1]) if match else None


def _descendants(pid: int) -> Iterator[int]:
    """Yield what a process has started, such as a llama-server."""
    for child in map(int, read_process(pid, f"task/{pid}/children").split()):
        yield child
        yield from _descendants(child)
