"""The values that are passed between the faces (CLI, HTTP dialects), the engine and the backends.

All are frozen; None means "not set" for what is asked and "not known" for what is reported, never a
stand-in for zero. Durations are seconds, sizes are bytes, times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
ModelFormat = Literal["rkllm", "gguf"]

MOST_REPEATS = 30
"""How often a token may come again in a row; one that comes more often ends the answer."""


# --- What is asked -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model made; `id` is unique within a conversation."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a message's content, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture: the bytes of its file, of whatever format."""

    data: bytes
    text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """A picture as a client sent it, until it is known whether the model sees; engine/pictures.py makes an
    ImagePart or text of it.
    """

    data: str
    """The file in base64, not checked yet."""
    instead: str
    """The text that takes its place before a model without eyes."""
    refusal: str | None = None
    """What such a model's user is told instead; None: the text does."""
    problem: str | None = None
    """Why it cannot be read, by a model with eyes either."""
    where: str = ""
    """The field that holds it."""
    text = ""


Part = TextPart | ImagePart | SentImage
"""What a message's content is made of."""


def text_parts(text: str) -> tuple[Part, ...]:
    """The content that is this text and nothing else."""
    return (TextPart(text),) if text else ()


def joined_parts(parts: Iterable[Part]) -> tuple[Part, ...]:
    """These parts, with neighbouring texts in one, and none that is empty."""
    joined: list[Part] = []
    for part in parts:
        if not isinstance(part, TextPart):
            joined.append(part)
        elif joined and isinstance(before := joined[-1], TextPart):
            joined[-1] = TextPart(before.text + part.text)
        elif part.text:
            joined.append(part)
    return tuple(joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `reasoning` is an assistant's thinking; a tool's answer names its call by id or name."""

    role: Role
    content: tuple[Part, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None

    @staticmethod
    def of(
        role: Role,
        content: str | Iterable[Part],
        *,
        reasoning: str | None = None,
        tool_calls: tuple[ToolCall, ...] = (),
        tool_call_id: str | None = None,
        tool_name: str | None = None,
    ) -> Message:
        """A message whose content is a text, or parts of which texts may follow each other."""
        return Message(
            role=role,
            content=text_parts(content) if isinstance(content, str) else joined_parts(content),
            reasoning=reasoning,
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            tool_name=tool_name,
        )

    @property
    def text(self) -> str:
        """The text of the content, without its pictures."""
        if len(self.content) == 1:
            return self.content[0].text
        return "".join(part.text for part in self.content)

    def with_text(self, text: str) -> Message:
        """The same turn with this text for its content."""
        return replace(self, content=text_parts(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn; what is None follows the model's Modelfile, then the runtime.

    `temperature` 0 is greedy. `min_p` and `seed` are honoured by the CPU backend only.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None

    def over(self, defaults: SamplingParams) -> SamplingParams:
        """These values, with what they leave open taken from `defaults`."""
        own = {
            name: value
            for name in self.__dataclass_fields__
            if (value := getattr(self, name)) is not None
        }
        return replace(defaults, **own) if own else defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class NPUParams:
    """How the NPU's runtime loads a model, in its own words; what is None is chosen by RKLLama."""

    base_domain_id: int | None = None
    """The first of the NPU's memory domains that the model uses."""
    embed_flash: bool | None = None
    """Whether the table of embeddings is read from the file instead of being kept in memory."""
    enabled_cpus_mask: int | None = None
    enabled_cpus_num: int | None = None
    n_batch: int | None = None
    """How many texts are embedded or ranked in one run; of no effect on models that write."""

    def over(self, defaults: NPUParams) -> NPUParams:
        """These values, with what they leave open taken from `defaults`."""
        own = {
            name: value
            for name in self.__dataclass_fields__
            if (value := getattr(self, name)) is not None
        }
        return replace(defaults, **own) if own else defaults


def fold_seed(seed: int) -> int:
    """A seed in the 31 bits that backends take: equal seeds stay equal, whatever their size."""
    return seed % (1 << 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A generation. Exactly one of `messages` (a conversation) and `prompt` (one text) is set.

    With `raw` the prompt goes to the model as it is, else through the chat template as a user's turn;
    `raw` None leaves it to the prompt: as it is when it holds the model's control tokens.
    `model` None means the loaded one. `max_tokens` -1 is "until the context is full".
    `think`: None is the model's default. `format`: "json" or a JSON schema.
    `keep_alive`: seconds after the last use, negative = forever, None = the server's setting.
    """

    model: str | None = None
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    images: tuple[Part, ...] = ()
    """Pictures that come with the prompt."""
    raw: bool | None = False
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | Literal["low", "medium", "high"] | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is given besides its usual variables; JSON values."""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """"auto", "none", "required", or "function:NAME"."""
    format: Literal["json"] | Mapping[str, Any] | None = None
    context_length: int | None = None
    keep_alive: float | None = None
    top_logprobs: int | None = None
    """None: no log-probabilities; n: the chosen token's and the n most likely ones'."""
    truncate: bool = False
    """Whether a conversation's oldest turns are left out where the context does not hold all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Vectors for `inputs`, in their order. `truncate` False makes a too long input an error."""

    model: str | None = None
    inputs: tuple[str, ...]
    truncate: bool = True
    dimensions: int | None = None
    context_length: int | None = None
    keep_alive: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """How well each of `documents` answers `query`. `truncate` False makes a too long document an error."""

    model: str | None = None
    query: str
    documents: tuple[str, ...]
    truncate: bool = True


# --- What is answered --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token with its natural-log probability and the likeliest alternatives (without their own)."""

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: in the form of Ollama's and OpenAI's APIs and of llama.cpp, without `bytes`."""
        top = [other.to_dict() for other in self.top]
        return {"token": self.token, "logprob": self.logprob, "top_logprobs": top}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenLogprob:
        """What `to_dict` returned, whatever other keys are with it; no alternatives where it names none."""
        top = tuple(cls.from_dict(other) for other in values.get("top_logprobs") or ())
        return cls(token=values["token"], logprob=values["logprob"], top=top)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of the answer, never empty; what queued up while the reader was busy comes as one."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """New text of the model's thinking, without its markers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """One whole tool call; `index` counts the calls of this answer from 0."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts as the backend reported them. `cached_tokens` of the prompt were not evaluated again.

    `prompt_tokens` is the whole prompt where the backend tells it, None otherwise.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds. `prompt` and `generation` are the backend's own figures, None where it has none."""

    queue: float | None = None
    load: float | None = None
    prompt: float | None = None
    generation: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of every stream. `stop` is the stop string that ended it, if one did.

    `error` is set where the answer is complete but not what was promised (a schema not met).
    """

    reason: FinishReason
    model: str
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    stop: str | None = None
    error: str | None = None
    dropped: int = 0
    """How many messages at the beginning of the conversation were left out."""
    repeats: bool = False
    """Whether it was ended since one token came again and again."""


Event = TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """One L2-normalised vector per input, in order."""

    model: str
    vectors: tuple[Sequence[float], ...]
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """A score from 0 (does not answer the query) to 1 (does) per document, in their order."""

    model: str
    scores: tuple[float, ...]
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


FailureCause = Literal["memory", "runtime", "other"]
"""Why a model does not load where something else may help: another model's end, or another release of the
runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The cause of a failure, as a log names it: what happened, and what to do about it."""

    message: str
    hint: str
    cause: FailureCause = "other"


# --- Models ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model on disk. `name` is what lists show and every command takes; `file` is the file's name.

    What neither the file, its neighbours nor its name tell is None.
    """

    name: str
    file: str
    path: str
    format: ModelFormat
    size: int
    modified: float
    quantization: str | None = None
    platform: str | None = None
    parameter_size: str | None = None
    family: str | None = None
    context_length: int | None = None
    digest: str | None = None
    """sha256 in 64 hex digits, where it has been computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name from the settings that stands for a model; without one, `problem` says why."""

    name: str
    target: str
    """What the settings say."""
    info: ModelInfo | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncompleteDownload:
    """A model whose download was interrupted, or goes on: `completed` bytes are there of `total`."""

    name: str
    file: str
    completed: int
    modified: float
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInfo:
    """A model's image encoder, as its file describes it; None or empty where it does not."""

    file: str
    path: str
    size: int
    width: int | None = None
    """Of the picture that it takes, in pixels."""
    height: int | None = None
    tokens: int | None = None
    """Tokens that a picture takes of the context."""
    platforms: tuple[str, ...] = ()
    problem: str | None = None
    """Why it cannot be used here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """Everything that `show` tells about a model; `parameters` are Modelfile lines, name and value,
    `messages` the turns that begin every conversation.
    """

    info: ModelInfo
    system: str | None = None
    template: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    messages: tuple[Message, ...] = ()
    license: str | None = None
    modelfile: str = ""
    parent: str | None = None
    capabilities: tuple[str, ...] = ("completion",)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What lies beside the model and was passed over, and why."""
    template_guess: str | None = None
    """Which chat template is used for want of the model's own; None where that is known."""
    encoder: EncoderInfo | None = None
    """What it sees pictures with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSource:
    """A model's own chat template: Jinja text, where it was found, and the tokens it names."""

    source: str
    origin: str
    bos_token: str = ""
    eos_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory. `expires` is a time, None = stays until unloaded; `memory` as the runtime says."""

    info: ModelInfo
    state: Literal["loading", "ready", "busy", "closing"]
    context_length: int | None = None
    expires: float | None = None
    memory: int | None = None
    runtime: str | None = None
    pid: int | None = None
    uses_npu: bool = False
    """Whether its weights are in the NPU's memory; else they are in ordinary memory."""
    backend: str | None = None
    """The kind of backend that runs it: "npu", "cpu" or "llama-server"."""
    threads: int | None = None
    """CPUs that the backend has been given, where it says so."""
    toolkit: str | None = None
    """The version of the converter that made it, where the runtime tells."""
    tokens_per_second: float | None = None
    """How fast it wrote its last answer, as the runtime says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """A step of a download. `completed` and `total` count the file's bytes, the resumed ones included."""

    status: Literal["resolving", "downloading", "copying", "verifying", "done"]
    """"copying": a file of this machine, for a model to be made of it."""
    file: str
    total: int | None = None
    completed: int = 0
    digest: str | None = None
    """The sha256 that the Hub announced, 64 hex digits."""
    name: str | None = None
    """With `done`: the name under which the model can be used."""
    resumed: int = 0
    """Bytes that an earlier try had left."""
    note: str | None = None
    """With `resolving`: what was chosen, and why."""
    toolkit: str | None = None
    """With `done`: the version of the converter, as the repository tells it."""


# --- The board ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock that the kernel scales; frequencies are in Hz."""

    name: str
    """"npu", "ddr", or "cpu" with the numbers of its cores, "cpu4-5"."""
    current: int | None = None
    highest: int | None = None
    """The highest that the hardware has."""
    limit: int | None = None
    """The highest that is allowed now: heat, or somebody's setting, makes it lower."""
    governor: str | None = None
    governors: tuple[str, ...] = ()
    """Those that the kernel offers."""
    governor_file: str = ""
    """Where the governor is set, as an absolute path; "" on another machine's board."""
    cores: tuple[int, ...] = ()
    """Of a CPU's clock: the numbers of the cores that it drives."""
    load: tuple[int, ...] = ()
    """Percent: per core of the NPU over the last second, which only root may read; one for the memory."""

    @property
    def is_limited(self) -> bool:
        """Whether it may not run as fast as it could, for whatever reason."""
        return bool(self.limit and self.highest and self.limit < self.highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """What a sensor tells; a zone's name is unique on its board."""

    zone: str
    celsius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTime:
    """Seconds that a core of the CPU has worked and idled since the board started; of two readings the
    difference tells its load.
    """

    core: int
    busy: float
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model's file on the Hub, as a search tells it. What is not known is None."""

    reference: str
    """What `pull` takes for it."""
    repository: str
    file: str
    size: int | None = None
    estimated_size: int | None = None
    """Bytes as the number of parameters and the quantization tell them."""
    quantization: str | None = None
    context_length: int | None = None
    platform: str | None = None
    capabilities: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    updated: str | None = None
    gated: bool = False
    problem: str | None = None
    """Why it does not run here."""
    doubt: str | None = None
    """Why it may not be what was asked for, or may not run here."""
    best: bool = False
    """Whether it is the one that `pull` takes for the model's plain name."""
    here: bool = False
    """Whether it has been pulled already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModels:
    """A page of what a search has found: what runs here first."""

    models: tuple[FoundModel, ...] = ()
    total: int = 0
    """How many there are on all pages."""
    more: bool = False
    """Whether there is a next page."""
    warning: str | None = None
    """What the Hub has not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The board's memory in bytes; CMA is what an NPU without IOMMU works in."""

    total: int | None = None
    available: int | None = None
    cma_total: int | None = None
    cma_free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unready:
    """Why a server would not serve a request now: a word for programs, and a sentence without any names."""

    reason: str
    text: str


DRAINING = Unready(reason="draining", text="The server is about to end.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a server is: requests and places for them, and the share of the models' KV caches in use."""

    running: int
    waiting: int
    places: int
    cache_use: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardState:
    """A board at one moment. What cannot be read is None or empty."""

    soc: str | None = None
    npu: Clock | None = None
    ddr: Clock | None = None
    cpus: tuple[Clock, ...] = ()
    core_times: tuple[CoreTime, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    throttled: bool | None = None
    """Whether heat holds a clock down; None where nothing tells."""
    memory: Memory = Memory()

    @property
    def npu_load(self) -> tuple[int, ...]:
        """Percent per core of the NPU over the last second; none without root."""
        return self.npu.load if self.npu else ()

    @property
    def clocks(self) -> tuple[Clock, ...]:
        """All clocks that are known, the NPU's first."""
        return tuple(clock for clock in (self.npu, self.ddr, *self.cpus) if clock is not None)

    @property
    def hottest(self) -> Temperature | None:
        """The highest of the temperatures."""
        return max(self.temperatures, key=lambda sensor: sensor.celsius, default=None)
