"""From a request to the events of its answer: prompt, run, parse, figures. One way for every backend."""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from ..backends.base import GenerateSpec, RunResult
from ..board.lock import NPULock
from ..chat.parser import AnswerParser
from ..config import Settings
from ..errors import InvalidRequest, NoModelLoaded, PromptTooLong, Unsupported
from ..models.metadata import StoredModel
from ..models.store import Store
from ..service import LOCAL, Caller
from ..types import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResult,
    Event,
    Finished,
    FinishReason,
    LoadedModel,
    Message,
    ModelInfo,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Timings,
    Tool,
    ToolCallDelta,
    Usage,
)
from .metrics import Metrics
from .pool import Resident, Residents
from .prompt import Prompt, build_prompt, markers_for, parser_for, tools_for
from .structured import check_schema, retry_message, strip_fence, validate_answer
from .tool_choice import call_text, find_call_error, forced_call, forced_call_schema
from .truncation import shortened

log = logging.getLogger("rkllama")

STRUCTURED_TRIES = 3
"""How often a backend that cannot constrain is asked for an answer that meets a schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one run needs, and when it all began (monotonic seconds)."""

    request: ChatRequest
    model: StoredModel
    resident: Resident
    started: float
    queue: float
    load: float
    caller: Caller
    dropped: int = 0
    """Messages that were left out, since the context does not hold them."""


