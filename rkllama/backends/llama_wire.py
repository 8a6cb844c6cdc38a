"""What llama.cpp's server takes and answers, whether it is a library in this process or a program of its own:
both speak in the JSON of its `/v1/completions` and `/v1/embeddings`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest, PromptTooLong, RKLLamaError, RuntimeFailed, Unsupported
from ..models.gguf import GGUFHeader
from ..types import MOST_REPEATS, FinishReason, TokenLogprob
from .base import (
    EmbedResult,
    Emit,
    GenerateSpec,
    RankResult,
    RerankSpec,
    RunResult,
    reuses_cache,
)
from .rows import shortened, sigmoid

EmitLogprobs = Callable[[str, tuple[TokenLogprob, ...]], None]

# --- Completions -------------------------------------------------------------------------------


def completion_request(
    spec: GenerateSpec, header: GGUFHeader | None, context_length: int
) -> dict[str, Any]:
    """One run as the body of a request, with the client's own schema; see `Constraints`."""
    sampling = spec.sampling
    request: dict[str, Any] = {
        "prompt": _without_bos(spec.prompt, header),
        "stream": True,
        "return_progress": True,
        "timings_per_token": True,  # else what is ended by a stop string has no figures
        "cache_prompt": spec.goes_on or reuses_cache(sampling),
        "n_predict": spec.max_tokens if spec.max_tokens >= 0 else context_length,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": 1.0 if sampling.repeat_penalty == 0 else sampling.repeat_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "mirostat": sampling.mirostat,
        "mirostat_tau": sampling.mirostat_tau,
        "mirostat_eta": sampling.mirostat_eta,
        "seed": sampling.seed,
        "json_schema": spec.schema,
        "preserved_tokens": list(spec.markers),
    }
    if spec.top_logprobs is not None:
        request["n_probs"] = max(1, spec.top_logprobs)
    return {name: value for name, value in request.items() if value is not None}


def _without_bos(prompt: str, header: GGUFHeader | None) -> str:
    """Return the prompt without what llama.cpp puts before every prompt by itself."""
    if header is None or not header.bos_token or not _adds_bos(header):
        return prompt
    return prompt.removeprefix(header.bos_token)


def _adds_bos(header: GGUFHeader) -> bool:
    """Return whether llama.cpp begins prompts with the token: as the header says, else as its tokenizer
    does.
    """
    flag = header.metadata.get("tokenizer.ggml.add_bos_token")
    return flag if isinstance(flag, bool) else header.tokenizer == "llama"


def adds_space(header: GGUFHeader) -> bool:
    """Return whether llama.cpp puts a blank before texts (Llama 2, Mistral 7B). It takes one off each token,
    too, when it tells its grammar engine what the token says, so that answers are not held to their form.
    """
    flag = header.metadata.get("tokenizer.ggml.add_space_prefix")
    return flag if isinstance(flag, bool) else header.tokenizer in ("llama", "t5")


def is_native(request: dict[str, Any]) -> bool:
    """Return whether a request is for the server's own `/completion`, which alone takes pictures."""
    return not isinstance(request["prompt"], str)


