"""The CPU backend: .gguf models on llama.cpp, through the xllamacpp wheel (extra `cpu`)."""

from __future__ import annotations

import http.client
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..board.installation import how_to_add_the_cpu_backend
from ..chat.messages import IMAGE_PLACE
from ..errors import (
    BackendMissing,
    LoadFailed,
    PromptTooLong,
    RuntimeFailed,
    Unsupported,
)
from ..models.gguf import GGUFError, GGUFHeader, read_header
from ..models.vision.mmproj import check_is_model, read_mmproj
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
from .hardware import batch_for, cache_bytes, check_memory, slots_for, threads_for
from .llama_http import Client, Slots, listener
from .llama_steps import Steps
from .llama_wire import (
    Completion,
    EmitLogprobs,
    adds_space,
    completion_request,
    embed,
    is_native,
    rerank,
    with_prompt_of,
)
from .llamacpp_log import encoder_error, load_error
from .own_log import OwnOutput
from .vision.mmproj import MmprojEyes, need_eyes, not_loaded

_REQUIREMENT = "xllamacpp>=2026.10,<2027"
"""What the extra `cpu` installs, see pyproject.toml."""


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
        self._embedding = threading.Lock()
        self._counting = threading.Lock()
        self._runs = 0
        """How many go on now."""
        self._recent: deque[str] = deque(maxlen=1)
        """The texts of the last runs, which llama.cpp's slots hold."""
        self._client: Client | None = None
        """Asks the listener, for what the binding does not take: slots' files, and pictures."""
        self._slots: Slots | None = None
        """Where a run has the slot of its lane; else llama.cpp chooses one."""
        self._eyes: MmprojEyes | None = None
        self._blind: str | None = None
        """Why the model does not see with the encoder that it has."""
        self._held: dict[int, str] = {}
        """The text that each of them holds."""
        self._constraints = Constraints()

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Load the file. Raises BackendMissing, LoadFailed."""
        llama = _import_llama()
        name = os.path.basename(spec.path)
        try:
            header = read_header(spec.path)
        except GGUFError as error:
            raise LoadFailed(error.message, hint=error.hint) from None
        check_is_model(name, header)
        encoder = None if header.only_embeds else spec.encoder
        size = os.path.getsize(spec.path)
        if encoder is not None and os.path.isfile(encoder):
            size += os.path.getsize(encoder)
        limit = header.context_length
        context = min(spec.context_length, limit) if limit else spec.context_length
        spare = check_memory(name, header, size, context)
        output = OwnOutput()
        try:
            parameters = _parameters(llama, spec, header, context)
            parallel = 1 if header.only_embeds else slots_for(spec.parallel, header, context, spare)
            parameters.n_parallel, parameters.n_ctx = parallel, context * parallel
            parameters.embedding = header.only_embeds
            spare -= (parallel - 1) * cache_bytes(header, context)
            # Of the rest llama.cpp may use some to remember other conversations.
            parameters.cache_ram_mib = min(parameters.cache_ram_mib, spare // 4 >> 20)
            keeps_states = spec.states is not None and not header.only_embeds
            if keeps_states:
                parameters.slot_save_path = os.path.join(str(spec.states), "")
            self._server = self._start(llama, parameters, encoder, output)
        except RuntimeError as error:
            raise LoadFailed(
                f"{name} cannot be loaded: {output.wait_for(load_error) or error}".rstrip("."),
                hint="The file may be incomplete, or in a format that this llama.cpp does not support.",
            ) from None
        finally:
            output.close()
        self._spec, self._header, self._context_length = spec, header, context
        self._recent = deque(maxlen=2 * parallel)
        if keeps_states or encoder is not None:
            client = listener(self._server.listening_address, parameters.api_keys[0])
            self._client, self._slots = client, Slots(client.ask) if keeps_states else None
            if encoder is not None and self._blind is None:
                self._eyes = MmprojEyes(read_mmproj(encoder), client.ask("/props"))
        # Deleting a server that never served a request can hang: this also touches the weights once.
        touch = {"prompt": " ", "n_predict": 1, "cache_prompt": False}
        self._writes = "error" not in self._server.handle_completions(touch)
        return LoadedInfo(
            context_length=context,
            runtime=f"llama.cpp (xllamacpp {getattr(llama, '__version__', '?')})",
            dtype=header.quantization,
            threads=parameters.cpuparams.n_threads,
            memory=size + parallel * cache_bytes(header, context),
            constrains=not adds_space(header),
            per_run_sampling=True,
            counts_tokens=True,
            parallel=parallel,
            keeps_states=keeps_states,
            slots=keeps_states,
            state_format=_state_format(parameters),
            image_tokens=None if self._eyes is None else self._eyes.facts.tokens,
            notices=() if self._blind is None else (self._blind,),
        )

    def _start(self, llama: Any, parameters: Any, encoder: str | None, output: OwnOutput) -> Any:
        """Return a server that sees; one that does not where the encoder is at fault. Raises RuntimeError."""
        if encoder is None:
            return llama.Server(parameters)
        try:
            parameters.mmproj.path, parameters.mmproj_use_gpu = encoder, False
            batch = max(parameters.n_batch, read_mmproj(encoder).at_once)
            parameters.n_batch = parameters.n_ubatch = batch
            return llama.Server(parameters)
        except (RuntimeError, LoadFailed) as error:
            parameters.mmproj.path = ""
            server = llama.Server(parameters)
            self._blind = not_loaded(encoder, output.wait_for(encoder_error) or str(error))
            return server

    def generate(
        self,
        spec: GenerateSpec,
        emit: Emit,
        emit_logprobs: EmitLogprobs | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Return one completion; the prefix that it shares with the last one is not evaluated again.

        Raises Unsupported for a model that only makes embeddings.
        """
        if not self._writes:
            raise Unsupported("this model produces only embeddings, no text")
        request = completion_request(spec, self._header, self._context_length)
        held: str = request["prompt"]
        if spec.images:
            held = held.partition(IMAGE_PLACE)[0]
            if not need_eyes(self._eyes, self._blind).add(request, spec.images, cancelled):
                return RunResult(reason="cancelled")
        if self._slots is not None:
            request["id_slot"] = spec.slot
        tried = None
        with self._counted():
            if spec.schema is not None:
                tried = self._constraints.apply(
                    request,
                    lambda trial, emit: self._run(trial, emit, None, cancelled, spec),
                    cancelled,
                )
            completion = self._run(request, emit, emit_logprobs, cancelled, spec)
            if not spec.images:
                held += "".join(completion.texts)
            self._note_held(spec.slot, held)
        result = completion.result(aborted=cancelled())
        return result if tried is None else with_prompt_of(tried, result)

    def _note_held(self, slot: int, text: str) -> None:
        if self._slots is None:
            self._recent.append(text)
        else:
            self._held[slot] = text

    def _texts_in_cache(self, request: dict[str, Any], cached: int) -> list[str]:
        """Return texts that the slots hold which a run may get, and the `cached` characters of its own."""
        if self._slots is None:
            return [*self._recent]
        return [self._held.get(request["id_slot"], ""), request["prompt"][:cached]]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self._runs += 1
        try:
            yield
        finally:
            with self._counting:
                self._runs -= 1

    def _run(
        self,
        request: dict[str, Any],
        emit: Emit,
        emit_logprobs: EmitLogprobs | None,
        cancelled: Callable[[], bool],
        spec: GenerateSpec,
    ) -> Completion:
        """Let llama.cpp run a request to its end, its prompt in steps while others run, too."""
        if is_native(request):  # a picture is evaluated as a whole
            completion = Completion(emit, emit_logprobs)
            self._ask_listener(request, completion, cancelled, spec.slot)
            return completion
        steps, may_wait = Steps(request["prompt"]), bool(request["cache_prompt"])
        if may_wait and self._runs > 1:
            steps.begin_after(self._texts_in_cache(request, spec.cached))
            may_wait = self._take_steps(request, steps, cancelled)
        while True:
            completion = Completion(emit, emit_logprobs)
            completion.follow(steps.evaluated, steps.seconds)
            if not self._ask_or_give_way(request, completion, cancelled, may_wait=may_wait):
                return completion
            steps.begin(completion.progress)
            may_wait = self._take_steps(request, steps, cancelled)

    def _ask_or_give_way(
        self,
        request: dict[str, Any],
        completion: Completion,
        cancelled: Callable[[], bool],
        *,
        may_wait: bool,
    ) -> bool:
        """Run a request; return whether it was ended in its prompt, as others run and much of it is left."""
        gave_way = False

        def is_over() -> bool:
            nonlocal gave_way
            if may_wait and self._runs > 1 and not completion.has_begun:
                gave_way = Steps.are_worthwhile(completion.progress)
            return gave_way or cancelled()

        self._ask(request, completion, is_over)
        return gave_way and not cancelled()

    def _take_steps(
        self, request: dict[str, Any], steps: Steps, cancelled: Callable[[], bool]
    ) -> bool:
        """Evaluate a prompt in steps as long as others run; return whether there are more to take."""
        while self._runs > 1 and steps.are_left and not cancelled():
            step = {**request, "prompt": steps.next(), "n_predict": 0}
            step.pop("json_schema", None)
            step.pop("grammar", None)
            started = time.monotonic()
            completion = self._ask(step, Completion(_drop), cancelled)
            if completion.problem is not None:  # the request itself tells it better
                return False
            if not cancelled():
                steps.took(time.monotonic() - started, completion)
        return steps.are_left

    def _ask(
        self, request: dict[str, Any], completion: Completion, is_over: Callable[[], bool]
    ) -> Completion:
        """Let llama.cpp run a request until it ends or `is_over`, which is asked at each chunk."""
        failures: list[BaseException] = []

        def on_chunk(chunk: dict[str, Any]) -> bool:
            # The binding swallows exceptions: they are raised after the run.
            try:
                completion.take(chunk)
                return is_over() or completion.repeats
            except BaseException as error:
                failures.append(error)
                return True

        try:
            answer = self._server.handle_completions(request, on_chunk)
        except TypeError as error:  # the binding does not take all numbers and texts of a schema
            completion.problem = {"type": "invalid_request_error", "message": str(error)}
            return completion
        if failures:
            raise failures[0]
        if completion.problem is None:
            completion.problem = (answer or {}).get("error")
        return completion

    def _ask_listener(
        self,
        request: dict[str, Any],
        completion: Completion,
        cancelled: Callable[[], bool],
        slot: int,
    ) -> None:
        """Let llama.cpp run a request that the binding does not take."""
        assert self._client is not None
        try:
            self._client.run(request, completion, cancelled, cancelled, slot)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not cancelled():
                raise RuntimeFailed(f"llama.cpp broke an answer off: {error}") from None

    def embed(self, texts: tuple[str, ...], truncate: bool) -> EmbedResult:
        """Vectors pooled as the model says, else the mean of its tokens'."""
        end = self._spec.text_end if self._spec else ""
        return embed(self._embed_one, texts, truncate, self._header, self._context_length, end)

    def _embed_one(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._need_embedder().handle_embeddings({"input": text})
        return answer

    def rerank(self, spec: RerankSpec) -> RankResult:
        """Score documents with the model's own head for it."""
        return rerank(
            lambda request: self._need_embedder().handle_rerank(request),
            spec,
            self._header,
            self._context_length,
        )

    def _need_embedder(self) -> Any:
        with self._embedding:
            if self._embedder is None:
                self._embedder = self._make_embedder()
            return self._embedder

    def _make_embedder(self) -> Any:
        assert self._spec is not None
        assert self._header is not None
        llama, context = _import_llama(), self._context_length
        # The weights are mapped from the file once; what this adds is a cache and a batch.
        parameters = _parameters(llama, self._spec, self._header, context, batch=context)
        parameters.cache_ram_mib = 0
        try:
            return llama.Server(parameters)
        except RuntimeError as error:
            raise RuntimeFailed(f"there is not enough memory to embed texts: {error}") from None

    def count_tokens(
        self, text: str, cancelled: Callable[[], bool] = lambda: False, slot: int = 0
    ) -> int | None:
        """Return how many tokens a prompt has. The binding has no tokenizer, but it evaluates a prompt (which
        a request that follows reuses) and says how long it was.
        """
        if not self._writes:
            return None
        spec = GenerateSpec(prompt=text, max_tokens=0, slot=slot)
        try:
            return self.generate(spec, _drop, cancelled=cancelled).prompt_tokens
        except PromptTooLong as error:
            return error.prompt_tokens

    def restore(self, path: str, tokens: int, slot: int = 0) -> bool:
        """Read a file into a slot; see Backend."""
        self._held.pop(slot, None)
        return self._slots is not None and self._slots.restore(path, tokens, slot)

    def save(self, path: str, slot: int = 0) -> int | None:
        """Write a slot to a file; see Backend."""
        return None if self._slots is None else self._slots.save(path, slot)

    def abort(self, slot: int = 0) -> None:
        """Break off a run with pictures; any other asks for itself, at each token and each batch."""
        if self._client is not None:
            self._client.hang_up(slot)

    def close(self) -> None:
        """Free the model."""
        self._server = self._embedder = None


def _import_llama() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise BackendMissing(
            f".gguf models need the CPU backend, which is not installed ({error})",
            hint=how_to_add_the_cpu_backend(_REQUIREMENT),
        ) from None
    return xllamacpp


def _parameters(
    llama: Any, spec: LoadSpec, header: GGUFHeader, context: int, batch: int | None = None
) -> Any:
    parameters = llama.CommonParams()
    parameters.model.path = spec.path
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.n_batch = parameters.n_ubatch = batch or batch_for(spec.path)
    parameters.cpuparams.n_threads = spec.threads or threads_for(spec.path)
    parameters.warmup = False
    parameters.n_gpu_layers = 0
    parameters.verbosity = 1  # errors
    parameters.embedding = True
    if not header.pooling:
        parameters.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    elif header.ranks:  # it ranks only where it is told to, too
        parameters.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    # It always opens a listener on loopback: without this key nobody gets an answer there.
    parameters.api_keys = [secrets.token_urlsafe(32)]
    parameters.ui = False
    parameters.endpoint_slots = False
    # Prompts come rendered; the model's own template, which it may not understand, it need not read.
    parameters.chat_template = "chatml"
    return parameters


def _state_format(parameters: Any) -> str:
    """Return what the form of a slot's file depends on: it is one of several streams."""
    names = (
        "n_parallel",
        "kv_unified",
        "cache_type_k",
        "cache_type_v",
        "flash_attn_type",
        "swa_full",
    )
    return " ".join(f"{name}={getattr(parameters, name, None)}" for name in names)


def _drop(_text: str) -> None:
    """Discard text that nobody needs."""
