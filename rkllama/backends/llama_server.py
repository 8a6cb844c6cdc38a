"""The external backend: .gguf models on a llama-server of the user's, such as a build for an NPU or a GPU."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import LoadFailed, Unsupported
from ..models.gguf import GGUFError, GGUFHeader, read_header
from .base import (
    EmbedResult,
    Emit,
    GenerateSpec,
    LoadedInfo,
    LoadSpec,
    RankResult,
    RerankSpec,
    RunResult,
)
from .hardware import spare_memory
from .llama_program import (
    Ended,
    LlamaServer,
    end_like,
    events,
    find_program,
    read_help,
    read_json,
)
from .llama_wire import (
    Completion,
    Constraints,
    EmitLogprobs,
    adds_space,
    completion_request,
    embed,
    failure,
    rerank,
    with_prompt_of,
)
from .llamacpp_log import last_error, load_error
from .own_log import OwnOutput

_MOST_CACHE_MIB = 8192
"""What llama-server takes by itself to remember other conversations."""


class LlamaServerBackend:
    """A model in a llama-server; see backends.base.Backend."""

    def __init__(self) -> None:
        self._server: LlamaServer | None = None
        self._embedder: LlamaServer | None = None
        """Evaluates a text in one batch, as pooling needs it; started for the first embedding."""
        self._spec: LoadSpec | None = None
        self._header: GGUFHeader | None = None
        self._program = self._help = ""
        self._context_length = 0
        self._aborted = threading.Event()
        self._constraints = Constraints()

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Start the program and wait until it has loaded the file. Raises BackendMissing, LoadFailed."""
        self._program = find_program(spec.llama_server[0])
        try:
            header = read_header(spec.path)
        except GGUFError as error:
            raise LoadFailed(error.message, hint=error.hint) from None
        self._help = read_help(self._program)
        limit = header.context_length
        self._context_length = min(spec.context_length, limit) if limit else spec.context_length
        self._spec, self._header = spec, header
        self._server = self._start(embeds=header.only_embeds)
        told = self._server.ask("/props")
        context = (told.get("default_generation_settings") or {}).get("n_ctx")
        if isinstance(context, int) and 0 < context < self._context_length:
            self._context_length = context
        build = f" {told['build_info']}" if told.get("build_info") else ""
        return LoadedInfo(
            context_length=self._context_length,
            runtime=f"llama.cpp (llama-server{build})",
            dtype=header.quantization,
            threads=spec.threads or None,
            constrains=not adds_space(header),
            per_run_sampling=True,
            counts_tokens=not header.only_embeds,
        )

    def _start(self, *, embeds: bool) -> LlamaServer:
        """Start a llama-server with the model, and wait until it is ready. Raises LoadFailed."""
        output = OwnOutput()
        server = LlamaServer(self._program, self._help, self._arguments(embeds))
        try:
            server.wait_ready()
        except Ended as end:
            if end.status < 0:
                end_like(end.status)  # the parent knows what signals mean
            log = output.gained()
            raise self._not_loaded(load_error(log) or last_error(log), end.status, log) from None
        finally:
            output.close()
        server.guard()
        return server

    def _not_loaded(self, reason: str | None, status: int, log: str) -> LoadFailed:
        assert self._spec is not None
        reason = reason or f"llama-server ended with status {status}"
        return LoadFailed(
            f"{os.path.basename(self._spec.path)} cannot be loaded: {reason}".rstrip("."),
            hint="The file may be incomplete, or this llama-server may not support its format or one of "
            "the arguments.",
            log=log[-4096:],
        )

    def _arguments(self, embeds: bool) -> Sequence[str]:
        spec, header, context = self._spec, self._header, str(self._context_length)
        assert spec is not None
        assert header is not None
        arguments = ["--model", spec.path, "--ctx-size", context, "--parallel", "1"]
        # Prompts come rendered; the model's own template, which it may not understand, it need not read.
        arguments += ["--chat-template", "chatml"]
        if spec.threads:
            arguments += ["--threads", str(spec.threads)]
        if "--cache-ram" in self._help:
            spare = spare_memory(os.path.getsize(spec.path)) // 4 >> 20
            arguments += ["--cache-ram", str(0 if embeds else min(_MOST_CACHE_MIB, spare))]
        if embeds:
            arguments += ["--embeddings", "--batch-size", context, "--ubatch-size", context]
            arguments += [] if header.pooling else ["--pooling", "mean"]
            arguments += ["--reranking"] if header.ranks else []
        return [*arguments, *spec.llama_server[1:]]

    # --- Runs ----------------------------------------------------------------------------------

    def generate(
        self,
        spec: GenerateSpec,
        emit: Emit,
        emit_logprobs: EmitLogprobs | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Return one completion; the prefix that it shares with the last one is not evaluated again.

        Raises Unsupported for a model that only makes embeddings, and for images.
        """
        if self._header is not None and self._header.only_embeds:
            raise Unsupported("this model produces only embeddings, no text")
        if spec.images:
            raise Unsupported("llama-server is given no images", param="images")
        self._aborted.clear()

        def aborted() -> bool:
            return self._aborted.is_set() or cancelled()

        request = completion_request(spec, self._header, self._context_length)
        tried = None
        if spec.schema is not None:
            tried = self._constraints.apply(
                request,
                lambda trial, emit: self._run(trial, Completion(emit), aborted),
                aborted,
            )
        completion = self._run(request, Completion(emit, emit_logprobs), aborted)
        result = completion.result(aborted=aborted())
        return result if tried is None else with_prompt_of(tried, result)

    def _run(
        self, request: dict[str, Any], completion: Completion, aborted: Callable[[], bool]
    ) -> Completion:
        """Let llama-server run a request to its end, unless it is aborted. Raises RuntimeFailed."""
        server = self._running
        try:
            with server.request("POST", "/v1/completions", request, aborted) as response:
                if response.status != http.client.OK:
                    completion.take(read_json(response))
                    return completion
                for chunk in events(response):
                    completion.take(chunk)
                    if aborted() or completion.repeats:
                        break
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not aborted():
                server.lost(error)
        if aborted() or completion.repeats:
            self._await_batch()
        elif completion.reason is None and completion.problem is None:
            server.lost()
        return completion

    def _await_batch(self) -> None:
        """Wait until llama-server, whose client hung up, does something else: then it is not stuck."""
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            self._running.request("GET", "/slots") as response,
        ):
            response.read()

    @property
    def _running(self) -> LlamaServer:
        assert self._server is not None, "it has been loaded"
        return self._server

    def embed(self, texts: tuple[str, ...], truncate: bool) -> EmbedResult:
        """Vectors pooled as the model says, else the mean of its tokens'."""
        end = self._spec.text_end if self._spec else ""
        return embed(self._embed_one, texts, truncate, self._header, self._context_length, end)

    def _embed_one(self, text: str) -> dict[str, Any]:
        if self._embedder is None:
            only = self._header is not None and self._header.only_embeds
            self._embedder = self._running if only else self._start(embeds=True)
        return self._embedder.ask("/v1/embeddings", {"input": text})

    def rerank(self, spec: RerankSpec) -> RankResult:
        """Score documents with the model's own head for it."""
        return rerank(
            lambda request: self._running.ask("/v1/rerank", request),
            spec,
            self._header,
            self._context_length,
        )

    def count_tokens(self, text: str, cancelled: Callable[[], bool] = lambda: False) -> int | None:
        """Return how many tokens a prompt has, the one before every prompt included."""
        if cancelled():
            return None
        body = completion_request(GenerateSpec(prompt=text), self._header, self._context_length)
        answer = self._running.ask(
            "/tokenize", {"content": body["prompt"], "add_special": True, "parse_special": True}
        )
        if "error" in answer:
            raise failure(answer["error"])
        return len(answer["tokens"])

    def restore(self, path: str, tokens: int) -> bool:  # noqa: ARG002 - as Backend has it
        """Return False: states of slots are not kept; see Backend."""
        return False

    def abort(self) -> None:
        """Hang up: llama-server ends the run at the next token, or at the next batch of the prompt."""
        self._aborted.set()
        if self._server is not None:
            self._server.hang_up()

    def close(self) -> None:
        """End the program."""
        for server in {self._server, self._embedder} - {None}:
            assert server is not None
            server.stop()
        self._server = self._embedder = None
