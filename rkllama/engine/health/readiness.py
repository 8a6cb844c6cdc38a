"""Whether a request would be served now, and what keeps it from that."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Sequence

from ...backends.kinds import kind_of
from ...board.lock import NPULock
from ...config import Settings
from ...errors import RKLLamaError
from ...models.guide import means_guide
from ...models.metadata import StoredModel
from ...models.store import Store
from ...rkllm.installed import UNKNOWN, Runtimes
from ...rkllm.library import look_for_library
from ...types import DRAINING, Unready
from ..memory.pool import Pool
from .keeper import Keeper

_AGAIN = 5.0
"""Seconds after which a runtime that was not found is looked for again."""


class Readiness:
    """The checks of one server: cheap enough to be asked every second by several balancers."""

    def __init__(self, settings: Settings, store: Store, pool: Pool, npu_lock: NPULock) -> None:
        self._settings = settings
        self._store = store
        self._pool = pool
        self._npu_lock = npu_lock
        self.keeper: Keeper | None = None
        """Keeps the model that is to be in memory all the time, if there is one."""
        self._release = ""
        self._library = _Sought(self._find_library)
        self._llama_cpp = _Sought(_find_llama_cpp)
        self._programs: dict[str, _Sought] = {}

    def obstacle(self, name: str | None = None) -> Unready | None:
        """Return why a request for the model `name` would not be served; None: it would be.

        Without a `name` it is about the models for the NPU where there are any, else about all.
        """
        if self._pool.scheduler.draining:
            return DRAINING
        if name is None:
            return self._of_machine() or self._of_pool()
        try:
            # Nobody needs a key to ask: a beginning would be found letter by letter.
            model = self._store.resolve(name, install=False, prefix=False)
        except RKLLamaError as error:
            # Its own text may name other models.
            return Unready(reason=error.code, text="There is no such model to run here.")
        return self._of_model(model) or self._of_pool(model.info.path)

    # --- The runtime and the NPU ---------------------------------------------------------------

    def _of_machine(self) -> Unready | None:
        try:
            models = [model for model in self._store.list() if not means_guide(model.name)]
        except RKLLamaError as error:
            return Unready(reason=error.code, text="The models directory cannot be read.")
        needs = {kind_of(model.path).needs_npu for model in models}
        if True in needs:
            return self._of_npu()
        if False in needs or self._library.is_missing():
            return self._of_cpu(self._settings.llama_server)
        return None

    def _of_model(self, model: StoredModel) -> Unready | None:
        path = model.info.path
        if any(loaded.info.path == path for loaded in self._pool.loaded()):
            return None
        program = self._pool.program_of(model)
        return self._of_npu() if kind_of(path).needs_npu and not program else self._of_cpu(program)

    def _of_npu(self) -> Unready | None:
        if self._library.is_missing():
            return Unready(reason="no_runtime", text="The NPU's runtime, librkllmrt, is not here.")
        if self._npu_lock.is_elsewhere():
            return Unready(reason="npu_busy", text="Another process holds the NPU.")
        return None

    def _of_cpu(self, program: Sequence[str]) -> Unready | None:
        if program:
            file = program[0]
            sought = self._programs.setdefault(file, _Sought(lambda: shutil.which(file)))
            if sought.is_missing():
                return Unready(
                    reason="no_runtime", text="The setting llama_server names no program."
                )
        elif self._llama_cpp.is_missing():
            return Unready(reason="no_runtime", text="The CPU backend, llama.cpp, is not here.")
        return None

    def _find_library(self) -> str | None:
        library = self._settings.rkllm_lib
        if library:
            path, version = look_for_library(library, os.environ)
            self._release = version or UNKNOWN
            return path
        newest = next(iter(Runtimes(self._settings.home).installed()), None)
        self._release = newest.release if newest else ""
        return newest.path if newest else None

    @property
    def release(self) -> str:
        """The newest release of librkllmrt that is here; "" where none is."""
        return "" if self._library.is_missing() else self._release

    # --- What goes on --------------------------------------------------------------------------

    def _of_pool(self, path: str | None = None) -> Unready | None:
        """Return what keeps a request for the model at `path`, or for any, from being served."""
        if self._pool.crashes.is_loop(path):
            return Unready(reason="crash_loop", text="Models' processes die again and again.")
        keeper = self.keeper
        if keeper is not None and keeper.missing and path in (None, keeper.path):
            text = "The model that is to be in memory all the time is not loaded."
            return Unready(reason="model_not_loaded", text=text)
        if self._pool.scheduler.is_full(path):
            return Unready(reason="queue_full", text="As many requests wait as may.")
        return None


class _Sought:
    """A file that is looked for: what was found is checked by a stat, what was not is looked for again when
    some seconds have passed.
    """

    def __init__(self, find: Callable[[], str | None]) -> None:
        self._find = find
        self._path: str | None = None
        self._until = 0.0

    def is_missing(self) -> bool:
        """Return whether there is no such file."""
        if self._path is not None and os.path.exists(self._path):
            return False
        now = time.monotonic()
        if now >= self._until:
            self._path, self._until = self._find(), now + _AGAIN
        return self._path is None


def _find_llama_cpp() -> str | None:
    importlib.invalidate_caches()  # it may have been installed just now
    spec = importlib.util.find_spec("xllamacpp")
    return None if spec is None else spec.origin