class Engine:
    """Answers requests with the models of a store."""

    def __init__(
        self, settings: Settings, store: Store, npu_lock: NPULock, *, exact_sampling: bool = False
    ) -> None:
        self._settings = settings
        self._store = store
        self.residents = Residents(settings, npu_lock, exact_sampling=exact_sampling)
        self.metrics = Metrics()

    # --- Text ----------------------------------------------------------------------------------

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        """The events of one answer, Finished last; see Service.stream."""
        started = time.monotonic()
        if request.format is not None:
            check_schema(request.format)
        model = self._model(request.model)
        if request.prompt is None and not request.messages:
            yield self._load_or_unload(request, model, caller)
            return
        with self.residents.use(
            model,
            context_length=request.context_length,
            sampling=request.sampling,
            keep_alive=request.keep_alive,
            caller=caller,
        ) as (resident, queue, load):
            run = _Run(
                request=request,
                model=model,
                resident=resident,
                started=started,
                queue=queue,
                load=load,
                caller=caller,
            )
            with _counting_tools(tools_for(request)):
                yield from self._shortened(run)

    def _model(self, name: str | None) -> StoredModel:
        return self._store.resolve(name or self.residents.current().name)

    def _load_or_unload(self, request: ChatRequest, model: StoredModel, caller: Caller) -> Finished:
        """A request without a prompt loads its model, or unloads it with a keep-alive of 0."""
        if request.keep_alive == 0:
            with suppress(NoModelLoaded):
                self.residents.unload(model.info)
            return Finished(reason="unload", model=model.info.name)
        started = time.monotonic()
        self.load(
            model.info.name,
            request.keep_alive,
            request.context_length,
            request.sampling,
            caller,
        )
        total = time.monotonic() - started
        timings = Timings(load=total, total=total)
        return Finished(reason="load", model=model.info.name, timings=timings)

    def _shortened(self, run: _Run) -> Iterator[Event]:
        """An answer to as much of the conversation as the context holds, if less than all will do."""
        given = run.request.messages
        while True:
            try:
                yield from self._answer(run)
                return
            except PromptTooLong as error:  # before any event
                request = run.request
                left = shortened(request.messages, error) if request.truncate else None
                if left is None:
                    raise
            dropped = len(given) - len(left)
            run = replace(run, request=replace(request, messages=left), dropped=dropped)

    def _answer(self, run: _Run) -> Iterator[Event]:
        request = run.request
        if request.tools and request.tool_choice not in ("auto", "none"):
            yield from self._demanded_call(run)
        elif request.format is not None:
            yield from self._structured(run, request.format, tools_for(request))
        else:
            yield from self._once(run, self._prompt(run), tools_for(request))

    @staticmethod
    def _prompt(run: _Run, schema: Any = None, extra: tuple[Message, ...] = ()) -> Prompt:
        wraps = run.resident.info.format == "rkllm" and not run.resident.raw
        prompt = build_prompt(
            run.request, run.model, schema=schema, extra=extra, runtime_wraps=wraps
        )
        if prompt.template is not None and not run.request.template:
            _tell_once(run, prompt.template.notice)
        return prompt

    def _structured(self, run: _Run, schema: Any, tools: tuple[Tool, ...] = ()) -> Iterator[Event]:
        """An answer that meets a schema: constrained where the backend can, else asked for again.

        The model may call one of `tools` instead, which a constraint would not let it.
        """
        if run.resident.ready.constrains and not tools:
            return self._constrained(run, schema)
        return self._asked_again(run, schema, tools)

    def _constrained(self, run: _Run, schema: Any) -> Iterator[Event]:
        """An answer that meets a schema from its first token on, which leaves no room for a thought.

        A grammar engine does not know all of JSON schema, and what it cannot read constrains nothing: the
        whole answer is checked too.
        """
        run = replace(run, request=replace(run.request, think=False))
        text: list[str] = []
        for event in self._once(run, self._prompt(run), (), schema):
            if isinstance(event, TextDelta):
                text.append(event.text)
            elif isinstance(event, Finished) and event.reason == "stop":
                event = _checked(event, validate_answer("".join(text), schema))
            yield event

    def _asked_again(
        self, run: _Run, schema: Any, tools: tuple[Tool, ...], *, demanded: bool = False
    ) -> Iterator[Event]:
        """An answer that meets a schema, or calls of `tools`, from a backend that is not constrained.

        Nothing is shown before it is valid; after STRUCTURED_TRIES the last answer comes with its error.
        With `demanded` the schema is a call's, and calls have to meet it.
        """
        extra: tuple[Message, ...] = ()
        for left in reversed(range(STRUCTURED_TRIES)):
            *events, last = self._once(run, self._prompt(run, schema, extra), tools)
            assert isinstance(last, Finished)
            finished: Finished = last
            calls = [event.call for event in events if isinstance(event, ToolCallDelta)]
            error = find_call_error(calls, schema) if demanded else None
            if calls and error is None:
                yield from (*events, finished)
                return
            raw = "\n".join(map(call_text, calls)) or _text_of(events)
            text = strip_fence(raw)
            if not calls:
                error = validate_answer(text, schema)
            if error is None or not left or finished.reason == "cancelled":
                break
            if run.resident.ready.constrains:  # no call was wanted
                yield from self._constrained(run, schema)
                return
            extra = (
                Message(role="assistant", content=raw),
                Message(role="user", content=retry_message(error)),
            )
        yield from (event for event in events if isinstance(event, ReasoningDelta))
        if text:
            yield TextDelta(text)
        reason = "stop" if finished.reason == "tool_calls" else finished.reason
        yield _checked(replace(finished, reason=reason), error)

    def _demanded_call(self, run: _Run) -> Iterator[Event]:
        """An answer that has to be a tool call: in the model's own form, or JSON of a call's shape,
        turned into the call.
        """
        request = run.request
        schema = forced_call_schema(request.tools, request.tool_choice)
        events = (
            self._constrained(run, schema)
            if run.resident.ready.constrains
            else self._asked_again(run, schema, request.tools, demanded=True)
        )
        text = ""
        for event in events:
            if isinstance(event, TextDelta):
                text += event.text
                continue
            if isinstance(event, Finished) and event.error is None and (call := forced_call(text)):
                yield ToolCallDelta(0, call)
                yield replace(event, reason="tool_calls")
                return
            if text and not isinstance(event, ReasoningDelta):
                yield TextDelta(text)
                text = ""
            yield event

    def _once(
        self, run: _Run, prompt: Prompt, tools: tuple[Tool, ...], schema: Any = None
    ) -> Iterator[Event]:
        """One run of the model, as events; `tools` are those whose calls are looked for."""
        parser = parser_for(run.request, run.model, prompt, tools)
        run.resident.raw |= prompt.raw
        calls = 0
        result: RunResult | None = None
        worker, settings = run.resident.worker, self._settings
        first = settings.token_timeout + settings.prefill_timeout * len(prompt.text) / 1000
        pieces = worker.generate(
            self._generate_spec(run, prompt, tools, schema),
            first=first,
            each=settings.token_timeout,
            caller=run.caller,
        )
        try:
            for piece in pieces:
                if isinstance(piece, RunResult):
                    result = piece
                    break
                if parser.stopped is not None:
                    continue
                if isinstance(piece, str):
                    events = parser.feed(piece)
                else:
                    events = _with_logprobs(parser.feed(piece[0]), piece[1])
                for event in events:
                    calls += isinstance(event, ToolCallDelta)
                    yield event
                if parser.stopped is not None:
                    worker.abort()
            for event in parser.finish():
                calls += isinstance(event, ToolCallDelta)
                yield event
        finally:
            pieces.close()
        assert result is not None
        run.resident.memory = result.memory or run.resident.memory
        finished = _finished(run, result, parser, calls)
        self._count(finished)
        yield finished

    def _count(self, finished: Finished) -> None:
        usage, timings, metrics = finished.usage, finished.timings, self.metrics
        metrics.prompt_tokens.add(usage.prompt_tokens or 0)
        metrics.completion_tokens.add(usage.completion_tokens or 0)
        metrics.queue_seconds.observe(timings.queue or 0.0)
        if timings.prompt is not None:
            metrics.prompt_seconds.observe(timings.prompt)
        if timings.generation is not None:
            metrics.generation_seconds.observe(timings.generation)

    @staticmethod
    def _generate_spec(
        run: _Run, prompt: Prompt, tools: tuple[Tool, ...], schema: Any
    ) -> GenerateSpec:
        request, model = run.request, run.model
        limit = request.max_tokens if request.max_tokens is not None else model.max_tokens
        return GenerateSpec(
            prompt=prompt.text,
            raw=prompt.raw,
            think=request.think if isinstance(request.think, bool) else None,
            sampling=request.sampling.over(model.sampling),
            max_tokens=-1 if limit is None else limit,
            schema=schema,
            top_logprobs=request.top_logprobs,
            markers=markers_for(request, prompt, tools),
        )

    def count_tokens(self, request: ChatRequest, caller: Caller = LOCAL) -> int | None:
        """Tokens of the prompt that `request` renders to; see Service.count_tokens."""
        model = self._model(request.model)
        with self.residents.use(model, keep_alive=request.keep_alive, caller=caller) as (
            resident,
            _,
            _,
        ):
            if not resident.ready.counts_tokens:
                return None
            text = build_prompt(request, model, runtime_wraps=False).text
            resident.raw = True
            timeout = (
                self._settings.token_timeout + self._settings.prefill_timeout * len(text) / 1000
            )
            return resident.worker.count_tokens(text, timeout=timeout, caller=caller)

    # --- Vectors -------------------------------------------------------------------------------

    def embed(self, request: EmbeddingRequest, caller: Caller = LOCAL) -> EmbeddingResult:
        """One normalised vector per input; see Service.embed."""
        started = time.monotonic()
        if not all(request.inputs):
            raise InvalidRequest("an input is empty", param="input")
        model = self._model(request.model)
        characters = sum(map(len, request.inputs))
        timeout = self._settings.token_timeout * (1 + len(request.inputs))
        timeout += self._settings.prefill_timeout * characters / 1000
        with self.residents.use(
            model,
            context_length=request.context_length,
            keep_alive=request.keep_alive,
            caller=caller,
        ) as (resident, queue, load):
            resident.raw = True
            vectors, tokens = resident.worker.embed(
                request.inputs, request.truncate, timeout=timeout, caller=caller
            )
        total = time.monotonic() - started
        return EmbeddingResult(
            model=model.info.name,
            vectors=tuple(_unit_vector(vector, request.dimensions) for vector in vectors),
            usage=Usage(prompt_tokens=tokens),
            timings=Timings(queue=queue, load=load, total=total),
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
        with self.residents.use(
            model,
            context_length=context_length,
            sampling=sampling,
            keep_alive=keep_alive,
            caller=caller,
        ) as (resident, _, _):
            self.residents.pin(resident, keep_alive)
            # Once the lease is over, another request may take its place.
            loaded = next(m for m in self.residents.loaded() if m.info.path == model.info.path)
        return replace(loaded, state="ready")

    def unload(self, name: str | None = None) -> ModelInfo:
        """Unload a model, or the current one; see Service.unload."""
        info = self._store.resolve(name).info if name else self.residents.current()
        self.residents.unload(info)
        return info

    def close(self) -> None:
        """Cancel everything and end every child."""
        self.residents.close()


@contextmanager
def _counting_tools(tools: tuple[Tool, ...]) -> Iterator[None]:
    """Let the hint of a PromptTooLong say how many tools are in the prompt.

    Some clients send dozens unasked, so that a short question does not fit.
    """
    try:
        yield
    except PromptTooLong as error:
        if tools:
            error.hint = (
                f"Its tools count, {len(tools)} of them: send fewer. {error.hint or ''}".strip()
            )
        raise


def _tell_once(run: _Run, notice: str | None) -> None:
    """Log why the model's own template is not used: the answer alone would not betray it."""
    text = f"{run.model.info.name}: {notice}"
    if notice is not None and text not in run.resident.told:
        run.resident.told.add(text)
        log.warning(text)


def _text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _with_logprobs(events: list[Event], logprobs: Any) -> list[Event]:
    """Give the figures to the text they came with; held back or parsed text has none."""
    return [TextDelta(e.text, logprobs) if isinstance(e, TextDelta) else e for e in events]


def _finished(run: _Run, result: RunResult, parser: AnswerParser, calls: int) -> Finished:
    """The end of a run. The backend calls one cancelled that was aborted at its end or a stop string."""
    reason: FinishReason = result.reason if parser.stopped is None else "stop"
    if calls and reason == "stop":
        reason = "tool_calls"
    return Finished(
        reason=reason,
        model=run.model.info.name,
        usage=Usage(
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            cached_tokens=result.cached_tokens,
        ),
        timings=Timings(
            queue=run.queue,
            load=run.load,
            prompt=result.prompt_seconds,
            generation=result.generation_seconds,
            total=time.monotonic() - run.started,
        ),
        stop=None if parser.ended else parser.stopped,
        dropped=run.dropped,
    )


def _checked(finished: Finished, error: str | None) -> Finished:
    """The end of an answer that was to have a format, with what is wrong with it."""
    if error is not None:
        error = f"the answer does not meet the format: {error}"
    return replace(finished, error=error)


def _unit_vector(data: bytes, dimensions: int | None) -> array[float]:
    """A float32 vector cut to `dimensions` and scaled to length 1."""
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
        raise Unsupported("the model gave no usable vector for this input")
    return array("f", (x / length for x in vector))
