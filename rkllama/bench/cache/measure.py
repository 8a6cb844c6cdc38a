"""The rounds: conversations are evaluated and saved in one process of a model, and loaded in the next.

It drives the model's process itself, so that states are saved and loaded whether that is worth it or not. The
files lie in a directory of their own beside the saved conversations, on the same disk, until the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from ...engine.memory.loading import identity_of
from ...engine.memory.resident import Resident, Turn
from ...engine.service import LocalService
from ...errors import LoadFailed, RKLLamaError, Unsupported, WorkerError
from ...models.metadata import StoredModel
from ...states.folder import Folder
from ...states.header import Header
from ...states.key import Identity, identity_key
from ...states.policy import USUAL_BYTES, Speeds
from ...states.store import StateStore
from ...types import SamplingParams
from ..measure import Progress
from ..plan import Plan
from .conversation import Talk, Text, learn_words
from .figures import ANSWER, FIRST_ANSWER, Figures
from .runs import Runner, RunOf, drop_from_memory, timed

SIZES, QUICK_SIZES = (512, 2048), (512,)
"""Tokens of the conversations' first prompts."""
ROUNDS = 3
_GREEDY = SamplingParams(temperature=0.0)
_KEEP_ALIVE = 3600.0
_HOURLY = 1 << 50
"""Bytes: whoever measures has asked for it."""
_SPARE = 1.25
"""How much larger than usual a state may be, until one has told."""
_PATIENCE = 120.0
"""Seconds for a state to come to the disk."""
_OTHER = "The river, the stone and the cloud"


def make_plan(*, quick: bool, rounds: int | None, context_length: int | None) -> Plan:
    """Return the plan for what the user asks for."""
    return Plan(
        sizes=QUICK_SIZES if quick else SIZES,
        answer_tokens=FIRST_ANSWER + 2 * ANSWER,  # the second turn's question is short
        rounds=ROUNDS if rounds is None else rounds,
        context_length=context_length,
    )


class _Kept:
    """A conversation of a round: what the loaded state's run is compared with."""

    def __init__(self, key: str, text: Text, cold: RunOf) -> None:
        self.key, self.text, self.cold = key, text, cold


