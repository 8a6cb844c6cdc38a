"""The server's figures in Prometheus' text format.

Our own forty lines, because the ecosystem's client library adds 12 MB of memory and 50 ms of start-up to a
server that is to idle in 45 MB on a small board, and its registry is not needed for a dozen figures.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .. import __version__
from ..states.store import Figures as StateFigures
from ..types import BoardState, Finished, LoadedModel
from .memory.resident import Traffic

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Counter:
    """A number per set of labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.help = help_text
        self._labels = labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, amount: float, *labels: str) -> None:
        """Count; `labels` are the values of the counter's labels, in order."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + amount

    def samples(self) -> Iterator[str]:
        """Yield the lines of the exposition."""
        with self._lock:
            values = sorted(self._values.items())
        for labels, value in values:
            yield _sample(self.name, zip(self._labels, labels, strict=True), value)


class Histogram:
    """How many observations of each model were at most so many seconds."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str) -> None:
        self.name = name
        self.help = help_text
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, seconds: float, model: str) -> None:
        """Count one observation."""
        place = bisect_left(_SECONDS, seconds)
        with self._lock:
            if model not in self._counts:
                self._counts[model], self._sums[model] = [0] * (len(_SECONDS) + 1), 0.0
            self._counts[model][place] += 1
            self._sums[model] += seconds

    def samples(self) -> Iterator[str]:
        """Yield the lines of the exposition: cumulative buckets, sum and count of each model."""
        with self._lock:
            series = [(m, list(counts), self._sums[m]) for m, counts in self._counts.items()]
        for model, counts, total in sorted(series):
            label, running = ("model", model), 0
            for bound, count in zip((*map(str, _SECONDS), "+Inf"), counts, strict=True):
                running += count
                yield _sample(f"{self.name}_bucket", [label, ("le", bound)], running)
            yield _sample(f"{self.name}_sum", [label], total)
            yield _sample(f"{self.name}_count", [label], running)


def _sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    """Return one line, label values escaped as the format demands."""
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    # Six digits, as ":g" has them, are too few for bytes and Hz.
    figure = str(int(value)) if value == int(value) else repr(value)
    return f"{name}{{{pairs}}} {figure}" if pairs else f"{name} {figure}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(kind: str, name: str, help_text: str, samples: Iterable[str]) -> Iterator[str]:
    """Yield a figure with its samples; `kind` is "gauge", or "counter" for what only grows."""
    yield from (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}")
    yield from samples


class Metrics:
    """What is counted while the server runs."""

    def __init__(self) -> None:
        self.requests = Counter(
            "rkllama_requests_total", "HTTP requests by path and status.", ("path", "status")
        )
        self.prompt_tokens = Counter(
            "rkllama_prompt_tokens_total", "Prompt tokens, including reused ones.", ("model",)
        )
        self.cached_tokens = Counter(
            "rkllama_cached_tokens_total",
            "Those of them that were in the KV cache and were not evaluated again.",
            ("model",),
        )
        self.completion_tokens = Counter(
            "rkllama_completion_tokens_total", "Tokens generated.", ("model",)
        )
        self.rule_requests = Counter(
            "rkllama_prompt_rule_requests_total",
            "Requests in whose system prompt a rule has moved lines.",
            ("rule",),
        )
        self.rule_lines = Counter(
            "rkllama_prompt_rule_lines_total", "Lines that it has moved.", ("rule",)
        )
        self.prompt_seconds = Histogram(
            "rkllama_prompt_seconds", "Time to evaluate a prompt, as the runtime reports it."
        )
        self.generation_seconds = Histogram(
            "rkllama_generation_seconds", "Time to generate an answer, as the runtime reports it."
        )
        self.queue_seconds = Histogram(
            "rkllama_queue_seconds", "Time that a request waited for its turn."
        )

    def count(self, finished: Finished) -> None:
        """Count an answer, by the name of the model that has given it."""
        usage, timings, model = finished.usage, finished.timings, finished.model
        self.prompt_tokens.add(usage.prompt_tokens or 0, model)
        self.cached_tokens.add(usage.cached_tokens or 0, model)
        self.completion_tokens.add(usage.completion_tokens or 0, model)
        self.queue_seconds.observe(timings.queue or 0.0, model)
        if timings.prompt is not None:
            self.prompt_seconds.observe(timings.prompt, model)
        if timings.generation is not None:
            self.generation_seconds.observe(timings.generation, model)

    def exposition(
        self,
        waiting: int,
        restarts: int,
        loaded: Sequence[LoadedModel],
        board: BoardState,
        states: StateFigures | None = None,
        traffic: Mapping[str, Traffic] | None = None,
        runtime: str = "",
    ) -> str:
        """All figures: what is counted here, and what the scheduler, the models in memory, the board and the
        saved conversations say.
        """
        lines = [
            *_info_lines(runtime, board),
            *self._counted(),
            *_scheduler_lines(waiting, restarts),
            *_traffic_lines(traffic or {}),
            *_model_lines(loaded),
            *_board_lines(board),
        ]
        if states is not None:
            lines += _state_lines(states)
        return "\n".join(lines) + "\n"

    def _counted(self) -> Iterator[str]:
        for metric in vars(self).values():
            yield from _family(metric.kind, metric.name, metric.help, metric.samples())


def _scheduler_lines(waiting: int, restarts: int) -> Iterator[str]:
    yield from _family(
        "gauge",
        "rkllama_queue_length",
        "Requests that wait for their turn.",
        [_sample("rkllama_queue_length", (), waiting)],
    )
    yield from _family(
        "counter",
        "rkllama_worker_restarts_total",
        "Model processes that died or had to be ended since the start.",
        [_sample("rkllama_worker_restarts_total", (), restarts)],
    )


