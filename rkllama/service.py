"""The operations that both faces offer: `engine.service.LocalService` does them here,
`client.remote.RemoteService` through a running server. The CLI works with either and cannot tell the
difference. What a server needs beyond them is a `ServerService`'s.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol

from .config import LONGEST_WAIT
from .errors import Cancelled, RKLLamaError, Unsupported
from .types import (
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

WATCH_QUEUE = "X-RKLLama-Watch-Queue"
"""The header by which a client asks to be told its place in the queue at once, and each change of it."""


def no_text_error(name: str, capabilities: Sequence[str]) -> Unsupported:
    """Return the error for a chat with a model that only makes vectors or ranks documents."""
    if "rerank" in capabilities:
        return Unsupported(
            f"{name} ranks documents and writes no text",
            hint="Use it with `rkllama rerank` or /v1/rerank, and another model to chat.",
            param="model",
        )
    return Unsupported(
        f"{name} makes embeddings and writes no text",
        hint="Use it with /api/embed or /v1/embeddings, and another model to chat.",
        param="model",
    )


Shaping = Literal["guided", "constrained", "checked"]
"""How an answer gets the shape that is demanded: written together with the model, by a backend that
constrains its tokens, or asked for, checked and asked for again.
"""


class Signs:
    """Signs of life for a caller that waits: `give` is called after each `interval` seconds in which it got
    none, with how many requests are before its own; 0 when it is its turn.

    One that is `watching` is moreover told at once that it has to wait, and whenever that number changes.
    """

    __slots__ = ("_due", "_give", "interval", "watching")

    def __init__(
        self,
        give: Callable[[int], object],
        interval: float = LONGEST_WAIT,
        *,
        watching: bool = False,
    ) -> None:
        self._give = give
        self._due = time.monotonic() + interval
        self.interval = interval
        self.watching = watching

    def left(self) -> float:
        """Return seconds until the next one is due; below 0 where it is overdue."""
        return self._due - time.monotonic()

    def put_off(self) -> None:
        """Have the next one due after a whole interval, since the caller has got something else."""
        self._due = time.monotonic() + self.interval

    def give(self, before: int) -> None:
        """Give one now. Raises Cancelled where the caller turns out to have hung up."""
        self.put_off()
        self._give(before)


def _its_turn() -> int:
    return 0


class Caller:
    """For whom an operation is done. A caller that hangs up cancels it, wherever it waits, and gets its
    `signs` of life there.
    """

    __slots__ = ("_fd", "_signs", "key", "owner", "shaped_by")

    def __init__(
        self, fd: int = -1, owner: str = "", signs: Signs | None = None, *, key: str = ""
    ) -> None:
        """`fd` is the caller's socket; -1 is a caller that never hangs up. `owner` tells apart those whose
        conversations are kept apart; `key` is the API key that was sent, "" for none.
        """
        self._fd = fd
        self._signs = signs
        self.owner = owner
        self.key = key
        self.shaped_by: Shaping | None = None
        """What gives its answer the demanded shape; known before the first event."""

    @property
    def watching(self) -> bool:
        """Whether it wants to be told at once how many requests are before its own."""
        return self._signs is not None and self._signs.watching

    def staying(self) -> Caller:
        """Return the same caller for what is done to its end, whether it hangs up or not."""
        return Caller(owner=self.owner, signs=self._signs, key=self.key)

    def tell(self, before: int) -> None:
        """Give a sign of life now to a caller that is watching. Raises Cancelled."""
        if self._signs is not None and self._signs.watching:
            self._give_sign(before)

    def pass_on(self, before: int) -> None:
        """Give a sign of life now, which has come from the server that does the work. Raises Cancelled."""
        if self._signs is not None:
            self._give_sign(before)

    def reassure(self, silent: bool = True) -> None:
        """Give a sign of life where one is due, in work that never waits for long. With `silent` False the
        caller has got something else just before. Raises Cancelled.
        """
        if self._signs is None:
            return
        if not silent:
            self._signs.put_off()
        elif self._signs.left() <= 0:
            self._give_sign(0)

    def _give_sign(self, before: int) -> None:
        assert self._signs is not None
        try:
            self._signs.give(before)
        except Cancelled:
            if self._fd >= 0:
                raise

    def wait(self, fd: int, timeout: float | None = None) -> bool:
        """Wait until `fd` can be read; False when `timeout` seconds pass first.

        Raises Cancelled when the caller hangs up.
        """
        return self.waiter(fd)(timeout)

    def waiter(
        self, fd: int, before: Callable[[], int] = _its_turn
    ) -> Callable[[float | None], bool]:
        """Return `wait` for one descriptor and one thread; to wait again costs less with it. `before` tells
        how many requests are before the caller's.
        """
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        own, signs = self._fd, self._signs
        if own >= 0:
            poll.register(own, select.POLLRDHUP)
        # The clock is not asked for each token: what counts is for how long nothing came.
        interval = LONGEST_WAIT if signs is None else signs.interval
        longest = LONGEST_WAIT if signs is None else max(0.0, signs.left())

        def wait(timeout: float | None = None) -> bool:
            nonlocal longest
            left = math.inf if timeout is None else timeout
            while left > 0:
                ready = poll.poll(min(left, longest) * 1000)
                for number, _ in ready:
                    if number == own:
                        raise Cancelled
                silence, longest = longest, interval
                if ready:
                    return True
                left -= silence
                if left > 0 and signs is not None:
                    self._give_sign(before())
            return False

        return wait

    def has_left(self) -> bool:
        """Whether the caller has hung up."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLRDHUP)
        return bool(poll.poll(0))


