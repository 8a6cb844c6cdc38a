"""From a request to the events of its answer: prompt, run, parse, figures. The same for every backend."""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ..backends.base import RerankSpec
from ..board.lock import NPULock
from ..chat.messages import IMAGE_PLACE, neutraliser
from ..chat.rerank import usual_yes_no_tokens
from ..config import Settings
from ..errors import InvalidRequest, PromptTooLong, Unsupported
from ..models.metadata import StoredModel
from ..models.store import Store
from ..service import LOCAL, Caller, no_text_error
from ..types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    LoadedModel,
    ModelInfo,
    RerankRequest,
    RerankResult,
    SamplingParams,
    Timings,
    Tool,
    Usage,
)
from .arrangement import Arranger
from .generation import Generation
from .memory.pool import Pool
from .memory.resident import Resident, Turn
from .metrics import Metrics
from .pictures import with_pictures, without_earlier_pictures
from .prompt import build_prompt, empty_prompt, tools_for
from .slots import count_in_slot
from .structured.schema import check_schema
from .structured.tool_choice import forced_call_schema
from .truncation import truncate

log = logging.getLogger("rkllama")

MAX_INPUTS = 2048
"""Texts that one request may have embedded: as many as OpenAI takes."""
MAX_DOCUMENTS = 1000
"""Documents that one request may have ranked: as many as Cohere recommends."""


