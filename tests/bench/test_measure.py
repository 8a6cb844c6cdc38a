"""Real measurements: on the CPU backend with the guide, and on the virtual NPU, whose speed is known."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rkllama.bench.measure import Measurement
from rkllama.bench.memory import is_here, peak_memory
from rkllama.bench.plan import Plan
from rkllama.bench.power import NO_METER
from rkllama.bench.results import Report
from rkllama.bench.session import measure_model
from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import InvalidRequest, WorkerCrashed
from rkllama.service import LOCAL, Caller
from rkllama.types import ChatRequest, Event, LoadedModel, TextDelta
from tests.virtual_npu import library, read_trace, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

SMALL = Plan(sizes=(32, 128), answer_tokens=16, rounds=2)
TOKEN, PREFILL = 0.004, 0.0002
"""Seconds per token of the virtual NPU's model."""


@pytest.fixture
def service(models: Path) -> Iterator[LocalService]:
    """A service of this process."""
    with closing(LocalService(load_settings(), "test", exact_sampling=True)) as local:
        yield local


@pytest.fixture
def npu_model(board: Path, models: Path, tmp_path: Path) -> str:
    """A model for the virtual NPU; answers the path of its trace."""
    trace = tmp_path / "trace"
    write_model(
        models / "m.rkllm",
        tokens=200,
        token_us=int(TOKEN * 1e6),
        prefill_us=int(PREFILL * 1e6),
        toolkit="1.1.0",
        trace=trace,
    )
    return str(trace)


def measured(
    service: LocalService, name: str, plan: Plan = SMALL, warnings: list[str] | None = None
) -> Report:
    outcome = measure_model(
        service,
        service.show(name).info,
        plan,
        NO_METER,
        settings=load_settings(),
        report=lambda _: None,
        warn=([] if warnings is None else warnings).append,
    )
    assert outcome.problem is None
    assert outcome.report.complete
    return outcome.report


# --- What is measured --------------------------------------------------------------------------


def test_the_guide_on_the_cpu(service: LocalService) -> None:
    report = measured(service, "guide")
    order = [(run.round, run.size, run.cache) for run in report.runs]
    assert order == [(n, size, c) for n in (1, 2) for size in (32, 128) for c in ("cold", "warm")]
    for run in report.runs:
        assert run.prompt_tokens == run.size, "exactly as many as was meant"
        assert run.cached_tokens == (0 if run.cache == "cold" else run.size - 1)
        assert run.first_token_seconds is not None
        assert run.runtime_prompt_seconds is not None
        assert 0 < run.runtime_prompt_seconds <= run.first_token_seconds
    assert report.load.first_seconds is not None
    assert report.load.seconds is not None
    assert report.load.seconds.count == 2
    assert report.memory.peak is not None
    assert report.memory.peak > 3_000_000
    assert report.model.digest is not None
    assert len(report.model.digest) == 64
    runtime = report.runtime
    assert (runtime.backend, runtime.threads, runtime.through) == ("cpu", 1, "process")
    assert runtime.cpu_affinity
    assert str(runtime.runtime).startswith("llama.cpp")
    assert report.board is not None
    assert report.board.kernel == os.uname().release
    assert service.loaded() == [], "it was not in memory before"


@pytest.mark.serial
@pytest.mark.parametrize("release", ["1.1.4", "1.2.0", "1.2.3", "1.3.0"])
def test_the_virtual_npu_is_as_fast_as_it_says(
    release: str, npu_model: str, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library(release))
    with closing(LocalService(load_settings(), "test", exact_sampling=True)) as local:
        report = measured(local, "m")
    (_, result) = report.sizes
    assert result.cold is not None
    assert result.warm is not None
    tells = release not in ("1.1.4", "1.2.0")
    for rate in (result.cold.answer_rate, result.warm.answer_rate):
        assert rate is not None  # tokens that a busy client reads late come together
        assert 0.2 / TOKEN < rate.median < 2 / TOKEN
    if result.cold.runtime_answer_rate is not None:
        assert 0.2 / TOKEN < result.cold.runtime_answer_rate.median <= 1.07 / TOKEN
    assert (result.cold.runtime_answer_rate is not None) == tells, "its perf struct tells it"
    assert result.cold.first_token_seconds is not None
    assert result.cold.first_token_seconds.min >= 128 * PREFILL
    assert report.runtime.runtime == f"librkllmrt {release}"
    assert report.board is not None
    assert (report.board.soc, report.board.npu_driver) == ("RK3588", "0.9.8")
    assert (report.model.toolkit, report.runtime.backend) == ("1.1.0", "npu")