def _info_lines(runtime: str, board: BoardState) -> Iterator[str]:
    labels = {"version": __version__, "runtime": runtime, "soc": board.soc or ""}
    yield from _gauge(
        "rkllama_info",
        "Version, newest release of librkllmrt that is here, and SoC; always 1.",
        [(labels, 1)],
    )


def _traffic_lines(traffic: Mapping[str, Traffic]) -> Iterator[str]:
    """Yield what gateways read of each model on disk, which share a file with those made from it."""
    yield from _gauge(
        "rkllama_requests_running",
        "Requests that a model is working on, or is being loaded for.",
        [({"model": name}, each.running) for name, each in traffic.items()],
    )
    yield from _gauge(
        "rkllama_requests_waiting",
        "Requests that wait for their turn on a model.",
        [({"model": name}, each.waiting) for name, each in traffic.items()],
    )
    yield from _gauge(
        "rkllama_kv_cache_usage_ratio",
        "Share of a loaded model's KV cache that is in use after its last answers, 0 to 1.",
        [({"model": name}, each.cache_use) for name, each in traffic.items()],
    )


def _model_lines(loaded: Sequence[LoadedModel]) -> Iterator[str]:
    yield from _family(
        "gauge",
        "rkllama_model_memory_bytes",
        "Memory of a loaded model as the runtime reports it.",
        [
            _sample("rkllama_model_memory_bytes", [("model", model.info.name)], model.memory)
            for model in loaded
            if model.memory is not None
        ],
    )
    yield from _family(
        "gauge",
        "rkllama_model_state",
        "The models in memory, by state.",
        [
            _sample("rkllama_model_state", [("model", m.info.name), ("state", m.state)], 1)
            for m in loaded
        ],
    )


_STATE_FIGURES = (
    ("gauge", "rkllama_states", "states", "Conversations that are saved on the disk."),
    ("gauge", "rkllama_state_bytes", "size", "Bytes that they take."),
    ("gauge", "rkllama_state_budget_bytes", "budget", "Bytes that they may take."),
    ("counter", "rkllama_state_hits_total", "hits", "Runs that went on from a saved conversation."),
    (
        "counter",
        "rkllama_state_misses_total",
        "misses",
        "Long prompts of which nothing was saved or in memory.",
    ),
    (
        "counter",
        "rkllama_state_loaded_bytes_total",
        "loaded",
        "Bytes of saved conversations that were loaded.",
    ),
    (
        "counter",
        "rkllama_state_written_bytes_total",
        "written",
        "Bytes of saved conversations that were written.",
    ),
    (
        "gauge",
        "rkllama_state_written_bytes_per_hour",
        "written_in_hour",
        "Bytes of them that were written within an hour.",
    ),
    (
        "gauge",
        "rkllama_state_written_bytes_per_hour_limit",
        "hourly",
        "Bytes of them that may be written within an hour.",
    ),
    (
        "counter",
        "rkllama_state_saved_seconds_total",
        "seconds_saved",
        "Seconds of evaluating prompts that they have saved.",
    ),
    (
        "counter",
        "rkllama_state_refused_total",
        "refused",
        "Saved conversations that were damaged or not used as they should be.",
    ),
)
"""Kind, name, field of states.store.Figures, and help."""


def _state_lines(states: StateFigures) -> Iterator[str]:
    for kind, name, field, text in _STATE_FIGURES:
        yield from _family(kind, name, text, [_sample(name, (), getattr(states, field))])


def _board_lines(board: BoardState) -> Iterator[str]:
    """Yield what is known of the board, in base units; a figure that is not known is left out."""
    clocks = board.clocks
    cores = enumerate(board.npu_load)
    yield from _gauge(
        "rkllama_npu_load_ratio",
        "Load of the NPU's cores over the last second, 0 to 1.",
        [({"core": str(core)}, percent / 100) for core, percent in cores],
    )
    yield from _gauge(
        "rkllama_memory_bus_load_ratio",
        "Load of the memory's bus, 0 to 1.",
        [({}, percent / 100) for percent in (board.ddr.load if board.ddr else ())],
    )
    yield from _gauge(
        "rkllama_clock_hertz",
        "Frequencies of NPU, memory (ddr) and CPU clusters.",
        [({"clock": clock.name}, clock.current) for clock in clocks],
    )
    yield from _gauge(
        "rkllama_clock_limit_hertz",
        "Highest frequencies that are allowed now.",
        [({"clock": clock.name}, clock.limit) for clock in clocks],
    )
    yield from _gauge(
        "rkllama_temperature_celsius",
        "Temperatures of the thermal zones.",
        [({"zone": sensor.zone}, sensor.celsius) for sensor in board.temperatures],
    )
    yield from _gauge(
        "rkllama_throttled", "Whether heat holds a clock down.", [({}, board.throttled)]
    )
    yield from _gauge(
        "rkllama_memory_available_bytes",
        "Memory of the board that programs can still have.",
        [({}, board.memory.available)],
    )
    yield from _gauge(
        "rkllama_cma_free_bytes",
        "Free memory of what the kernel keeps for devices (CMA).",
        [({}, board.memory.cma_free)],
    )


def _gauge(
    name: str, help_text: str, values: Iterable[tuple[dict[str, str], float | None]]
) -> Iterator[str]:
    """Yield a gauge with the values that are known; nothing where none is."""
    samples = [
        _sample(name, labels.items(), value) for labels, value in values if value is not None
    ]
    if samples:
        yield from _family("gauge", name, help_text, samples)
