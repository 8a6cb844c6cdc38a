"""The operations that both faces offer: `LocalService` does them here, `client.RemoteService` through
a running server. The CLI works with either and cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from .types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    PullProgress,
    SamplingParams,
)


class Service(Protocol):
    """Everything one can do with models. Raises the errors of errors.py and nothing else."""

    def models(self) -> list[ModelInfo]:
        """The models on disk, by name. Raises ModelsDirMissing."""

    def show(self, name: str) -> ModelDetails:
        """All that is known of one model. Raises ModelNotFound, AmbiguousName."""

    def pull(self, reference: str) -> Generator[PullProgress, None, None]:
        """Fetch `[hf/]USER/REPO/FILE[@REVISION]`. Nothing happens before the first `next`;
        closing the iterator stops the download and leaves what came for a later try.
        """

    def remove(self, name: str) -> ModelInfo:
        """Unload and delete a model; answers what was deleted. Raises ModelNotFound, AmbiguousName, and
        InvalidRequest where others are made from it.
        """

    def copy(self, source: str, destination: str) -> None:
        """Make `destination` another name of `source`."""

    def upload(self, path: str, report: Callable[[PullProgress], object]) -> str:
        """Bring a file of this machine to where `create` makes a model of it; answers its sha256."""

    def create(self, name: str, modelfile: str, files: Sequence[tuple[str, str]] = ()) -> ModelInfo:
        """Make a model out of a Modelfile's text, and of an existing model or of what stands in for it:
        the one upload in `files` (file name, sha256).
        """

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; never waits for one."""

    def current(self) -> ModelInfo:
        """The most recently used model in memory. Raises NoModelLoaded."""

    def load(
        self,
        name: str,
        *,
        keep_alive: float | None = None,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
        gone: int = -1,
    ) -> LoadedModel:
        """Load a model, or set a loaded one's keep-alive (negative: until unloaded)."""

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload the named model, or the current one; a running answer is cancelled first.
        Raises NoModelLoaded, or ModelNotFound.
        """

    def stream(self, request: ChatRequest, gone: int = -1) -> Generator[Event, None, None]:
        """The events of an answer; the last one is Finished. Errors are raised, before the first
        event or in between. Closing the iterator cancels the answer, and so does a hang-up on
        `gone`, the file descriptor of the client's socket.
        """

    def embed(self, request: EmbeddingRequest, gone: int = -1) -> EmbeddingResult:
        """One vector per input."""

    def count_tokens(self, request: ChatRequest, gone: int = -1) -> int | None:
        """Tokens of the rendered prompt; None where the backend cannot count."""

    def close(self) -> None:
        """Cancel what runs, end every child, release the NPU."""