def test_what_is_reported_as_evaluated_is_what_the_npu_evaluated(
    npu_model: str, npu: str, service: LocalService
) -> None:
    report = measured(service, "m", Plan(sizes=(128,), answer_tokens=16, rounds=2))
    runs = [event for event in read_trace(npu_model) if event["event"] == "run"]
    long = [event for event in runs if event["prompt_tokens"] > 100]
    assert len(long) == len(report.runs) == 4
    for event, run in zip(long, report.runs, strict=True):
        assert run.prompt_tokens == event["prompt_tokens"] == 128
        assert run.prompt_tokens - (run.cached_tokens or 0) == event["evaluated"]


def test_a_context_that_is_too_small_leaves_a_size_out(service: LocalService) -> None:
    report = measured(
        service, "guide", Plan(sizes=(128, 512), answer_tokens=16, rounds=1, context_length=256)
    )
    small, large = report.sizes
    assert small.cold is not None
    assert (large.cold, large.warm) == (None, None)
    assert large.skipped == "512 tokens in and 16 out do not fit into its context of 256"
    assert report.runtime.context_length == 256


def test_a_context_in_which_nothing_fits_is_an_error(service: LocalService) -> None:
    with pytest.raises(InvalidRequest, match="guide cannot be measured: 2048 tokens in") as caught:
        measured(service, "guide", Plan(sizes=(2048,), rounds=1))
    assert "--ctx" in str(caught.value.hint)
    assert service.loaded() == []


def test_answers_that_end_early_do_not_count(models: Path, npu: str, service: LocalService) -> None:
    write_model(models / "short.rkllm", tokens=5, prefill_us=200, token_us=1000)
    report = measured(service, "short", Plan(sizes=(64,), answer_tokens=16, rounds=1))
    (result,) = report.sizes
    assert result.cold is not None
    assert result.cold.first_token_seconds is not None, "its prompt does"
    assert result.cold.answer_rate is None
    assert [run.remark for run in report.runs] == ["its answer ended after 5 tokens"] * 2
    assert [run.answer_tokens for run in report.runs] == [5, 5]


# --- What goes wrong ---------------------------------------------------------------------------


class Interfering(LocalService):
    """A service to whose model something happens in the middle of an answer of some length."""

    def __init__(
        self, happen: Callable[[LoadedModel], None], at: int, *, again: bool = False
    ) -> None:
        super().__init__(load_settings(), "test", exact_sampling=True)
        self._happen = happen
        self._at = at
        self._again = again
        self.times = 0

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        with closing(super().stream(request, caller)) as events:
            for event in events:
                yield event
                if isinstance(event, TextDelta) and len(request.prompt or "") > 300:
                    self.times += 1
                    if self.times == self._at or (self._again and self.times > self._at):
                        self._happen(self.loaded()[0])


def kill(model: LoadedModel) -> None:
    assert model.pid is not None
    os.kill(model.pid, signal.SIGKILL)


def test_a_crash_is_told_and_the_rest_is_measured(npu_model: str, npu: str) -> None:
    with closing(Interfering(kill, at=3)) as service:
        report = measured(service, "m", Plan(sizes=(32, 128), answer_tokens=16, rounds=3))
    (failure,) = report.failures
    assert (failure.round, failure.size, failure.cache) == (1, 128, "cold")
    assert failure.code == "worker_crashed"
    small, large = report.sizes
    assert small.cold is not None
    assert small.cold.first_token_seconds is not None
    assert small.cold.first_token_seconds.count == 3
    assert large.cold is not None
    assert large.cold.first_token_seconds is not None
    assert large.cold.first_token_seconds.count == 2
    assert [run.remark for run in report.runs] == [None] * len(report.runs), (
        "after a new load it was warmed up first"
    )


def test_what_was_measured_before_the_model_broke_is_kept(npu_model: str, npu: str) -> None:
    plan = Plan(sizes=(128,), answer_tokens=16, rounds=9)
    with closing(Interfering(kill, at=20, again=True)) as service:
        outcome = measure_model(
            service,
            service.show("m").info,
            plan,
            NO_METER,
            settings=load_settings(),
            report=lambda _: None,
            warn=lambda _: None,
        )
    assert isinstance(outcome.problem, WorkerCrashed)
    report = outcome.report
    assert not report.complete
    assert len(report.failures) == 3
    assert len(report.runs) >= 1
    assert report.sizes[0].cold is not None


