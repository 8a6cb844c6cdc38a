"""Which release of librkllmrt a model is loaded with: one after the other, until one loads it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace

from ...backends.base import LoadedInfo, LoadSpec
from ...board.soc import read_soc
from ...clib.elf import machine
from ...config import Settings
from ...errors import LibraryNotFound, LoadFailed, UnknownRuntime, WrongRuntime
from ...models.filename import parse_model_name
from ...rkllm.installed import Candidates, Installed, Runtimes
from ...rkllm.log import read_facts
from ...rkllm.releases import are_bad_together, wanted_release
from ...types import ModelInfo

log = logging.getLogger("rkllama")

_UNFIT = (WrongRuntime, LibraryNotFound, UnknownRuntime)
"""Failures of a load after which another release may do."""


class RuntimeLoader:
    """Loads models with the releases that are installed below the home directory."""

    def __init__(self, settings: Settings) -> None:
        self._runtimes = Runtimes(settings.home)
        self._decided = settings.rkllm_lib is not None or settings.rkllm_abi is not None
        """Whether the settings name a library: then there is nothing to choose."""

    def load(
        self, info: ModelInfo, spec: LoadSpec, attempt: Callable[[LoadSpec], LoadedInfo]
    ) -> LoadedInfo:
        """Return what `attempt` returns with the first release that can use the model; it is remembered.

        Raises WrongRuntime, which names those that were tried, and whatever else `attempt` raises.
        """
        toolkit = _toolkit_in_name(info)
        failed: dict[str, LoadFailed] = {}
        while True:
            candidates = self._candidates(info, toolkit)
            left = [one for one in candidates.installed if one.release not in failed]
            if not left:
                if failed:
                    raise _none_fits(info, candidates, failed)
                return attempt(spec)  # its error says where a library was looked for
            try:
                loaded = attempt(replace(spec, library=left[0].path))
            except _UNFIT as error:
                if candidates.binding:
                    raise
                log.info("%s on librkllmrt %s: %s", info.name, left[0].release, error.message)
                failed[left[0].release] = error
                toolkit = read_facts(error.log).toolkit or toolkit
                continue
            self._remember(info, left[0], loaded)
            return loaded

    def _candidates(self, info: ModelInfo, toolkit: str | None) -> Candidates:
        if self._decided:
            return Candidates((), toolkit)
        return self._runtimes.candidates(info.path, toolkit)

    def _remember(self, info: ModelInfo, runtime: Installed, loaded: LoadedInfo) -> None:
        release, toolkit = runtime.release, loaded.toolkit
        try:
            # The next load has a better one where there is one: the toolkit is known by then.
            bad = are_bad_together(release, toolkit)
            self._runtimes.remember(info.path, None if bad else release, toolkit)
        except OSError as error:
            log.warning("the runtime of %s cannot be remembered: %s", info.name, error)


def _toolkit_in_name(info: ModelInfo) -> str | None:
    folder = os.path.basename(os.path.dirname(info.path))
    return parse_model_name(info.file, folder).toolkit


def _none_fits(
    info: ModelInfo, candidates: Candidates, failed: dict[str, LoadFailed]
) -> LoadFailed:
    """Return the error that names all releases that were tried, and the one to install."""
    if len(failed) == 1:
        reason = next(iter(failed.values())).message
    else:
        said = "; ".join(f"{release}: {error.message}" for release, error in failed.items())
        reason = f"{info.name} could not be loaded with any release of librkllmrt ({said})"
    missing = wanted_release(candidates.toolkit, read_soc(), machine(), failed)
    last = list(failed.values())[-1]
    hint = f"Install another: `rkllama runtime install {missing}`." if missing else last.hint
    return WrongRuntime(reason, hint=hint, log=last.log, release=missing)