def native_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk of `/completion` as one of `/v1/completions`."""
    if "content" not in chunk:
        return chunk
    timings = chunk.get("timings") or {}
    shaped: dict[str, Any] = {"timings": timings}
    if "prompt_progress" in chunk:
        return {**shaped, "prompt_progress": chunk["prompt_progress"]}
    choice: dict[str, Any] = {"text": chunk["content"]}
    if (tokens := chunk.get("completion_probabilities")) and not chunk.get("stop"):
        choice["logprobs"] = {"content": tokens}
    if chunk.get("stop"):
        choice["finish_reason"] = "length" if chunk.get("stop_type") == "limit" else "stop"
        shaped["usage"] = {
            "prompt_tokens": chunk.get("tokens_evaluated"),
            "completion_tokens": chunk.get("tokens_predicted"),
            "prompt_tokens_details": {"cached_tokens": timings.get("cache_n")},
        }
    return {**shaped, "choices": [choice]}


class Completion:
    """Takes the chunks of one run, and makes its result of them."""

    def __init__(self, emit: Emit, emit_logprobs: EmitLogprobs | None = None) -> None:
        self._emit = emit
        self._emit_logprobs = emit_logprobs
        self.problem: dict[str, Any] | None = None
        """The error that ended the run."""
        self.reason: str | None = None
        """llama.cpp's own word for how the run ended; None while it has not."""
        self.progress: dict[str, Any] = {}
        """How much of the prompt has been evaluated, as llama.cpp told last."""
        self.texts: list[str] = []
        """The answer so far."""
        self.has_begun = False
        """Whether a token of the answer has come."""
        self._figures: dict[str, Any] = {}
        self._before = (0, 0.0)
        self._repetition = Repetition()

    def follow(self, tokens: int, seconds: float) -> None:
        """Count what was evaluated of the prompt before this run, and for it."""
        self._before = (tokens, seconds)

    @property
    def repeats(self) -> bool:
        """Whether a token came again so often that the run is to end."""
        return self._repetition.is_too_much

    @property
    def is_refused(self) -> bool:
        """Whether llama.cpp found something in the request that it cannot do."""
        return (self.problem or {}).get("type") == "invalid_request_error"

    def take(self, chunk: dict[str, Any]) -> None:
        """Pass the text of a chunk on, and keep its figures."""
        if "error" in chunk:
            self.problem = chunk["error"]
        self.progress = chunk.get("prompt_progress") or self.progress
        for choice in chunk.get("choices", ()):
            self._take_choice(choice)
        self._figures.update({key: chunk[key] for key in ("usage", "timings") if key in chunk})

    def _take_choice(self, choice: dict[str, Any]) -> None:
        self.has_begun = True
        text = choice.get("text") or ""
        self.texts.append(text)
        logprobs = (choice.get("logprobs") or {}).get("content")
        if logprobs and self._emit_logprobs is not None:
            self._emit_logprobs(text, tuple(TokenLogprob.from_dict(item) for item in logprobs))
        elif text:
            self._emit(text)
        self._repetition.add(text)
        self.reason = choice.get("finish_reason") or self.reason

    def result(self, *, aborted: bool) -> RunResult:
        """Return how the run ended, with its figures, as far as they have come.

        Raises the error that ended it.
        """
        if self.problem and not aborted and not self.repeats:
            raise failure(self.problem)
        timings = self._figures.get("timings", {})
        usage = self._figures.get("usage") or _usage_so_far(timings)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        seconds = _seconds(timings.get("prompt_ms"))
        evaluated, before = self._before
        prompt_tokens: int | None = usage.get("prompt_tokens")
        reused = None if cached is None else max(0, cached - evaluated)
        known = prompt_tokens is not None and reused is not None
        is_cut = self.repeats or self.reason == "length"
        reason: FinishReason = "length" if is_cut else "stop"
        return RunResult(
            reason="cancelled" if aborted else reason,
            prompt_tokens=prompt_tokens,
            cached_tokens=reused,
            completion_tokens=usage.get("completion_tokens"),
            prompt_seconds=None if seconds is None else seconds + before,
            generation_seconds=_seconds(timings.get("predicted_ms")),
            repeats=self.repeats,
            evaluated_tokens=(prompt_tokens or 0) - (reused or 0) if known else None,
            reused_tokens=reused,
        )


class Repetition:
    """Notices a token that comes again and again; what is only spaces and newlines may."""

    def __init__(self) -> None:
        self._text = ""
        self._again = 0

    def add(self, text: str) -> None:
        """Take the next token's text; one without text (half a character) counts for nothing."""
        if not text:
            return
        self._again = self._again + 1 if text == self._text and not text.isspace() else 0
        self._text = text

    @property
    def is_too_much(self) -> bool:
        """Whether it came again more often than a model that works would write it."""
        return self._again >= MOST_REPEATS


