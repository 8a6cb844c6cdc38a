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
from ..models.vision.mmproj import check_is_model, read_mmproj
from ..states.key import file_identity
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
from .grammar import Constraints
from .hardware import slots_for, spare_memory
from .llama_http import Slots
from .llama_program import (
    Ended,
    LlamaServer,
    end_like,
    find_program,
    read_help,
)
from .llama_wire import (
    Completion,
    EmitLogprobs,
    adds_space,
    completion_request,
    embed,
    failure,
    rerank,
    with_prompt_of,
)
from .llamacpp_log import encoder_error, last_error, load_error
from .own_log import OwnOutput
from .vision.mmproj import MmprojEyes, need_eyes, not_loaded

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
        self._parallel = 1
        self._slots: Slots | None = None
        """Where a run has the slot of its lane; else llama-server chooses one."""
        self._eyes: MmprojEyes | None = None
        self._blind: str | None = None
        """Why the model does not see with the encoder that it has."""
        self._embedding = threading.Lock()
        self._constraints = Constraints(converted=True)

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Start the program and wait until it has loaded the file. Raises BackendMissing, LoadFailed."""
        self._program = find_program(spec.llama_server[0])
        try:
            header = read_header(spec.path)
        except GGUFError as error:
            raise LoadFailed(error.message, hint=error.hint) from None
        check_is_model(os.path.basename(spec.path), header)
        self._help = read_help(self._program)
        limit = header.context_length
        self._context_length = min(spec.context_length, limit) if limit else spec.context_length
        self._spec, self._header = spec, header
        self._server, notices = self._start_seeing(spec, header)
        told = self._server.ask("/props")
        if self._encoder is not None and self._blind is None:
            self._eyes = MmprojEyes(read_mmproj(self._encoder), told)
        context = (told.get("default_generation_settings") or {}).get("n_ctx")
        if isinstance(context, int) and 0 < context < self._context_length:
            self._context_length = context
        if isinstance(slots := told.get("total_slots"), int):
            self._parallel = max(1, min(self._parallel, slots))
        build = f" {told['build_info']}" if told.get("build_info") else ""
        if self._keeps_states:
            self._slots = Slots(self._server.ask)
        return LoadedInfo(
            context_length=self._context_length,
            runtime=f"llama.cpp (llama-server{build})",
            dtype=header.quantization,
            threads=spec.threads or None,
            constrains=not adds_space(header),
            per_run_sampling=True,
            counts_tokens=not header.only_embeds,
            parallel=self._parallel,
            keeps_states=self._keeps_states,
            slots=self._keeps_states,
            state_format=self._state_format(spec) if self._keeps_states else "",
            image_tokens=None if self._eyes is None else self._eyes.facts.tokens,
            notices=notices,
        )

    @property
    def _encoder(self) -> str | None:
        """The file that the model is to see with."""
        assert self._spec is not None
        assert self._header is not None
        return None if self._header.only_embeds else self._spec.encoder

    def _start_seeing(
        self, spec: LoadSpec, header: GGUFHeader
    ) -> tuple[LlamaServer, tuple[str, ...]]:
        """Start the program; without the encoder where one of the two is at fault, which is a notice."""
        if self._encoder is not None and "--mmproj" not in self._help:
            self._blind = not_loaded(self._encoder, "this llama-server knows no --mmproj")
        try:
            server, notices = self._start_with_slots(spec, header)
        except LoadFailed as error:
            if self._encoder is None or self._blind is not None:
                raise
            self._blind = not_loaded(self._encoder, encoder_error(error.log) or error.message)
            server, notices = self._start_with_slots(spec, header)
        return server, notices if self._blind is None else (*notices, self._blind)

    @property
    def _keeps_states(self) -> bool:
        """Whether the program can write slots to files, and is to."""
        assert self._spec is not None
        assert self._header is not None
        wanted = self._spec.states is not None and not self._header.only_embeds
        return wanted and "--slot-save-path" in self._help

    def _state_format(self, spec: LoadSpec) -> str:
        """Return what decides what a slot's file holds, beside the build that the program tells: the program,
        its arguments, and the files that those name.
        """
        words = spec.llama_server[1:]
        names = [word.partition("=")[2] or word for word in words]
        files = [file_identity(name) for name in (self._program, *names) if os.path.isfile(name)]
        return "\0".join((str(self._parallel), *words, *files))

    def _start_with_slots(
        self, spec: LoadSpec, header: GGUFHeader
    ) -> tuple[LlamaServer, tuple[str, ...]]:
        """Start the program for as many runs at a time as there is memory for, and for one where it does not
        start with more, which is a notice.
        """
        if header.only_embeds:
            return self._start(embeds=True), ()
        spare = spare_memory(os.path.getsize(spec.path))
        self._parallel = slots = slots_for(spec.parallel, header, self._context_length, spare)
        try:
            return self._start(embeds=False), ()
        except LoadFailed:
            if slots == 1:
                raise
        self._parallel = 1
        server = self._start(embeds=False)
        return server, (f"llama-server does not start for {slots} answers at a time: it has one",)

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
        parallel = 1 if embeds else self._parallel
        arguments = ["--model", spec.path, "--ctx-size", str(parallel * self._context_length)]
        arguments += ["--parallel", str(parallel)]
        if self._keeps_states and not embeds:
            arguments += ["--slot-save-path", os.path.join(str(spec.states), "")]
        # Prompts come rendered; the model's own template, which it may not understand, it need not read.
        arguments += ["--chat-template", "chatml"]
        if self._encoder is not None and self._blind is None and not embeds:
            arguments += ["--mmproj", self._encoder]
            if at_once := read_mmproj(self._encoder).at_once:
                arguments += ["--ubatch-size", str(max(512, at_once))]
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

        Raises Unsupported for a model that only makes embeddings, and for images where it has no encoder.
        """
        if self._header is not None and self._header.only_embeds:
            raise Unsupported("this model produces only embeddings, no text")
        request = completion_request(spec, self._header, self._context_length)
        if spec.images and not need_eyes(self._eyes, self._blind).add(
            request, spec.images, cancelled
        ):
            return RunResult(reason="cancelled")
        if self._slots is not None:
            request["id_slot"] = spec.slot
        tried = None
        if spec.schema is not None:
            tried = self._constraints.apply(
                request,
                lambda trial, emit: self._run(trial, Completion(emit), cancelled, spec.slot),
                cancelled,
            )
        completion = self._run(request, Completion(emit, emit_logprobs), cancelled, spec.slot)
        result = completion.result(aborted=cancelled())
        return result if tried is None else with_prompt_of(tried, result)

    def _run(
        self,
        request: dict[str, Any],
        completion: Completion,
        aborted: Callable[[], bool],
        slot: int,
    ) -> Completion:
        """Let llama-server run a request to its end, unless it is aborted. Raises RuntimeFailed."""
        server = self._running
        try:
            server.client.run(request, completion, aborted, aborted, slot)
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
            self._running.client.request("GET", "/slots") as response,
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
        with self._embedding:
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

    def count_tokens(
        self,
        text: str,
        cancelled: Callable[[], bool] = lambda: False,
        slot: int = 0,  # noqa: ARG002 - as Backend has it
    ) -> int | None:
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

    def restore(self, path: str, tokens: int, slot: int = 0) -> bool:
        """Read a file into a slot; see Backend."""
        return self._slots is not None and self._slots.restore(path, tokens, slot)

    def save(self, path: str, slot: int = 0) -> int | None:
        """Write a slot to a file; see Backend."""
        return None if self._slots is None else self._slots.save(path, slot)

    def abort(self, slot: int = 0) -> None:
        """Hang up: llama-server ends the run at the next token, or at the next batch of the prompt."""
        if self._server is not None:
            self._server.client.hang_up(slot)

    def close(self) -> None:
        """End the program."""
        for server in {self._server, self._embedder} - {None}:
            assert server is not None
            server.stop()
        self._server = self._embedder = None
