"""One request on one loaded model: from its prompt to the events of its completion."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..backends.base import GenerateSpec, RunResult
from ..chat.moving import MovedLine
from ..chat.parser import AnswerParser
from ..chat.template import Think
from ..config import Settings
from ..errors import PromptTooLong
from ..models.metadata import StoredModel
from ..runner.keeping import run_figures
from ..service import Caller, Shaping
from ..states.visit import Visit
from ..types import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Message,
    TextDelta,
    Timings,
    Tool,
    ToolCallDelta,
    Usage,
)
from .keeping import Keeping
from .memory.resident import Turn
from .metrics import Metrics
from .prompt import Prompt, build_prompt, markers_for, parser_for, thinking_for, tools_for
from .structured.answer import demanded_call, structured
from .structured.calls import grammars_of, mended
from .structured.guided import guided
from .structured.optional_call import answer_or_calls
from .writing import Writer

if TYPE_CHECKING:
    from ..schema.grammar import Grammar

log = logging.getLogger("rkllama")

_TIMES_ON_CPU = 5
"""How many times longer than on the NPU a picture may take: a minute or two on a board's CPU."""


@dataclass(slots=True)
class _Told:
    """What a run has told so far."""

    text: str = ""
    calls: int = 0
    result: RunResult | None = None

    def counted(self, events: list[Event]) -> Iterator[Event]:
        for event in events:
            self.calls += isinstance(event, ToolCallDelta)
            yield event


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A request whose turn it is; `started` is when it came (monotonic seconds)."""

    request: ChatRequest
    model: StoredModel
    turn: Turn
    caller: Caller
    settings: Settings
    metrics: Metrics
    started: float
    moved: tuple[MovedLine, ...] = ()
    """Lines that were taken from the system prompt, to stand behind it."""
    dropped: int = 0
    """Messages that were left out, since the context does not hold them."""
    minds_room: bool = False
    """Whether a prompt that leaves too little of the context for the answer is too long, too."""

    def events(self) -> Iterator[Event]:
        """The completion, Finished last, in the shape that the request demands."""
        request, tools = self.request, tools_for(self.request)
        if request.tools and request.tool_choice not in ("auto", "none"):
            return demanded_call(self, request.tools, request.tool_choice)
        if request.format is not None:
            return structured(self, request.format, tools)
        return self.run(tools=tools)

    @property
    def constrains(self) -> bool:
        """Whether the backend enforces the `grammar` of a run."""
        return self.turn.resident.ready.constrains

    @property
    def _withheld(self) -> bool:
        """Whether a run's events are kept back until they are known to have the demanded shape."""
        request = self.request
        if request.tools and request.tool_choice not in ("auto", "none"):
            return True
        return request.format is not None and (not self.constrains or bool(tools_for(request)))

    def note_shaping(self, shaping: Shaping) -> None:
        """Tell the caller what gives the completion its shape."""
        self.caller.shaped_by = shaping

    def written(
        self, grammar: Grammar, schema: Any, tools: tuple[Tool, ...]
    ) -> Iterator[Event] | None:
        """The completion as it is written together with the model; None where a prompt is not complete as it
        is, so that nothing can stand behind it. See structured.Runner.
        """
        prompt = self.prompt_with(schema, ())
        return self._guided(grammar, prompt, tools) if prompt.raw else None

    def _guided(self, grammar: Grammar, prompt: Prompt, tools: tuple[Tool, ...]) -> Iterator[Event]:
        counted = self.minds_room and self._check_room(prompt)
        self.turn.resident.raw = True
        visit = self._keeping.begin(prompt)
        writer = Writer(self, prompt, visit, counted=counted, tools=tools)
        try:
            if tools:
                parser = self._parser(replace(prompt, thinking_open=False), tools)
                yield from self._given(answer_or_calls(grammar, writer, parser, tools))
            else:
                yield from self._given(guided(grammar, writer))
        finally:
            self._leave(visit, keeps=not writer.has_asked)

    def _parser(self, prompt: Prompt, tools: tuple[Tool, ...]) -> AnswerParser:
        """Return the parser of the answer to a prompt; it looks at calls' arguments where more can be written
        behind them.
        """
        grammars = grammars_of(tools) if tools and prompt.raw else None
        return parser_for(self.request, self.model, prompt, tools, grammars)

    def _leave(self, visit: Visit | None, *, keeps: bool = True) -> None:
        """End a visit; `keeps` is whether what was in memory after its run is there still."""
        if visit is not None:
            self._keeping.leave(visit)
            if keeps:
                self._keeping.keep_slot(visit)

    def _given(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events; the caller needs no sign of life after one."""
        for event in events:
            yield event
            self.caller.reassure(silent=False)

    def run(
        self,
        *,
        tools: tuple[Tool, ...] = (),
        grammar: Any = None,
        schema: Any = None,
        extra: tuple[Message, ...] = (),
    ) -> Iterator[Event]:
        """Run the model once; see structured.Runner."""
        if grammar is not None:
            self = replace(self, request=replace(self.request, think=False))
        prompt = self.prompt_with(schema, extra)
        visit = self._keeping.begin(prompt)
        try:
            yield from self._run(prompt, tools, grammar, visit)
        finally:
            self._leave(visit)

    def _run(
        self, prompt: Prompt, tools: tuple[Tool, ...], grammar: Any, visit: Visit | None
    ) -> Iterator[Event]:
        counted = self.minds_room and self._check_room(prompt)
        resident = self.turn.resident
        parser = self._parser(prompt, tools)
        resident.raw |= prompt.raw
        told = _Told()
        yield from self._parsed(prompt, self.spec(prompt, tools, grammar, visit), parser, told)
        result = told.result
        assert result is not None
        if visit is not None:
            counted = counted or visit.evaluated_before
            visit.end(run_figures(result, resident.ready.context_length, counted=counted))
        if counted:  # the prompt had been evaluated before, by a run whose figures nobody has
            result = replace(result, cached_tokens=None, prompt_seconds=None)
        self._note(prompt, result)
        if parser.stray is not None:
            writer = Writer(self, prompt, None, counted=counted, before=result, tools=tools)
            yield from self._given(mended(writer, parser, tools, told.text, called=told.calls > 0))
            return
        # The backend calls a run cancelled that was aborted at its end or at a stop string.
        reason: FinishReason = result.reason if parser.stopped is None else "stop"
        if told.calls and reason == "stop":
            reason = "tool_calls"
        if result.repeats and reason == "length":
            log.info("%s wrote one token again and again: it was stopped", self.model.info.name)
        yield self.finished(result, reason, None if parser.ended else parser.stopped)

    def _parsed(
        self, prompt: Prompt, spec: GenerateSpec, parser: AnswerParser, told: _Told
    ) -> Iterator[Event]:
        """The events of a run's text, until it ends, comes to a stop string, or goes astray."""
        withheld, silent = self._withheld, True
        pieces = self.turn.lane.generate(
            spec,
            first=self.first_timeout(prompt),
            each=self.settings.token_timeout,
            caller=self.caller,
        )
        with closing(pieces):
            for piece in pieces:
                if piece.result is not None:
                    told.result = piece.result
                    break
                if parser.stopped is not None or parser.stray is not None:
                    continue
                told.text += piece.text
                events = parser.feed(piece.text)
                if withheld or not events:
                    self.caller.reassure(silent)
                    silent = True
                else:
                    silent = False
                if piece.logprobs:
                    events = _with_logprobs(events, piece.logprobs)
                yield from told.counted(events)
                if parser.stopped is not None or parser.stray is not None:
                    self.turn.lane.abort()
            if (result := told.result) is not None and (result.reason == "stop" or result.repeats):
                parser.check_end()
            if parser.stray is None:
                yield from told.counted(parser.finish())

    def _note(self, prompt: Prompt, result: RunResult) -> None:
        """Note what a run tells of the model in memory."""
        resident = self.turn.resident
        if result.prompt_tokens and prompt.raw and not prompt.images:
            resident.tokens_per_character = result.prompt_tokens / len(prompt.text)
        resident.note_answer(self.turn.lane, result)

    @property
    def _keeping(self) -> Keeping:
        return Keeping(self.turn, self.model, self.request, self.settings, self.caller)

    def first_timeout(self, prompt: Prompt) -> float:
        """Return how many seconds the first token may take."""
        times = 1 if self.turn.lane.kind.needs_npu else _TIMES_ON_CPU
        return self.settings.prompt_timeout(len(prompt.text), times * len(prompt.images))

    @property
    def room(self) -> int:
        """Tokens of the context that are left to the answer: a quarter, or as many as it may have."""
        quarter = self.turn.resident.ready.context_length // 4
        return quarter if self.limit < 0 else min(quarter, self.limit)

    @property
    def limit(self) -> int:
        """Tokens that the answer may have; -1: as many as there is room for."""
        limit = (
            self.model.max_tokens if self.request.max_tokens is None else self.request.max_tokens
        )
        return -1 if limit is None else limit

    def _check_room(self, prompt: Prompt) -> bool:
        """Raise PromptTooLong where less than `room` is left, as far as the prompt's size can be told; return
        whether it had to be counted for that, which leaves it in the cache.
        """
        context = self.turn.resident.ready.context_length
        size = len(prompt.text)
        seen = len(prompt.images) * (self.turn.resident.ready.image_tokens or 0)
        if size + seen <= context - self.room:  # seldom has a text more tokens than characters
            return False
        ratio = self.turn.resident.tokens_per_character
        if prompt.images and ratio is None:  # it cannot be counted without its pictures
            self._check_images(prompt, seen)
            return False
        tokens = self._count_prompt(prompt) if ratio is None else round(size * ratio) + seen
        if tokens is not None and tokens > context - self.room:
            self._check_images(prompt, seen)
            raise PromptTooLong(
                f"the prompt has about {tokens} tokens, and the context only {context}",
                prompt_tokens=tokens,
                context_length=context,
            )
        return ratio is None and tokens is not None and not self._has_tokenizer

    @property
    def _has_tokenizer(self) -> bool:
        """Whether the backend counts a prompt without evaluating it."""
        return self.turn.lane.kind.external

    def _check_images(self, prompt: Prompt, tokens: int) -> None:
        """Raise PromptTooLong where the pictures alone have no room."""
        context = self.turn.resident.ready.context_length
        if tokens > context - self.room:
            raise PromptTooLong.of_pictures(len(prompt.images), tokens, context)

    def _count_prompt(self, prompt: Prompt) -> int | None:
        """Return the prompt's tokens, None where the runtime cannot tell; done once for a loaded model."""
        resident = self.turn.resident
        if not (prompt.raw and resident.ready.counts_tokens):
            return None
        resident.raw = True
        timeout = self.settings.prompt_timeout(len(prompt.text))
        started = time.monotonic()
        tokens = self.turn.lane.count_tokens(prompt.text, timeout=timeout, caller=self.caller)
        if self.turn.conversations is not None and not self._has_tokenizer:
            self.turn.conversations.note_count(tokens, time.monotonic() - started)
        resident.tokens_per_character = (tokens or 0) / len(prompt.text)
        return tokens

    def prompt_with(self, schema: Any, extra: tuple[Message, ...]) -> Prompt:
        """Return the prompt, with a schema that it asks for and turns behind the conversation's own."""
        resident = self.turn.resident
        wraps = resident.worker.kind.wraps_prompts and not resident.raw
        prompt = build_prompt(
            self.request,
            self.model,
            schema=schema,
            extra=extra,
            moved=self.moved,
            runtime_wraps=wraps,
        )
        if prompt.template is not None and not self.request.template:
            self._tell_once(prompt.template.notice)
        if not (self.request.template or self.request.raw):
            self._tell_once(self.model.template_guess, level=logging.INFO)
        return prompt

    def _tell_once(self, notice: str | None, level: int = logging.WARNING) -> None:
        """Log why the model's own template is not used: the completion alone would not betray it."""
        text = f"{self.model.info.name}: {notice}"
        told = self.turn.resident.told
        if notice is not None and text not in told:
            told.add(text)
            log.log(level, text)

    @property
    def thinks(self) -> Think:
        """Whether the model is to think; None as it likes."""
        return thinking_for(self.request, self.model)

    def spec(
        self, prompt: Prompt, tools: tuple[Tool, ...], grammar: Any, visit: Visit | None
    ) -> GenerateSpec:
        request, model = self.request, self.model
        save_state = self._keeping.state_file(visit)
        think = self.thinks
        return GenerateSpec(
            prompt=prompt.text,
            raw=prompt.raw,
            think=None if think is None else bool(think),
            sampling=request.sampling.over(model.sampling),
            max_tokens=self.limit,
            schema=grammar,
            top_logprobs=request.top_logprobs,
            markers=markers_for(request, prompt, tools),
            images=prompt.images,
            save_state=save_state,
            cached=visit.cached if visit is not None else 0,
        )

    def finished(
        self,
        result: RunResult,
        reason: FinishReason,
        stop: str | None,
        error: str | None = None,
    ) -> Finished:
        """The end of the completion, which is noted in the metrics, and its pace for the model in memory;
        `result` has the figures of all its runs as those of one.
        """
        if result.completion_tokens and result.generation_seconds:
            pace = result.completion_tokens / result.generation_seconds
            self.turn.resident.tokens_per_second = pace
        finished = Finished(
            reason=reason,
            model=self.model.info.name,
            usage=Usage(
                prompt_tokens=result.prompt_tokens,
                completion_tokens=result.completion_tokens,
                cached_tokens=result.cached_tokens,
            ),
            timings=Timings(
                queue=self.turn.queue_seconds,
                load=self.turn.load_seconds,
                prompt=result.prompt_seconds,
                generation=result.generation_seconds,
                total=time.monotonic() - self.started,
            ),
            stop=stop,
            dropped=self.dropped,
            repeats=result.repeats and reason == "length",
            error=error,
        )
        self.metrics.count(finished)
        return finished


def _with_logprobs(events: list[Event], logprobs: Any) -> list[Event]:
    """Give the figures to the text they came with; held back or parsed text has none."""
    return [TextDelta(e.text, logprobs) if isinstance(e, TextDelta) else e for e in events]
