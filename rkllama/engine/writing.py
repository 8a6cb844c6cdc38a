"""One answer that is written in several runs: what stands there already is the end of each run's prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal, Protocol

from ..backends.base import GenerateSpec, RunResult
from ..chat.messages import IMAGE_PLACE
from ..chat.parser import AnswerParser
from ..chat.template import Think
from ..config import Settings
from ..models.metadata import StoredModel
from ..runner.keeping import run_figures
from ..service import Caller
from ..states.visit import Visit
from ..types import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Message,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Tool,
)
from .memory.resident import Turn
from .prompt import Prompt
from .structured.guided import StopString

_NOTHING_YET = "Okay."
"""The model's turn before a question by itself: most templates want turns to alternate."""
_WARMER = 0.4
"""What the temperature rises by with each new try, where a run can have its own."""


class Request(Protocol):
    """A request whose turn it is: see generation.Generation."""

    @property
    def request(self) -> ChatRequest: ...
    @property
    def model(self) -> StoredModel: ...
    @property
    def turn(self) -> Turn: ...
    @property
    def caller(self) -> Caller: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def thinks(self) -> Think: ...
    @property
    def limit(self) -> int:
        """Tokens that the answer may have; -1: as many as there is room for."""

    def prompt_with(self, schema: Any, extra: tuple[Message, ...]) -> Prompt:
        """The prompt, with a schema that it asks for and turns behind the conversation's own."""

    def spec(
        self, prompt: Prompt, tools: tuple[Tool, ...], grammar: Any, visit: Visit | None
    ) -> GenerateSpec:
        """What the backend is to run."""

    def first_timeout(self, prompt: Prompt) -> float:
        """How many seconds the first token may take."""

    def finished(
        self, result: RunResult, reason: FinishReason, stop: str | None, error: str | None = None
    ) -> Finished:
        """The end of the answer, which is counted by that."""


