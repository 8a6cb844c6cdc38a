"""Models in memory: loading, keeping alive, evicting, closing. scheduler.py decides who may use which."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from ..backends.base import LoadedInfo, LoadSpec
from ..backends.kinds import kind_of
from ..board.governors import Governors
from ..board.lock import NPULock
from ..board.soc import has_domains, read_soc
from ..config import LONGEST_WAIT, Settings
from ..errors import (
    Cancelled,
    NoModelLoaded,
    OutOfMemory,
    RKLLamaError,
    ServerStopping,
    WorkerError,
)
from ..models.metadata import StoredModel
from ..rkllm.domains import Domains
from ..runner.growth import Growth
from ..runner.keeping import keep_conversation
from ..runner.lane import Lane, State
from ..runner.log import log_path
from ..runner.worker import Worker
from ..service import LOCAL, Caller
from ..states.conversation import Conversations
from ..states.key import Identity, file_identity
from ..states.store import Figures as StateFigures
from ..states.store import StateStore
from ..types import LoadedModel, ModelInfo, NPUParams, SamplingParams
from .runtimes import RuntimeLoader
from .scheduler import Scheduler, Slot, Swaps

log = logging.getLogger("rkllama")

_UNLOAD_GRACE = 10.0
"""Seconds that an unload leaves a running answer to end after its abort; then its process is killed."""
_LONG = 0.05
"""Seconds of waiting after which a client may have gone: then it is asked."""
_NPU_SETTINGS = tuple(field.name for field in fields(NPUParams))
"""They are settings under the same names."""
_FOR_EVER = 1e9
"""Seconds (30 years) from which a keep-alive has no end: clocks and dates overflow with such numbers."""


@dataclass(slots=True)
class Resident:
    """What occupies a slot. `loaded` is None while the model is being loaded."""

    model: StoredModel
    """As it was loaded."""
    info: ModelInfo
    """Under the name by which it was last asked for: an alias shares the process of its model."""
    worker: Worker
    spec: LoadSpec
    wanted_context: int
    """The context length before it was clamped: asking for it again needs no new load."""
    keep_alive: float
    pinned: bool = False
    """Stays until it is unloaded, whatever keep-alive requests ask for."""
    loaded: LoadedInfo | None = None
    raw: bool = False
    """Whether a complete prompt has been run: the runtime's own template is switched off for good."""
    tokens_per_character: float | None = None
    """Of the last prompt whose size was told; 0 where none is ever told."""
    memory: int | None = None
    """Bytes, as the runtime reported with the last answer."""
    tokens_per_second: float | None = None
    """Of the last answer."""
    growth: Growth | None = None
    """Of its memory since it was loaded; None where it is not minded."""
    bloated: bool = False
    """Whether it has to be loaded anew for that."""
    conversations: Conversations | None = None
    """What is kept of its conversations on the disk; None where nothing is."""
    told: set[str] = field(default_factory=set)
    """What has been logged about templates, its own and its aliases': once is enough."""
    _taken: set[Lane] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Lane:
        """Return a lane that nobody uses; one whose last run was given up and goes on comes first, since it
        tells whether the process still reacts.
        """
        with self._mutex:
            free = [lane for lane in self.worker.lanes if lane not in self._taken]
            lane = max(free, key=lambda lane: lane.state is State.DRAINING)
            self._taken.add(lane)
            return lane

    def leave(self, lane: Lane) -> None:
        """Give a lane back."""
        with self._mutex:
            self._taken.discard(lane)

    @property
    def ready(self) -> LoadedInfo:
        """What the backend said about the loaded model."""
        assert self.loaded is not None, "only a lease's holder asks, and it has loaded the model"
        return self.loaded

    @property
    def at_limit(self) -> bool:
        """Whether the model takes no longer context than it has."""
        own, limit = self.ready.context_length, self.info.context_length
        return self.wanted_context > own or (limit is not None and own >= limit)


class Turn(NamedTuple):
    """A request's turn on a loaded model, and what it waited for."""

    resident: Resident
    lane: Lane
    """What its runs go over."""
    queue_seconds: float
    load_seconds: float


