"""The NPU backend: a .rkllm model run by librkllmrt, in a process of its own.

The layers below it are in rkllm/: abi (declarations), ctypes_types, library (finding and identifying),
runtime with inputs, callback and abort (the API), and log; backends/own_log reads that while it is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .backends.base import (
    EmbedResult,
    Emit,
    GenerateSpec,
    LoadedInfo,
    LoadSpec,
    RankResult,
    RerankSpec,
    RunResult,
)
from .backends.own_log import OwnOutput
from .backends.rows import Evaluation, Row, probability
from .backends.tokenizer import TokenCounter, yes_no_tokens
from .board.soc import cpus, read_soc, require_llm
from .chat.messages import IMAGE_PLACE
from .chat.rerank import rerank_prompt
from .errors import (
    LoadFailed,
    PromptTooLong,
    RKLLamaError,
    RuntimeFailed,
    Unsupported,
    load_failure,
    see_doctor,
)
from .rkllm.callback import Perf, Results, Rows
from .rkllm.inputs import Input, PromptInput
from .rkllm.library import open_library
from .rkllm.log import (
    Facts,
    cache_match,
    complaint,
    diagnose,
    failed_to_compute,
    notices,
    prompt_too_long,
    read_facts,
)
from .rkllm.model_file import what_else
from .rkllm.releases import are_bad_together
from .rkllm.runtime import RunOptions, Runtime
from .types import Diagnosis, FinishReason, NPUParams, TokenLogprob

if TYPE_CHECKING:
    from .backends.vision.eyes import Eyes

_LORA = "default"
_UNEXPLAINED = see_doctor("Try another release of librkllmrt, or a model made for this one.")
_SPARE = 4
"""Tokens of the context left free: the runtime keeps some, and an abort lands a token late."""


class NPUBackend:
    """A model on the NPU; see backends.base.Backend.

    A prompt that is `raw` goes in as written: the first one takes the runtime's own template away,
    which cannot be brought back, so from then on a prompt that is not raw is refused. Runtimes 1.1
    have no template of their own. Before 1.3 sampling is fixed when the model is loaded, and
    `max_tokens` is honoured by counting tokens.
    """

    def __init__(self, log_path: str | None = None, *, compatible: str | None = None) -> None:
        self._output = OwnOutput(log_path)
        self._compatible = compatible
        self._runtime: Runtime | None = None
        self._spec: LoadSpec | None = None
        self._context = 0
        self._threads: int | None = None
        self._n_batch = 1
        """Prompts of each run; more than one where the model only embeds or ranks."""
        self._template: str | None = None
        """Which template prompts go through: "own", "none", or None while undecided."""
        self._fresh = True
        """Whether the KV cache is empty."""
        self._eyes: Eyes | None = None
        self._pictures: tuple[bytes, ...] = ()
        """The digests of the pictures in the KV cache."""
        self._before_pictures = ""
        """The prompt up to the last one of them."""
        self._holds_file = False
        """Whether a prompt cache file has been loaded, which is released before another one is."""
        self._surplus: dict[str, int] = {}
        self._generating = False
        self._abort_wanted = False

    # --- Loading -------------------------------------------------------------------------------

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Load the model; its context is clamped to what the model can have."""
        soc = read_soc(self._compatible)
        require_llm(soc)
        if not os.access(spec.path, os.R_OK):
            raise LoadFailed(f"the model file {spec.path} cannot be read")
        if other := what_else(spec.path):
            raise LoadFailed(
                f"{os.path.basename(spec.path)} is no .rkllm model but {other.message}",
                hint=other.hint,
            )
        library = open_library(spec.library, spec.abi)
        self._output.line_buffer()
        self._spec, self._runtime = spec, Runtime(library)
        self._counter = TokenCounter(spec.path)
        self._context = spec.context_length
        self._eyes = _eyes(spec, soc)
        facts, clamped = self._init(self._runtime, spec, soc)
        if spec.lora is not None:
            self._load_lora(self._runtime, spec.lora)
        notes = [*library.notices, *notices(facts)]
        if not spec.eos_tokens and are_bad_together(library.release, facts.toolkit):
            notes.append(
                f"Answers of this model may not end: runtime {library.release} does not heed the end "
                f"token that toolkit {facts.toolkit} writes. Put the model's generation_config.json "
                "and tokenizer_config.json beside it, or use librkllmrt 1.2.3."
            )
        if (spec.npu.n_batch or 1) > self._n_batch:
            notes.append(
                f"n_batch is 1 instead of {spec.npu.n_batch}: librkllmrt {library.release} has none; "
                "1.2.1 does."
            )
        if clamped:
            notes.append(
                f"The context is {self._context} tokens instead of {spec.context_length}: that is the "
                "model's limit."
            )
        return LoadedInfo(
            context_length=self._context,
            runtime=f"librkllmrt {library.version or library.release}",
            platform=facts.platform or soc,
            toolkit=facts.toolkit,
            dtype=facts.dtype,
            threads=self._threads,
            per_run_sampling=self._samples_per_run,
            # A prompt alone is no run of a batch; nothing is written by such a model either.
            keeps_states=self._n_batch == 1 and self._runtime.has("rkllm_get_kv_cache_size"),
            counts_tokens=self._n_batch == 1,
            n_batch=self._n_batch,
            image_tokens=None if self._eyes is None else self._eyes.tokens,
            notices=tuple(notes),
        )

    def _init(self, runtime: Runtime, spec: LoadSpec, soc: str | None) -> tuple[Facts, bool]:
        """Return what the runtime said about itself, and whether the context had to be clamped."""
        try:
            return self._try_init(runtime, spec, soc), False
        except LoadFailed as error:
            limit = read_facts(error.log).max_context_limit
            if limit is None or limit >= self._context:
                raise
        self._context = limit
        return self._try_init(runtime, spec, soc), True

    def _try_init(self, runtime: Runtime, spec: LoadSpec, soc: str | None) -> Facts:
        parameters: dict[str, float | str] = {
            "max_context_len": self._context,
            "max_new_tokens": self._context,
            "skip_special_token": True,
            "is_async": False,
        }
        parameters |= _extended(runtime, spec.npu, soc)
        if self._eyes is not None and runtime.has("img_start"):  # from 1.3.0 on each input has them
            markers = self._eyes.markers
            parameters |= {f"img_{name}": text for name, text in markers._asdict().items()}
        if runtime.has("n_batch"):
            self._n_batch = spec.npu.n_batch or 1
            parameters["n_batch"] = self._n_batch
        number = parameters.get("enabled_cpus_num")
        self._threads = None if number is None else int(number)
        self._output.mark()
        try:
            runtime.init(spec.path, sampling=spec.sampling, **parameters)
        except LoadFailed as error:
            raise self._load_failed(error.message, diagnose(self._output.gained())) from None
        log = self._output.gained()
        if diagnosis := complaint(log):  # it reports success and dies at the first run
            raise self._load_failed("the runtime reported success", diagnosis)
        return read_facts(log)

    def _load_failed(self, message: str, diagnosis: Diagnosis | None) -> LoadFailed:
        assert self._spec is not None
        name = os.path.basename(self._spec.path)
        hint, kind = _UNEXPLAINED, LoadFailed
        if diagnosis is not None:
            message, hint = diagnosis.message, diagnosis.hint
            kind = load_failure(diagnosis.cause)
        return kind(f"{name} could not be loaded: {message}", hint=hint, log=self._output.gained())

    def _load_lora(self, runtime: Runtime, path: str) -> None:
        try:
            runtime.load_lora(path, _LORA)
        except RuntimeFailed as error:
            raise LoadFailed(
                f"the LoRA adapter {path} could not be loaded: {error.message}",
                hint="The adapter must have been converted for this model.",
                log=self._output.gained(),
            ) from None

    @property
    def _samples_per_run(self) -> bool:
        return self._runtime is not None and self._runtime.has("sampling_params")

    # --- Generating ----------------------------------------------------------------------------

    def generate(
        self,
        spec: GenerateSpec,
        emit: Emit,
        emit_logprobs: Callable[[str, tuple[TokenLogprob, ...]], None] | None = None,  # noqa: ARG002 - as Backend has it
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Run the prompt; see Backend."""
        self._abort_wanted, self._generating = False, True
        try:
            return self._generate(spec, emit, cancelled)
        finally:
            self._generating = False

    def _generate(self, spec: GenerateSpec, emit: Emit, cancelled: Callable[[], bool]) -> RunResult:
        runtime = self._loaded()
        if spec.top_logprobs is not None:
            raise Unsupported(
                "the NPU's runtime does not provide log-probabilities", param="logprobs"
            )
        given = self._input(runtime, spec, lambda: self._abort_wanted or cancelled())
        if given is None:
            return RunResult(reason="cancelled")
        self._use_template(runtime, raw=spec.raw)
        self._forget_other_pictures(runtime, spec)
        was_fresh, self._fresh = self._fresh, False
        most = self._context if spec.max_tokens < 0 else max(1, spec.max_tokens)
        most = min(most, self._context)
        self._output.mark()
        results = runtime.run(
            given,
            self._minding_context(runtime, emit),
            self._options(spec, most),
            cancelled=lambda: self._abort_wanted or cancelled(),
        )
        log = self._output.gained()
        if results.failed and results.stopped is None:
            raise self._run_failed(log)
        if results.stopped != "cancelled":
            _check_computed(log)
        result = self._result(results, log, most, was_fresh)
        if spec.save_state is not None and results.finished and results.stopped is None:
            # What the runtime leaves of a run that was aborted, for whatever reason, is not a state.
            result = replace(result, saved=True)
        if result.prompt_tokens is None and spec.raw:  # else the runtime adds its template
            return replace(result, prompt_tokens=self._counted(spec))
        return result

    def _counted(self, spec: GenerateSpec) -> int | None:
        text = self._counter.count(spec.prompt)
        if text is None or not spec.images or self._eyes is None:
            return text
        tokens = self._eyes.tokens
        return None if tokens is None else text + len(spec.images) * tokens

    def _input(
        self, runtime: Runtime, spec: GenerateSpec, cancelled: Callable[[], bool]
    ) -> Input | None:
        """Return what the runtime runs on; None where it was cancelled while pictures were encoded."""
        if not spec.images:
            return PromptInput(text=spec.prompt, think=spec.think)
        if self._eyes is None:
            raise Unsupported("this model sees no images: it has no encoder", param="images")
        if len(spec.images) > 1 and not runtime.has("image_start"):
            raise Unsupported(
                f"librkllmrt {runtime.release} sees one picture at a time, and the conversation has "
                f"{len(spec.images)}",
                param="images",
                hint="Begin a new conversation for the next one, or use librkllmrt 1.3.0.",
            )
        self._check_room(len(spec.images) * self._eyes.open(), len(spec.images))
        return self._eyes.see(spec.prompt, spec.images, think=spec.think, cancelled=cancelled)

    def _check_room(self, tokens: int, pictures: int) -> None:
        """Raise PromptTooLong where the pictures alone fill the context, before any is encoded."""
        if tokens >= self._context - _SPARE:
            raise PromptTooLong.of_pictures(pictures, tokens, self._context)

    def _forget_other_pictures(self, runtime: Runtime, spec: GenerateSpec) -> None:
        """Clear the KV cache where it holds other pictures than a run has, or the same ones behind another
        text: 1.3.0 is known to go on with what it has evaluated of the first one.
        """
        pictures = self._eyes.last if self._eyes is not None and spec.images else ()
        same = self._pictures == pictures and spec.prompt.startswith(self._before_pictures)
        if self._pictures and not same and runtime.has("rkllm_clear_kv_cache"):
            runtime.clear_kv_cache()
            self._fresh = True
        self._pictures = pictures
        self._before_pictures = (
            spec.prompt[: spec.prompt.rfind(IMAGE_PLACE) + 1] if pictures else ""
        )

    def _loaded(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeFailed("no model is loaded")
        return self._runtime

    def _use_template(self, runtime: Runtime, *, raw: bool) -> None:
        if not runtime.has("rkllm_set_chat_template"):
            return
        template = "none" if raw else "own"
        if self._template == "none" and template == "own":
            raise Unsupported(
                "this model was used with raw prompts, which removed the runtime's own template",
                hint="Unload the model first, or send prompts that include the template.",
            )
        if self._template != template and raw:
            runtime.set_chat_template("", "", "")
            self._fresh, self._pictures = True, ()
        self._template = template

    def _options(self, spec: GenerateSpec, most: int) -> RunOptions:
        assert self._spec is not None
        per_run = self._samples_per_run
        return RunOptions(
            lora=_LORA if self._spec.lora is not None else None,
            sampling=spec.sampling if per_run else None,
            max_new_tokens=most if per_run else None,
            limit=-1 if per_run or most == self._context else most,
            save_prompt_cache=spec.save_state,
            eos=self._spec.eos_tokens,
        )

    def _minding_context(self, runtime: Runtime, emit: Emit) -> Emit:
        """Return `emit`, wrapped so that the first text limits the answer to the space left in the context.

        The runtime would drop half of the conversation and go on. It reports the size of the prompt
        only in its log, before the first token.
        """
        begun = False

        def emit_minding(text: str) -> None:
            nonlocal begun
            if not begun:
                begun = True
                runtime.results.replace_emit(emit)
                if match := cache_match(self._output.gained()):
                    runtime.results.lower_limit(max(1, self._context - match.prompt - _SPARE))
            emit(text)

        return emit_minding

    def _run_failed(self, log: str) -> RKLLamaError:
        if overflow := prompt_too_long(log):
            tokens, limit = overflow.tokens, overflow.limit or self._context
            size = f"{tokens} tokens" if tokens is not None else "more tokens"
            return PromptTooLong(
                f"the prompt has {size}, but the context only {limit}",
                prompt_tokens=tokens,
                context_length=limit,
            )
        if diagnosis := diagnose(log):
            return RuntimeFailed(diagnosis.message, hint=diagnosis.hint, log=log)
        return RuntimeFailed("the runtime reported an error", log=log)

    def _result(self, results: Results, log: str, most: int, was_fresh: bool) -> RunResult:
        perf = results.perf
        at_limit = results.tokens >= most
        prompt, cached = self._prompt_figures(results, log, at_limit, was_fresh)
        evaluated = perf.prefill_tokens if perf else None
        full = prompt is not None and prompt + results.tokens >= self._context - _SPARE
        return RunResult(
            reason=_reason(results, at_limit or full),
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=results.tokens,
            prompt_seconds=perf.prefill_seconds if perf else None,
            generation_seconds=perf.generate_seconds if perf else None,
            memory=perf.memory if perf else None,
            repeats=results.stopped == "repeats",
            evaluated_tokens=evaluated,
            reused_tokens=cached if cached is not None else self._likely_reused(results),
        )

    def _likely_reused(self, results: Results) -> int | None:
        """Return how many tokens of the prompt were in the KV cache, but for the constant that
        `_prompt_figures` needs and that no run has shown yet.
        """
        perf = results.perf
        if (
            perf is None
            or self._runtime is None
            or not self._runtime.has("rkllm_get_kv_cache_size")
        ):
            return None
        size = self._runtime.get_kv_cache_size()[0]
        if size >= self._context:
            return None
        return max(0, size - perf.generate_tokens - perf.prefill_tokens)

    def _prompt_figures(
        self, results: Results, log: str, at_limit: bool, was_fresh: bool
    ) -> tuple[int | None, int | None]:
        """(tokens of the whole prompt, those of them that were cached), where they can be known.

        The runtime's figures tell, with the KV cache: after a run it holds the prompt and the answer, give
        or take a constant for each way to end, shown by a run on an empty one. Where they do not, the log
        may name both.
        """
        match = cache_match(log)
        told = (match.prompt, match.cached) if match else (None, None)
        perf = results.perf
        if perf is None or self._runtime is None:
            return told
        size = self._runtime.get_kv_cache_size()[0]
        held, ending = size - perf.generate_tokens, results.stopped or _reason(results, at_limit)
        if was_fresh:
            self._surplus[ending] = held - perf.prefill_tokens
            return perf.prefill_tokens, 0
        if ending not in self._surplus or size >= self._context:  # a full cache has been cut
            return told
        prompt = held - self._surplus[ending]
        cached = prompt - perf.prefill_tokens
        return (prompt, cached) if cached >= 0 else told

    def abort(self, slot: int = 0) -> None:  # noqa: ARG002 - as Backend has it
        """End the current run; see Backend."""
        if self._generating:
            self._abort_wanted = True
            self._loaded().abort()

    # --- Embedding, ranking --------------------------------------------------------------------

    def embed(self, texts: tuple[str, ...], truncate: bool) -> EmbedResult:
        """Return the last layer's state at each text's last token: what embedding models made from a
        language model are trained to fill. Texts go in as written, with the token that they have to end with.
        """
        end = self._spec.text_end if self._spec else ""
        evaluation = Evaluation(
            self._last_hidden, lambda text: text + end, n_batch=self._n_batch, truncate=truncate
        )
        rows = evaluation.rows([text.removesuffix(end) for text in texts])
        total = sum(row.tokens or 0 for row in rows)
        return EmbedResult(vectors=tuple(row.data for row in rows), prompt_tokens=total)

    def rerank(self, spec: RerankSpec) -> RankResult:
        """Score each document by how much likelier the model says "yes" than "no". Raises Unsupported where
        it is not known which tokens these are, and for runtimes before 1.2.
        """
        yes, no = yes_no_tokens(spec, self._counter)
        evaluation = Evaluation(
            self._last_logits,
            lambda document: rerank_prompt(spec.query, document),
            n_batch=self._n_batch,
            truncate=spec.truncate,
        )
        rows = evaluation.rows(spec.documents)
        counts = [row.tokens for row in rows if row.tokens is not None]
        return RankResult(
            scores=tuple(probability(row.data, yes, no) for row in rows),
            prompt_tokens=sum(counts) if len(counts) == len(rows) else None,
        )

    def _last_hidden(self, prompts: Sequence[str]) -> list[Row]:
        rows, _ = self._run_rows(prompts, RunOptions(mode="hidden"))
        return [Row(rows[index].data, rows[index].tokens) for index in range(len(prompts))]

    def _last_logits(self, prompts: Sequence[str]) -> list[Row]:
        """Return the logits after each prompt. The run would go on writing: it is ended there."""
        if self._samples_per_run:
            options = RunOptions(mode="logits", max_new_tokens=1)
        else:
            options = RunOptions(mode="logits", limit=1)
        rows, perfs = self._run_rows(prompts, options)
        counts: list[int | None] = [perf.prefill_tokens for perf in perfs]
        counts = counts or [self._counter.count(prompt) for prompt in prompts]
        return [Row(rows[index].data, counts[index]) for index in range(len(prompts))]

    def _run_rows(
        self, prompts: Sequence[str], options: RunOptions
    ) -> tuple[dict[int, Row], Sequence[Perf]]:
        """Return the last row of each prompt by its number, and the runtime's figures."""
        runtime = self._loaded()
        if self._template != "own":
            self._use_template(runtime, raw=True)
        if runtime.has("rkllm_clear_kv_cache"):
            # Rows come for evaluated tokens only, and reuse in this mode has been seen to fail.
            runtime.clear_kv_cache()
        self._fresh, self._pictures = False, ()
        last: dict[int, Row] = {}

        def keep(rows: Rows) -> None:
            # Later logits are those after a token that was written.
            if options.mode == "hidden" or rows.number not in last:
                last[rows.number] = Row(rows.row(-1), rows.height)

        self._output.mark()
        results = runtime.run(
            [PromptInput(text=prompt) for prompt in prompts], options=options, rows=keep
        )
        log = self._output.gained()
        if results.failed:
            raise self._run_failed(log)
        _check_computed(log)
        if len(last) < len(prompts):
            kind = "hidden layer" if options.mode == "hidden" else "logits"
            raise Unsupported(f"the runtime returned no {kind} for this model")
        return last, results.perfs

    # --- States --------------------------------------------------------------------------------

    def save(self, path: str, slot: int = 0) -> int | None:  # noqa: ARG002 - as Backend has it
        """Return None: the runtime writes a state in a run only; see Backend."""
        return None

    def restore(self, path: str, tokens: int, slot: int = 0) -> bool:  # noqa: ARG002 - as Backend has it
        """Load a prompt cache file; see Backend."""
        runtime = self._loaded()
        if not runtime.has("rkllm_get_kv_cache_size"):
            return False
        self._use_template(runtime, raw=True)
        before = runtime.get_kv_cache_size()[0]
        try:
            if self._holds_file:
                runtime.release_prompt_cache()
                self._holds_file = False
            runtime.load_prompt_cache(path)
            self._holds_file, self._fresh, self._pictures = True, False, ()
            # A runtime may take the file in with the next run only: then it tells what it did before.
            if runtime.get_kv_cache_size()[0] in (tokens, before):
                return True
        except RuntimeFailed as error:
            sys.stderr.write(f"{path} is not taken: {error.message}\n")  # into the model's log
        runtime.clear_kv_cache()
        self._fresh = True
        return False

    # --- The rest ------------------------------------------------------------------------------

    def count_tokens(
        self,
        text: str,
        cancelled: Callable[[], bool] = lambda: False,
        slot: int = 0,  # noqa: ARG002 - as Backend has it
    ) -> int | None:
        """Return the runtime counts a prompt only by evaluating it, which the request that follows reuses."""
        spec = GenerateSpec(prompt=text, max_tokens=1)
        try:
            return self.generate(spec, _drop, cancelled=cancelled).prompt_tokens
        except PromptTooLong as error:
            return error.prompt_tokens

    def close(self) -> None:
        """Free the model; see Backend."""
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None
        if self._runtime is not None:
            self._runtime.destroy()
            self._runtime = None
        self._output.close()


def _eyes(spec: LoadSpec, soc: str | None) -> Eyes | None:
    if spec.encoder is None:
        return None
    from .backends.vision.eyes import Eyes  # a model without an encoder needs no memory for it
    from .backends.vision.markers import Markers

    markers = Markers(*spec.image_markers)
    return Eyes(spec.encoder, markers, soc=soc, library=spec.encoder_library)


def _extended(runtime: Runtime, wanted: NPUParams, soc: str | None) -> dict[str, float | str]:
    """The members of RKLLMExtendParam. Raises Unsupported for one that is wanted and that it lacks."""
    values: dict[str, float | str] = {}
    if wanted.base_domain_id is not None:
        values["base_domain_id"] = wanted.base_domain_id
    if wanted.embed_flash is not None:
        values["embed_flash"] = int(wanted.embed_flash)
    mask, number = wanted.enabled_cpus_mask, wanted.enabled_cpus_num
    if runtime.has("enabled_cpus_mask") or mask is not None or number is not None:
        mask, number = cpus(soc, mask=mask, number=number)
        values |= {"enabled_cpus_mask": mask, "enabled_cpus_num": number}
    return values


def _reason(results: Results, at_limit: bool) -> FinishReason:
    if results.stopped == "cancelled":
        return "cancelled"
    if results.stopped in ("length", "repeats") or (results.stopped is None and at_limit):
        return "length"
    return "stop"


def _check_computed(log: str) -> None:
    """Raise RuntimeFailed for a run that reports success though the NPU did not compute."""
    if diagnosis := failed_to_compute(log):
        raise RuntimeFailed(diagnosis.message, hint=diagnosis.hint, log=log)


def _drop(_text: str) -> None:
    """Discard text that nobody needs."""