class Engine:
    """Answers requests with the models of a store."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        npu_lock: NPULock,
        *,
        exact_sampling: bool = False,
        shares_npu: bool = False,
    ) -> None:
        self._settings = settings
        self._store = store
        self.pool = Pool(settings, npu_lock, exact_sampling=exact_sampling, shares_npu=shares_npu)
        self.metrics = Metrics()
        self._arranger = Arranger(settings, self.metrics)

    # --- Text ----------------------------------------------------------------------------------

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        """Yield the events of one answer, Finished last; see Service.stream."""
        started = time.monotonic()
        _check_shape(request)
        if request.prompt is None and not request.messages:
            raise empty_prompt()
        model = self._model(request.model)
        if "completion" not in model.capabilities:
            raise no_text_error(model.info.name, model.capabilities)
        request = _with_pictures(request, model)
        request, moved = self._arranger.arrange(request, model, caller)
        with self.pool.use(
            model,
            context_length=request.context_length,
            sampling=request.sampling,
            keep_alive=request.keep_alive,
            caller=caller,
        ) as turn:
            if turn.resident.conversations and model.info.digest is None:
                self._store.digest(model.info)  # in the background; without it none is kept
            generation = Generation(
                request=request,
                model=model,
                turn=turn,
                caller=caller,
                settings=self._settings,
                metrics=self.metrics,
                started=started,
                moved=moved,
                minds_room=request.truncate,
            )
            with _explaining(turn.resident, tools_for(request)):
                yield from _truncated(generation)

    def _model(self, name: str | None) -> StoredModel:
        return self._store.resolve(name or self.pool.current().name)

    def count_tokens(self, request: ChatRequest, caller: Caller = LOCAL) -> int | None:
        """Return tokens of the prompt that `request` renders to; see Service.count_tokens."""
        _check_shape(request)
        model = self._model(request.model)
        request, moved = self._arranger.arrange(request, model, caller, count=False)
        with self.pool.use(model, keep_alive=request.keep_alive, caller=caller) as turn:
            resident = turn.resident
            if not resident.ready.counts_tokens:
                return None
            request = _with_pictures(request, model)
            prompt = build_prompt(request, model, moved=moved, runtime_wraps=False)
            each = resident.ready.image_tokens
            if prompt.images and each is None:
                return None
            text = prompt.text.replace(IMAGE_PLACE, "")
            resident.raw = True
            timeout = self._settings.prompt_timeout(len(text))
            tokens = self._counted(turn, model, text, timeout, caller)
            return None if tokens is None else tokens + len(prompt.images) * (each or 0)

    def _counted(
        self, turn: Turn, model: StoredModel, text: str, timeout: float, caller: Caller
    ) -> int | None:
        """Return a prompt's tokens as the model's process counts them."""
        if turn.lane.kind.external:  # it has a tokenizer, and its slots stay as they are
            return turn.lane.count_tokens(text, timeout=timeout, caller=caller)
        if turn.conversations is not None and turn.conversations.slots:
            return count_in_slot(turn, text, model.info.digest, self._settings, caller)
        if turn.conversations is not None:
            turn.conversations.forget()
        return turn.lane.count_tokens(text, timeout=timeout, caller=caller)

    # --- Vectors -------------------------------------------------------------------------------

    def embed(self, request: EmbeddingRequest, caller: Caller = LOCAL) -> EmbeddingResult:
        """Return one normalised vector per input; see Service.embed."""
        started = time.monotonic()
        if len(request.inputs) > MAX_INPUTS:
            raise InvalidRequest(
                f"the request has {len(request.inputs)} inputs, at most {MAX_INPUTS} are embedded at once",
                param="input",
                hint="Send them in several requests.",
            )
        # A text without a word has a vector like any other: one among many must not cost the rest.
        inputs = tuple(text or " " for text in request.inputs)
        model = self._model(request.model)
        with self.pool.use(
            model,
            context_length=request.context_length,
            keep_alive=request.keep_alive,
            caller=caller,
        ) as turn:
            turn.resident.raw = True
            _forget_conversation(turn)
            with _explaining(turn.resident):
                limits = self._limits(inputs, turn.resident.ready.n_batch)
                result = turn.lane.embed(inputs, request.truncate, limits=limits, caller=caller)
            turn.resident.note_run(turn.lane, 0)
        total = time.monotonic() - started
        return EmbeddingResult(
            model=model.info.name,
            vectors=tuple(_unit_vector(vector, request.dimensions) for vector in result.vectors),
            usage=Usage(prompt_tokens=result.prompt_tokens),
            timings=Timings(queue=turn.queue_seconds, load=turn.load_seconds, total=total),
        )

    def _limits(self, texts: Sequence[str], n_batch: int, more: int = 0) -> list[float]:
        """Return the seconds until the vector of each text, and then to the end. Those of one run are only
        there when all of it is; `more` are characters that come with each text.
        """
        each = [self._settings.prompt_timeout(len(text) + more) for text in texts]
        runs = (each[start : start + n_batch] for start in range(0, len(each), n_batch))
        limits = [sum(run) for run in runs for _ in run]
        return [*limits, self._settings.prompt_timeout(0)]

    def rerank(self, request: RerankRequest, caller: Caller = LOCAL) -> RerankResult:
        """Return one score per document; see Service.rerank."""
        started = time.monotonic()
        if len(request.documents) > MAX_DOCUMENTS:
            raise InvalidRequest(
                f"the request has {len(request.documents)} documents, at most {MAX_DOCUMENTS} are ranked "
                "at once",
                param="documents",
                hint="Send the likeliest ones only.",
            )
        model = self._model(request.model)
        if "rerank" not in model.capabilities:
            raise _no_reranker(model.info)
        spec = _rerank_spec(request, model)
        with self.pool.use(model, caller=caller) as turn:
            turn.resident.raw = True
            _forget_conversation(turn)
            with _explaining(turn.resident):
                limits = self._limits(
                    spec.documents, turn.resident.ready.n_batch, more=len(spec.query)
                )
                result = turn.lane.rerank(spec, limits=limits, caller=caller)
            turn.resident.note_run(turn.lane, 0)
        if not all(map(math.isfinite, result.scores)):
            raise Unsupported("the model returned no usable score for a document")
        total = time.monotonic() - started
        return RerankResult(
            model=model.info.name,
            scores=result.scores,
            usage=Usage(prompt_tokens=result.prompt_tokens),
            timings=Timings(queue=turn.queue_seconds, load=turn.load_seconds, total=total),
        )

    # --- Models in memory ----------------------------------------------------------------------

    def load(
        self,
        name: str,
        keep_alive: float | None = None,
        context_length: int | None = None,
        sampling: SamplingParams | None = None,
        caller: Caller = LOCAL,
    ) -> LoadedModel:
        """Load a model, or change what is wanted of a loaded one; see Service.load."""
        model = self._store.resolve(name)
        with self.pool.use(
            model,
            context_length=context_length,
            sampling=sampling,
            keep_alive=keep_alive,
            caller=caller,
        ) as turn:
            self.pool.pin(turn.resident, keep_alive)
            # Once the lease is over, another request may take its place.
            loaded = next(m for m in self.pool.loaded() if m.info.path == model.info.path)
        return replace(loaded, state="ready")

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload a model, or the current one; see Service.unload."""
        info = self._store.resolve(name).info if name else self.pool.current()
        self.pool.unload(info)
        return info

    def close(self) -> None:
        """Cancel everything and end every child."""
        self.pool.close()