def test_of_a_model_on_another_machine_no_file_of_this_one_is_told(
    npu_model: str, npu: str, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.bench.measure.is_here", lambda _: False)
    report = measured(service, "m", Plan(sizes=(32,), answer_tokens=16, rounds=1))
    assert report.board is not None
    assert report.board.soc == "RK3588", "its server tells that"
    assert report.board.before.clocks
    own = (report.board.kernel, report.board.npu_driver, report.board.board, report.model.digest)
    assert own == (None,) * 4
    assert (report.memory.peak, report.runtime.cpu_affinity) == (None, None)
    assert report.board.before.load_average is None


def test_a_model_that_crashes_all_the_time_is_given_up(
    models: Path, npu: str, service: LocalService
) -> None:
    # Far behind the few tokens before the first round, which are stopped a moment late on a busy machine.
    write_model(models / "m.rkllm", tokens=200, segv_at=60, token_us=2000)
    plan = Plan(sizes=(32,), answer_tokens=64, rounds=9)
    measurement = Measurement(service, service.show("m").info, plan)
    measurement.prepare()
    with pytest.raises(WorkerCrashed):
        measurement.run()
    assert [failure.round for failure in measurement.failures] == [1, 2, 3]
    assert not measurement.complete


class Reloading(LocalService):
    """A service whose model is lost before an answer to a long prompt, as by another request."""

    def stream(self, request: ChatRequest, caller: Caller = LOCAL) -> Generator[Event, None, None]:
        if len(request.prompt or "") > 300 and self.loaded():
            self.unload()
        yield from super().stream(request, caller)


def test_a_run_that_had_to_load_the_model_does_not_count(npu_model: str, npu: str) -> None:
    with closing(Reloading(load_settings(), "test", exact_sampling=True)) as service:
        report = measured(service, "m", Plan(sizes=(32, 128), answer_tokens=16, rounds=1))
    remarks = {run.size: run.remark for run in report.runs}
    assert remarks == {32: None, 128: "the model had to be loaded for it"}
    assert report.sizes[1].cold is None


def test_ctrl_c_keeps_what_there_is(npu_model: str, npu: str, service: LocalService) -> None:
    def interrupt(step: object) -> None:
        if "Round 2" in str(step):
            raise KeyboardInterrupt

    outcome = measure_model(
        service,
        service.show("m").info,
        SMALL,
        NO_METER,
        settings=load_settings(),
        report=interrupt,
        warn=lambda _: None,
    )
    assert isinstance(outcome.problem, KeyboardInterrupt)
    assert not outcome.report.complete
    assert {run.round for run in outcome.report.runs} == {1}
    assert outcome.report.sizes[0].cold is not None
    assert service.loaded() == []


def test_ctrl_c_before_the_first_figure_is_just_that(service: LocalService) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_model(
            service,
            service.show("guide").info,
            SMALL,
            NO_METER,
            settings=load_settings(),
            report=interrupt,
            warn=lambda _: None,
        )


# --- The memory of the service -------------------------------------------------------------------


def test_a_model_that_was_in_memory_is_there_again(
    npu_model: str, npu: str, service: LocalService
) -> None:
    service.load("m", keep_alive=-1.0)
    before = service.loaded()[0]
    measured(service, "m", Plan(sizes=(32,), answer_tokens=16, rounds=1))
    (after,) = service.loaded()
    assert (after.info.name, after.expires, after.state) == ("m", None, "ready")
    assert after.pid != before.pid


def test_a_model_that_was_to_stay_comes_back_in_the_place_of_the_measured_one(
    npu_model: str, npu: str, models: Path, service: LocalService
) -> None:
    write_model(models / "other.rkllm", tokens=5)
    service.load("other", keep_alive=-1.0)
    measured(service, "m", Plan(sizes=(32,), answer_tokens=16, rounds=1))
    assert [model.info.name for model in service.loaded()] == ["other"]


def test_the_peak_of_a_process_counts_those_that_it_started(service: LocalService) -> None:
    loaded = service.load("guide")
    assert loaded.pid is not None
    assert is_here(loaded)
    peak = peak_memory(loaded.pid)
    assert peak is not None
    own = peak_memory(os.getpid())
    assert own is not None
    assert own >= peak, "the model's process is a child of this one"
    service.unload()
    until(lambda: not is_here(loaded))
    assert peak_memory(loaded.pid) is None


def test_the_process_of_another_machine_is_not_taken_for_one_of_this(service: LocalService) -> None:
    info = service.show("guide").info
    assert not is_here(LoadedModel(info=info, state="ready", pid=os.getpid()))
    assert not is_here(LoadedModel(info=info, state="ready", pid=None))
