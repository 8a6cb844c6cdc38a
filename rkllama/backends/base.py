"""What a backend is: the code that runs one model, inside that model's child process.

A backend is driven by one thread; only `abort` is called from another. One that can do several runs at a
time is driven by as many, and heeds `cancelled` instead of `abort`. It never sees messages, names or HTTP: a
prompt goes in, text comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..types import FinishReason, NPUParams, SamplingParams, TokenLogprob

Emit = Callable[[str], None]
"""Takes new text, in order; called from the runtime's callback, so it is quick and raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """What to load. `context_length` is a wish that the backend clamps to the model's own limit."""

    path: str
    context_length: int
    max_tokens: int = -1
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """The model's own defaults (Modelfile); fixed for the model's life by runtimes before 1.3."""
    eos_tokens: tuple[int, ...] = ()
    """Ids that end an answer; watched where the runtime does not stop by itself."""
    text_end: str = ""
    """What each text to embed ends with, if it does not yet."""
    threads: int = 0
    parallel: int = 1
    """How many runs at a time there are to be at most."""
    library: str | None = None
    abi: str | None = None
    llama_server: tuple[str, ...] = ()
    """Program and arguments of the llama-server to run a .gguf file with; none is the CPU backend."""
    lora: str | None = None
    encoder: str | None = None
    """The file that encodes pictures for the model; it is loaded with the first one."""
    encoder_library: str | None = None
    image_markers: tuple[str, str, str] = ("", "", "")
    """The model's own tokens before a picture, behind it, and in the place of each of its embeddings."""
    states: str | None = None
    """A directory for the files of `save`, where the conversations of several slots are to be kept."""
    npu: NPUParams = field(default_factory=NPUParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedInfo:
    """What the backend learned while loading; None where it does not say."""

    context_length: int
    runtime: str
    """Name and version, such as "librkllmrt 1.2.3"."""
    platform: str | None = None
    toolkit: str | None = None
    """The version of the converter that made the model."""
    dtype: str | None = None
    threads: int | None = None
    """CPUs that it computes with, or that the NPU's runtime has been given."""
    memory: int | None = None
    constrains: bool = False
    """Whether `GenerateSpec.schema` is enforced while drawing tokens."""
    per_run_sampling: bool = False
    """Whether sampling and max_tokens can change from run to run."""
    keeps_states: bool = False
    """Whether `GenerateSpec.save_state`, or `save` where there are `slots`, and `restore` may be used."""
    slots: bool = False
    """Whether each lane has a KV cache of its own, a slot: `save` writes it at any time, and each token of a
    prompt is compared with it."""
    state_format: str = ""
    """What decides what a state holds, beside the runtime's release and the model."""
    counts_tokens: bool = False
    """Whether `count_tokens` may be asked; it still answers None where the runtime tells no count."""
    parallel: int = 1
    """How many runs it can do at a time."""
    image_tokens: int | None = None
    """Tokens that a picture takes; None where that differs, or there are no eyes."""
    n_batch: int = 1
    """How many texts `embed` and `rerank` evaluate in one run."""
    notices: tuple[str, ...] = ()
    """What the user should know: a clamped context, an old driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSpec:
    """One run. With `raw` the prompt is complete; else the runtime wraps it in its own template.

    `markers` are control tokens that are part of the text, where the backend would leave such out.
    `images` are files as a client sent them, one for each chat.messages.IMAGE_PLACE in the prompt; a
    backend without eyes raises Unsupported for any.
    """

    prompt: str
    raw: bool = True
    think: bool | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = -1
    schema: Literal["json"] | Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    markers: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    save_state: str | None = None
    """A file for the KV cache as it is after the prompt; RunResult.saved tells whether it can be used. For
    backends without `save`."""
    slot: int = 0
    """The lane that it comes over."""
    cached: int = 0
    """Characters of the prompt that the KV cache holds, as far as is known."""
    goes_on: bool = False
    """Whether it goes on with the answer of the last run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankSpec:
    """Documents to be scored by how well they answer a query.

    A language model is asked for "yes" or "no": `yes_no_tokens` are the ids of these as the user set them,
    `usual_yes_no_tokens` those of the model's family; () where they are not known.
    """

    query: str
    documents: tuple[str, ...]
    truncate: bool = True
    yes_no_tokens: tuple[int, ...] = ()
    usual_yes_no_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended, with the backend's own figures (seconds, tokens, bytes); None = not reported.

    `prompt_tokens` counts the whole prompt, `cached_tokens` those of it that were in the KV cache. `repeats`
    tells that it was ended since a token came again more than MOST_REPEATS times; the reason is "length".
    `evaluated_tokens` are those of the prompt that were not cached. `reused_tokens` are those that were, give
    or take two where the runtime's way to count is not known yet: enough to tell that a state was used.
    """

    reason: FinishReason
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_seconds: float | None = None
    generation_seconds: float | None = None
    memory: int | None = None
    repeats: bool = False
    evaluated_tokens: int | None = None
    reused_tokens: int | None = None
    saved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """`vectors` are float32 bytes, native order, one per input; not yet normalised."""

    vectors: tuple[bytes, ...]
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankResult:
    """`scores` from 0 to 1, one per document."""

    scores: tuple[float, ...]
    prompt_tokens: int | None = None


def reuses_cache(sampling: SamplingParams) -> bool:
    """Return whether a slot's cache may serve a prompt's beginning. Not where a seed is to give the same
    answer twice: what was evaluated in other batches differs in the last bits, and in the end in its words.
    """
    return sampling.seed is None or sampling.temperature == 0


class Backend(Protocol):
    """A model in memory. Every method may raise the errors of `errors.py` (LoadFailed, WorkerError,
    PromptTooLong, Unsupported); any other exception is a bug.
    """

    def load(self, spec: LoadSpec) -> LoadedInfo:
        """Load the model; called once, first. Raises LoadFailed."""

    def generate(
        self,
        spec: GenerateSpec,
        emit: Emit,
        emit_logprobs: Callable[[str, tuple[TokenLogprob, ...]], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Run to the end, to `abort` (reason "cancelled") or to an error; blocks meanwhile.

        With `spec.top_logprobs` set, text goes to `emit_logprobs` together with its tokens' figures.
        An abort that came before the run could take it is told by `cancelled`.
        """

    def embed(self, texts: tuple[str, ...], truncate: bool) -> EmbedResult:
        """Return one vector per text. Raises Unsupported, or PromptTooLong without `truncate`."""

    def rerank(self, spec: RerankSpec) -> RankResult:
        """Return one score per document. Raises Unsupported, or PromptTooLong without `spec.truncate`."""

    def count_tokens(
        self, text: str, cancelled: Callable[[], bool] = lambda: False, slot: int = 0
    ) -> int | None:
        """Return how many tokens `text` is; None where the runtime cannot tell, and after an abort."""

    def restore(self, path: str, tokens: int, slot: int = 0) -> bool:
        """Load what a run or `save` has written, a KV cache of so many tokens; return whether it is
        there now. Where it is not, the cache is empty or what it was.
        """

    def save(self, path: str, slot: int = 0) -> int | None:
        """Write a slot's KV cache to a file in `LoadSpec.states`, without a run; return the tokens that it
        holds, None where there is nothing of use.
        """

    def abort(self, slot: int = 0) -> None:
        """End the current run of a lane as soon as the runtime allows; without one, do nothing."""

    def close(self) -> None:
        """Free everything; the last call."""
