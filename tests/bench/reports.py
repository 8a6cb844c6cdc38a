"""A report for tests, whose every field can be set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rkllama.bench.plan import Plan
from rkllama.bench.results import (
    BoardFacts,
    Cache,
    ClockFacts,
    Failure,
    LoadResult,
    MemoryResult,
    ModelFacts,
    Moment,
    PowerFacts,
    Report,
    Run,
    RuntimeFacts,
    TemperatureFacts,
)
from rkllama.bench.summary import size_results, stat_of

MOMENT = Moment(
    clocks=(
        ClockFacts(
            name="npu", current=10**9, highest=10**9, limit=10**9, governor="rknpu_ondemand"
        ),
        ClockFacts(
            name="cpu0-3",
            current=1_800_000_000,
            highest=1_800_000_000,
            limit=1_800_000_000,
            governor="performance",
        ),
    ),
    temperatures=(TemperatureFacts(zone="soc-thermal", celsius=47.5),),
    throttled=False,
    memory_available=14 << 30,
    load_average=0.1,
)
BOARD = BoardFacts(
    board="Orange Pi 5 Plus",
    soc="RK3588",
    architecture="aarch64",
    cpus=8,
    kernel="6.1.84",
    npu_driver="0.9.8",
    memory=16 << 30,
    before=MOMENT,
    after=MOMENT,
    hottest=47.5,
    throttled=False,
)


def make_test_run(number: int = 1, size: int = 128, cache: Cache = "cold", **values: Any) -> Run:
    """A run of 10 tokens per second in the answer, and 100 in the prompt."""
    run = Run(
        round=number,
        size=size,
        cache=cache,
        prompt_tokens=size,
        cached_tokens=0 if cache == "cold" else size - 1,
        answer_tokens=64,
        finish_reason="length",
        queue_seconds=0.0,
        first_token_seconds=size / 100,
        answer_seconds=6.3,
        runtime_prompt_seconds=size / 100,
        runtime_answer_seconds=6.4,
        prompt_joules=None,
        answer_joules=None,
        prompt_counts=True,
        answer_counts=True,
        remark=None,
    )
    return replace(run, **values)


def make_report(runs: tuple[Run, ...] | None = None, **values: Any) -> Report:
    """A report of three rounds on an RK3588."""
    if runs is None:
        runs = tuple(
            make_test_run(number, size, cache)
            for number in (1, 2, 3)
            for size in (128, 512)
            for cache in CACHES
        )
    report = Report(
        created="2026-11-28T12:00:00+00:00",
        complete=True,
        rounds=3,
        answer_tokens=64,
        model=ModelFacts(
            name="qwen",
            file="qwen.rkllm",
            format="rkllm",
            size=1_700_000_000,
            digest="ab" * 32,
            family="qwen2.5",
            parameter_size="1.5B",
            quantization="w8a8",
            platform="rk3588",
            toolkit="1.2.1",
            context_limit=16384,
        ),
        runtime=RuntimeFacts(
            rkllama="1.0.0",
            through="process",
            backend="npu",
            runtime="librkllmrt 1.2.3",
            context_length=4096,
            threads=4,
            cpu_affinity="0-7",
        ),
        board=BOARD,
        power=None,
        load=LoadResult(first_seconds=3.5, seconds=stat_of((2.0, 2.1, 2.2))),
        memory=MemoryResult(peak=500_000_000, runtime=1_900_000_000),
        sizes=size_results(Plan(sizes=(128, 512)), runs, {}),
        runs=runs,
        failures=(),
        notes=(),
    )
    return replace(report, **values)


CACHES: tuple[Cache, ...] = ("cold", "warm")
POWER = PowerFacts(source="a plug", method="samples", interval=0.5)
FAILURE = Failure(round=2, size=512, cache="cold", code="worker_crashed", message="it crashed")
