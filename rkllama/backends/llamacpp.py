"""The CPU backend: .gguf models on llama.cpp, through the xllamacpp wheel (extra `cpu`)."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import (
    BackendMissing,
    InvalidRequest,
    LoadFailed,
    PromptTooLong,
    RKLLamaError,
    RuntimeFailed,
    Unsupported,
)
from ..models.gguf import GGUFError, GGUFHeader, read_header
from ..types import MOST_REPEATS, FinishReason, SamplingParams, TokenLogprob
from .base import EmbedResult, Emit, GenerateSpec, LoadedInfo, LoadSpec, RunResult
from .grammar import grammar_schemas
from .hardware import cache_bytes, check_memory, threads_for
from .llamacpp_log import load_error, schema_error
from .own_log import OwnOutput

_REQUIREMENT = "xllamacpp>=2026.10,<2027"
"""What the extra `cpu` installs, see pyproject.toml."""
_BATCH = 64
"""Prompt tokens evaluated at once. llama.cpp reacts to an abort only between two batches, and on a CPU
larger ones are hardly faster."""
_RANK = 4
"""llama.cpp's pooling type of rerankers."""
_GRAMMARS = 64
"""Schemas that are remembered."""
_NO_JSON = "X"
"""What no JSON begins with."""
_TRIAL = {"n_predict": 1, "temperature": 0, "mirostat": 0, "logit_bias": [[_NO_JSON, 1000]]}
"""A run whose token is _NO_JSON, unless something forbids it."""
_LOG_SECONDS = 1.0
"""After a failure, for its reason to be in the log."""


