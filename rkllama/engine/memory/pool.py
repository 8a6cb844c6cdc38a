"""Models in memory: loading, keeping alive, evicting, closing. scheduler.py decides who may use which."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from ...backends.base import LoadedInfo, LoadSpec
from ...board.lock import NPULock
from ...config import LONGEST_WAIT, Settings
from ...errors import (
    Cancelled,
    LoadFailed,
    NoModelLoaded,
    NPUBusy,
    OutOfMemory,
    RKLLamaError,
    ServerStopping,
    WorkerError,
)
from ...models.metadata import StoredModel
from ...runner.lane import Lane
from ...service import LOCAL, Caller
from ...states.store import Figures as StateFigures
from ...types import LoadedModel, ModelInfo, SamplingParams
from ..health.crashes import Crashes
from .loading import Loader
from .resident import Demand, Resident, Traffic, Turn, describe
from .scheduler import Scheduler, Slot, Swaps

log = logging.getLogger("rkllama")

_UNLOAD_GRACE = 10.0
"""Seconds that an unload leaves a running answer to end after its abort; then its process is killed."""
_LONG = 0.05
"""Seconds of waiting after which a client may have gone: then it is asked."""


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
        self._loader = Loader(
            settings, npu_lock, exact_sampling=exact_sampling, shares_npu=shares_npu
        )
        self.scheduler: Scheduler[Resident] = Scheduler(settings.max_loaded, settings.max_queue)
        self._swaps = Swaps()
        self._timer = threading.Condition()
        self._janitor: threading.Thread | None = None
        self._closed = False
        self._lost: dict[str, tuple[Resident, float | None]] = {}
        """By path, models that have to be loaded again, and until when they would have stayed: such a
        model is still the current one, and comes back with its keep-alive."""
        self.restarts = 0
        """How many model processes died or had to be stopped since the start."""
        self.crashes = Crashes()
        self.on_lost: Callable[[str], object] = lambda _: None
        """Is told the path of a model whose process died."""
        self.on_unload: Callable[[str], object] = lambda _: None
        """Is told the path of a model that is to be unloaded, before that is done."""

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
        demand = self._loader.demand(model, context_length, sampling)
        try:
            while True:
                with self.scheduler.lease(key, alone=alone, caller=caller) as slot:
                    granted = time.monotonic()
                    lane = self._enter(slot, demand, caller)
                    if lane is None:  # it has to be loaded anew, when the others have left
                        alone = True
                        continue
                    resident = slot.resident
                    assert resident is not None
                    turn = Turn(resident, lane, granted - started)
                    try:
                        if time.monotonic() - granted > _LONG and caller.has_left():
                            self._expire_after(slot, resident)
                            raise Cancelled
                        turn.load_seconds = time.monotonic() - granted
                        try:
                            yield turn
                        finally:
                            self._after_use(slot, resident, keep_alive)
                    finally:
                        resident.leave(turn.lane)
                    return
        finally:
            self._loader.give_back()
            self._wake_janitor()

    def _enter(self, slot: Slot[Resident], demand: Demand, caller: Caller) -> Lane | None:
        """Return a lane to the slot's model, which is loaded if the holder is alone; None where others
        hold it and it would have to be loaded anew.
        """
        if not slot.shared:
            loaded = self._ensure(slot, demand, caller)
            lane = loaded.take()
            self.scheduler.share(slot, len(loaded.worker.lanes))
            return lane
        resident = slot.resident
        if resident is None or not resident.worker.alive:
            return None
        if not self._loader.serves(resident, demand):
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
            return
        if resident.answered:
            resident.answered = False
            self.crashes.note_use(slot.key)
        if resident.growth is not None:
            resident.bloated = resident.growth.note_use(resident.memory)

    @staticmethod
    def _expire_after(slot: Slot[Resident], resident: Resident) -> None:
        slot.expires = resident.end_of_life

    def _lose(self, slot: Slot[Resident], resident: Resident) -> None:
        """Remove a process that died or had to be stopped."""
        crashed = not resident.worker.retired
        if crashed:
            self.restarts += 1
            self.crashes.note_crash(slot.key)
            self._remember(slot, resident)
        self._close(slot)
        if crashed:
            self.on_lost(slot.key)

    def _remember(self, slot: Slot[Resident], resident: Resident) -> None:
        self._lost.pop(slot.key, None)
        self._lost[slot.key] = resident, slot.expires

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the most recently used one first."""
        found = [describe(slot) for slot in reversed(self.scheduler.slots())]
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

    def program_of(self, model: StoredModel) -> tuple[str, ...]:
        """Return the words of the llama-server that runs a model; none: the backend of its format does."""
        return self._loader.demand(model).spec.llama_server

    def traffic(self) -> dict[str, Traffic]:
        """Return what goes on with each model, by path: of those that are in memory or waited for."""
        found: dict[str, Traffic] = {}
        waiting = self.scheduler.waiting_by_key()
        for slot in self.scheduler.slots():
            resident, running = slot.resident, slot.holders
            use = None if resident is None else resident.cache_use
            found[slot.key] = Traffic(running, waiting.pop(slot.key, 0), use)
        return found | {key: Traffic(0, count, None) for key, count in waiting.items()}

    def pin(self, resident: Resident, keep_alive: float | None) -> None:
        """Keep a model that was loaded explicitly until it is unloaded, or as long as is said."""
        if keep_alive is not None:
            resident.pinned = keep_alive < 0

    # --- Loading -------------------------------------------------------------------------------

    def _ensure(self, slot: Slot[Resident], demand: Demand, caller: Caller) -> Resident:
        """Return the slot's model, loaded; the holder of the lease calls it."""
        if slot.evicted is not None:
            self._close(slot.evicted)
            self.scheduler.evicted_is_closed(slot)
            self._note_swap()
        if slot.resident and not self._is_well(slot.resident, caller):
            self._lose(slot, slot.resident)
        if slot.resident and not self._loader.serves(slot.resident, demand):
            self._remember(slot, slot.resident)
            self._close(slot)
        if slot.resident is None:
            self._load(slot, demand, caller)
        else:
            self._loader.governors.renew()
        assert slot.resident is not None
        slot.resident.info = demand.model.info
        return slot.resident

    def _note_swap(self) -> None:
        times = self._swaps.note(time.monotonic())
        if times is not None:
            log.warning(
                "models took each other's place in memory %d times within a minute; if there is room "
                "for more than %d, raise max_loaded (--max-loaded, RKLLAMA_MAX_LOADED)",
                times,
                self._settings.max_loaded,
            )

    @staticmethod
    def _is_well(resident: Resident, caller: Caller) -> bool:
        """Return whether a loaded model's process runs, and has ended the runs that were given up."""
        try:
            resident.worker.settle_all(caller)
        except WorkerError as error:
            log.warning("%s: %s", resident.info.name, error)
        return resident.worker.alive

    def _load(self, slot: Slot[Resident], demand: Demand, caller: Caller = LOCAL) -> None:
        """Load a model, on the NPU with the release of the runtime that fits it."""
        started, model = time.monotonic(), demand.model

        def attempt(spec: LoadSpec) -> LoadedInfo:
            return self._load_in_memory(slot, demand._replace(spec=spec), caller)

        try:
            loaded = self._loader.with_runtime(model.info, demand.spec, attempt)
        except (LoadFailed, WorkerError) as error:
            if not isinstance(error, NPUBusy | OutOfMemory):
                self.crashes.note_crash(slot.key)
            raise
        self._lost.pop(slot.key, None)
        for notice in (*model.notes, *loaded.notices):
            log.warning("%s: %s", model.info.name, notice)
        log.info("loaded %s in %.2f s", model.info.name, time.monotonic() - started)

    def _load_in_memory(self, slot: Slot[Resident], demand: Demand, caller: Caller) -> LoadedInfo:
        """Load a model; where memory lacks, idle ones go for it one by one."""
        while True:
            try:
                return self._try_load(slot, demand, caller)
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

    def _try_load(self, slot: Slot[Resident], demand: Demand, caller: Caller) -> LoadedInfo:
        """Start a process and load the model in it; after a failure the slot is empty.

        A model that was lost stays for as long as it would have.
        """
        if self._closed:
            raise ServerStopping
        before, until = self._lost.get(slot.key, (None, None))
        resident = slot.resident = self._loader.start(demand)
        if before is not None and (until is None or until > time.monotonic()):
            resident.keep_alive, resident.pinned = before.keep_alive, before.pinned
        if self._closed:  # `close` may have looked before it was there
            self._end(resident, "the server is stopping")
        try:
            return self._loader.load(resident, caller)
        except BaseException:
            self._close(slot)
            raise

    def state_figures(self) -> StateFigures | None:
        """What is kept of conversations on the disk; None where nothing is."""
        return self._loader.state_figures()

    # --- Unloading -----------------------------------------------------------------------------

    def unload(self, info: ModelInfo) -> None:
        """Unload a model; its running answer is cancelled. Raises NoModelLoaded."""
        self.on_unload(info.path)
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
                self._loader.give_back()

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
            self._loader.end(resident)

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
        self._loader.close()

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
                    self._loader.give_back()
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
            self._load(slot, old.demand)
        except RKLLamaError as error:  # the next request tries it again and says why
            if not self._closed:
                log.warning("%s", error.text)
        else:
            assert slot.resident is not None
            slot.resident.info = old.info

    def _until_next(self) -> float | None:
        times = [s.expires for s in self.scheduler.slots() if s.expires is not None and not s.held]
        return min(LONGEST_WAIT, max(0.0, min(times) - time.monotonic())) if times else None


def _is_bloated(slot: Slot[Resident]) -> bool:
    return slot.resident is not None and slot.resident.bloated


def _expired(slot: Slot[Resident]) -> bool:
    return slot.expires is not None and slot.expires <= time.monotonic()
