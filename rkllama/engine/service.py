"""`LocalService`: the operations of service.py, a server's too, done in this process and its children."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ..board.lock import NPULock
from ..config import Settings
from ..errors import Cancelled, ModelNotFound, NoModelLoaded, PullError, RKLLamaError
from ..models.authoring import WritableStore
from ..models.filename import without_registry
from ..models.modelfile import parse_modelfile, render_modelfile
from ..models.uploads import Blobs, Source, Upload
from ..rkllm.installed import Runtimes
from ..service import LOCAL, Caller
from ..types import (
    Alias,
    BoardState,
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    FoundModels,
    IncompleteDownload,
    Load,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    PullProgress,
    RerankRequest,
    RerankResult,
    SamplingParams,
    Unready,
)
from .engine import Engine
from .health.examination import Examination
from .health.keeper import Keeper
from .health.readiness import Readiness
from .memory.pool import Pool
from .memory.resident import Traffic
from .prompt import template_for
from .structured.schema import check_schema

MAX_PULLS = 8
"""Downloads at a time: each takes a thread of the server, for hours perhaps."""
MAX_SEARCHES = 4
"""Searches of the Hub at a time, of which each may wait for half a minute."""


class LocalService:
    """See service.ServerService. `command` and `url` name this process to others that want the NPU."""

    def __init__(
        self,
        settings: Settings,
        command: str,
        url: str | None = None,
        *,
        exact_sampling: bool = False,
    ) -> None:
        self.settings = settings
        self.store = WritableStore(settings.models, settings.aliases, rknn_lib=settings.rknn_lib)
        npu_lock = NPULock(settings.lock, command, url)
        self._engine = Engine(
            settings,
            self.store,
            npu_lock,
            exact_sampling=exact_sampling,
            shares_npu=url is None,
        )
        self._readiness = Readiness(settings, self.store, self.pool, npu_lock)
        self._examination = Examination(settings, url)
        self._pulls = _Places(MAX_PULLS, "downloads")
        self._searches = _Places(MAX_SEARCHES, "searches")
        self._loading = threading.Lock()
        """Held while a model is loaded on condition that none is."""

    @property
    def pool(self) -> Pool:
        """The models in memory and the queue before them."""
        return self._engine.pool

    def models(self) -> list[ModelInfo]:
        """The models on disk."""
        return self.store.list()

    def show(self, name: str) -> ModelDetails:
        """All that is known of one model."""
        return self.store.details(name)

    def pull(
        self, reference: str, *, unverified: bool = False
    ) -> Generator[PullProgress, None, None]:
        """Download a model; a name that already exists here is done at once. An alias is its model."""
        reference = self.store.meant(reference)
        if (here := self._present(reference)) is not None:
            yield PullProgress(
                status="done",
                file=here.file,
                total=here.size,
                completed=here.size,
                name=here.name,
            )
            return
        from ..board.soc import read_soc
        from ..hub.offers import this_board
        from ..hub.pull import pull

        with self._pulls.one():
            board, cache = this_board(read_soc()), self.settings.cache
            steps = pull(
                reference, self.store.models, unverified=unverified, board=board, cache=cache
            )
            for step in steps:
                if step.status == "done":
                    self._note_toolkit(step)
                    step = self._named(step, reference)
                yield step

    def _note_toolkit(self, done: PullProgress) -> None:
        """Keep what the Hub tells of the model's toolkit: that tells which runtime fits."""
        if done.name is not None and done.toolkit is not None:
            with contextlib.suppress(OSError, RKLLamaError):
                path = self.store.resolve(done.name).info.path
                Runtimes(self.settings.home).remember(path, None, done.toolkit)

    def _named(self, done: PullProgress, reference: str) -> PullProgress:
        """Return the last step of a pull; a file that is here under another name gets the wanted one."""
        from ..hub.wanted import parse_wanted

        # An address names a file.
        wanted = None if "://" in reference else parse_wanted(reference).name
        if wanted is None or done.name is None or done.name.lower() == wanted.lower():
            return done
        self.store.copy(done.name, wanted, literal=True)
        return replace(done, name=wanted)

    def _present(self, reference: str) -> ModelInfo | None:
        """Return the model here that a reference without a repository means. Raises AmbiguousName.

        Clients of Ollama pull whatever /api/tags does not list letter for letter.
        """
        if "/" in without_registry(reference.strip()):
            return None
        try:
            return self.store.resolve(reference).info
        except ModelNotFound:
            return None

    def remove(self, name: str) -> ModelInfo:
        """Unload and delete a model."""
        info = self.store.removable(name)
        self._unload_if_loaded(info)
        return self.store.remove(name)

    def _unload_if_loaded(self, info: ModelInfo) -> None:
        """Unload what is in memory under a model's name; an alias shares that of its model."""
        named = [model.info for model in self.loaded() if model.info.name == info.name]
        with contextlib.suppress(NoModelLoaded):
            self._engine.pool.unload(named[0] if named else info)

    def copy(self, source: str, destination: str) -> None:
        """Give a model another name."""
        self.store.copy(source, destination)

    def upload(self, path: str, report: Callable[[PullProgress], object]) -> str:
        """Copy a file to where models are made of it."""
        file = Source(path, report)
        with contextlib.closing(Upload(self.store.models, file.size)) as upload:
            for block in file.blocks("copying"):
                upload.append(block)
            return upload.keep()

    def create(
        self,
        name: str,
        modelfile: str,
        files: Sequence[tuple[str, str]] = (),
        adapters: Sequence[tuple[str, str]] = (),
    ) -> ModelInfo:
        """Make a model out of a Modelfile."""
        blobs = Blobs(self.store.models)
        adapter = blobs.adapter(adapters) if adapters else None
        if not files:
            return self.store.create(name, modelfile, adapter)
        name, old = self.store.new_name(name)
        text = render_modelfile(replace(parse_modelfile(modelfile), source=name))
        with blobs.placed(files, name, old) as (path, digest):
            info = self.store.create(name, text, adapter)
            self.store.put_digest(path, digest)
        return info

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the most recently used one first."""
        return self._engine.pool.loaded()

    def current(self) -> ModelInfo:
        """Return the most recently used model in memory. Raises NoModelLoaded."""
        return self._engine.pool.current()

    def load(
        self,
        name: str,
        *,
        keep_alive: float | None = None,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
        caller: Caller = LOCAL,
    ) -> LoadedModel:
        """Load a model."""
        return self._engine.load(name, keep_alive, context_length, sampling, caller)

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload a model, or the current one."""
        return self._engine.unload(name)

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        """The events of an answer."""
        return self._engine.stream(request, caller)

    def embed(self, request: EmbeddingRequest, caller: Caller = LOCAL) -> EmbeddingResult:
        """One vector per input."""
        return self._engine.embed(request, caller)

    def rerank(self, request: RerankRequest, caller: Caller = LOCAL) -> RerankResult:
        """One score per document."""
        return self._engine.rerank(request, caller)

    def count_tokens(self, request: ChatRequest, caller: Caller = LOCAL) -> int | None:
        """Return tokens of the rendered prompt."""
        return self._engine.count_tokens(request, caller)

    def queue_length(self) -> int:
        """How many requests wait for their turn."""
        return self.pool.scheduler.waiting

    def board(self) -> BoardState:
        """How the board is doing."""
        from ..board.telemetry import read_state  # a server starts without it

        return read_state()

    # --- What a server needs -------------------------------------------------------------------

    def digest(self, info: ModelInfo) -> str:
        """A model's sha256, or what stands in for it until it has been computed."""
        return self.store.digest(info)

    def aliases(self) -> list[Alias]:
        """Return the aliases of the settings."""
        return [*self.store.aliases()]

    def seeing(self) -> Collection[str]:
        """Return the names of the models that see pictures."""
        return self.store.seeing()

    def incomplete(self) -> list[IncompleteDownload]:
        """Return the downloads that are not complete."""
        return self.store.incomplete()

    def can_think(self, request: ChatRequest) -> bool:
        """Whether the template of the request's prompt knows thinking."""
        model = self.store.resolve(request.model or self.current().name)
        template = template_for(request, model)
        return template is None or template.supports_thinking

    def check_format(self, format: Literal["json"] | Mapping[str, Any]) -> None:
        """Refuse a format that is not a schema."""
        check_schema(format)

    def load_if_none(self, name: str, caller: Caller = LOCAL) -> bool:
        """Load a model unless one is loaded; of two calls at once, one finds the other's model."""
        if not self._loading.acquire(blocking=False):
            return False
        try:
            if self.loaded():
                return False
            self.load(name, keep_alive=-1.0, caller=caller)
        finally:
            self._loading.release()
        return True

    def has_upload(self, digest: str) -> bool:
        """Whether a file is here for a `create`."""
        return Blobs(self.store.models).has(digest)

    def open_upload(self, size: int = 0) -> Upload:
        """A place for a file."""
        return Upload(self.store.models, size)

    def keep_upload(self, digest: str, body: Any) -> None:
        """Keep a file for a `create`."""
        Blobs(self.store.models).put(digest, body)

    def search(
        self, text: str, format: str | None = None, page: int = 1, caller: Caller = LOCAL
    ) -> FoundModels:
        """Return a page of what the Hub has. A caller that hangs up has no further question asked."""
        from ..board.soc import read_soc
        from ..hub.api import Hub
        from ..hub.find import Library
        from ..hub.listing import look_up, page_of
        from ..hub.offers import this_board
        from ..hub.search import finish

        def stay(_: object) -> None:
            if caller.has_left():
                raise Cancelled

        with self._searches.one():
            here = this_board(read_soc())
            board = here.without_npu() if format == "gguf" else here
            where = Library(cache=self.settings.cache, models=self.store.models)
            listing = finish(look_up(Hub(), text, board, where, format=format), stay)
            return page_of(listing, page, by_name=board.format == here.format)

    def doctor(self) -> Mapping[str, Any]:
        """Return what is wrong on this machine."""
        return self._examination.result()

    def count_request(self, path: str, status: int) -> None:
        """Count an HTTP request."""
        self._engine.metrics.requests.add(1, path, str(status))

    def metrics(self) -> str:
        """The figures since the start."""
        pool = self.pool
        names = self.store.names()
        traffic = {name: Traffic(0, 0, None) for name in names.values()}
        for path, figures in pool.traffic().items():
            traffic[names.get(path, os.path.basename(path))] = figures
        return self._engine.metrics.exposition(
            pool.scheduler.waiting,
            pool.restarts,
            pool.loaded(),
            self.board(),
            pool.state_figures(),
            traffic,
            self._readiness.release,
        )

    def unready(self, name: str | None = None) -> Unready | None:
        """Return why a request would not be served now."""
        return self._readiness.obstacle(name)

    def load_now(self) -> Load:
        """Return how busy the server is."""
        traffic = self.pool.traffic().values()
        used = [each.cache_use for each in traffic if each.cache_use is not None]
        return Load(
            running=sum(each.running for each in traffic),
            waiting=sum(each.waiting for each in traffic),
            places=self.pool.scheduler.places,
            cache_use=max(used, default=0.0),
        )

    def keep(self, name: str) -> None:
        """Have a model in memory from now on, until it is unloaded: it is loaded in the background, and again
        after its process died or a load failed. Raises ModelNotFound, AmbiguousName.
        """
        path = self.store.resolve(name).info.path
        keeper = Keeper(name, path, lambda: self.load(name, keep_alive=-1.0))
        self._readiness.keeper = keeper
        self.pool.on_lost, self.pool.on_unload = keeper.note_lost, keeper.end
        keeper.start()

    def drain(self) -> None:
        """Send away the requests that come from now on."""
        self.pool.scheduler.drain()

    def close(self) -> None:
        """End every child and release the NPU."""
        if self._readiness.keeper is not None:
            self._readiness.keeper.end()
        self._engine.close()
        self.store.close()


class _Places:
    """How many of something may be in progress at a time."""

    def __init__(self, number: int, things: str) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._all_taken = f"{number} {things} are already in progress"

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place. Raises PullError where there is none."""
        if not self._free.acquire(blocking=False):
            raise PullError(self._all_taken, hint="Try again when one of them has finished.")
        try:
            yield
        finally:
            self._free.release()