def _forget_conversation(turn: Turn) -> None:
    """Note that texts of their own come into the runtime's memory, but into none of its slots."""
    if turn.conversations is not None and not turn.conversations.slots:
        turn.conversations.forget()


def _rerank_spec(request: RerankRequest, model: StoredModel) -> RerankSpec:
    """The request for a backend. Control tokens in its texts, which come from anywhere, are made harmless."""
    neutralise = neutraliser(())
    return RerankSpec(
        query=neutralise(request.query),
        documents=tuple(map(neutralise, request.documents)),
        truncate=request.truncate,
        yes_no_tokens=model.yes_no_tokens,
        usual_yes_no_tokens=usual_yes_no_tokens(model.info.family),
    )


def _no_reranker(info: ModelInfo) -> Unsupported:
    hint = "Use one: Qwen3-Reranker, bge-reranker-v2-m3; `rkllama search reranker` finds them."
    if info.format == "gguf":
        hint += (
            " A reranker's .gguf needs the head that ranks (pooling type 'rank'), which not every "
            "conversion has."
        )
    else:
        hint += " If it is one under another name, put 'PARAMETER rerank true' into its Modelfile."
    return Unsupported(f"{info.name} is not a reranker", param="model", hint=hint)


def _with_pictures(request: ChatRequest, model: StoredModel) -> ChatRequest:
    """Return the request as the model can take its pictures; see pictures.with_pictures."""
    sees = "vision" in model.capabilities
    if model.encoder is None:
        return with_pictures(request, sees=sees)
    if sees and model.encoder.newest_only:
        request = without_earlier_pictures(request)
    return with_pictures(request, sees=sees, problem=model.encoder.problem)


def _check_shape(request: ChatRequest) -> None:
    """Raise InvalidRequest for a format, or parameters of a demanded call, that no answer can be held to."""
    if request.tools and request.tool_choice not in ("auto", "none"):
        check_schema(forced_call_schema(request.tools, request.tool_choice))
    elif request.format is not None:
        check_schema(request.format)


def _truncated(generation: Generation) -> Iterator[Event]:
    """The completion of as much of the conversation as the context holds, if the request allows less
    than all of it.
    """
    messages = generation.request.messages
    while True:
        try:
            yield from generation.events()
            return
        except PromptTooLong as error:  # before any event
            request = generation.request
            left = None
            if request.truncate:
                left = truncate(request.messages, error, generation.room)
            if left is None and not generation.minds_room:
                raise
        if left is None:  # the last turn alone has to make do with what room there is
            generation = replace(generation, minds_room=False)
            continue
        generation = replace(
            generation,
            request=replace(request, messages=left),
            dropped=len(messages) - len(left),
        )


@contextmanager
def _explaining(resident: Resident, tools: tuple[Tool, ...] = ()) -> Iterator[None]:
    """Let the hint of a PromptTooLong say what helps, and how many tools are in the prompt.

    Some clients send dozens unasked, so that a short question does not fit.
    """
    try:
        yield
    except PromptTooLong as error:
        error.hint = "Shorten it, or use a longer context: num_ctx, or --ctx on the command line."
        if resident.at_limit:
            error.at_limit = True
            error.hint = "Shorten it: this model holds no more."
        if tools:
            error.hint = f"Its {len(tools)} tools count, too: send fewer. {error.hint}"
        raise


def _unit_vector(data: bytes, dimensions: int | None) -> array[float]:
    """Return a float32 vector cut to `dimensions` and scaled to length 1."""
    vector = array("f", data)
    if dimensions is not None:
        if dimensions > len(vector):
            raise InvalidRequest(
                f"the model's vectors have {len(vector)} dimensions, not {dimensions}",
                param="dimensions",
            )
        vector = vector[:dimensions]
    length = math.sqrt(math.fsum(x * x for x in vector))
    if not math.isfinite(length) or length == 0.0:
        raise Unsupported("the model returned no usable vector for this input")
    return array("f", (x / length for x in vector))