class CacheMeasurement:
    """Measures one model; what has been measured is there at any moment."""

    def __init__(
        self,
        service: LocalService,
        model: StoredModel,
        plan: Plan,
        *,
        folder: str,
        report: Callable[[Progress], object] = lambda _: None,
    ) -> None:
        """`folder`: for the states of this measurement, removed after it."""
        self.plan = plan
        self.model = model
        self.figures = {size: Figures(size) for size in plan.sizes}
        self.failures: list[str] = []
        """What went wrong, as sentences."""
        self.complete = False
        self.identity: Identity | None = None
        self.written = 0
        """Bytes of states."""
        self.speeds: Speeds | None = None
        self._service = service
        self._folder = folder
        self._report = report
        self._words: Callable[[int], int] | None = None
        self._done = 0

    # --- Before the first round ------------------------------------------------------------------

    def prepare(self) -> Resident:
        """Load the model and learn how many tokens words have. Raises Unsupported for a runtime that keeps no
        states, and what loading raises.
        """
        self._tell("Loading the model")
        with self._store(), self._turn() as turn:
            loaded = turn.resident.ready
            if not loaded.keeps_states or loaded.slots:
                raise _keeps_none(turn.resident)
            self.identity = identity_of(loaded)
            for size, figures in self.figures.items():
                figures.skipped = self.plan.obstacle(size, loaded.context_length)
            if all(figures.skipped for figures in self.figures.values()):
                raise Unsupported(
                    f"{self.model.info.name} cannot be measured: {self._first_obstacle()}",
                    hint="A longer context is set with --ctx, as far as the model has one.",
                )
            self._tell("Learning its tokens")
            run = self._runner(turn)
            run(Text(_OTHER, ()), 1)
            self._words = learn_words(
                self.model, lambda text: run(Text(text, ()), 1).figures.prompt_tokens
            )
            return turn.resident

    def _first_obstacle(self) -> str | None:
        return next(iter(self.figures.values())).skipped

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Turn]:
        """Hold the model, loaded."""
        pool = self._service.pool
        with pool.use(
            self.model,
            context_length=self.plan.context_length,
            sampling=_GREEDY,  # releases before 1.3 fix it when they load
            keep_alive=_KEEP_ALIVE,
        ) as turn:
            turn.resident.raw = True
            yield turn

    def _unload(self) -> None:
        if self._service.loaded():
            self._service.unload(self.model.info.name)

    def _runner(self, turn: Turn) -> Runner:
        return Runner(
            turn.lane, self._service.settings, turn.resident.ready.context_length, _GREEDY
        )

    @contextlib.contextmanager
    def _store(self) -> Iterator[StateStore]:
        """Open the directory as a server does when it starts."""
        store = StateStore(self._folder, hourly=_HOURLY)
        if not store.open():
            raise RKLLamaError(
                f"no states can be written to {self._folder}",
                hint="Another `rkllama bench --cache` may be running, or the disk is full or read-only.",
            )
        try:
            yield store
            self.speeds = store.speeds
        finally:
            self.written += store.figures().written
            store.close(_PATIENCE)

    # --- The rounds ------------------------------------------------------------------------------

    def run(self) -> None:
        """Measure. A model that fails ends its round; raises what it raises the second time."""
        broken = False
        for number in range(1, self.plan.rounds + 1):
            try:
                self._round(number)
            except (WorkerError, LoadFailed) as error:
                self.failures.append(f"Round {number} failed: {error.message}.")
                if broken:
                    raise
                broken = True
        self.complete = True

    def _round(self, number: int) -> None:
        sizes = [size for size, figures in self.figures.items() if figures.skipped is None]
        kept: dict[int, _Kept] = {}
        self._unload()
        with self._store() as store, self._turn() as turn:
            for size in sizes:
                self._tell(f"Round {number} of {self.plan.rounds}: {size} tokens, saved")
                if (done := self._save(turn, store, size)) is not None:
                    kept[size] = done
                self._done += 1
        self._unload()
        for file in os.scandir(self._folder):
            drop_from_memory(file.path)
        with self._store() as store, self._turn() as turn:
            # The longest first: what a process does once is the smallest part there.
            for size, conversation in reversed(kept.items()):
                self._tell(f"Round {number} of {self.plan.rounds}: {size} tokens, loaded")
                self._load(turn, store, size, conversation)
                self._done += 1
        self._unload()
        self._repeat(kept)

    def _save(self, turn: Turn, store: StateStore, size: int) -> _Kept | None:
        """Evaluate a conversation without saving it and once more with; then its next turn, cold."""
        assert self._words is not None
        figures, run = self.figures[size], self._runner(turn)
        talk = Talk(self.model, self._words(size))
        plain = self._cold(run, talk.first, FIRST_ANSWER)
        draft = store.draft(int(size * figures.per_token(USUAL_BYTES) * _SPARE))
        if draft is None:
            figures.skipped = f"there is no room for the state of {size} tokens on the disk"
            return None
        with self._minding(figures):
            saving = self._cold(run, talk.first, FIRST_ANSWER, save=draft.path)
        if not saving.figures.saved or not saving.figures.prompt_tokens:
            store.discard(draft)
            figures.skipped = (
                f"the run of {size} tokens left no state: before release 1.3.0 only an answer that ends by "
                f"itself does, and this one did not within {FIRST_ANSWER} tokens"
            )
            return None
        assert self.identity is not None
        key = identity_key(self.identity)
        header = Header(
            key=key,
            tokens=saving.figures.prompt_tokens,
            prefill=plain.prefill or 1e-6,
            model=self.model.info.name,
        )
        entry = store.keep(draft, talk.first.prompt.encode("utf-8", "surrogatepass"), header)
        _, seconds = timed(lambda: store.settle(_PATIENCE))
        if entry is None or not entry.committed:
            figures.skipped = f"the state of {size} tokens did not come to the disk"
            return None
        figures.note_saved(plain, saving, entry.header, seconds)
        text = talk.go_on(saving.text)
        cold = self._cold(run, text, ANSWER)
        figures.note_cold(cold)
        return _Kept(key, text, cold)

    def _cold(self, run: Runner, text: Text, tokens: int, save: str | None = None) -> RunOf:
        """Run a prompt of which nothing is in the KV cache."""
        run(Text(_OTHER, ()), 1)
        return run(text, tokens, save=save)

    def _load(self, turn: Turn, store: StateStore, size: int, kept: _Kept) -> None:
        """Find and load a state as a server does after a restart, and have the next turn answered."""
        figures, run = self.figures[size], self._runner(turn)
        prompt = kept.text.prompt.encode("utf-8", "surrogatepass")
        entry = store.find(kept.key, prompt, lambda _: True)
        path, checking = timed(lambda: store.path(entry) if entry is not None else None)
        if entry is None or path is None:
            self.failures.append(
                f"The state of {size} tokens was not whole when it was read again."
            )
            return
        with self._minding(figures):
            taken, loading = timed(lambda: run.restore(path, entry.header.tokens, len(prompt)))
            if not taken:
                self.failures.append(
                    f"The runtime did not take the state of {size} tokens that it wrote."
                )
                figures.failed = True
                return
            loaded = run(kept.text, ANSWER)
        store.drop(entry)
        figures.note_loaded(loaded, kept.cold, checking, loading)

    def _repeat(self, kept: dict[int, _Kept]) -> None:
        """Where a state has led to another answer, see whether the model repeats itself without one, in a
        process that has loaded none.
        """
        unlike = [
            s for s in kept if self.figures[s].differs and self.figures[s].cold_repeats is None
        ]
        if not unlike:
            return
        with self._turn() as turn:
            for size in unlike:
                self._tell(f"{size} tokens: whether the model repeats itself")
                again = self._cold(self._runner(turn), kept[size].text, ANSWER)
                self.figures[size].cold_repeats = again.text == kept[size].cold.text

    @staticmethod
    @contextlib.contextmanager
    def _minding(figures: Figures) -> Iterator[None]:
        """Note it where the model's process dies in a run that saves or loads."""
        try:
            yield
        except WorkerError:
            figures.failed = True
            raise

    def _tell(self, doing: str) -> None:
        sizes = sum(figures.skipped is None for figures in self.figures.values())
        self._report(Progress(self._done, max(1, 2 * sizes * self.plan.rounds), doing))

    def clean_up(self) -> None:
        """Unload the model and remove everything that was written."""
        try:
            with contextlib.suppress(RKLLamaError):
                self._unload()
        finally:
            Folder(self._folder).delete()


def _keeps_none(resident: Resident) -> Unsupported:
    """Return the error for a backend that offers no states."""
    kind, runtime, n_batch = resident.worker.kind, resident.ready.runtime, resident.ready.n_batch
    if n_batch > 1:
        return Unsupported(
            f"{resident.info.name} was loaded for batches of {n_batch}, and keeps no conversations then",
            hint="Measure with RKLLAMA_N_BATCH=1.",
        )
    if kind.needs_npu:
        return Unsupported(
            f"{runtime} does not tell what it reuses, so conversations are not kept on the disk with it",
            hint="librkllmrt 1.2.1 and later do: `rkllama runtime list` shows those that are here.",
        )
    return Unsupported(
        f"--cache measures what the NPU's runtime writes, and {resident.info.name} runs on {runtime}",
        hint="Measure a .rkllm model; `rkllama cache list` shows what is kept of others.",
    )