class CPUBackend:
    """A model on the CPU; see backends.base.Backend."""

    def __init__(self) -> None:
        self._server: Any = None
        self._embedder: Any = None
        """Evaluates a text in one batch, as pooling needs it; made for the first embedding."""
        self._spec: LoadSpec | None = None
        self._header: GGUFHeader | None = None
        self._context_length = 0
        self._writes = True
        """Encoders (BERT) only make vectors."""
        self._aborted = threading.Event()
        self._grammars: dict[str, dict[str, Any]] = {}
        """By a client's schema: the one that constrains."""

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Load the file. Raises BackendMissing, LoadFailed."""
        llama = _import_llama()
        name = os.path.basename(spec.path)
        try:
            header = read_header(spec.path)
        except GGUFError as error:
            raise LoadFailed(error.message, hint=error.hint) from None
        limit = header.context_length
        context = min(spec.context_length, limit) if limit else spec.context_length
        spare = check_memory(name, header, os.path.getsize(spec.path), context)
        output = OwnOutput()
        try:
            parameters = _parameters(llama, spec, header, context)
            # Of the rest llama.cpp may use some to remember other conversations.
            parameters.cache_ram_mib = min(parameters.cache_ram_mib, spare // 4 >> 20)
            self._server = llama.Server(parameters)
        except RuntimeError as error:
            raise LoadFailed(
                f"{name} cannot be loaded: {_reason(output, load_error) or error}".rstrip("."),
                hint="The file may be incomplete, or in a format that this llama.cpp does not support.",
            ) from None
        finally:
            output.close()
        self._spec, self._header, self._context_length = spec, header, context
        # Deleting a server that never served a request can hang: this also touches the weights once.
        touch = {"prompt": " ", "n_predict": 1, "cache_prompt": False}
        self._writes = "error" not in self._server.handle_completions(touch)
        return LoadedInfo(
            context_length=context,
            runtime=f"llama.cpp (xllamacpp {getattr(llama, '__version__', '?')})",
            dtype=header.quantization,
            memory=os.path.getsize(spec.path) + cache_bytes(header, context),
            constrains=not _adds_space(header),
            per_run_sampling=True,
            counts_tokens=True,
        )

    def generate(
        self,
        spec: GenerateSpec,
        emit: Emit,
        emit_logprobs: Callable[[str, tuple[TokenLogprob, ...]], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Return one completion; the prefix that it shares with the last one is not evaluated again.

        Raises Unsupported for a model that only makes embeddings.
        """
        if not self._writes:
            raise Unsupported("this model produces only embeddings, no text")
        if spec.images:
            raise Unsupported("the CPU backend cannot read images", param="images")
        self._aborted.clear()
        request = self._request(spec)
        tried = None
        if spec.schema is not None:
            request["json_schema"], tried = self._constraining(request, cancelled)
        last = self._run(request, emit, emit_logprobs, cancelled)
        result = _result(last, aborted=self._is_aborted(cancelled))
        return result if tried is None else _with_prompt_of(tried, result)

    def _is_aborted(self, cancelled: Callable[[], bool]) -> bool:
        return self._aborted.is_set() or cancelled()

    def _run(
        self,
        request: dict[str, Any],
        emit: Emit,
        emit_logprobs: Callable[[str, tuple[TokenLogprob, ...]], None] | None,
        cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        """Return what llama.cpp says at the end: reason, usage and timings."""
        last: dict[str, Any] = {}
        failures: list[BaseException] = []
        repetition = _Repetition()

        def on_chunk(chunk: dict[str, Any]) -> bool:
            # The binding swallows exceptions: they are raised after the run.
            try:
                if "error" in chunk:
                    last["error"] = chunk["error"]
                for choice in chunk.get("choices", ()):
                    _emit_choice(choice, emit, emit_logprobs)
                    repetition.add(choice.get("text") or "")
                    if choice.get("finish_reason"):
                        last["reason"] = choice["finish_reason"]
                last.update({k: chunk[k] for k in ("usage", "timings") if k in chunk})
            except BaseException as error:
                failures.append(error)
                return True
            return self._is_aborted(cancelled) or repetition.is_too_much

        try:
            answer = self._server.handle_completions(request, on_chunk)
        except TypeError as error:  # numbers and texts that the binding does not take
            raise InvalidRequest(
                f"the JSON schema cannot be used: {error}", param="format"
            ) from None
        if failures:
            raise failures[0]
        problem = last.get("error") or (answer or {}).get("error")
        if problem and not self._is_aborted(cancelled) and not repetition.is_too_much:
            raise _failure(problem)
        return {**last, "repeats": repetition.is_too_much}

    def _constraining(
        self, request: dict[str, Any], cancelled: Callable[[], bool]
    ) -> tuple[dict[str, Any], RunResult | None]:
        """Return the request's schema as llama.cpp can use it: one that it cannot read constrains nothing.

        A schema is tried once, on the request's own prompt, which is in the cache then; the second value is
        that run's. Raises InvalidRequest where none constrains.
        """
        key = json.dumps(request["json_schema"])
        if key in self._grammars:
            return self._grammars[key], None
        schemas, tried = grammar_schemas(request["json_schema"]), None
        output = OwnOutput()
        try:
            for schema in schemas:
                text: list[str] = []
                trial = {**request, **_TRIAL, "json_schema": schema}
                last = self._run(trial, text.append, None, cancelled)
                aborted = self._is_aborted(cancelled)
                tried = tried or _result(last, aborted=aborted)
                if aborted:
                    return schema, tried
                if "".join(text).strip() != _NO_JSON:
                    while len(self._grammars) >= _GRAMMARS:
                        self._grammars.pop(next(iter(self._grammars)))
                    self._grammars[key] = schema
                    return schema, tried
            reason = _reason(output, schema_error) or "llama.cpp cannot constrain an answer by it"
        finally:
            output.close()
        raise InvalidRequest(f"the JSON schema cannot be used: {reason}", param="format")

    def _request(self, spec: GenerateSpec) -> dict[str, Any]:
        sampling = spec.sampling
        request: dict[str, Any] = {
            "prompt": self._without_bos(spec.prompt),
            "stream": True,
            "return_progress": True,
            "timings_per_token": True,  # else what is ended by a stop string has no figures
            "cache_prompt": _reuses(sampling),
            "n_predict": spec.max_tokens if spec.max_tokens >= 0 else self._context_length,
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

    def _without_bos(self, prompt: str) -> str:
        """Return the prompt without what llama.cpp puts before every prompt by itself."""
        header = self._header
        if header is None or not header.bos_token or not _adds_bos(header):
            return prompt
        return prompt.removeprefix(header.bos_token)

    def embed(self, texts: tuple[str, ...], truncate: bool) -> EmbedResult:
        """Vectors pooled as the model says, else the mean of its tokens'."""
        if self._header is not None and self._header.pooling == _RANK:
            raise Unsupported("this model ranks texts and produces no embeddings")
        vectors, tokens = [], 0
        end = self._spec.text_end if self._spec else ""
        for text in texts:
            text = text.removesuffix(end)
            answer = self._embed_one(text + end)
            if truncate:
                while (error := answer.get("error")) and error.get("n_prompt_tokens"):
                    # Cut by the measured ratio, with a margin, until it fits.
                    keep = len(text) * self._context_length / error["n_prompt_tokens"]
                    text = text[: min(len(text) - 1, int(keep * 0.95))]
                    answer = self._embed_one(text + end)
            if "error" in answer:
                raise _failure(answer["error"])
            vectors.append(array("f", answer["data"][0]["embedding"]).tobytes())
            tokens += answer["usage"]["prompt_tokens"]
        return EmbedResult(vectors=tuple(vectors), prompt_tokens=tokens)

    def _embed_one(self, text: str) -> dict[str, Any]:
        if self._embedder is None:
            assert self._spec is not None
            assert self._header is not None
            llama, context = _import_llama(), self._context_length
            # The weights are mapped from the file once; what this adds is a cache and a batch.
            parameters = _parameters(llama, self._spec, self._header, context, batch=context)
            parameters.cache_ram_mib = 0
            try:
                self._embedder = llama.Server(parameters)
            except RuntimeError as error:
                raise RuntimeFailed(f"there is not enough memory to embed texts: {error}") from None
        answer: dict[str, Any] = self._embedder.handle_embeddings({"input": text or " "})
        problem = str((answer.get("error") or {}).get("message"))
        if match := re.search(r"input \((\d+) tokens\) is too large", problem):
            answer["error"] = {
                "type": "exceed_context_size_error",
                "n_prompt_tokens": int(match[1]),
                "n_ctx": self._context_length,
            }
        return answer

    def count_tokens(self, text: str, cancelled: Callable[[], bool] = lambda: False) -> int | None:
        """Return the binding has no tokenizer, but it evaluates a prompt (which a request that follows
        reuses) and says how long it was.
        """
        if not self._writes:
            return None
        spec = GenerateSpec(prompt=text, max_tokens=0)
        try:
            return self.generate(spec, _drop, cancelled=cancelled).prompt_tokens
        except PromptTooLong as error:
            return error.prompt_tokens

    def abort(self) -> None:
        """End the run at the next token, or at the next batch of the prompt."""
        self._aborted.set()

    def close(self) -> None:
        """Free the model."""
        self._server = self._embedder = None


def _import_llama() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise BackendMissing(
            f".gguf models need the CPU backend, which is not installed ({error})",
            hint=f"Install it: {sys.executable} -m pip install '{_REQUIREMENT}'",
        ) from None
    return xllamacpp


def _parameters(
    llama: Any, spec: LoadSpec, header: GGUFHeader, context: int, batch: int = _BATCH
) -> Any:
    parameters = llama.CommonParams()
    parameters.model.path = spec.path
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.n_batch = parameters.n_ubatch = batch
    parameters.cpuparams.n_threads = spec.threads or threads_for(spec.path)
    parameters.warmup = False
    parameters.n_gpu_layers = 0
    parameters.verbosity = 1  # errors
    parameters.embedding = True
    if not header.pooling:
        parameters.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # It always opens a listener on loopback: without this key nobody gets an answer there.
    parameters.api_keys = [secrets.token_urlsafe(32)]
    parameters.ui = False
    parameters.endpoint_slots = False
    # Prompts come rendered; the model's own template, which it may not understand, it need not read.
    parameters.chat_template = "chatml"
    return parameters


def _reason(output: OwnOutput, find: Callable[[str], str | None]) -> str | None:
    """Return why llama.cpp failed: its answer does not tell, and its log is written by a thread of its own,
    for which this waits.
    """
    deadline = time.monotonic() + _LOG_SECONDS
    while (reason := find(output.gained())) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return reason


def _adds_bos(header: GGUFHeader) -> bool:
    """Return whether llama.cpp begins prompts with the token: as the header says, else as its tokenizer
    does.
    """
    flag = header.metadata.get("tokenizer.ggml.add_bos_token")
    return flag if isinstance(flag, bool) else header.tokenizer == "llama"


def _adds_space(header: GGUFHeader) -> bool:
    """Return whether llama.cpp puts a blank before texts (Llama 2, Mistral 7B). It takes one off each token,
    too, when it tells its grammar engine what the token says, so that answers are not held to their form.
    """
    flag = header.metadata.get("tokenizer.ggml.add_space_prefix")
    return flag if isinstance(flag, bool) else header.tokenizer in ("llama", "t5")


def _emit_choice(
    choice: dict[str, Any],
    emit: Emit,
    emit_logprobs: Callable[[str, tuple[TokenLogprob, ...]], None] | None,
) -> None:
    text = choice.get("text") or ""
    logprobs = (choice.get("logprobs") or {}).get("content")
    if logprobs and emit_logprobs is not None:
        emit_logprobs(text, tuple(TokenLogprob.from_dict(item) for item in logprobs))
    elif text:
        emit(text)


class _Repetition:
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


def _drop(_text: str) -> None:
    """Discard text that nobody needs."""


def _reuses(sampling: SamplingParams) -> bool:
    """Return whether the cache may serve a prompt's beginning. Not where a seed is to give the same answer
    twice: what was evaluated in other batches differs in the last bits, and so, in the end, do the words.
    """
    return sampling.seed is None or sampling.temperature == 0


def _result(last: dict[str, Any], *, aborted: bool) -> RunResult:
    repeats = last["repeats"]
    timings = last.get("timings", {})
    usage = last.get("usage") or _usage_so_far(timings)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    reason: FinishReason = "length" if repeats or last.get("reason") == "length" else "stop"
    if aborted:
        reason = "cancelled"
    return RunResult(
        reason=reason,
        prompt_tokens=usage.get("prompt_tokens"),
        cached_tokens=cached,
        completion_tokens=usage.get("completion_tokens"),
        prompt_seconds=_seconds(timings.get("prompt_ms")),
        generation_seconds=_seconds(timings.get("predicted_ms")),
        repeats=repeats,
    )


def _with_prompt_of(tried: RunResult, result: RunResult) -> RunResult:
    """Return the figures of a run whose prompt had been evaluated in a trial before it."""
    seconds = [s for s in (tried.prompt_seconds, result.prompt_seconds) if s is not None]
    return replace(
        result,
        cached_tokens=tried.cached_tokens,
        prompt_seconds=sum(seconds) if seconds else None,
    )


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


def _failure(problem: dict[str, Any]) -> RKLLamaError:
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
