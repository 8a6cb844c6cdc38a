"""The results of a measurement, as `rkllama bench --json` prints them and `--compare` reads them.

Seconds, bytes, Hz, tokens, joules, degrees Celsius. None (null) is "not known", never a stand-in for 0.
docs/bench.md describes every field; whoever changes one raises VERSION where older readers would be misled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import InvalidRequest
from ..files import open_regular
from .schema import Mismatch, from_json

T = TypeVar("T")

FORMAT = "rkllama-bench"
VERSION = 1
_LARGEST = 16 << 20
"""Bytes of a file with results."""

Cache = Literal["cold", "warm"]


# --- The facts that decide speed ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The model."""

    name: str
    file: str
    format: str
    size: int
    digest: str | None
    """The file's sha256."""
    family: str | None
    parameter_size: str | None
    quantization: str | None
    platform: str | None
    """The SoC that it was made for."""
    toolkit: str | None
    """The version of the converter that made it."""
    context_limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """What runs the model."""

    rkllama: str | None
    through: Literal["server", "process"]
    backend: str | None
    """"npu", "cpu" or "llama-server"."""
    runtime: str | None
    """Name and release."""
    context_length: int | None
    threads: int | None
    """CPUs that the backend has been given."""
    cpu_affinity: str | None
    """The CPUs that its process may run on, "0-3"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFacts:
    """A clock: what it was at that moment, what the hardware has, and what was allowed."""

    name: str
    """"npu", "ddr", or "cpu" with the numbers of its cores."""
    current: int | None
    highest: int | None
    limit: int | None
    governor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureFacts:
    """What a sensor told."""

    zone: str
    celsius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The board at one moment."""

    clocks: tuple[ClockFacts, ...]
    temperatures: tuple[TemperatureFacts, ...]
    throttled: bool | None
    memory_available: int | None
    load_average: float | None
    """Of the last minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """The machine on which the model ran."""

    board: str | None
    """The board's own name, or that of the CPU."""
    soc: str | None
    architecture: str | None
    cpus: int | None
    kernel: str | None
    npu_driver: str | None
    memory: int | None
    before: Moment
    after: Moment
    """At the end of the last run."""
    hottest: float | None
    """The highest temperature at the end of any round."""
    throttled: bool | None
    """Whether heat held a clock down at the end of any round."""


# --- What was measured -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """The middle of several figures, and how far apart they are."""

    count: int
    median: float
    q1: float
    """Quartiles; half of the figures lie between them."""
    q3: float
    min: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One prompt and its answer. `runtime_…` are the runtime's own figures, the others the client's."""

    round: int
    size: int
    """Tokens that the prompt was meant to have."""
    cache: Cache
    prompt_tokens: int | None
    cached_tokens: int | None
    """Those of them that were not evaluated again."""
    answer_tokens: int | None
    finish_reason: str
    queue_seconds: float | None
    first_token_seconds: float | None
    """From the request to the answer's first text."""
    answer_seconds: float | None
    """From there to the end."""
    runtime_prompt_seconds: float | None
    runtime_answer_seconds: float | None
    prompt_joules: float | None
    answer_joules: float | None
    prompt_counts: bool
    """Whether the prompt's figures are among the results; `remark` says why not."""
    answer_counts: bool
    remark: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A load or run that failed; the next one began with a new load."""

    round: int
    size: int | None
    """None: the load."""
    cache: Cache | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """The results of all runs of a size, cold or warm. Rates are tokens per second.

    A prompt's rate counts the tokens that were evaluated, and is told of cold runs only.
    """

    prompt_tokens: int | None
    cached_tokens: int | None
    answer_tokens: int | None
    first_token_seconds: Stat | None
    prompt_rate: Stat | None
    """As the client sees it: until the first text."""
    runtime_prompt_rate: Stat | None
    answer_rate: Stat | None
    """As the client sees it: after the first text."""
    runtime_answer_rate: Stat | None
    prompt_joules_per_token: Stat | None
    answer_joules_per_token: Stat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """The results of one size of prompts; `skipped` says why there are none."""

    size: int
    skipped: str | None
    cold: Speeds | None
    warm: Speeds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """How long the model took to load. The first load may have read the disk, the others did not have to."""

    first_seconds: float | None
    seconds: Stat | None
    """Of the loads of all rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResult:
    """The memory of the model's process."""

    peak: int | None
    """The most that was resident in any round, as the kernel counts it."""
    runtime: int | None
    """As the runtime reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFacts:
    """Where the watts came from."""

    source: str
    method: Literal["counter", "samples"]
    """A counter of energy, or the mean of samples."""
    interval: float | None
    """Seconds between two samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole measurement."""

    format: str = FORMAT
    version: int = VERSION
    created: str
    """When it ended, UTC, ISO 8601."""
    complete: bool
    """False: it was interrupted, and this is what was there."""
    rounds: int
    """Rounds that were asked for."""
    answer_tokens: int
    """Tokens that the answers were to have."""
    model: ModelFacts
    runtime: RuntimeFacts
    board: BoardFacts | None
    """None: the model ran on another machine, or where this one cannot tell."""
    power: PowerFacts | None
    load: LoadResult
    memory: MemoryResult
    sizes: tuple[SizeResult, ...]
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    """What may have spoilt the figures."""


def read_report(path: str) -> Report:
    """Return the results that `rkllama bench --json` wrote. Raises InvalidRequest for anything else."""
    return results_of(Report, read_results(path), path, FORMAT, VERSION)


def read_results(path: str) -> Any:
    """Return the JSON in a file of results. Raises InvalidRequest for a file without any."""
    try:
        with open_regular(path) as stream:
            return json.loads(stream.read(_LARGEST))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise _unreadable(path, "it is not JSON") from None


def results_of(kind: type[T], values: Any, path: str, form: str, version: int) -> T:
    """Return the report of some format, of this version at most, that the JSON of a file stands for.

    Raises InvalidRequest for anything else.
    """
    if not isinstance(values, dict) or values.get("format") != form:
        raise _unreadable(path, "it is not what `rkllama bench --json` prints")
    written = values.get("version")
    if not isinstance(written, int) or written > version:
        raise _unreadable(path, "it was written by a later release of RKLLama")
    try:
        return from_json(kind, values)
    except Mismatch as error:
        raise _unreadable(path, str(error)) from None


def _unreadable(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be used: {reason}",
        hint="Results are written by: rkllama bench MODEL --json > FILE",
    )
