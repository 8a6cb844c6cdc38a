"""How a model comes into memory and leaves it: process, NPU, runtime, domain, governors, conversations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from ...backends.base import LoadedInfo, LoadSpec
from ...backends.kinds import kind_of
from ...backends.vision.markers import markers_of
from ...board.governors import Governors
from ...board.lock import NPULock
from ...board.soc import has_domains, read_soc
from ...config import Settings
from ...models.metadata import StoredModel
from ...rkllm.domains import Domains
from ...runner.growth import Growth
from ...runner.keeping import keep_conversation
from ...runner.lane import State
from ...runner.log import log_path
from ...runner.worker import Worker
from ...service import Caller
from ...states.conversation import Conversations
from ...states.key import Identity, file_identity
from ...states.store import Figures as StateFigures
from ...states.store import StateStore
from ...types import ModelInfo, NPUParams, SamplingParams
from .resident import Demand, Resident
from .runtimes import RuntimeLoader

log = logging.getLogger("rkllama")

_NPU_SETTINGS = tuple(field.name for field in fields(NPUParams))
"""They are settings under the same names."""


class Loader:
    """Starts and ends the processes of models, and holds what they need of the machine."""

    def __init__(
        self,
        settings: Settings,
        npu_lock: NPULock,
        *,
        exact_sampling: bool = False,
        shares_npu: bool = False,
    ) -> None:
        """See pool.Pool."""
        self._settings = settings
        self._exact_sampling = exact_sampling
        self._npu_lock = npu_lock
        self._shares_npu = shares_npu
        self._on_npu: set[str] = set()
        """By path, the models whose processes inherit the NPU's lock."""
        self._npu_mutex = threading.Lock()
        self.governors = Governors(settings.governors)
        self._npu = NPUParams(**{name: getattr(settings, name) for name in _NPU_SETTINGS})
        self._domains = Domains(several=has_domains(read_soc()))
        self._runtimes = RuntimeLoader(settings)
        self._states = StateStore(settings.states, settings.state_budget, settings.state_writes)
        self._states_mutex = threading.Lock()
        self._keeps_states: bool | None = None
        """Whether conversations are kept on the disk; None before a model is loaded that could."""

    # --- What a request wants of a model -------------------------------------------------------

    def demand(
        self,
        model: StoredModel,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
    ) -> Demand:
        """Return what a request wants of `model`; `context_length` None is as Modelfile or settings say."""
        wanted = context_length or model.context_length or self._settings.context_length
        return Demand(model, self._spec(model, wanted, sampling), wanted)

    def _spec(self, model: StoredModel, wanted: int, sampling: SamplingParams | None) -> LoadSpec:
        limit = model.info.context_length
        return LoadSpec(
            path=model.info.path,
            context_length=min(wanted, limit) if limit else wanted,
            max_tokens=model.max_tokens if model.max_tokens is not None else -1,
            sampling=sampling.over(model.sampling) if sampling else model.sampling,
            eos_tokens=model.eos_tokens,
            text_end=model.text_end,
            threads=self._settings.threads,
            parallel=self._settings.parallel,
            library=self._settings.rkllm_lib,
            abi=self._settings.rkllm_abi,
            llama_server=self._llama_server(model),
            lora=model.lora,
            **self._eyes(model),
            npu=self._npu_params(model),
        )

    def _eyes(self, model: StoredModel) -> dict[str, Any]:
        """Return what of a LoadSpec is for pictures; nothing for a model that does not see."""
        if model.encoder is None or model.encoder.problem is not None:
            return {}
        if model.info.format == "gguf":
            return {"encoder": model.encoder.path}
        return {
            "encoder": model.encoder.path,
            "encoder_library": self._settings.rknn_lib,
            "image_markers": tuple(markers_of(model)),
        }

    def _npu_params(self, model: StoredModel) -> NPUParams:
        params = model.npu.over(self._npu)
        # A model that writes has one prompt at a time, and every run takes as many as were agreed on.
        if params.n_batch == 1 or "completion" not in model.capabilities:
            return params
        return replace(params, n_batch=1)

    def _llama_server(self, model: StoredModel) -> tuple[str, ...]:
        """Return the words of the llama-server to run a model with; none for the backend of its format.

        The Modelfile's are another program, or further arguments of the setting's, or "off".
        """
        own, setting = model.llama_server, self._settings.llama_server
        if model.info.format != "gguf" or own == ("off",):
            return ()
        if own is None:
            return setting
        return (*setting, *own) if own[0].startswith("-") else own

    def serves(self, resident: Resident, demand: Demand) -> bool:
        """Return whether a loaded model can serve a request, or has to be reloaded for it."""
        model, spec, wanted = demand
        info, loaded, ready = model.info, resident.spec, resident.ready
        if (info.size, model.mtime_ns) != (resident.model.info.size, resident.model.mtime_ns):
            log.info("%s has changed on disk", info.name)
            return False
        if wanted > resident.wanted_context and spec.context_length > ready.context_length:
            return False
        if spec.llama_server != loaded.llama_server:
            return False
        if spec.lora != loaded.lora or spec.eos_tokens != loaded.eos_tokens:
            return False
        if spec.npu != loaded.npu:
            return False
        if (spec.encoder, spec.image_markers) != (loaded.encoder, loaded.image_markers):
            return False
        if ready.per_run_sampling or spec.sampling == loaded.sampling:
            return True
        if self._exact_sampling or model.sampling != resident.model.sampling:
            return False
        log.warning(
            "%s: this runtime keeps the sampling that the model was loaded with; the request's own "
            "is not applied (unload the model to change it)",
            info.name,
        )
        return True

    # --- Coming in -----------------------------------------------------------------------------

    def with_runtime(
        self, info: ModelInfo, spec: LoadSpec, attempt: Callable[[LoadSpec], LoadedInfo]
    ) -> LoadedInfo:
        """Load a model by `attempt`, on the NPU with the release of the runtime that fits it."""
        if kind_of(spec.path).needs_npu:
            return self._runtimes.load(info, spec, attempt)
        return attempt(spec)

    def start(self, demand: Demand) -> Resident:
        """Start a process for a model; nothing is loaded in it yet."""
        model, spec, wanted = demand
        return Resident(
            model=model,
            info=model.info,
            worker=self._process(model.info, external=bool(spec.llama_server)),
            spec=spec,
            wanted_context=wanted,
            keep_alive=self._settings.keep_alive,
        )

    def _process(self, info: ModelInfo, *, external: bool) -> Worker:
        """Start a process for a model; one that is for the NPU inherits its lock.

        `external`: a llama-server is to run it.
        """
        path = log_path(self._settings.logs, info.name)
        if external or not kind_of(info.path).needs_npu:
            lanes = self._settings.parallel
            return Worker(info.path, path, external=external, lanes=lanes)
        with self._npu_mutex:
            self._npu_lock.acquire()
            worker = Worker(info.path, path, inherit=(self._npu_lock.fd,))
            self._on_npu.add(info.path)
            return worker

    def load(self, resident: Resident, caller: Caller) -> LoadedInfo:
        """Load a model in its process, and note what the backend says. Raises LoadFailed."""
        worker = resident.worker
        self.governors.hold(resident.model.info.path)
        spec = self._with_states(self._with_domain(resident.spec, resident.model))
        timeout = self._settings.load_timeout
        resident.loaded = worker.load(spec, timeout=timeout, caller=caller)
        if worker.kind.leaks:
            encoder = resident.model.encoder if spec.encoder else None
            resident.growth = Growth(worker.pid, 0 if encoder is None else encoder.size)
        resident.conversations = self._conversations(resident)
        return resident.loaded

    def _with_domain(self, spec: LoadSpec, model: StoredModel) -> LoadSpec:
        """Return a spec that names the model's domain in the NPU's memory, which is its own from now on."""
        if not kind_of(spec.path).needs_npu:
            return spec
        first = self._domains.take(
            spec.path, model.info.size, spec.npu.base_domain_id, sees=spec.encoder is not None
        )
        return replace(spec, npu=replace(spec.npu, base_domain_id=first))

    def _with_states(self, spec: LoadSpec) -> LoadSpec:
        """Return a spec that names the directory of states to a runtime with slots."""
        kind = kind_of(spec.path, external=bool(spec.llama_server))
        return (
            replace(spec, states=self._states.directory)
            if kind.parallel and self._opens()
            else spec
        )

    def _opens(self) -> bool:
        """Return whether there is a directory of states for this process."""
        with self._states_mutex:  # the disk's speed is measured meanwhile
            if self._keeps_states is None:
                self._keeps_states = self._states.open()
            return self._keeps_states

    def _conversations(self, resident: Resident) -> tuple[Conversations, ...]:
        """Return what keeps a loaded model's conversations on the disk, where it has a runtime that can."""
        loaded = resident.ready
        if not loaded.keeps_states or not self._opens():
            return ()
        try:
            lora = file_identity(resident.spec.lora)
        except OSError:
            return ()
        first = Conversations(
            self._states,
            identity_of(loaded, lora),
            resident.info.name,
            has_farewell=loaded.per_run_sampling,
            slots=loaded.slots,
        )
        return (first, *(first.sibling() for _ in resident.worker.lanes[1:]))

    def state_figures(self) -> StateFigures | None:
        """What is kept of conversations on the disk; None where nothing is."""
        return self._states.figures() if self._keeps_states else None

    # --- Going ---------------------------------------------------------------------------------

    def end(self, resident: Resident) -> None:
        """End a model's process, and give back what it had of the machine."""
        _close_worker(resident)
        path = resident.model.info.path
        self._domains.give_back(path)
        self._on_npu.discard(path)
        self.governors.drop(path)
        if resident.loaded is not None:
            log.info("unloaded %s", resident.info.name)

    def give_back(self) -> None:
        """Give back what no model needs any more: the NPU, where others may have it, and the governors."""
        if self._shares_npu:
            with self._npu_mutex:
                if not self._on_npu:
                    self._npu_lock.release()
        self.governors.settle()

    def close(self) -> None:
        """Give everything back; no model is in memory any more."""
        self.governors.settle()
        self._npu_lock.release()
        if self._keeps_states:
            self._states.close()


def identity_of(loaded: LoadedInfo, lora: str = "") -> Identity:
    """Return what the states of a loaded model belong to; `lora` is the identity of its adapter's file."""
    return Identity(
        runtime=loaded.runtime,
        platform=loaded.platform or "",
        toolkit=loaded.toolkit or "",
        context_length=loaded.context_length,
        lora=lora,
        state_format=loaded.state_format,
    )


def _close_worker(resident: Resident) -> None:
    """End a model's process; its conversations are kept first, where it is idle and the runtime can."""
    worker = resident.worker
    kept = list(zip(worker.lanes, resident.conversations, strict=False))
    for lane, conversations in kept:
        # A slot outlasts the run that was aborted in it.
        can_keep = conversations.slots or not worker.retired
        if can_keep and lane.state is State.READY and worker.alive:
            keep_conversation(lane, conversations)
    worker.close()
    for _, conversations in kept:
        conversations.sweep()