def _usage_so_far(timings: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of a run that was ended before llama.cpp summed it up; {} where no token came."""
    if not timings.get("predicted_n"):
        return {}
    return {
        "prompt_tokens": timings["cache_n"] + timings["prompt_n"],
        "prompt_tokens_details": {"cached_tokens": timings["cache_n"]},
        "completion_tokens": timings["predicted_n"],
    }


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def with_prompt_of(tried: RunResult, result: RunResult) -> RunResult:
    """Return the figures of a run whose prompt had been evaluated in a trial before it."""
    seconds = [s for s in (tried.prompt_seconds, result.prompt_seconds) if s is not None]
    return replace(
        result,
        cached_tokens=tried.cached_tokens,
        evaluated_tokens=tried.evaluated_tokens,
        reused_tokens=tried.reused_tokens,
        prompt_seconds=sum(seconds) if seconds else None,
    )


# --- Embeddings, ranks -------------------------------------------------------------------------


def embed(
    ask: Callable[[str], dict[str, Any]],
    texts: tuple[str, ...],
    truncate: bool,
    header: GGUFHeader | None,
    context_length: int,
    end: str = "",
) -> EmbedResult:
    """Vectors pooled as the model says, else the mean of its tokens'. `ask` answers a text with the reply
    of llama.cpp, or with its `{"error": …}`; each text has `end` at its end. Raises Unsupported,
    PromptTooLong.
    """
    if header is not None and header.ranks:
        raise Unsupported("this model ranks texts and produces no embeddings")
    vectors, tokens = [], 0
    for text in texts:
        answer = _fitting(
            lambda text: ask(text + end or " "), text.removesuffix(end), truncate, context_length
        )
        vectors.append(array("f", answer["data"][0]["embedding"]).tobytes())
        tokens += answer["usage"]["prompt_tokens"]
    return EmbedResult(vectors=tuple(vectors), prompt_tokens=tokens)


def rerank(
    ask: Callable[[dict[str, Any]], dict[str, Any]],
    spec: RerankSpec,
    header: GGUFHeader | None,
    context_length: int,
) -> RankResult:
    """Score documents, one at a time. `ask` gives llama.cpp's reply to a request for its `/v1/rerank`, or its
    `{"error": …}`. Raises Unsupported, PromptTooLong.
    """
    if header is None or not header.ranks:
        raise Unsupported("this .gguf file has no head that ranks texts")
    scores, tokens = [], 0
    for document in spec.documents:
        answer = _fitting(
            lambda text: ask({"query": spec.query, "documents": [text]}),
            document,
            spec.truncate,
            context_length,
        )
        scores.append(_probability(answer["results"][0]["relevance_score"], header))
        tokens += answer["usage"]["prompt_tokens"]
    return RankResult(scores=tuple(scores), prompt_tokens=tokens)


def _probability(score: float, header: GGUFHeader) -> float:
    """Return a head's score from 0 to 1. Only for Qwen3's two outputs llama.cpp gives such a one."""
    return score if (header.architecture or "").startswith("qwen3") else sigmoid(score)


def _fitting(
    ask: Callable[[str], dict[str, Any]], text: str, truncate: bool, context_length: int
) -> dict[str, Any]:
    """Return the reply to a text, with `truncate` to as much of it as the context holds."""
    answer = _with_counts(ask(text), context_length)
    while truncate and text and (error := answer.get("error")) and error.get("n_prompt_tokens"):
        text = shortened(text, error["n_prompt_tokens"], context_length)
        answer = _with_counts(ask(text), context_length)
    if "error" in answer:
        raise failure(answer["error"])
    return answer


def _with_counts(answer: dict[str, Any], context_length: int) -> dict[str, Any]:
    """The reply to a text, where that was too long with the figures of such an error."""
    problem = str((answer.get("error") or {}).get("message"))
    match = re.search(r"input \((\d+) tokens\) is too large", problem)
    if match is None:
        return answer
    error = {
        "type": "exceed_context_size_error",
        "n_prompt_tokens": int(match[1]),
        "n_ctx": context_length,
    }
    return {"error": error}


# --- Errors ------------------------------------------------------------------------------------


def failure(problem: dict[str, Any]) -> RKLLamaError:
    """llama.cpp's own error as one of ours, by its type."""
    message = str(problem.get("message", problem))
    if problem.get("type") == "exceed_context_size_error":
        tokens, context = problem.get("n_prompt_tokens"), problem.get("n_ctx")
        return PromptTooLong(
            f"the prompt has {tokens} tokens, but the context only {context}",
            prompt_tokens=tokens,
            context_length=context,
        )
    if problem.get("type") == "invalid_request_error":
        return InvalidRequest(message)
    return RuntimeFailed(f"llama.cpp: {message}")