class Pool:
    """The models in memory, and the lock of the NPU they run on."""

    def __init__(
        self,
        settings: Settings,
        npu_lock: NPULock,
        *,
        exact_sampling: bool = False,
        shares_npu: bool = False,
    ) -> None:
        """`shares_npu`: whether others may have the NPU while no model is on it. A server keeps it, so that
        it is found by its lock.

        `exact_sampling`: where a runtime fixes the sampling when it loads (before 1.3), a request
        with another one reloads the model. A server does not: with clients of different habits it
        would do little else.
        """
        self._settings = settings
        self._exact_sampling = exact_sampling
        self._npu_lock = npu_lock
        self._shares_npu = shares_npu
        self._on_npu: set[str] = set()
        """By path, the models whose processes inherit the NPU's lock."""
        self._npu_mutex = threading.Lock()
        self._governors = Governors(settings.governors)
        self._npu = NPUParams(**{name: getattr(settings, name) for name in _NPU_SETTINGS})
        self._domains = Domains(several=has_domains(read_soc()))
        self._runtimes = RuntimeLoader(settings)
        self.scheduler: Scheduler[Resident] = Scheduler(settings.max_loaded, settings.max_queue)
        self._swaps = Swaps()
        self._states = StateStore(settings.states, settings.state_budget, settings.state_writes)
        self._keeps_states: bool | None = None
        """Whether conversations are kept on the disk; None before a model is loaded that could."""
        self._timer = threading.Condition()
        self._janitor: threading.Thread | None = None
        self._closed = False
        self._lost: dict[str, tuple[Resident, float | None]] = {}
        """By path, models that have to be loaded again, and until when they would have stayed: such a
        model is still the current one, and comes back with its keep-alive."""
        self.restarts = 0
        """How many model processes died or had to be stopped since the start."""

    # --- Use -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def use(
        self,
        model: StoredModel,
        *,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
        keep_alive: float | None = None,
        caller: Caller = LOCAL,
    ) -> Iterator[Turn]:
        """Hold the loaded model.

        A runtime that fixes the sampling when it loads takes `sampling` then. `keep_alive` None keeps
        what the model was loaded with. Raises QueueFull, Cancelled, LoadFailed.
        """
        started = time.monotonic()
        key, alone = model.info.path, False
        wanted = context_length or model.context_length or self._settings.context_length
        spec = self._spec(model, wanted, sampling)
        try:
            while True:
                with self.scheduler.lease(key, alone=alone, caller=caller) as slot:
                    granted = time.monotonic()
                    lane = self._enter(slot, model, spec, wanted, caller)
                    if lane is None:  # it has to be loaded anew, when the others have left
                        alone = True
                        continue
                    resident = slot.resident
                    assert resident is not None
                    try:
                        if time.monotonic() - granted > _LONG and caller.has_left():
                            self._expire_after(slot, resident)
                            raise Cancelled
                        loaded = time.monotonic() - granted
                        try:
                            yield Turn(resident, lane, granted - started, loaded)
                        finally:
                            self._after_use(slot, resident, keep_alive)
                    finally:
                        resident.leave(lane)
                    return
        finally:
            self._give_back()
            self._wake_janitor()

    def _enter(
        self,
        slot: Slot[Resident],
        model: StoredModel,
        spec: LoadSpec,
        wanted: int,
        caller: Caller,
    ) -> Lane | None:
        """Return a lane to the slot's model, which is loaded if the holder is alone; None where others
        hold it and it would have to be loaded anew.
        """
        if not slot.shared:
            loaded = self._ensure(slot, model, spec, wanted, caller)
            lane = loaded.take()
            self.scheduler.share(slot, len(loaded.worker.lanes))
            return lane
        resident = slot.resident
        if resident is None or not resident.worker.alive:
            return None
        if not self._serves(resident, model, spec, wanted):
            return None
        lane = resident.take()
        settled = False
        try:
            settled = lane.settles(caller)
        except WorkerError as error:
            log.warning("%s: %s", resident.info.name, error)
        finally:
            if not settled:
                resident.leave(lane)
        if settled:
            return lane
        if self.scheduler.be_alone(slot):  # nobody else has an answer to lose
            resident.worker.kill("it did not react to an abort")
        return None

    def _after_use(
        self, slot: Slot[Resident], resident: Resident, keep_alive: float | None
    ) -> None:
        if keep_alive is not None:
            resident.keep_alive = keep_alive
        self._expire_after(slot, resident)
        if resident.worker.dead:
            if self.scheduler.be_alone(slot):
                self._lose(slot, resident)
        elif resident.growth is not None:
            resident.bloated = resident.growth.note_use(resident.memory)

    @staticmethod
    def _expire_after(slot: Slot[Resident], resident: Resident) -> None:
        slot.expires = _end_of_life(resident)

    def _lose(self, slot: Slot[Resident], resident: Resident) -> None:
        """Remove a process that died or had to be stopped."""
        if not resident.worker.retired:
            self.restarts += 1
            self._remember(slot, resident)
        self._close(slot)

    def _remember(self, slot: Slot[Resident], resident: Resident) -> None:
        self._lost.pop(slot.key, None)
        self._lost[slot.key] = resident, slot.expires

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the most recently used one first."""
        found = [_loaded_model(slot) for slot in reversed(self.scheduler.slots())]
        return [model for model in found if model is not None]

    def current(self) -> ModelInfo:
        """Return the most recently used model, also one whose process died: it is loaded again when it is
        asked for. Raises NoModelLoaded.
        """
        for model in self.loaded():
            return model.info
        for resident, until in reversed(list(self._lost.values())):
            if until is None or until > time.monotonic():
                return resident.info
        raise NoModelLoaded

    def pin(self, resident: Resident, keep_alive: float | None) -> None:
        """Keep a model that was loaded explicitly until it is unloaded, or as long as is said."""
        if keep_alive is not None:
            resident.pinned = keep_alive < 0

    # --- Loading -------------------------------------------------------------------------------

    def _ensure(
        self,
        slot: Slot[Resident],
        model: StoredModel,
        spec: LoadSpec,
        wanted: int,
        caller: Caller,
    ) -> Resident:
        """Return the slot's model, loaded; the holder of the lease calls it."""
        if slot.evicted is not None:
            self._close(slot.evicted)
            self.scheduler.evicted_is_closed(slot)
            self._note_swap()
        if slot.resident and not self._is_well(slot.resident, caller):
            self._lose(slot, slot.resident)
        if slot.resident and not self._serves(slot.resident, model, spec, wanted):
            self._remember(slot, slot.resident)
            self._close(slot)
        if slot.resident is None:
            self._load(slot, model, spec, wanted)
        else:
            self._governors.renew()
        assert slot.resident is not None
        slot.resident.info = model.info
        return slot.resident

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
            npu=model.npu.over(self._npu),
        )

    def _note_swap(self) -> None:
        times = self._swaps.note(time.monotonic())
        if times is not None:
            log.warning(
                "models took each other's place in memory %d times within a minute; if there is room "
                "for more than %d, raise max_loaded (--max-loaded, RKLLAMA_MAX_LOADED)",
                times,
                self._settings.max_loaded,
            )

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

    @staticmethod
    def _is_well(resident: Resident, caller: Caller) -> bool:
        """Return whether a loaded model's process runs, and has ended the runs that were given up."""
        try:
            resident.worker.settle_all(caller)
        except WorkerError as error:
            log.warning("%s: %s", resident.info.name, error)
        return resident.worker.alive

    def _serves(self, resident: Resident, model: StoredModel, spec: LoadSpec, wanted: int) -> bool:
        """Return whether a loaded model can serve a request, or has to be reloaded for it."""
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

    def _load(self, slot: Slot[Resident], model: StoredModel, spec: LoadSpec, wanted: int) -> None:
        """Load a model, on the NPU with the release of the runtime that fits it."""
        started = time.monotonic()

        def attempt(spec: LoadSpec) -> LoadedInfo:
            return self._load_in_memory(slot, model, spec, wanted)

        if kind_of(spec.path).needs_npu:
            loaded = self._runtimes.load(model.info, spec, attempt)
        else:
            loaded = attempt(spec)
        self._lost.pop(slot.key, None)
        for notice in (*model.notes, *loaded.notices):
            log.warning("%s: %s", model.info.name, notice)
        log.info("loaded %s in %.2f s", model.info.name, time.monotonic() - started)

    def _load_in_memory(
        self, slot: Slot[Resident], model: StoredModel, spec: LoadSpec, wanted: int
    ) -> LoadedInfo:
        """Load a model; where memory lacks, idle ones go for it one by one."""
        while True:
            try:
                return self._try_load(slot, model, spec, wanted)
            except OutOfMemory as error:
                if not self._close_an_idle_one(error.message):
                    raise

    def _close_an_idle_one(self, reason: str) -> bool:
        """Close the least recently used idle model to free its memory; return whether there was one."""
        slot = self.scheduler.take_idle(lambda _: True)
        if slot is None:
            return False
        log.info("%s: it is tried again without an idle model", reason)
        try:
            self._close(slot)
        finally:
            self.scheduler.put_back(slot)
        return True

    def _try_load(
        self, slot: Slot[Resident], model: StoredModel, spec: LoadSpec, wanted: int
    ) -> LoadedInfo:
        """Start a process and load the model in it; after a failure the slot is empty.

        A model that was lost stays for as long as it would have.
        """
        info = model.info
        if self._closed:
            raise ServerStopping
        before, until = self._lost.get(slot.key, (None, None))
        if until is not None and until <= time.monotonic():
            before = None
        worker = self._start(info, external=bool(spec.llama_server))
        slot.resident = Resident(
            model=model,
            info=info,
            worker=worker,
            spec=spec,
            wanted_context=wanted,
            keep_alive=self._settings.keep_alive if before is None else before.keep_alive,
            pinned=before is not None and before.pinned,
        )
        if self._closed:  # `close` may have looked before it was there
            self._end(slot.resident, "the server is stopping")
        try:
            self._governors.hold(slot.key)
            spec = self._with_domain(spec, model)
            slot.resident.loaded = worker.load(spec, timeout=self._settings.load_timeout)
        except BaseException:
            self._close(slot)
            raise
        if worker.kind.leaks:
            slot.resident.growth = Growth(worker.pid)
        slot.resident.conversations = self._conversations(slot.resident)
        return slot.resident.loaded

    def _conversations(self, resident: Resident) -> Conversations | None:
        """Return what keeps a loaded model's conversations on the disk, where it has a runtime that can."""
        loaded = resident.ready
        if not loaded.keeps_states:
            return None
        with self._npu_mutex:
            if self._keeps_states is None:
                self._keeps_states = self._states.open()
        if not self._keeps_states:
            return None
        try:
            lora = file_identity(resident.spec.lora)
        except OSError:
            return None
        identity = Identity(
            runtime=loaded.runtime,
            platform=loaded.platform or "",
            toolkit=loaded.toolkit or "",
            context_length=loaded.context_length,
            lora=lora,
        )
        return Conversations(
            self._states,
            identity,
            resident.info.name,
            has_farewell=loaded.per_run_sampling,
        )

    def state_figures(self) -> StateFigures | None:
        """What is kept of conversations on the disk; None where nothing is."""
        return self._states.figures() if self._keeps_states else None

    def _start(self, info: ModelInfo, *, external: bool) -> Worker:
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

    def _give_back(self) -> None:
        """Give back what no model needs any more: the NPU, where others may have it, and the governors."""
        with self._npu_mutex:
            if self._shares_npu and not self._on_npu:
                self._npu_lock.release()
        self._governors.settle()

    def _with_domain(self, spec: LoadSpec, model: StoredModel) -> LoadSpec:
        """Return a spec that names the model's domain in the NPU's memory, which is its own from now on."""
        if not kind_of(spec.path).needs_npu:
            return spec
        first = self._domains.take(spec.path, model.info.size, spec.npu.base_domain_id)
        return replace(spec, npu=replace(spec.npu, base_domain_id=first))

    # --- Unloading -----------------------------------------------------------------------------

    def unload(self, info: ModelInfo) -> None:
        """Unload a model; its running answer is cancelled. Raises NoModelLoaded."""
        lost = self._lost.pop(info.path, None)
        found = (slot.resident for slot in self.scheduler.slots() if slot.key == info.path)
        if (resident := next(found, None)) is None:
            if lost is None:
                raise NoModelLoaded
            return
        unloaded = "the model was unloaded"
        with self.scheduler.lease_to_close(
            info.path,
            waiting=lambda: self._interrupt(resident, unloaded),
            patience=_UNLOAD_GRACE,
            overdue=lambda: self._end(resident, unloaded),
        ) as held:
            if held is not None:
                self._close(held)
                self._give_back()

    def _interrupt(self, resident: Resident, reason: str) -> None:
        if resident.loaded is None:
            self._end(resident, reason)
        else:
            resident.worker.retire()

    @staticmethod
    def _end(resident: Resident, reason: str) -> None:
        resident.worker.kill(reason, expected=True)

    def _close(self, slot: Slot[Resident]) -> None:
        if slot.resident is not None:
            resident, slot.resident = slot.resident, None
            self._close_worker(resident)
            self._domains.give_back(slot.key)
            self._on_npu.discard(slot.key)
            self._governors.drop(slot.key)
            if resident.loaded is not None:
                log.info("unloaded %s", resident.info.name)

    @staticmethod
    def _close_worker(resident: Resident) -> None:
        """End a model's process; its conversation is kept first, where it is idle and the runtime can."""
        worker, conversations = resident.worker, resident.conversations
        if conversations is None:
            worker.close()
            return
        if worker.state is State.READY and not worker.retired:
            keep_conversation(worker, conversations)
        worker.close()
        conversations.sweep()

    def close(self) -> None:
        """Cancel every answer, end every child and release the NPU."""
        with self._timer:
            self._closed = True
            self._timer.notify()
        self.scheduler.close()
        for resident in self._held():
            self._interrupt(resident, "the server is stopping")
        if not self.scheduler.wait_idle(timeout=2.0):
            for resident in self._held():
                self._end(resident, "the server is stopping")
            self.scheduler.wait_idle(timeout=5.0)
        while (idle := self.scheduler.take_idle(lambda _: True)) is not None:
            self._close(idle)
            self.scheduler.put_back(idle)
        self._governors.settle()
        self._npu_lock.release()
        if self._keeps_states:
            self._states.close()

    def _held(self) -> list[Resident]:
        held = [slot.resident for slot in self.scheduler.slots() if slot.held]
        return [resident for resident in held if resident is not None]

    # --- Keep-alive ----------------------------------------------------------------------------

    def _wake_janitor(self) -> None:
        with self._timer:
            if self._janitor is None and not self._closed:
                self._janitor = threading.Thread(
                    target=self._expire, name="keep-alive", daemon=True
                )
                self._janitor.start()
            self._timer.notify()

    def _expire(self) -> None:
        """Close models whose keep-alive is over, and load anew those that have grown; sleeps until the next
        one's time is over.
        """
        while not self._closed:
            slot = self.scheduler.take_idle(lambda slot: _expired(slot) or _is_bloated(slot))
            if slot is not None:
                try:
                    if _expired(slot):
                        self._close(slot)
                    else:
                        self._renew(slot)
                finally:
                    self.scheduler.put_back(slot)
                    self._give_back()
                continue
            with self._timer:
                if not self._closed:
                    self._timer.wait(self._until_next())

    def _renew(self, slot: Slot[Resident]) -> None:
        """Load an idle model anew, since its process has grown; what its KV cache held is lost."""
        old = slot.resident
        assert old is not None
        log.warning(
            "%s: its process takes twice the memory that it took when it was loaded: it is loaded anew",
            old.info.name,
        )
        self._remember(slot, old)
        self._close(slot)
        try:
            self._load(slot, old.model, old.spec, old.wanted_context)
        except RKLLamaError as error:  # the next request tries it again and says why
            if not self._closed:
                log.warning("%s", error.text)
        else:
            assert slot.resident is not None
            slot.resident.info = old.info

    def _until_next(self) -> float | None:
        times = [s.expires for s in self.scheduler.slots() if s.expires is not None and not s.held]
        return min(LONGEST_WAIT, max(0.0, min(times) - time.monotonic())) if times else None


