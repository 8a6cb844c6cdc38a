"""`RemoteService`: the operations of service.py, done by a running server through its Ollama dialect."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import ModelIncomplete, NoModelLoaded, ServerUnreachable
from ..service import LOCAL, WATCH_QUEUE, Caller
from ..types import (
    BoardState,
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    PullProgress,
    RerankRequest,
    RerankResult,
    SamplingParams,
)
from .discover import QUICK, ServerAddress
from .http import Response
from .wire import (
    EventReader,
    board_state,
    chat_body,
    embedding_result,
    incomplete_info,
    loaded_model,
    model_details,
    model_info,
    not_none,
    prompt_body,
    pull_progress,
    queue_position,
    rerank_result,
)

T = TypeVar("T")

_JSON = {"Content-Type": "application/json"}
_DRAIN = ("status", "running", "waiting", "timeout")


class RemoteService:
    """See service.Service. A `caller` only gets the server's signs of life: who closes an iterator closes the
    connection.
    """

    def __init__(self, server: ServerAddress) -> None:
        self._server = server

    # --- Models on disk ------------------------------------------------------------------------

    def version(self) -> dict[str, Any]:
        """Return what `/api/version` says: "version" of the Ollama API, "rkllama" of the server."""
        return self._server.get("/api/version")

    def models(self) -> list[ModelInfo]:
        """The models on disk."""
        body = self._server.get("/api/tags")
        return self._understand(_each(model_info, lambda entry: "alias_of" not in entry), body)

    def show(self, name: str) -> ModelDetails:
        """All that is known of one model."""
        return self._understand(
            model_details, self._call("POST", "/api/show", {"model": name}, timeout=QUICK)
        )

    def pull(
        self, reference: str, *, unverified: bool = False
    ) -> Generator[PullProgress, None, None]:
        """Have the server download a model."""
        body = {"model": reference, "stream": True, "insecure": unverified}
        with contextlib.closing(self._lines("/api/pull", body)) as lines:
            for line in lines:
                progress = self._understand(pull_progress, line)
                if progress is not None:
                    yield progress
                    if progress.status == "done":
                        return
        raise ServerUnreachable(
            self._server.url, "the connection ended in the middle of the download"
        )

    def remove(self, name: str) -> ModelInfo:
        """Unload and delete a model."""
        try:
            info = self.show(name).info
        except ModelIncomplete as error:
            info = incomplete_info(error)
        self._call("DELETE", "/api/delete", {"model": name})
        return info

    def copy(self, source: str, destination: str) -> None:
        """Give a model another name."""
        self._call("POST", "/api/copy", {"source": source, "destination": destination})

    def upload(self, path: str, report: Callable[[PullProgress], object]) -> str:
        """Send a file to the server, unless it has it from an earlier try."""
        import hashlib

        from ..models.uploads import Source

        file, sha256 = Source(path, report), hashlib.sha256()
        for block in file.blocks("verifying"):
            sha256.update(block)
        digest = sha256.hexdigest()
        target = f"/api/blobs/sha256:{digest}"
        if not self._has(target):
            headers = {**_JSON, "Content-Length": str(file.size)}
            data = file.blocks("copying")
            with self._server.request("POST", target, data, headers) as response:
                self._check(response)
        return digest

    def _has(self, path: str) -> bool:
        with self._server.request("HEAD", path, timeout=QUICK) as response:
            return response.status == 200

    def create(
        self,
        name: str,
        modelfile: str,
        files: Sequence[tuple[str, str]] = (),
        adapters: Sequence[tuple[str, str]] = (),
    ) -> ModelInfo:
        """Make a model out of a Modelfile."""
        body: dict[str, Any] = {"model": name, "modelfile": modelfile, "stream": False}
        if files:
            body["files"] = {file: f"sha256:{digest}" for file, digest in files}
        if adapters:
            body["adapters"] = {file: f"sha256:{digest}" for file, digest in adapters}
        self._call("POST", "/api/create", body)
        return self.show(name).info

    # --- Models in memory ----------------------------------------------------------------------

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the most recently used one first."""
        return self._understand(_each(loaded_model), self._server.get("/api/ps"))

    def current(self) -> ModelInfo:
        """Return the most recently used model in memory."""
        loaded = self.loaded()
        if not loaded:
            raise NoModelLoaded
        return loaded[0].info

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
        request = ChatRequest(
            model=name,
            keep_alive=keep_alive or None,  # sent without a prompt, a 0 would mean: unload it
            context_length=context_length,
            sampling=sampling or SamplingParams(),
        )
        for _ in self.stream(request, caller):
            pass
        return self._find_loaded(name)

    def _find_loaded(self, name: str) -> LoadedModel:
        info = self.show(name).info
        for model in self.loaded():
            if model.info.path == info.path:
                return model
        raise NoModelLoaded

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload a model, or the current one."""
        info = self.current() if name is None else self._find_loaded(name).info
        for _ in self.stream(ChatRequest(model=info.name, keep_alive=0.0)):
            pass
        return info

    # --- Answers -------------------------------------------------------------------------------

    def stream(
        self,
        request: ChatRequest,
        caller: Caller = LOCAL,
    ) -> Generator[Event, None, None]:
        """The events of an answer."""
        model = self._named(request.model)
        path = "/api/chat" if request.messages else "/api/generate"
        body = chat_body(request, model) if request.messages else prompt_body(request, model)
        reader = EventReader()
        headers = {WATCH_QUEUE: "1"} if caller.watching else {}
        with contextlib.closing(self._lines(path, {**body, "stream": True}, headers)) as lines:
            for line in lines:
                if (before := queue_position(line)) is not None:
                    caller.pass_on(before)
                yield from self._understand(reader.events, line)
                if reader.finished:
                    return
        raise ServerUnreachable(
            self._server.url, "the connection ended in the middle of the answer"
        )

    def _named(self, model: str | None) -> str:
        """Return the model that is asked, the current one where a request names none."""
        return self.current().name if model is None else model

    def embed(
        self,
        request: EmbeddingRequest,
        caller: Caller = LOCAL,  # noqa: ARG002 - as Service has it
    ) -> EmbeddingResult:
        """One vector per input."""
        body = {
            "model": self._named(request.model),
            "input": list(request.inputs),
            "truncate": request.truncate,
            "dimensions": request.dimensions,
            "options": not_none(num_ctx=request.context_length),
            "keep_alive": request.keep_alive,
        }
        reply = self._call("POST", "/api/embed", not_none(**body))
        return self._understand(embedding_result, reply)

    def rerank(
        self,
        request: RerankRequest,
        caller: Caller = LOCAL,  # noqa: ARG002 - as Service has it
    ) -> RerankResult:
        """One score per document."""
        body = {
            "model": self._named(request.model),
            "query": request.query,
            "documents": list(request.documents),
            "return_documents": False,
            "truncate": request.truncate,
        }
        result = self._understand(rerank_result, self._call("POST", "/api/rerank", body))
        if len(result.scores) != len(request.documents):
            raise self._server.stranger()
        return result

    def count_tokens(
        self,
        request: ChatRequest,  # noqa: ARG002 - as Service has it
        caller: Caller = LOCAL,  # noqa: ARG002 - as Service has it
    ) -> int | None:
        """Return None: the Ollama dialect has no such call."""
        return None

    def queue_length(self) -> int:
        """How many requests wait for their turn."""
        return self._understand(lambda body: int(body["queue"]), self._server.get("/health"))

    def board(self) -> BoardState:
        """How the server's board is doing."""
        return self._understand(board_state, self._server.get("/api/rkllama/board"))

    def drain(
        self, timeout: float | None = None, *, wait: bool = False
    ) -> Generator[dict[str, Any], None, None]:
        """Have the server end when the requests that it has are answered, `timeout` seconds from now at the
        latest; yield how far that is: "status", "running", "waiting" and "timeout". With `wait` once more at
        its end. Raises ServerUnreachable where that does not come.
        """
        body, status = not_none(timeout=timeout, wait=wait), ""
        with contextlib.closing(self._lines("/api/rkllama/drain", body)) as lines:
            for line in lines:
                state = self._understand(lambda line: {name: line[name] for name in _DRAIN}, line)
                status = state["status"]
                yield state
        if not status or (wait and status == "draining"):
            raise ServerUnreachable(
                self._server.url, "the connection ended before it told that it had drained"
            )

    def close(self) -> None:
        """Do nothing: no connection is open between two calls."""

    # --- HTTP ----------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the JSON object of an answer, {} of an empty one."""
        with self._open(method, path, body, timeout) as response:
            data = response.read()
        return self._server.parse(data) if data else {}

    def _lines(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the JSON objects of a streamed answer as they come. Raises what a line reports."""
        with self._open("POST", path, body, None, headers) as response:
            for data in response:
                line = self._server.parse(data)
                if "error" in line and not line.get("done"):
                    raise self._server.refusal(500, data)
                yield line

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Response]:
        """The response to a request that went well, open until the block ends. Raises its error."""
        data = None if body is None else json.dumps(body).encode()
        named = {**_JSON, **(headers or {})}
        with self._server.request(method, path, data, named, timeout=timeout) as response:
            self._check(response)
            yield response

    def _check(self, response: Response) -> None:
        """Raise what the server refuses."""
        if response.status >= 400:
            raise self._server.refusal(response.status, response.read())

    def _understand(self, convert: Callable[[dict[str, Any]], T], body: dict[str, Any]) -> T:
        """Return `convert(body)`; a body of another shape means that the server is not RKLLama."""
        try:
            return convert(body)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._server.stranger() from None


def _each(
    convert: Callable[[dict[str, Any]], T],
    wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> Callable[[dict[str, Any]], list[T]]:
    """Reads the "models" of a body, those that are `wanted`."""
    return lambda body: [convert(entry) for entry in body["models"] if wanted(entry)]
