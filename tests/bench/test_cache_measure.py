"""States of real processes of the virtual NPU, saved by one and loaded by the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rkllama.bench.cache.measure import make_plan
from rkllama.bench.cache.results import CacheReport
from rkllama.bench.cache.session import Outcome, measure_cache, require_states
from rkllama.bench.plan import Plan
from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import RKLLamaError, Unsupported, WorkerCrashed
from rkllama.states.folder import Folder, trial_of
from rkllama.states.key import Identity, identity_key
from tests.virtual_npu import library, read_trace, write_model

pytestmark = pytest.mark.integration

SMALL = Plan(sizes=(200, 600), answer_tokens=256, rounds=1)
ONE = Plan(sizes=(200,), answer_tokens=256, rounds=2)
KV = 2048
"""Bytes of a token."""


@pytest.fixture(params=["1.2.3", "1.3.0"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library(request.param))
    return str(request.param)


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))


@pytest.fixture
def model(models: Path, board: Path, tmp_path: Path) -> Any:
    """Writes a model whose answers end after 10 tokens; answers the path of its trace."""

    def write(**keys: object) -> Path:
        trace = tmp_path / "trace"
        config: dict[str, Any] = {"tokens": 10, "prefill_us": 200, "kv_bytes": KV, **keys}
        write_model(models / "qwen3-1.7b.rkllm", trace=trace, toolkit="1.2.3", **config)
        return trace

    return write


@pytest.fixture
def service(models: Path) -> Iterator[LocalService]:
    own = load_settings({"state_budget": "0"})
    with closing(LocalService(own, "test", exact_sampling=True)) as local:
        yield local


def outcome(
    service: LocalService, plan: Plan = SMALL, name: str = "qwen3-1.7b", **how: Any
) -> Outcome:
    settings = load_settings()
    calls: dict[str, Any] = {"report": lambda _: None, "warn": lambda _: None, **how}
    done = measure_cache(service, name, plan, settings=settings, **calls)
    assert_nothing_is_left(service)
    return done


def assert_nothing_is_left(service: LocalService) -> None:
    settings = load_settings()
    assert not Path(trial_of(settings.states)).exists()
    assert not Path(settings.states).exists(), "the saved conversations have no part in it"
    assert service.loaded() == []


def measured(service: LocalService, plan: Plan = SMALL) -> CacheReport:
    done = outcome(service, plan)
    assert done.problem is None
    assert done.report.complete
    assert done.report.failures == ()
    return done.report


def test_what_one_process_saves_the_next_one_goes_on_from(
    release: str, model: Any, service: LocalService
) -> None:
    trace = model()
    report = measured(service)
    found = report.verdict
    assert (found.sound, found.used, found.figures_agree) == ("yes", True, True)
    assert found.expected_bytes_per_token == 112 << 10
    assert report.runtime.runtime == f"librkllmrt {release}"
    saves = [event for event in read_trace(trace) if event["event"] == "save"]
    loads = [event for event in read_trace(trace) if event["event"] == "load"]
    for result, save, load in zip(report.sizes, saves, reversed(loads), strict=True):
        assert result.state_tokens == save["tokens"] == load["tokens"]
        assert abs(save["tokens"] - result.size) <= 8, "about as many as were meant"
        assert result.state_bytes is not None
        assert result.state_bytes // save["tokens"] == pytest.approx(KV, rel=0.05)
        assert load["pid"] != save["pid"]
        runs = [event for event in read_trace(trace) if event["event"] == "run"]
        (after,) = [run for run in runs if run["pid"] == load["pid"] and run["ns"] > load["ns"]][:1]
        assert result.loaded_evaluated == after["evaluated"]
        assert result.prompt_tokens == after["prompt_tokens"] == result.cold_evaluated
        assert result.loaded_reused == pytest.approx(save["tokens"], abs=2)
        assert (result.answers, result.same_answers, result.cold_repeats) == (1, 1, None)
        prefill = result.prefill_seconds
        assert prefill is not None
        assert prefill.count == 3, "without saving, with it, and the next turn"
        assert prefill.median == pytest.approx(0.0002, rel=0.3)
        for stat in (result.cold_seconds, result.loaded_seconds):
            assert stat is not None
            assert stat.count == 1
        assert result.cold_seconds is not None
        assert result.cold_seconds.median >= save["tokens"] * 0.0002


def test_a_run_is_saved_that_differs_from_another_in_nothing_else(
    newest: None, model: Any, service: LocalService
) -> None:
    trace = model(trace_prompt=1)
    measured(service, ONE)
    events = [one for one in read_trace(trace) if one["event"] in ("run", "save")]
    saved = [number for number, one in enumerate(events) if one["event"] == "save"]
    assert len(saved) == 2
    for number in saved:
        # The run without, something else, the same run, which is saved.
        without, between, with_it = events[number - 3 : number]
        assert without["prompt"] == with_it["prompt"] != between["prompt"]
        assert without["evaluated"] == with_it["evaluated"], "each is as cold as the other"
        assert without["evaluated"] == without["prompt_tokens"]


# --- What a runtime may do wrong -----------------------------------------------------------------


def test_another_answer_after_a_load_is_told_from_a_model_that_does_not_repeat_itself(
    newest: None, model: Any, service: LocalService
) -> None:
    model(state_fault=1)
    report = measured(service, ONE)
    (result,) = report.sizes
    assert (result.answers, result.same_answers, result.cold_repeats) == (2, 0, True)
    assert (report.verdict.sound, report.verdict.keep) == ("no", False)


def test_a_state_that_is_not_used(newest: None, model: Any, service: LocalService) -> None:
    model(state_fault=2)
    report = measured(service, ONE)
    (result,) = report.sizes
    assert result.loaded_evaluated == result.prompt_tokens
    assert (report.verdict.used, report.verdict.keep) == (False, False)


def test_a_runtime_that_dies_of_its_own_file(
    newest: None, model: Any, service: LocalService
) -> None:
    model(state_fault=3)
    done = outcome(service, ONE)
    assert isinstance(done.problem, WorkerCrashed)
    assert not done.report.complete
    assert len(done.report.failures) == 2
    (result,) = done.report.sizes
    assert result.failed
    assert result.state_bytes, "what had been measured is told"
    assert done.report.verdict.keep is False


def test_before_1_3_an_answer_that_goes_on_leaves_no_state(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
    model(tokens=1000)
    own = load_settings({"state_budget": "0"})
    with closing(LocalService(own, "test", exact_sampling=True)) as local:
        report = outcome(local, ONE).report
    (result,) = report.sizes
    assert "did not within 128 tokens" in str(result.skipped)
    assert report.verdict.keep is None


# --- What cannot be measured ---------------------------------------------------------------------


def test_a_backend_that_keeps_no_states_says_so(service: LocalService) -> None:
    with pytest.raises(Unsupported, match="--cache measures what the NPU's runtime writes"):
        measure_cache(
            service,
            "guide",
            SMALL,
            settings=load_settings(),
            report=lambda _: None,
            warn=lambda _: None,
        )
    assert_nothing_is_left(service)


def test_a_release_that_does_not_tell_what_it_reuses_says_so(
    model: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.0"))
    write_model(models / "old.rkllm", toolkit="1.2.0", tokens=5)
    model()
    with closing(LocalService(load_settings({"state_budget": "0"}), "test")) as local:
        with pytest.raises(Unsupported, match="does not tell what it reuses") as caught:
            outcome(local, name="old")
        assert "1.2.1" in str(caught.value.hint)
        assert_nothing_is_left(local)


def test_a_model_that_writes_no_text_holds_no_conversation(
    newest: None, models: Path, service: LocalService
) -> None:
    write_model(models / "bge-m3.rkllm")
    with pytest.raises(RKLLamaError, match="writes no text"):
        outcome(service, name="bge-m3")
    assert_nothing_is_left(service)


def test_where_states_are_off_it_is_refused() -> None:
    with pytest.raises(RKLLamaError, match="state_budget is 0") as caught:
        require_states(load_settings({"state_budget": "0"}))
    assert "Unset it to measure" in str(caught.value.hint)
    require_states(load_settings())


def test_a_size_beyond_the_context_is_left_out(
    newest: None, model: Any, service: LocalService
) -> None:
    model()
    plan = Plan(sizes=(200, 5000), answer_tokens=256, rounds=1)
    small, large = measured(service, plan).sizes
    assert small.state_bytes
    assert "do not fit into its context of 4096" in str(large.skipped)
    with pytest.raises(Unsupported, match="cannot be measured: 5000 tokens in"):
        outcome(service, Plan(sizes=(5000,), answer_tokens=256, rounds=1))
    assert_nothing_is_left(service)


# --- Interrupted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", ["Learning its tokens", "600 tokens, saved", "200 tokens, loaded"]
)
def test_ctrl_c_leaves_nothing(
    moment: str, newest: None, model: Any, service: LocalService
) -> None:
    model()

    def interrupt(step: object) -> None:
        if moment in str(step):
            raise KeyboardInterrupt

    if moment.startswith("Learning"):
        with pytest.raises(KeyboardInterrupt):
            outcome(service, report=interrupt)
        assert_nothing_is_left(service)
        return
    done = outcome(service, report=interrupt)
    assert isinstance(done.problem, KeyboardInterrupt)
    assert not done.report.complete
    assert done.report.sizes[0].state_bytes


def test_what_a_killed_one_left_goes_and_one_at_a_time_is_measured(
    newest: None, model: Any, service: LocalService
) -> None:
    model()
    place = Path(trial_of(load_settings().states))
    place.mkdir(mode=0o700, parents=True)
    (place / "0123456789abcdef.kv").write_bytes(b"left")
    (place / "0123456789abcdef.part").write_bytes(b"left")
    other = Folder(str(place))
    assert other.take()
    with pytest.raises(RKLLamaError, match="no states can be written"):
        measure_cache(
            service,
            "qwen3-1.7b",
            ONE,
            settings=load_settings(),
            report=lambda _: None,
            warn=lambda _: None,
        )
    assert (place / "0123456789abcdef.kv").exists(), "it is the other one's"
    other.release()
    measured(service, ONE)


def test_a_runtime_that_has_failed_before_is_told_of(
    newest: None, model: Any, service: LocalService
) -> None:
    model()
    identity = Identity(
        runtime="librkllmrt 1.3.0", platform="RK3588", toolkit="1.2.3", context_length=4096
    )
    folder = Folder(load_settings().states)
    assert folder.take()
    folder.note_failures(identity_key(identity), 2)
    warnings: list[str] = []
    measure_cache(
        service,
        "qwen3-1.7b",
        ONE,
        settings=load_settings(),
        report=lambda _: None,
        warn=warnings.append,
    )
    folder.release()
    assert any("`rkllama cache clear` lets it be tried again" in text for text in warnings)


def test_the_plan() -> None:
    plan = make_plan(quick=False, rounds=None, context_length=None)
    assert (plan.sizes, plan.rounds) == ((512, 2048), 3)
    quick = make_plan(quick=True, rounds=1, context_length=2048)
    assert (quick.sizes, quick.rounds, quick.context_length) == ((512,), 1, 2048)