def _end_of_life(resident: Resident) -> float | None:
    """Return the monotonic time at which a model goes if its last use ends now; None is never."""
    forever = resident.pinned or not 0 <= resident.keep_alive < _FOR_EVER
    return None if forever else time.monotonic() + resident.keep_alive


def _is_bloated(slot: Slot[Resident]) -> bool:
    return slot.resident is not None and slot.resident.bloated


def _expired(slot: Slot[Resident]) -> bool:
    return slot.expires is not None and slot.expires <= time.monotonic()


def _loaded_model(slot: Slot[Resident]) -> LoadedModel | None:
    resident = slot.resident
    if resident is None:
        return None
    loaded = resident.loaded
    # While it is used its time does not run.
    expires = _end_of_life(resident) if slot.held else slot.expires
    return LoadedModel(
        info=resident.info,
        state="loading" if loaded is None else "busy" if slot.held else "ready",
        context_length=loaded.context_length if loaded else None,
        expires=None if expires is None else time.time() + expires - time.monotonic(),
        memory=resident.memory or (loaded.memory if loaded else None),
        runtime=loaded.runtime if loaded else None,
        pid=resident.worker.pid,
        uses_npu=resident.worker.kind.needs_npu,
        backend=resident.worker.kind.name,
        threads=loaded.threads if loaded else None,
        toolkit=loaded.toolkit if loaded else None,
        tokens_per_second=resident.tokens_per_second,
    )