class Writer:
    """The runs of one answer; see structured.guided.Writer, which it is."""

    def __init__(
        self,
        generation: Request,
        prompt: Prompt,
        visit: Visit | None,
        *,
        counted: bool = False,
        before: RunResult | None = None,
        tools: tuple[Tool, ...] = (),
    ) -> None:
        """The prompt is complete as it is (`raw`); `visit` is what the disk has to do with the first run.

        `counted` is whether the prompt has been evaluated before, by a run whose figures nobody has.
        `before` is a run that has written the beginning of an answer. One that may call `tools` may have the
        caller's stop strings in it, for which others look.
        """
        self._generation = generation
        self._prompt = prompt
        self._visit = visit
        self._tools = tools
        self._results: list[RunResult] = [] if before is None else [before]
        self._tokens = 0 if before is None else before.completion_tokens or 0
        self._stops: tuple[str, ...] = ()
        if not tools:
            self.expect_no_calls()
        self._counted = counted
        self._certain_first = ""
        """What was written before the first run."""
        self._stop: str | None = None
        self._stopping = False
        self.has_asked = False
        """Whether there was a run with another prompt, whose beginning may be another."""
        self.ended: FinishReason | Literal["repeats"] = "stop"
        """Why the last run ended: see structured.guided.Writer."""

    def expect_no_calls(self) -> None:
        """From here on all is the answer, which the caller's stop strings end."""
        self._tools = ()
        self._stops = (*self._generation.request.stop, *self._generation.model.stop)

    @property
    def varies(self) -> bool:
        """Whether a run that is made again may write something else."""
        sampling = self._generation.request.sampling.over(self._generation.model.sampling)
        greedy = sampling.temperature == 0 or sampling.top_k == 1
        return not greedy or self._generation.turn.resident.ready.per_run_sampling

    def think(self) -> Iterator[Event]:
        """The model's thought, which then stands behind the prompt; nothing where it does not think."""
        template = self._prompt.template
        if template is None or not template.supports_thinking:
            return
        if not self._prompt.thinking_open and self._generation.thinks is False:
            return
        closer = template.think_markers[1]
        parser = AnswerParser(
            end=template.stop,
            thinking=template.think_markers,
            thinking_open=self._prompt.thinking_open,
        )
        raw = ""
        for text in self._pieces(self._prompt, 0):
            raw += text
            for event in parser.feed(text):
                if isinstance(event, ReasoningDelta):
                    yield event
                else:
                    self.stop()
            if parser.stopped is not None:
                self.stop()
        thought, found, _ = raw.partition(closer)
        if found or self._prompt.thinking_open:
            self._prompt = replace(self._prompt, text=f"{self._prompt.text}{thought}{closer}\n\n")

    def run(self, written: str, *, again: int = 0) -> Iterator[str]:
        """The text that the model writes behind `written`, as it comes; `again` counts the tries before."""
        if not self._results:
            self._certain_first = written
        prompt = replace(self._prompt, text=self._prompt.text + _plain(written))
        yield from self._texts(prompt, again)

    def ask(self, written: str, question: str, *, begun: str = "", again: int = 0) -> Iterator[str]:
        """What the model replies to a question, behind `begun`; see structured.guided.Writer."""
        self.has_asked = True
        extra = (Message.of("assistant", written or _NOTHING_YET), Message.of("user", question))
        # A model that is told of a schema replies with JSON, too.
        prompt = self._generation.prompt_with(None, extra)
        yield from self._texts(replace(prompt, text=prompt.text + _plain(begun)), again)

    def stop(self) -> None:
        """End the run: no more text comes of it."""
        if not self._stopping:
            self._stopping = True
            self._generation.turn.lane.abort()

    def finished(
        self, reason: FinishReason, error: str | None = None, stop: str | None = None
    ) -> Finished:
        """The end of the answer, with the figures of all runs as those of one."""
        results = self._results or [RunResult(reason="stop")]  # all of it was certain
        first, last = results[0], results[-1]
        written = None
        if last.prompt_tokens is not None and first.prompt_tokens is not None:
            written = last.prompt_tokens + (last.completion_tokens or 0) - first.prompt_tokens
        prompt_tokens = first.prompt_tokens
        if prompt_tokens is not None:
            skeleton = self._certain_tokens(prompt_tokens)
            prompt_tokens -= skeleton
            written = None if written is None else written + skeleton
        merged = replace(
            last,
            prompt_tokens=prompt_tokens,
            cached_tokens=None if self._counted else first.cached_tokens,
            completion_tokens=self._tokens if written is None else max(written, self._tokens),
            prompt_seconds=None if self._counted else first.prompt_seconds,
            generation_seconds=_total(results),
        )
        return self._generation.finished(merged, reason, stop or self._stop, error)

    def _certain_tokens(self, tokens: int) -> int:
        """Return about how many of the first run's tokens are what was written before it: the runtime counts
        the whole prompt only.
        """
        size = len(self._certain_first)
        share = size / (len(self._prompt.text) + size)
        return min(tokens, round(tokens * share) or (1 if size else 0))

    def _texts(self, prompt: Prompt, again: int) -> Iterator[str]:
        end = prompt.template.stop if prompt.template else ()
        parser = AnswerParser(stop=self._stops, end=end, thinking=None)
        for text in self._pieces(prompt, again):
            yield from _words(parser.feed(text))
            if parser.stopped is not None:
                self.stop()
        if not self._stopping:
            yield from _words(parser.finish())
        if parser.stopped is not None and not parser.ended:
            self._stop = parser.stopped
            raise StopString(parser.stopped)

    def _pieces(self, prompt: Prompt, again: int) -> Iterator[str]:
        """The text of one run, as the backend gives it."""
        generation = self._generation
        self._stopping = False
        if self._results and self._left == 0:
            self.ended = "length"
            return
        pieces = generation.turn.lane.generate(
            self._spec(prompt, again),
            first=generation.first_timeout(prompt),
            each=generation.settings.token_timeout,
            caller=generation.caller,
        )
        with closing(pieces):
            for piece in pieces:
                if piece.result is not None:
                    self._note(piece.result)
                elif not self._stopping:
                    generation.caller.reassure(True)
                    yield piece.text

    def _spec(self, prompt: Prompt, again: int) -> GenerateSpec:
        spec = self._generation.spec(
            prompt, self._tools, None, None if self._results else self._visit
        )
        sampling = _varied(spec.sampling, again)
        goes_on = bool(self._results)
        return replace(spec, max_tokens=self._left, sampling=sampling, goes_on=goes_on)

    @property
    def _left(self) -> int:
        """Tokens that the runs to come may have; -1: as many as there is room for."""
        limit = self._generation.limit
        return limit if limit < 0 else max(0, limit - self._tokens)

    def _note(self, result: RunResult) -> None:
        first = not self._results
        self._results.append(result)
        self._tokens += result.completion_tokens or 0
        self.ended = "stop" if self._stopping else "repeats" if result.repeats else result.reason
        generation = self._generation
        resident = generation.turn.resident
        resident.note_answer(generation.turn.lane, result)
        if first and self._visit is not None:
            self._counted = self._counted or self._visit.evaluated_before
            figures = run_figures(result, resident.ready.context_length, counted=self._counted)
            self._visit.end(figures)


def _plain(text: str) -> str:
    """Return a text in which no picture has a place."""
    return text.replace(IMAGE_PLACE, "\ufffd")


def _words(events: list[Event]) -> Iterator[str]:
    return (event.text for event in events if isinstance(event, TextDelta))


def _varied(sampling: SamplingParams, again: int) -> SamplingParams:
    """Return what another try draws its tokens by."""
    if not again:
        return sampling
    temperature = 0.8 if sampling.temperature is None else sampling.temperature
    seed = None if sampling.seed is None else sampling.seed + again
    top_k = 40 if sampling.top_k == 1 else sampling.top_k
    return replace(sampling, temperature=temperature + _WARMER * again, seed=seed, top_k=top_k)


def _total(results: list[RunResult]) -> float | None:
    """Return the seconds in which the answer was written: the prompts of the later runs are of that."""
    seconds = [result.generation_seconds or 0.0 for result in results]
    seconds += [result.prompt_seconds or 0.0 for result in results[1:]]
    return sum(seconds) or None