LOCAL = Caller()
"""This process itself, which does not hang up."""


class Service(Protocol):
    """All operations on models. Raises only the errors of errors.py."""

    def models(self) -> list[ModelInfo]:
        """Return the models on disk, by name. Raises ModelsDirMissing."""

    def show(self, name: str) -> ModelDetails:
        """Return the details of one model. Raises ModelNotFound, AmbiguousName."""

    def pull(
        self, reference: str, *, unverified: bool = False
    ) -> Generator[PullProgress, None, None]:
        """Fetch `[hf/]USER/REPO/FILE[@REVISION]`. Nothing happens before the first `next`;
        closing the iterator stops the download and leaves what came for a later try. With `unverified`
        a file without a known hash is taken, too.
        """

    def remove(self, name: str) -> ModelInfo:
        """Unload and delete a model; return what was deleted. Raises ModelNotFound, AmbiguousName, and
        InvalidRequest where others are made from it.
        """

    def copy(self, source: str, destination: str) -> None:
        """Make `destination` another name of `source`."""

    def upload(self, path: str, report: Callable[[PullProgress], object]) -> str:
        """Bring a file of this machine to where `create` can use it; return its sha256."""

    def create(
        self,
        name: str,
        modelfile: str,
        files: Sequence[tuple[str, str]] = (),
        adapters: Sequence[tuple[str, str]] = (),
    ) -> ModelInfo:
        """Make a model out of a Modelfile's text, and of an existing model or of what stands in for it:
        the one upload in `files` (file name, sha256). The one in `adapters` is its LoRA, whatever the
        Modelfile's ADAPTER says.
        """

    def loaded(self) -> list[LoadedModel]:
        """Return the models in memory; never waits for one."""

    def current(self) -> ModelInfo:
        """Return the most recently used model in memory. Raises NoModelLoaded."""

    def load(
        self,
        name: str,
        *,
        keep_alive: float | None = None,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
        caller: Caller = LOCAL,
    ) -> LoadedModel:
        """Load a model, or set a loaded one's keep-alive (negative: until unloaded)."""

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload the named model, or the current one; a running answer is cancelled first.
        Raises NoModelLoaded, or ModelNotFound.
        """

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        """Return the events of an answer; the last one is Finished. Errors are raised, before the first
        event or in between. Closing the iterator cancels the answer, and so does a caller that
        hangs up.
        """

    def embed(self, request: EmbeddingRequest, caller: Caller = LOCAL) -> EmbeddingResult:
        """Return one vector per input."""

    def rerank(self, request: RerankRequest, caller: Caller = LOCAL) -> RerankResult:
        """Return one score per document. Raises Unsupported for a model that is not a reranker."""

    def count_tokens(self, request: ChatRequest, caller: Caller = LOCAL) -> int | None:
        """Return tokens of the rendered prompt; None where the backend cannot count."""

    def queue_length(self) -> int:
        """Return how many requests wait for their turn."""

    def board(self) -> BoardState:
        """Return how the board is doing at this moment."""

    def close(self) -> None:
        """Cancel what runs, end every child, release the NPU."""


class Upload(Protocol):
    """A file on its way to where `create` makes a model of it; `ServerService.keep_upload` ends that."""

    @property
    def failure(self) -> RKLLamaError | None:
        """Why the file cannot be kept; what comes after that is dropped."""

    def append(self, data: bytes) -> None:
        """Add the next piece."""

    def close(self) -> None:
        """Drop the file, unless it was kept."""


class ServerService(Service, Protocol):
    """What a server needs of the service that it stands before."""

    def digest(self, info: ModelInfo) -> str:
        """A model's sha256 as 64 hex digits. Never waits for it: until it has been computed, 64 digits
        that stand for the file as it is now.
        """

    def incomplete(self) -> list[IncompleteDownload]:
        """Return the downloads that are not complete, by name. Raises ModelsDirMissing."""

    def aliases(self) -> list[Alias]:
        """Return the aliases of the settings, by name."""

    def seeing(self) -> Collection[str]:
        """Return the names of the models that see pictures. Raises ModelsDirMissing."""

    def can_think(self, request: ChatRequest) -> bool:
        """Whether the prompt of a request can ask for thinking; True where that is not known.
        Raises ModelNotFound, AmbiguousName.
        """

    def check_format(self, format: Literal["json"] | Mapping[str, Any]) -> None:
        """Raise InvalidRequest where `format` is not "json" or a JSON schema that an answer can meet."""

    def load_if_none(self, name: str, caller: Caller = LOCAL) -> bool:
        """Load a model until it is unloaded, unless one is loaded or being loaded; whether it was done."""

    def has_upload(self, digest: str) -> bool:
        """Whether the file of this sha256 (64 hex digits) is here for a `create`."""

    def open_upload(self, size: int = 0) -> Upload:
        """A place for a file; `size` is its length in bytes, 0 where that is not known."""

    def keep_upload(self, digest: str, body: Any) -> None:
        """Keep a file for a `create`: an `Upload` that is complete, or a binary stream.
        Raises InvalidRequest where its sha256 is another one, DiskFull.
        """

    def search(
        self, text: str, format: str | None = None, page: int = 1, caller: Caller = LOCAL
    ) -> FoundModels:
        """Return a page of the models on the Hub that fit a text, as `rkllama search` finds them; `format`
        is "rkllm" or "gguf", None the one for this board. Raises PullError, InvalidRequest, Cancelled.
        """

    def doctor(self) -> Mapping[str, Any]:
        """Return what the checks of `rkllama doctor` find on this machine, as `--json` tells it. It takes
        up to two seconds; who asks while another does gets the same.
        """

    def count_request(self, path: str, status: int) -> None:
        """Count an HTTP request in the metrics."""

    def metrics(self) -> str:
        """The figures since the start, in Prometheus' text format."""

    def unready(self, name: str | None = None) -> Unready | None:
        """Return why a request for the model `name`, or for any, would not be served now; None: it would."""

    def load_now(self) -> Load:
        """Return how busy the server is."""

    def drain(self) -> None:
        """Send away, with ServerStopping, all requests for a model that come from now on; those that are
        running or waiting are served.
        """
